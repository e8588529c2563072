"""The page's rule and the true gradient side by side: runs, rows and a figure."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments import _curves
from experiments._descent import (
    HERE,
    Matrix,
    X,
    as_params,
    descend,
    errors,
    first,
    published,
)
from experiments._rows import Claim, Witness
from experiments._systems import System
from experiments._witnesses import Found, Measured, align, measure, sigma
from jaxbp import nets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTED = 1e-10  # from here on two runs are two runs
S_OF_O = "s(O) is σ(O)(1−σ(O)): σ′ is taken at the output, O(1−O) is meant"
LEVEL = 0.01
EXAMPLES = range(len(X))


def network(*sizes: int) -> nets.Net:
    """The page's network; the gradient of its loss is that of ½Σ(y − O)²."""
    loss = "half_squared_error"
    return nets.mlp(sizes, output="sigmoid", loss=loss, reduction="sum", bias=False)


class Runs(NamedTuple):
    """The outputs of every iteration, by the page's rule and down the true gradient.

    The page's rule: `page` with the roundings of the page's machine, `here` with this
    machine's NumPy, `loop` in a jitted loop. The true gradient: `true` in NumPy, and in
    a jitted loop `manual`, hand-written, and `auto`.
    """

    page: Matrix
    here: Matrix
    loop: Matrix
    true: Matrix
    manual: Matrix
    auto: Matrix


def run_all(
    statements: Callable, net: nets.Net, start: Sequence[Matrix], y, iterations: int
) -> Runs:
    return Runs(
        statements(start, y, iterations),
        statements(start, y, iterations, HERE),
        descend(net, published(net), start, y, iterations, "manual"),
        statements(start, y, iterations, HERE, "true"),
        descend(net, net.loss, start, y, iterations, "manual"),
        descend(net, net.loss, start, y, iterations, "auto"),
    )


def s(x: float) -> float:
    """The page's s, which is σ′; the page hands it O, σ's own output (E1)."""
    return sigma(x) * (1 - sigma(x))


def at_start(net: nets.Net, start: Sequence[Matrix], y) -> Measured:
    """Iteration 0: every wire and gradient of ½Σ(y − O)², by three witnesses."""
    return measure(*_loss(net, start, y))


def system(net: nets.Net, start: Sequence[Matrix], y, **called: str) -> System:
    """Iteration 0 as a graph; `called` says what the page's symbols are on it.

    The page's s, at an output of σ in place of its input, is each σ's own link.
    """
    loss, inputs = _loss(net, start, y)
    links = ("∂yhat/∂a1",) if len(start) == 1 else ("∂yhat/∂a2", "∂h1/∂a1")
    return System(
        "½Σ(y − O)² in iteration 0", loss, (inputs,), None, called, {"E1": links}
    )


def _loss(net: nets.Net, start: Sequence[Matrix], y) -> tuple[Callable, dict]:
    inputs = {f"w{k}": w for k, w in enumerate(start, 1)}

    def loss(v):
        params = as_params([v[name] for name in inputs])
        return net.loss(params, (jnp.asarray(X), jnp.asarray(y)))

    return loss, inputs


def elements(name: str, found: Found) -> dict[str, Witness]:
    """`name[n]` for a column, `name[i, j]` for a matrix: as NumPy counts."""
    known = {}
    for index in np.ndindex(found.manual.shape):
        shown = index[:1] if found.manual.shape[1] == 1 else index
        known[f"{name}[{', '.join(map(str, shown))}]"] = found.at(*index)
    return known


def negative(found: Found) -> Found:
    """Of a gradient: the page's deltas and updates go down."""
    manual, auto, numeric, error = found
    return Found(-manual, -auto, None if numeric is None else -numeric, error)


def difference(y: Matrix, output: Found) -> Found:
    return Found(y - output.manual, y - output.auto)


def claims(
    runs: Runs, y, printed: Mapping[int, str], final: Sequence[str]
) -> list[Claim]:
    """Printed errors and outputs, about the page's own rule, run as the page ran it."""
    history, last = errors(runs.page, y), runs.page[-1]
    return [
        Claim(f"{_error(i)}, page's rule", number, lambda v, i=i: float(history[i]))
        for i, number in printed.items()
    ] + [
        Claim(f"final O[{n}], page's rule", number, lambda v, n=n: float(last[n]))
        for n, number in enumerate(final)
    ]


def witnesses(runs: Runs, y, printed: Mapping[int, str]) -> dict[str, Witness]:
    page, manual, auto = (errors(o, y) for o in (runs.page, runs.manual, runs.auto))
    known = {f"{_error(i)}, page's rule": Witness(float(page[i])) for i in printed}
    for n in EXAMPLES:
        known[f"final O[{n}], page's rule"] = Witness(float(runs.page[-1, n]))
    for i in printed:
        both = Witness(float(manual[i]), float(auto[i]))
        known[f"{_error(i)}, true gradient"] = both
    for n in EXAMPLES:
        both = Witness(float(runs.manual[-1, n]), float(runs.auto[-1, n]))
        known[f"final O[{n}], true gradient"] = both
    name = f"iterations to error < {LEVEL:g}"
    known[f"{name}, page's rule"] = Witness(until(page))
    known[f"{name}, true gradient"] = Witness(until(manual), until(auto))
    return known


def _count(iterations: float, of: int) -> str:
    return f"{iterations:,g}" if np.isfinite(iterations) else f"not within {of:,}"


def text(runs: Runs, y) -> str:
    page, true = errors(runs.page, y), errors(runs.manual, y)
    gap = lambda a, b: f"{np.max(np.abs(errors(a, y) / errors(b, y) - 1)):.1e}"
    loops = gap(runs.loop, runs.page), gap(runs.manual, runs.true)
    reached = [_count(until(history), len(history)) for history in (page, true)]
    lines = [
        ("", "page's rule", "true gradient"),
        (f"iterations to error < {LEVEL:g}", *reached),
        ("error after the last", f"{page[-1]:.7g}", f"{true[-1]:.7g}"),
        ("this NumPy against the page's roundings", gap(runs.here, runs.page), ""),
        ("jitted loop against NumPy", *loops),
        ("autodiff's against hand-written", "", gap(runs.auto, runs.manual)),
    ]
    title = f"both rules, {len(page):,} iterations; differences of errors are relative"
    return align(lines, title)


def error_figure(title: str, runs: Runs, y, printed: Mapping[int, str]) -> "Figure":
    curves = {
        "page's rule, s(O)": errors(runs.page, y),
        "gradient of ½Σ(y − O)²": errors(runs.manual, y),
    }
    points = {i: float(number) for i, number in printed.items()}
    return _curves.errors(title, curves, points, LEVEL)


def until(history: Matrix) -> float:
    """The first iteration with an error below LEVEL."""
    found = first(history < LEVEL)
    return float("inf") if found is None else float(found)


def _error(iteration: int) -> str:
    return f"error at iteration {iteration}"
