"""T3: a staged rational function, (x + σ(y)) / (σ(x) + (x + y)²), stage by stage."""

import argparse

from experiments._results import Report
from experiments._rows import Claim, Witness, tabulate
from experiments._systems import System
from experiments._witnesses import (
    Link,
    Measured,
    link_table,
    measure,
    multiply,
    sigma,
    witnesses,
)
from jaxbp import nets, ops

INPUTS = {"x": 3.0, "y": -4.0}
LINKS = (
    Link("sigy", ops.sigmoid, ("y",)),
    Link("numer", ops.add, ("x", "sigy")),
    Link("sigx", ops.sigmoid, ("x",)),
    Link("xandy", ops.add, ("x", "y")),
    Link("xandysqr", ops.square, ("xandy",)),
    Link("denom", ops.add, ("xandysqr", "sigx")),
    Link("rec_denom", ops.reciprocal, ("denom",)),
    Link("f", ops.multiply, ("numer", "rec_denom")),
)
# Where a variable branches, the page numbers what each branch hands back.
BRANCHES = {
    "dx1": ("sigx", "x"),
    "dx2": ("xandy", "x"),
    "dy1": ("xandy", "y"),
    "dx3": ("numer", "x"),
    "dy2": ("sigy", "y"),
}
# The page's order, from the output back.
BACKWARD = "drec_denom ddenom dsigx dxandysqr dx1 dxandy dx2 dy1 dnumer dx3 dsigy dy2"
_swapped = "the comments of the two nodes are swapped, the code is right"
CLAIMS = (
    Claim("sigx", formula=lambda v: sigma(v["x"])),
    Claim("sigy", formula=lambda v: sigma(v["y"])),
    Claim(
        "sigx (the comment)",
        formula=lambda v: sigma(v["y"]),
        of="sigx",
        erratum="E5",
        note=_swapped,
    ),
    Claim(
        "sigy (the comment)",
        formula=lambda v: sigma(v["x"]),
        of="sigy",
        erratum="E5",
        note=_swapped,
    ),
    Claim("numer", formula=lambda v: v["x"] + v["sigy"]),
    Claim("xandy", formula=lambda v: v["x"] + v["y"]),
    Claim("xandysqr", formula=lambda v: v["xandy"] ** 2),
    Claim("denom", formula=lambda v: v["xandysqr"] + v["sigx"]),
    Claim("rec_denom", formula=lambda v: 1 / v["denom"]),
    Claim("f", "1.55", lambda v: v["numer"] * v["rec_denom"]),
    Claim(
        "f (in one line)",
        formula=lambda v: (
            (v["x"] + sigma(v["y"])) / (sigma(v["x"]) + (v["x"] + v["y"]) ** 2)
        ),
        of="f",
    ),
    Claim("df", "1"),
    Claim("dx", formula=lambda v: v["dx1"] + v["dx2"] + v["dx3"]),
    Claim("dy", formula=lambda v: v["dy1"] + v["dy2"]),
)


def _staged(v):
    return nets.staged_rational(v["x"], v["y"])


def _in_the_page_s_names(found: Measured) -> dict[str, Witness]:
    """Backward stages as `d` of the forward ones, branches numbered."""
    known = {}
    for name, witness in witnesses(found, "f").items():
        known[name.replace("∂f/∂", "d")] = witness
    for name, (output, source) in BRANCHES.items():
        factors = (found.cotangents[output], found.local[output, source])
        known[name] = multiply(factors).at()
    return {name: known[name] for name in (*BACKWARD.split(), *known)}


def run(options: argparse.Namespace) -> Report:
    del options
    found = measure(_staged, INPUTS, LINKS)
    rows = tabulate("T3", _in_the_page_s_names(found), CLAIMS, INPUTS)
    title, arguments = "(x + σ(y)) / (σ(x) + (x + y)²)", tuple(INPUTS.values())
    systems = (System(title, nets.staged_rational, arguments),)
    return Report(rows, text=link_table(found, "f", LINKS), systems=systems)
