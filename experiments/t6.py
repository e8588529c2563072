"""T6: two-layer network, the page's rule and the true gradient, 80,000 iterations."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments import _curves, _descent, _runs
from experiments._descent import X, errors, first
from experiments._results import Report
from experiments._rows import Claim, Witness, tabulate
from experiments._runs import EXAMPLES
from experiments._witnesses import align, sigma
from jaxbp import nets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Y = np.array([[0.0], [1], [1], [0]])
ITERATIONS = 80_000
PRINTED_ERRORS = {
    0: "0.4964100319027255",
    10_000: "0.3956678881357977",
    20_000: "0.02807194397668463",
    30_000: "0.009825413967651232",
    40_000: "0.005642137542640457",
    50_000: "0.0037447378038104823",
    60_000: "0.002659632966548794",
    70_000: "0.0020172148236547597",
}
PRINTED_O = ("0.00154124", "0.99805853", "0.99828522", "0.00135168")
_HIDDEN = range(4)


class Parting(NamedTuple):
    """Differences of errors in every iteration: of a start one unit in the last place
    away, by either rule, and of the same start in other arithmetic, by the page's."""

    page: np.ndarray
    true: np.ndarray
    loop: np.ndarray
    here: np.ndarray


class Statement(NamedTuple):
    """A line of the page's loop: what it makes, element by element, and how."""

    name: str
    shape: tuple[int, ...]
    formula: Callable[..., float]
    erratum: str = ""


def _hidden(v: Mapping[str, float], n: int, j: int) -> float:
    return sigma(sum(X[n, i] * v[f"Wh[{i}, {j}]"] for i in range(3)))


def _output(v: Mapping[str, float], n: int) -> float:
    return sigma(sum(v[f"H[{n}, {j}]"] * v[f"Wo[{j}]"] for j in _HIDDEN))


def _delta_out(v: Mapping[str, float], n: int) -> float:
    return v[f"E[{n}]"] * _runs.s(v[f"O[{n}]"])


def _delta_hidden(v: Mapping[str, float], n: int, j: int) -> float:
    return v[f"dO[{n}]"] * v[f"Wo[{j}]"] * _runs.s(v[f"H[{n}, {j}]"])


STATEMENTS = (
    Statement("H", (4, 4), _hidden),
    Statement("O", (4,), _output),
    Statement("E", (4,), lambda v, n: Y[n, 0] - v[f"O[{n}]"]),
    Statement("dO", (4,), _delta_out, "E1"),
    Statement("dH", (4, 4), _delta_hidden, "E1"),
    Statement(
        "ΔWo",
        (4,),
        lambda v, j: sum(v[f"H[{n}, {j}]"] * _delta_out(v, n) for n in EXAMPLES),
        "E1",
    ),
    Statement(
        "ΔWh",
        (3, 4),
        lambda v, i, j: sum(
            X[n, i] * _delta_out(v, n) * v[f"Wo[{j}]"] * _runs.s(v[f"H[{n}, {j}]"])
            for n in EXAMPLES
        ),
        "E1",
    ),
)


def claims(runs: _runs.Runs) -> list[Claim]:
    """Iteration 0 statement by statement, then the run."""
    found = []
    for name, shape, formula, erratum in STATEMENTS:
        for index in np.ndindex(shape):
            at = lambda v, f=formula, index=index: f(v, *index)
            quantity = f"{name}[{', '.join(map(str, index))}]"
            note = _runs.S_OF_O if erratum else ""
            found.append(Claim(quantity, None, at, erratum=erratum, note=note))
    return found + _runs.claims(runs, Y, PRINTED_ERRORS, PRINTED_O)


def run(options: argparse.Namespace) -> Report:
    del options
    net, (_, start) = _runs.network(3, 4, 1), _descent.starts()
    runs = _runs.run_all(_descent.two_layers, net, start, Y, ITERATIONS)
    known = first_iteration(net, start)
    known |= _runs.witnesses(runs, Y, PRINTED_ERRORS)
    parting = part(runs, net, start)
    name = f"first iteration with an error parted by {_runs.PARTED:g}, page's rule"
    known[name] = Witness(_when(parting.page))
    title = "T6: two layers, both rules from the same weights"
    figures = {
        "t6_errors": _runs.error_figure(title, runs, Y, PRINTED_ERRORS),
        "t6_growth": growth_figure(parting),
    }
    text = "\n\n".join([_runs.text(runs, Y), _partings(parting), _later(runs)])
    called = {"dO": "−∂y/∂a2", "dH": "−∂y/∂a1", "ΔWo": "−∂y/∂w2", "ΔWh": "−∂y/∂w1"}
    rows = tabulate("T6", known, claims(runs), given(start))
    return Report(rows, figures, text, (_runs.system(net, start, Y, **called),))


