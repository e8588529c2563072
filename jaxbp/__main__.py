"""`python -m jaxbp`: the command line, where the script is not on the path."""

import sys

from jaxbp.cli import main

sys.exit(main())
