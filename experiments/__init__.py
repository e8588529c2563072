"""The tutorial systems, taken apart number by number: `python -m experiments`."""
