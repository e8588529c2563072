"""T10: a gradient as a sum over paths, and what enumerating them costs."""

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import jax

from experiments import _layers
from experiments._results import Report
from experiments._rows import Claim, Witness, tabulate
from experiments._witnesses import Found, Measured, align, measure, multiply
from jaxbp import nets, ops

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (2, 3, 3, 1)
X, TARGET, SEED = (0.5, -1.0), (1.0,), 0
LAYER, UNIT, INPUT = 1, 2, 1  # of w121
DEPTHS = tuple((2, *[3] * hidden, 1) for hidden in range(1, 9))
WIDTHS = tuple((2, width, width, 1) for width in (1, 2, 4, 8, 16, 32, 64))


def _path_name(path: Sequence[int]) -> str:
    units = [f"h{LAYER + k}{unit}" for k, unit in enumerate(path[:-1])]
    return " → ".join(("w121", *units, "ŷ", "L"))


_names = tuple(_path_name((UNIT, unit, 1)) for unit in (1, 2, 3))
CLAIMS = (
    Claim("number of paths from w121", "3"),
    Claim("∂L/∂w121", formula=lambda v: sum(v[name] for name in _names)),
)


def paths(sizes: Sequence[int], layer: int, unit: int) -> Iterator[tuple[int, ...]]:
    """Every way from a unit to an output: the units passed, that unit first."""
    later = [range(1, size + 1) for size in sizes[layer + 1 :]]
    for rest in itertools.product(*later):
        yield (unit, *rest)


def count_by_paths(sizes: Sequence[int]) -> int:
    """Multiplications for all weight gradients of one example, path by path.

    The local derivatives are given. Those of a weight of layer k along one path: of its
    sum in the weight, of the unit's activation, two a later layer, of the loss.
    """
    depth, total = len(sizes) - 1, 0
    for k in range(1, depth + 1):
        factors = 3 + 2 * (depth - k)
        weights = sizes[k - 1] * sizes[k]
        total += weights * math.prod(sizes[k + 1 :]) * (factors - 1)
    return total


def count_by_backpropagation(sizes: Sequence[int]) -> int:
    """The same gradients, shared work done once, from the loss back.

    A layer's cotangents times its activation's derivatives; those times its inputs;
    and, above the first layer, those times its weights, for the layer below.
    """
    total = 0
    for k in range(1, len(sizes)):
        total += sizes[k] + sizes[k - 1] * sizes[k]
        total += sizes[k - 1] * sizes[k] if k > 1 else 0
    return total


def run(options: argparse.Namespace) -> Report:
    del options
    net = nets.mlp(SIZES, output="sigmoid", loss="binary_cross_entropy")
    params = net.init(jax.random.key(SEED))
    weights, biases = [p["w"] for p in params], [p["b"] for p in params]
    inputs = _layers.inputs(weights, X, biases)
    chain = _layers.links(len(SIZES) - 1, ops.sigmoid, bias=True)
    found = measure(_layers.system(net, TARGET), inputs, chain)
    products = {p: _product(found, p) for p in paths(SIZES, LAYER, UNIT)}
    known = {"number of paths from w121": Witness(len(products))}
    known |= {_path_name(p): product.at() for p, product in products.items()}
    known |= _layers.elements(found)
    for sizes in dict.fromkeys(DEPTHS + WIDTHS):
        name = "-".join(map(str, sizes))
        by_paths, by_sharing = count_by_paths(sizes), count_by_backpropagation(sizes)
        known[f"multiplications by paths, {name}"] = Witness(by_paths)
        known[f"multiplications by backpropagation, {name}"] = Witness(by_sharing)
    rows = tabulate("T10", known, CLAIMS)
    text = f"{_path_table(found, known, products)}\n\n{_growth_table()}"
    return Report(rows, {"t10_multiplications": _figure()}, text)


def _factors(found: Measured, path: Sequence[int]) -> list[Found]:
    """The local derivatives from w121 along a path to the loss."""
    unit = path[0] - 1
    factors = [found.local["a1", "w1"].element(unit, INPUT - 1, unit)]
    for k, (here, there) in enumerate(zip(path, (*path[1:], None), strict=True), LAYER):
        wire = "yhat" if there is None else f"h{k}"
        factors.append(found.local[wire, f"a{k}"].element(here - 1, here - 1))
        if there is not None:
            sum_of = found.local[f"a{k + 1}", f"h{k}"]
            factors.append(sum_of.element(there - 1, here - 1))
    return [*factors, found.cotangents["yhat"].element(path[-1] - 1)]


def _product(found: Measured, path: Sequence[int]) -> Found:
    return multiply(_factors(found, path))


def _path_table(found: Measured, known: dict[str, Witness], products) -> str:
    links = "∂a1/∂w σ′(a1) w2 σ′(a2) w3 σ′(a3) ∂L/∂ŷ product"
    head = ("via", *links.split())
    lines: list[tuple[str, ...]] = [head]
    for path, product in products.items():
        values = [float(f.manual) for f in _factors(found, path)]
        cells = [f"{value:.4g}" for value in (*values, float(product.manual))]
        lines.append((f"h{LAYER}{path[0]} h{LAYER + 1}{path[1]}", *cells))
    total = math.fsum(float(p.manual) for p in products.values())
    lines.append(("sum", *[""] * 7, f"{total:.6g}"))
    whole = known["∂L/∂w121"]
    title = (
        "every path from w121 to L, each the product of its local derivatives\n"
        f"∂L/∂w121 = {whole.manual:.15g} by hand, {whole.auto:.15g} by autodiff"
    )
    return align(lines, title)


def _growth_table() -> str:
    lines = [("network", "paths from a w1", "by paths", "shared", "ratio")]
    for sizes in (*DEPTHS, *WIDTHS):
        by_paths, by_sharing = count_by_paths(sizes), count_by_backpropagation(sizes)
        number = math.prod(sizes[2:])
        cells = (f"{number:,}", f"{by_paths:,}", f"{by_sharing:,}")
        lines.append(
            ("-".join(map(str, sizes)), *cells, f"{by_paths / by_sharing:,.1f}")
        )
    return align(lines, "multiplications for all weight gradients of one example")


def _figure() -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = (
        ("hidden layers of three units", DEPTHS, [len(s) - 2 for s in DEPTHS]),
        ("units in each of two hidden layers", WIDTHS, [s[1] for s in WIDTHS]),
    )
    for axes, (label, series, at) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.plot(at, [count_by_paths(s) for s in series], "o-", label="by paths")
        shared = [count_by_backpropagation(s) for s in series]
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
