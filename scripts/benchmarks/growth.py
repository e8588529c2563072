"""How an op's temporary memory and time grow: hand-written, and autodiff's.

Sizes double to that of `scripts/bench ops`. The last columns are powers: how much more
the largest size takes than half of it, as a power of two. 1 is linear, 0 no growth.
Memory is the compiled step's, the same on every run; seconds are the fastest round's,
the two in turn.
"""

import argparse
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks._machine import described, machine
from experiments import _curves, _data
from jaxbp import cost
from jaxbp.ops.catalogue import CASES

_DOUBLINGS = 3  # below the size of the catalogue
_COLUMNS = 5
_FIGURES = (("temp_bytes", "temporary MiB", 2**-20), ("seconds", "ms", 1e3))
_STYLES: dict[str, dict[str, Any]] = {
    "hand-written": {"color": "#0072B2", "marker": "o"},
    "autodiff": {"color": "#D55E00", "marker": "s", "ls": "--"},
}


class _Growth(NamedTuple):
    """What is cut, of the arguments of a case, where it is `n` long; at most `most`."""

    case: str
    size: str
    what: str
    most: int
    cut: Callable[..., tuple]


def _positions(n, q, k, v, mask):
    return q[:n], k[:n], v[:n], mask


def _steps(n, x, *others):
    return x[:, :n], *others


def _blocks(n, params, x):
    return jax.tree.map(lambda a: a[:n], params), x


_GROWTHS = (
    _Growth("attention, causal", "T=4096", "T", 4096, _positions),
    _Growth(
        "linear_softmax_cross_entropy",
        "2048×256",
        "examples",
        2048,
        lambda n, x, w, labels, *rest: (x[:n], w, labels[:n], *rest),
    ),
    _Growth(
        "contrastive_loss",
        "4096×128",
        "pairs",
        4096,
        lambda n, x, y, scale: (x[:n], y[:n], scale),
    ),
    _Growth("reversible", "128 blocks", "blocks", 128, _blocks),
    _Growth("checkpointed_chain", "256 blocks", "blocks", 256, _blocks),
    _Growth("rnn", "T=512", "T", 512, _steps),
    _Growth("gru", "T=512", "T", 512, _steps),
    _Growth("lstm", "T=512", "T", 512, _steps),
    _Growth(
        "hmm_log_likelihood",
        "T=1000",
        "T",
        1000,
        lambda n, initial, transition, seen: (initial, transition, seen[:n]),
    ),
    _Growth("cumlogsumexp", "64×4096", "k", 4096, lambda n, x: (x[:, :n],)),
)


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", nargs="+", choices=[g.case for g in _GROWTHS], metavar="NAME")
    add("--rounds", type=int, default=7, help="in which the two sides run (7)")
    add("--picture", type=pathlib.Path, metavar="FILE", help="draw the curves there")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.picture:
        _data.require("matplotlib")
    print(described())
    found = []
    for growth in _GROWTHS:
        if not options.only or growth.case in options.only:
            found.append(_measured(growth, options.rounds))
            print(f"\n{_told(found[-1])}", flush=True)
    print(f"\n{described()}")
    if options.picture:
        _draw(found, options.picture)
    return {"machine": machine(), "growths": found}


def _measured(growth: _Growth, rounds: int) -> dict[str, Any]:
    (case,) = (case for case in CASES if case.name == growth.case)
    (inputs,) = (make for s, make in case.cost.items() if s.startswith(growth.size))
    whole = inputs(jax.random.key(0), jnp.dtype("float32"))
    sizes = [growth.most >> k for k in range(_DOUBLINGS, -1, -1)]
    points = []
    for n in sizes:
        args = growth.cut(n, *whole)
        found = cost(case.function, *args, reference=case.plain, rounds=rounds)
        sides = {"hand-written": found.manual, "autodiff": found.auto}
        points.append(
            {
                name: {"temp_bytes": side.temp_bytes, "seconds": side.run_seconds}
                for name, side in sides.items()
            }
        )
    return {"name": case.name, "what": growth.what, "sizes": sizes, "points": points}


def _series(found: dict[str, Any], side: str, figure: str) -> list[float]:
    return [point[side][figure] for point in found["points"]]


def _power(series: list[float]) -> float:
    *_, half, whole = series
    return math.log2(whole / half) if half and whole else math.nan


def _told(found: dict[str, Any]) -> str:
    sizes = "".join(f"{n:>10,}" for n in found["sizes"])
    lines = [f"{found['name'] + ', ' + found['what']:42}{sizes}{'power':>8}"]
    for figure, unit, scale in _FIGURES:
        for side in _STYLES:
            series = _series(found, side, figure)
            values = "".join(f"{value * scale:10,.2f}" for value in series)
            lines.append(f"  {side + ', ' + unit:40}{values}{_power(series):8.2f}")
    return "\n".join(lines)


def _draw(growths: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Every op's memory, and below it its time, over its sizes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(growths))
    rows = 2 * -(-len(growths) // columns)
    made = Figure(figsize=(2.6 * columns, 2.3 * rows), layout="constrained")
    FigureCanvasAgg(made)
    panels = made.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_visible(False)
    for k, found in enumerate(growths):
        band, column = divmod(k, columns)
        for row, (figure, said, scale) in enumerate(_FIGURES):
            panel = panels[2 * band + row, column]
            panel.set_visible(True)
            for side, style in _STYLES.items():
                series = [scale * value for value in _series(found, side, figure)]
                panel.plot(found["sizes"], series, label=side, lw=1.6, ms=4, **style)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log", base=2)
            panel.yaxis.set_major_formatter("{x:g}")
            panel.set_xticks(found["sizes"], map(str, found["sizes"]))
            panel.minorticks_off()
            title = found["name"].replace("_", " ") if not row else ""
            _curves.label(panel, title, found["what"] if row else "", said)
            panel.title.set(fontsize=9, wrap=True)
    panels[0, 0].legend(fontsize=8)
    made.savefig(path, dpi=90)
