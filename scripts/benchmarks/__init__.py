"""What the project measures of itself: one module a subject, run by `scripts/bench`."""
