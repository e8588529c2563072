"""T2: three inputs, three gates, f = σ(c·(a + b)), and one step up."""

import argparse

from experiments._results import Report
from experiments._rows import Claim, tabulate
from experiments._systems import System
from experiments._witnesses import Link, ascend, link_table, measure, sigma, witnesses
from jaxbp import nets, ops

INPUTS = {"a": 1.0, "b": -2.0, "c": -3.0}
RATE = 0.1
LINKS = (
    Link("d", ops.add, ("a", "b")),
    Link("e", ops.multiply, ("c", "d")),
    Link("f", ops.sigmoid, ("e",)),
)
_prose = "the prose means the addition node, ∂d/∂a = ∂d/∂b = 1"
CLAIMS = (
    Claim("d", formula=lambda v: v["a"] + v["b"]),
    Claim("e", formula=lambda v: v["c"] * v["d"]),
    Claim("f", "0.952574", lambda v: sigma(v["e"])),
    Claim("f (second print)", "0.9525", of="f"),
    Claim("∂f/∂a", formula=lambda v: sigma(v["e"]) * (1 - sigma(v["e"])) * v["c"]),
    Claim("∂f/∂b", formula=lambda v: sigma(v["e"]) * (1 - sigma(v["e"])) * v["c"]),
    Claim("∂f/∂c", formula=lambda v: sigma(v["e"]) * (1 - sigma(v["e"])) * v["d"]),
    Claim("∂e/∂d", "1", lambda v: 1.0, erratum="E8", note=_prose),
    Claim("∂e/∂c", "1", lambda v: 1.0, erratum="E8", note=_prose),
    Claim(
        "f after one step",
        "0.9563",
        lambda v: sigma(
            (v["c"] + RATE * v["∂f/∂c"])
            * (v["a"] + RATE * v["∂f/∂a"] + v["b"] + RATE * v["∂f/∂b"])
        ),
    ),
)


def _circuit(v):
    return nets.three_gates(v["a"], v["b"], v["c"])


def run(options: argparse.Namespace) -> Report:
    del options
    found = measure(_circuit, INPUTS, LINKS)
    known = witnesses(found, "f")
    known["f after one step"] = ascend(_circuit, INPUTS, found, RATE).at()
    rows = tabulate("T2", known, CLAIMS, INPUTS)
    systems = (System("f = σ(c·(a + b))", nets.three_gates, tuple(INPUTS.values())),)
    return Report(rows, text=link_table(found, "f", LINKS), systems=systems)
