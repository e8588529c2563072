"""T9: a scalar chain of three sigmoid units, squared error and cross-entropy."""

import argparse

from experiments import _layers
from experiments._results import Report
from experiments._rows import Claim, Witness, tabulate
from experiments._systems import System
from experiments._witnesses import Link, align, measure, sigma
from jaxbp import nets, ops

X, TARGET, WEIGHTS = 1.5, 1.0, (0.8, -1.2, 0.5)
LOSSES = {"squared error": "squared_error", "cross-entropy": "binary_cross_entropy"}
GIVEN = {"x": X, "w1": WEIGHTS[0], "w2": WEIGHTS[1], "w3": WEIGHTS[2]}
# The page's links are whole units.
UNITS = (
    Link("h1", _layers.unit, ("x", "w1")),
    Link("h2", _layers.unit, ("h1", "w2")),
    Link("yhat", _layers.unit, ("h2", "w3")),
)


def _gradient(loss: str) -> Claim:
    return Claim(
        f"∂L/∂w2 ({loss})",
        formula=lambda v: v[f"∂L/∂ŷ ({loss})"] * v["∂ŷ/∂h2"] * v["∂h2/∂w2"],
    )


CLAIMS = (
    Claim("h1", formula=lambda v: sigma(v["w1"] * v["x"])),
    Claim("h2", formula=lambda v: sigma(v["w2"] * v["h1"])),
    Claim("ŷ", formula=lambda v: sigma(v["w3"] * v["h2"])),
    *map(_gradient, LOSSES),
)


def run(options: argparse.Namespace) -> Report:
    del options
    inputs = _layers.inputs([[[w]] for w in WEIGHTS], [X])
    chain = (*_layers.links(3, ops.sigmoid, bias=False), *UNITS)
    known: dict[str, Witness] = {}
    tables, systems = [], []
    for name, loss in LOSSES.items():
        net = nets.mlp((1, 1, 1, 1), output="sigmoid", bias=False, loss=loss)
        # The links below the loss do not depend on it.
        system = _layers.system(net, [TARGET])
        found = measure(system, inputs, () if known else chain)
        systems.append(System(name, system, (inputs,), _layers.symbol))
        rows = _layers.elements(found, _layers.symbol)
        for quantity, witness in rows.items():
            of_loss = quantity.startswith(("L", "∂L"))
            known[f"{quantity} ({name})" if of_loss else quantity] = witness
        tables.append(_link_by_link(known, name))
    rows = tabulate("T9", known, CLAIMS, GIVEN)
    return Report(rows, text="\n\n".join(tables), systems=tuple(systems))


def _link_by_link(known: dict[str, Witness], loss: str) -> str:
    """The three weight gradients as products of their links."""
    value = lambda name: known[name].manual
    down = ("∂ŷ/∂h2", "∂h2/∂h1")
    last = ("∂ŷ/∂w3", "∂h2/∂w2", "∂h1/∂w1")
    lines: list[tuple[str, ...]] = [
        ("weight", "∂L/∂ŷ", *down, "last link", "product", "gradient")
    ]
    for k, link in enumerate(last):
        factors = [value(f"∂L/∂ŷ ({loss})"), *map(value, down[:k])]
        product = value(link)
        for factor in factors:
            product *= factor
        cells = [f"{f:.6g}" for f in factors] + ["·"] * (2 - k)
        whole = value(f"∂L/∂w{3 - k} ({loss})")
        numbers = (f"{value(link):.6g}", f"{product:.6g}", f"{whole:.6g}")
        lines.append((f"w{3 - k}", *cells, *numbers))
    return align(lines, f"link by link, {loss}: the last link is ∂h/∂w of the unit")
