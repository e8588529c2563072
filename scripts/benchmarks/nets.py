"""Every network of the catalogue beside autodiff of the plain model: the same table.

A step is the loss and its gradient in parameters and in what data has one, compiled.
Columns and rivals are those of `scripts/bench ops`.
"""

import argparse
from typing import Any

from benchmarks import _table
from jaxbp.nets.catalogue import CASES

options = _table.options


def run(options: argparse.Namespace) -> dict[str, Any]:
    return _table.run(options, CASES, "nets")
