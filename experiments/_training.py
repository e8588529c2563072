"""A network trained twice from one start: by hand-written gradient and by autodiff."""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments._results import Report
from experiments._rows import Witness
from experiments._witnesses import align
from jaxbp import train

_SPREADS = 16  # times what rounding was seen to do, and so many units of roundoff:
_UNITS = 8  # as far as two elements may be apart in `compare`
_ENTRIES = 40  # of a curve

Figures = Mapping[str, jax.Array]


class Run(NamedTuple):
    """A run: its figures after `steps` steps each, and its end."""

    steps: np.ndarray
    curves: dict[str, np.ndarray]
    result: train.Result

    @property
    def seconds(self) -> float:
        return self.result.history[-1]["seconds"]


class Trained(NamedTuple):
    """Both routes, the unsettled run, how far apart rounding may take each curve."""

    manual: Run
    auto: Run
    rough: Run
    allowed: dict[str, np.ndarray]

    def gap(self, curve: str) -> np.ndarray:
        return np.abs(self.manual.curves[curve] - self.auto.curves[curve])

    def witnesses(self, prefix: str) -> dict[str, Witness]:
        """Every point of every curve, with what rounding explains there."""
        known = {}
        for name, allowed in self.allowed.items():
            values = self.manual.curves[name], self.auto.curves[name], allowed
            for step, *point in zip(self.manual.steps, *values, strict=True):
                manual, auto, rounding = map(float, point)
                title = f"{prefix}, {name} at step {step}"
                known[title] = Witness(manual, auto, rounding=rounding)
        return known

    def ending(self, figure: Callable[[train.Result], Any]) -> Witness:
        """A figure of where the runs ended, with what rounding explains of it."""
        manual, auto, rough = (float(figure(run.result)) for run in self[:3])
        allowed = _rounding(np.array([auto]), np.array([rough])).item()
        return Witness(manual, auto, rounding=allowed)


def train_twice(
    what: str,
    loss: Callable[..., Any],
    params: Any,
    data: Any,
    optimizer: Any,
    *,
    steps: int,
    evaluate: Callable[[Any], Figures],
    **options: Any,
) -> Trained:
    """By the hand-written gradient, by autodiff's, and by autodiff's again, unsettled.

    Two runs that differ by rounding alone drift apart as training goes on. How far is
    measured: in the unsettled run every parameter of every step is moved by one unit
    of roundoff, up or down at random. The two routes are one curve where they are no
    further apart than 16 times what that does up to the same step, as `compare` allows
    an element of a gradient.

    Args:
        what: said before each run.
        evaluate: figures of the parameters, "test loss" among them.
        options: those of `train.fit`.
    """
    every = max(1, steps // _ENTRIES)
    ends = sorted({*range(every, steps + 1, every), steps})

    def run(said: str, loss, gradient: str) -> Run:
        print(f"{what}, {said}", file=sys.stderr, flush=True)
        result = train.fit(
            loss,
            params,
            data,
            optimizer,
            steps=steps,
            gradient=gradient,
            log_every=every,
            evaluate=(every, evaluate),
            **options,
        )
        if result.stopped_because.startswith("interrupted"):
            raise KeyboardInterrupt
        if result.stopped_because != "steps":
            print(f"{what}: {result.stopped_because}", file=sys.stderr, flush=True)
        return Run(np.array(ends), _curves(result.history, ends), result)

    manual = run("hand-written gradient", loss, "manual")
    auto = run("autodiff", loss, "auto")
    rough = run("autodiff, every parameter a rounding off", unsettled(loss), "auto")
    allowed = {
        name: _rounding(curve, rough.curves[name])
        for name, curve in auto.curves.items()
        if name.endswith("loss")
    }
    return Trained(manual, auto, rough, allowed)


def unsettled(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The loss at parameters each of which is one unit of roundoff off."""

    def moved(params, batch, *, key, **state):
        flat, whole = ravel_pytree(params)
        up = jax.random.bits(key, flat.shape, "uint8") & 1
        eps = jnp.finfo(flat.dtype).eps
        return loss(whole(flat * jnp.where(up == 1, 1 + eps, 1 - eps)), batch, **state)

    return moved


def _curves(history, ends) -> dict[str, np.ndarray]:
    """By name, at `ends`; NaN after the end of a run that stopped early."""
    found = {entry["step"]: entry for entry in history}
    names = [n for n in history[0] if n == "loss" or n.startswith("test ")]
    at = lambda step, name: found.get(step, {}).get(name, np.nan)
    return {n: np.array([at(step, n) for step in ends], float) for n in names}


def _rounding(curve: np.ndarray, rough: np.ndarray) -> np.ndarray:
    """How far it may take another from the curve, by what the unsettled run's does."""
    spread = np.maximum.accumulate(np.abs(rough - curve))
    return _SPREADS * spread + _UNITS * np.finfo(curve.dtype).eps * np.abs(curve)


def as_good(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether our errors on the same examples are no larger on average than theirs.

    Within two standard errors of the mean of the differences, example by example; or
    a millionth of theirs, where the two are the same network but for rounding.
    """
    theirs = np.asarray(theirs, float)
    more = np.asarray(ours, float) - theirs
    chance = 2 * more.std() / len(more) ** 0.5
    return bool(more.mean() <= max(chance, 1e-6 * theirs.mean()))


def said(trained: Trained) -> str:
    """How far the routes' curves are apart at most, beside what rounding explains."""
    lines = []
    for name, allowed in trained.allowed.items():
        gap = trained.gap(name)
        over = np.flatnonzero(~(gap <= allowed))
        apart = float(np.nanmax(gap / np.abs(trained.auto.curves[name])))
        share = float(np.nanmax(gap / allowed))
        found = f"{name}: the routes differ by at most {apart:.1e} of it, "
        found += f"{share:.2g} times what rounding explains"
        if len(over):
            found += f"; PARTED from step {trained.auto.steps[over[0]]:,} on"
        lines.append(found)
    return "\n".join(lines)


def ends_apart(trained: Trained, theirs: Any, name: str) -> str:
    """How far another's parameters are from the hand-written gradient's, in a line."""
    ours = trained.manual.result.params
    chex.assert_trees_all_equal_structs(ours, theirs)
    gaps = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), ours, theirs)
    named = jax.tree_util.tree_leaves_with_path(gaps)
    path, gap = max(named, key=lambda leaf: leaf[1])
    found = f"{name}'s parameters: {gap:.1e} from the hand-written gradient's, at most"
    return f"{found}, in {jax.tree_util.keystr(path)}"


def table(title: str, columns: Mapping[str, Mapping[str, str]]) -> str:
    """Figures by column, then by row."""
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    lines = [("", *columns)]
    lines += [(row, *(c.get(row, "") for c in columns.values())) for row in rows]
    return align(lines, title)


def joined(reports: Iterable[Report]) -> Report:
    """Of several networks, one report."""
    reports = list(reports)
    rows = [row for report in reports for row in report.rows]
    figures = {n: f for report in reports for n, f in report.figures.items()}
    return Report(rows, figures, "\n\n".join(r.text for r in reports if r.text))
