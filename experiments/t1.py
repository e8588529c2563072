"""T1: one sigmoid unit, f = σ(a), and one step up."""

import argparse

from experiments._results import Report
from experiments._rows import Claim, tabulate
from experiments._systems import System
from experiments._witnesses import Link, ascend, link_table, measure, sigma, witnesses
from jaxbp import nets, ops

INPUTS = {"a": -2.0}
RATE = 0.1
LINKS = (Link("f", ops.sigmoid, ("a",)),)
CLAIMS = (
    Claim("f", "0.1192", lambda v: sigma(v["a"])),
    Claim("∂f/∂a", formula=lambda v: v["f"] * (1 - v["f"])),
    Claim("f after one step", "0.1203", lambda v: sigma(v["a"] + RATE * v["∂f/∂a"])),
)


def _unit(v):
    return nets.sigmoid_unit(v["a"])


def run(options: argparse.Namespace) -> Report:
    del options
    found = measure(_unit, INPUTS, LINKS)
    known = witnesses(found, "f")
    known["f after one step"] = ascend(_unit, INPUTS, found, RATE).at()
    rows = tabulate("T1", known, CLAIMS, INPUTS)
    systems = (System("f = σ(a)", nets.sigmoid_unit, tuple(INPUTS.values())),)
    return Report(rows, text=link_table(found, "f", LINKS), systems=systems)
