"""Figures of trained networks: curves of both routes, confusions, first weights."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments import _curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments._training import Trained

_MOST = 64  # units of a layer that are drawn


def curves(title: str, trained: "Trained") -> "Figure":
    """Loss by both routes, and how far apart they are beside what rounding explains."""
    made, (loss, apart) = _curves.figure(2)
    steps, (by_hand, by_autodiff) = trained.manual.steps, trained[:2]
    for name, color in (("loss", "#0072B2"), ("test loss", "#D55E00")):
        said = "batch" if name == "loss" else "test"
        wide = {"color": color, "lw": 4, "alpha": 0.35}
        loss.plot(steps, by_hand.curves[name], label=f"{said}, hand-written", **wide)
        thin = {"color": color, "lw": 1.2, "ls": "--"}
        loss.plot(steps, by_autodiff.curves[name], label=f"{said}, autodiff", **thin)
        gap = trained.gap(name)
        apart.plot(steps, np.where(gap > 0, gap, np.nan), "o", ms=3, color=color)
        apart.plot(steps, trained.allowed[name], color=color, lw=1, ls=":")
    apart.plot([], [], "o", ms=3, color="0.3", label="|hand-written − autodiff|, not 0")
    apart.plot([], [], color="0.3", lw=1, ls=":", label="what rounding explains")
    apart.set_yscale("log")
    apart.set_ylim(top=100 * max(np.max(v) for v in trained.allowed.values()))
    _curves.label(loss, title, "step", "mean cross-entropy")
    _curves.label(apart, "the two routes apart", "step", "difference of the losses")
    loss.legend()
    apart.legend(loc="upper right")
    return made


def confusion(title: str, y: np.ndarray, guess: np.ndarray) -> "Figure":
    """How many of each class are taken for which; the diagonal is right."""
    made, (axes,) = _curves.figure()
    count = int(max(y.max(), guess.max())) + 1
    counts = np.zeros((count, count), int)
    np.add.at(counts, (y, guess), 1)
    wrong = counts - np.diag(np.diag(counts))
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1, 1.5 * wrong.max()))
    for (row, column), n in np.ndenumerate(counts):
        if n:
            weight = "bold" if row == column else "normal"
            centred = {"ha": "center", "va": "center", "fontsize": 8}
            axes.text(column, row, str(n), fontweight=weight, **centred)
    axes.set(xticks=range(count), yticks=range(count))
    axes.set(title=title, xlabel="taken for", ylabel="is")
    return made


def weights(title: str, units: np.ndarray) -> "Figure":
    """What each unit looks for: blue adds to its sum, red takes away."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = units[:_MOST]
    columns = 16 if len(shown) > 32 else 8
    lines = math.ceil(len(shown) / columns)
    size = 0.6 * columns + 1, 0.66 * lines + 0.5
    made = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(made)
    largest = float(np.abs(shown).max())
    scale = {"cmap": "RdBu", "vmin": -largest, "vmax": largest}
    panels = made.subplots(lines, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    pairs = zip(panels.flat, shown, strict=False)
    images = [axes.imshow(unit, **scale) for axes, unit in pairs]
    made.colorbar(images[0], ax=panels, shrink=0.9, aspect=15)
    made.suptitle(title, fontsize=10)
    return made


def letters(vectors: Mapping[str, np.ndarray], known: Sequence[str]) -> "Figure":
    """Each network's vectors of the letters, along their two main directions."""
    made, panels = _curves.figure(len(vectors))
    for axes, (name, rows) in zip(panels, vectors.items(), strict=True):
        away = rows - rows.mean(axis=0)
        _, sizes, directions = np.linalg.svd(away, full_matrices=False)
        places = away @ directions[:2].T
        axes.scatter(*places.T, alpha=0)
        for letter, place in zip(known, places, strict=True):
            color = "#D55E00" if letter in "aeiouy" else "black"
            axes.annotate(letter, place, ha="center", va="center", color=color)
        share = (sizes[:2] ** 2).sum() / (sizes**2).sum()
        _curves.label(axes, f"letters, {name}", f"{share:.0%} of their spread", "")
    return made
