"""Every op of the catalogue beside autodiff of its plain form: time, memory, error.

A step is the value and the cotangents of all arguments, compiled. Time is hand-written
over plain, the two run in turn in one process: the median of the rounds' ratios, its
quartiles in brackets. Temp is the compiled step's temporary memory, residuals what is
kept where forward and backward are two programs. Peak is the share of the fastest
matrix product measured in the same run. Errors are of the worst cotangent against
float64, in units in the last place of its largest element. A rival is another plain
form; its row is hand-written over that rival. PyTorch's is there on a CPU where it is
installed, but for bfloat16.
"""

import argparse
from typing import Any

from benchmarks import _table
from jaxbp.ops.catalogue import CASES

options = _table.options


def run(options: argparse.Namespace) -> dict[str, Any]:
    return _table.run(options, CASES, "ops", lambda case: case.op.__name__)
