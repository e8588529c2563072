"""Figures of runs: errors over iterations, curves told apart by colour and dashes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, each with its own dashes: legible without colour.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#D55E00", "linestyle": "-"},
    {"color": "#0072B2", "linestyle": "--"},
    {"color": "#009E73", "linestyle": "-."},
    {"color": "#000000", "linestyle": ":"},
)


def figure(panels: int = 1) -> "tuple[Figure, list[Axes]]":
    """A figure of its own, outside pyplot, drawn by Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(6.4 if panels == 1 else 10.5, 4.2), layout="constrained")
    FigureCanvasAgg(made)
    return made, list(made.subplots(1, panels, squeeze=False).flat)


def draw(
    axes: "Axes",
    curves: Mapping[str, np.ndarray],
    window: slice = slice(None),
    floor: float = 0.0,
    most: int = 2000,
) -> None:
    """At most `most` points a curve, each the largest of its stretch, or `floor`."""
    for style, (name, values) in zip(_STYLES, curves.items(), strict=False):
        start, stop, _ = window.indices(len(values))
        at = np.arange(start, stop, max(1, (stop - start) // most))
        peaks = np.maximum.reduceat(values[:stop], at)
        axes.plot(at, np.maximum(peaks, floor), label=name, lw=1.4, **style)


def label(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3, linewidth=0.6)


def errors(
    title: str,
    curves: Mapping[str, np.ndarray],
    printed: Mapping[int, float],
    level: float,
) -> "Figure":
    """Error curves on a logarithmic scale, with the printed errors as points."""
    made, (axes,) = figure()
    draw(axes, curves)
    at, values = list(printed), list(printed.values())
    axes.plot(at, values, "o", ms=4.5, mfc="white", mec="black", label="as printed")
    axes.axhline(level, color="0.4", lw=0.9, zorder=1)
    note = {"xycoords": ("axes fraction", "data"), "va": "top", "ha": "right"}
    axes.annotate(f"{level:g}", (0.995, level), color="0.3", fontsize=9, **note)
    axes.set_yscale("log")
    label(axes, title, "iteration", "mean |y − O|")
    axes.legend(loc="upper right")
    return made
