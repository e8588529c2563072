"""T7: the gate circuit f = (x + y)·z."""

import argparse

from experiments._results import Report
from experiments._rows import Claim, tabulate
from experiments._systems import System
from experiments._witnesses import Link, link_table, measure, witnesses
from jaxbp import nets, ops

INPUTS = {"x": -2.0, "y": 5.0, "z": -4.0}
LINKS = (Link("q", ops.add, ("x", "y")), Link("f", ops.multiply, ("q", "z")))
CLAIMS = (
    Claim("q", formula=lambda v: v["x"] + v["y"]),
    Claim("f", formula=lambda v: v["q"] * v["z"]),
    Claim("∂f/∂z", formula=lambda v: v["x"] + v["y"]),
    Claim("∂f/∂x", "-4", lambda v: v["z"] * 1),
    Claim("∂f/∂y", formula=lambda v: v["z"] * 1),
)


def _circuit(v):
    return nets.gate_circuit(v["x"], v["y"], v["z"])


def run(options: argparse.Namespace) -> Report:
    del options
    found = measure(_circuit, INPUTS, LINKS)
    rows = tabulate("T7", witnesses(found, "f"), CLAIMS, INPUTS)
    slope = found.cotangents["x"].at().manual
    way = "fall" if slope < 0 else "rise"
    text = (
        f"{link_table(found, 'f', LINKS)}\nto raise f, x must {way}: ∂f/∂x = {slope:g}"
    )
    systems = (System("f = (x + y)·z", nets.gate_circuit, tuple(INPUTS.values())),)
    return Report(rows, text=text, systems=systems)
