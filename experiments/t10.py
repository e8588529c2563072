"""T10: a gradient as a sum over paths, and what enumerating them costs."""

import argparse
import functools
import itertools
import math
from typing import TYPE_CHECKING

import jax
import numpy as np

from experiments import _layers
from experiments._results import Report
from experiments._rows import Claim, Witness, tabulate
from experiments._systems import System
from experiments._witnesses import Found, Measured, align, measure, multiply
from jaxbp import graph, nets, ops

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxbp.drawing import Path, Paths

SIZES = (2, 3, 3, 1)
X, TARGET, SEED = (0.5, -1.0), (1.0,), 0
WEIGHT = "w1[0, 1]"  # as stored, (in, out): the page's w121
DEPTHS = tuple((2, *[3] * hidden, 1) for hidden in range(1, 7))
# Few of them: what is new in a graph is the shapes, which XLA compiles one by one.
WIDTHS = tuple((2, width, width, 1) for width in (1, 3, 32))

_names = tuple(
    f"w121 → a12 → h12 → a2{unit} → h2{unit} → a31 → ŷ1 → L" for unit in (1, 2, 3)
)
CLAIMS = (
    Claim("number of paths from w121", "3"),
    Claim("∂L/∂w121", formula=lambda v: sum(v[name] for name in _names)),
)


@functools.cache
def count(sizes: tuple[int, ...]) -> "Paths":
    """Every path from every weight to the loss of one example.

    Their number hangs on the network alone: with a cotangent of 0 there are no two
    gradients to be held against each other, which takes longer.
    """
    net = nets.mlp(sizes, output="sigmoid", loss="binary_cross_entropy")
    weights = [np.ones(pair) for pair in itertools.pairwise(sizes)]
    inputs = _layers.inputs(weights, X, [np.ones(size) for size in sizes[1:]])
    drawn = graph(_layers.system(net, TARGET), inputs, cotangent=0.0)
    names = [name for name in inputs if name.startswith("w")]
    return drawn.paths(names, "losses", limit=0)


def run(options: argparse.Namespace) -> Report:
    del options
    net = nets.mlp(SIZES, output="sigmoid", loss="binary_cross_entropy")
    params = net.init(jax.random.key(SEED))
    weights, biases = [p["w"] for p in params], [p["b"] for p in params]
    inputs = _layers.inputs(weights, X, biases)
    loss = _layers.system(net, TARGET)
    chain = _layers.links(len(SIZES) - 1, ops.sigmoid, bias=True)
    found = measure(loss, inputs, chain)
    drawn = graph(loss, inputs).paths(WEIGHT, "losses")
    known = {"number of paths from w121": Witness(drawn.count)}
    for path in drawn.listed:
        known[_path_name(path)] = multiply(_factors(found, path)).at()
    known |= _layers.elements(found)
    counts = {sizes: count(sizes) for sizes in dict.fromkeys(DEPTHS + WIDTHS)}
    for sizes, paths in counts.items():
        name = "-".join(map(str, sizes))
        known[f"multiplications by paths, {name}"] = Witness(paths.by_paths)
        shared = Witness(paths.by_backpropagation)
        known[f"multiplications by backpropagation, {name}"] = shared
    rows = tabulate("T10", known, CLAIMS)
    text = f"{_path_table(drawn, known)}\n\n{_growth_table(counts)}"
    title = f"the {'-'.join(map(str, SIZES))} network"
    systems = (System(title, loss, (inputs,), _layers.numbered),)
    return Report(rows, {"t10_multiplications": _figure(counts)}, text, systems)


def _path_name(path: "Path") -> str:
    return " → ".join(_layers.numbered(*element) for element in path.elements)


def _factors(found: Measured, path: "Path") -> list[Found]:
    """The local derivatives along a path by the experiment's own witnesses."""
    *links, (last, _) = itertools.pairwise(path.elements)
    factors = [
        found.local[there.wire, here.wire].element(*there.at, *here.at)
        for here, there in links
    ]
    return [*factors, found.cotangents[last.wire].element(*last.at)]


def _path_table(drawn: "Paths", known: dict[str, Witness]) -> str:
    links = "∂a1/∂w σ′(a1) w2 σ′(a2) w3 σ′(a3) ∂L/∂ŷ product"
    head = ("via", *links.split())
    lines: list[tuple[str, ...]] = [head]
    for path in drawn.listed:
        cells = [f"{value:.4g}" for value in (*path.factors, path.product)]
        via = [e for e in path.elements if e.wire.startswith("h")]
        lines.append((" ".join(_layers.numbered(*e) for e in via), *cells))
    (total,) = drawn.sums.values()
    lines.append(("sum", *[""] * 7, f"{total:.6g}"))
    whole = known["∂L/∂w121"]
    title = (
        "every path from w121 to L, each the product of its local derivatives\n"
        f"∂L/∂w121 = {whole.manual:.15g} by hand, {whole.auto:.15g} by autodiff"
    )
    return align(lines, title)


def _growth_table(counts: dict[tuple[int, ...], "Paths"]) -> str:
    lines = [("network", "paths from a w1", "by paths", "shared", "ratio")]
    for sizes in (*DEPTHS, *WIDTHS):
        by_paths, shared = counts[sizes].by_paths, counts[sizes].by_backpropagation
        number = math.prod(sizes[2:])
        cells = (f"{number:,}", f"{by_paths:,}", f"{shared:,}")
        lines.append(("-".join(map(str, sizes)), *cells, f"{by_paths / shared:,.1f}"))
    return align(lines, "multiplications for all weight gradients of one example")


def _figure(counts: dict[tuple[int, ...], "Paths"]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = (
        ("hidden layers of three units", DEPTHS, [len(s) - 2 for s in DEPTHS]),
        ("units in each of two hidden layers", WIDTHS, [s[1] for s in WIDTHS]),
    )
    for axes, (label, series, at) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.plot(at, [counts[s].by_paths for s in series], "o-", label="by paths")
        shared = [counts[s].by_backpropagation for s in series]
        axes.plot(at, shared, "s-", label="by backpropagation")
        axes.set_yscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("multiplications")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    widths = panels[1][2]
    figure.axes[1].set_xscale("log", base=2)
    figure.axes[1].set_xticks(widths, [str(width) for width in widths])
    figure.suptitle("All weight gradients of one example")
    return figure