def given(start: Sequence[np.ndarray]) -> dict[str, float]:
    known = {f"Wh[{i}, {j}]": w for (i, j), w in np.ndenumerate(start[0])}
    return known | {f"Wo[{j}]": w for (j, _), w in np.ndenumerate(start[1])}


def first_iteration(net: nets.Net, start: Sequence[np.ndarray]) -> dict[str, Witness]:
    """The page's quantities; its deltas and updates are minus a gradient."""
    found, minus = _runs.at_start(net, start, Y), _runs.negative
    output = found.values["yhat"]
    return {
        **_runs.elements("H", found.values["h1"]),
        **_runs.elements("O", output),
        **_runs.elements("E", _runs.difference(Y, output)),
        **_runs.elements("dO", minus(found.cotangents["a2"])),
        **_runs.elements("dH", minus(found.cotangents["a1"])),
        **_runs.elements("ΔWo", minus(found.cotangents["w2"])),
        **_runs.elements("ΔWh", minus(found.cotangents["w1"])),
    }


def part(runs: _runs.Runs, net, start) -> Parting:
    page = errors(runs.page, Y)
    growth = lambda loss: _descent.growth(net, loss, start, Y, ITERATIONS)
    return Parting(
        growth(_descent.published(net)),
        growth(net.loss),
        np.abs(errors(runs.loop, Y) - page),
        np.abs(errors(runs.here, Y) - page),
    )


def growth_figure(parting: Parting) -> "Figure":
    """The whole run's beginning, and the hundred iterations in which the runs part."""
    made, panels = _curves.figure(2)
    curves = {
        "page's rule, a weight moved by one ulp (most of 32)": parting.page,
        "page's rule, jitted loop against NumPy": parting.loop,
        "page's rule, this NumPy against the page's": parting.here,
        "true gradient, a weight moved by one ulp (most of 32)": parting.true,
    }
    found = first(parting.page > _runs.PARTED)
    middle = 5000 if found is None else found
    windows = (slice(0, 2 * middle), slice(middle - 100, middle + 150))
    titles = ("T6: how far one rounding carries", "where the page's rule parts")
    for axes, window, title in zip(panels, windows, titles, strict=True):
        _curves.draw(axes, curves, window, floor=1e-18, most=500)
        axes.set_yscale("log")
        _curves.label(axes, title, "iteration", "|difference| of mean |y − O|")
    lines, names = panels[0].get_legend_handles_labels()
    made.legend(lines, names, loc="outside lower center", ncols=2)
    return made


def _partings(parting: Parting) -> str:
    """When the runs part, and how far by the last iteration."""
    lines = [("", f"> {_runs.PARTED:g} from", "largest")]
    for what, differences in (
        ("page's rule, one weight one ulp away (32 starts)", parting.page),
        ("page's rule, a jitted loop against NumPy", parting.loop),
        ("page's rule, this NumPy against the page's roundings", parting.here),
        ("true gradient, one weight one ulp away (32 starts)", parting.true),
    ):
        lines.append((what, f"{_when(differences):,g}", f"{differences.max():.1e}"))
    return align(lines, "the page's rule amplifies rounding: differences of errors")


def _later(runs: _runs.Runs) -> str:
    """The same rule and start in three arithmetics."""
    head = ["iteration", "printed", "page's roundings", "this NumPy", "jitted"]
    lines = [head]
    histories = [errors(o, Y) for o in (runs.page, runs.here, runs.loop)]
    for i, printed in PRINTED_ERRORS.items():
        lines.append([f"{i:,}", printed[:12], *(f"{h[i]:.10f}" for h in histories)])
    return align(lines, "the page's rule from the page's weights, in three arithmetics")


def _when(differences: np.ndarray) -> float:
    found = first(differences > _runs.PARTED)
    return float("inf") if found is None else float(found)
