"""Rounding noise of a program, element by element: Monte Carlo arithmetic.

Every intermediate result is moved by up to one unit in its last place, at random, and
the spread of the outputs over some draws is what rounding alone can do to them (Parker,
"Monte Carlo Arithmetic", 1997). A dtype that a program casts down to brings its own,
larger unit along. What the program decides (comparisons, indices, whole numbers) it
decides as it does undisturbed: rounding is no excuse for another branch.
"""

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxbp.instrument import _by_numpy
from jaxbp.instrument._roundings import (
    JUMPS,
    dtype_of,
    is_inexact,
    moved_by_rounding,
    real_parts,
    rounded,
)

DRAWS = 8
_FIRST = 2  # of them, after three the width is no more than some times larger
_FAR = 2.0**10


def rounding_noise(
    jaxpr: Any,
    inputs: Sequence[Any],
    seed: int,
    places: Mapping[int, np.ndarray] | None = None,
    needed: Mapping[int, np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Largest minus smallest of each output of a closed jaxpr, over the draws.

    The undisturbed run is one of them. With `places`, only at these flat elements of
    some outputs; nothing of the others. Where the noise at `places` is as large as
    `needed` after fewer draws, or far from it, no more are made. NaN where a draw is,
    unless the others are as far apart as `needed`.
    """

    def kept(outs):
        return outs if places is None else at_places(outs, places)

    decided = _Decisions()
    outs = _by_numpy.evaluate(jaxpr, inputs, decided.note)
    spreads = [_Spread(x) for x in kept(outs)]
    for k in range(DRAWS):
        rng = np.random.default_rng((seed, k))
        visit = functools.partial(rounded, rng, decided.again())
        outs = _by_numpy.evaluate(jaxpr, inputs, visit)
        for spread, out in zip(spreads, kept(outs), strict=True):
            spread.add(out)
        if needed and all(
            _told(spreads[j].of_numbers(), needed[j], k).all() for j in needed
        ):
            break
    least = needed or {}
    return [spread.width(least.get(j)) for j, spread in enumerate(spreads)]


def _told(width: np.ndarray, needed: np.ndarray, draw: int) -> np.ndarray:
    """Where further draws change nothing: the width only grows, and by little.

    Where it is needed without end, all of them are.
    """
    never = (width < needed / _FAR) & np.isfinite(needed) & (draw >= _FIRST)
    return (width >= needed) | never


def noise_of_inputs(
    run: Callable[[list[Any]], Sequence[Any]], inputs: Sequence[Any], seed: int
) -> list[np.ndarray]:
    """The same of a program that cannot be opened: its inputs and outputs are moved."""
    spreads = [_Spread(x) for x in run(list(inputs))]
    for k in range(DRAWS):
        rng = np.random.default_rng((seed, k))
        outs = run(moved_by_rounding(rng, inputs, inputs))
        for spread, out in zip(
            spreads, moved_by_rounding(rng, outs, outs), strict=True
        ):
            spread.add(out)
    return [spread.width() for spread in spreads]


def at_places(outs: Sequence[Any], places: Mapping[int, np.ndarray]) -> list[Any]:
    """The flat elements at `places` of some arrays, none of the others."""
    nowhere = np.zeros(0, int)
    return [np.ravel(x)[places.get(k, nowhere)] for k, x in enumerate(outs)]


class _Decisions:
    """What a run decided, equation by equation and time by time."""

    def __init__(self):
        self._made: dict[int, list[list[Any]]] = defaultdict(list)

    def note(self, eqn, ins, outs):
        if _decides(eqn, outs):
            self._made[id(eqn)].append(outs)
        return outs

    def again(self) -> Callable[[Any, list[Any]], list[Any]]:
        """Of another run, the outputs of each equation, or what was decided there."""
        times: Counter[int] = Counter()

        def same(eqn, outs):
            if not _decides(eqn, outs):
                return outs
            made, k = self._made[id(eqn)], times[id(eqn)]
            times[id(eqn)] += 1
            if k >= len(made):  # a loop that goes round more often
                return outs
            pairs = zip(made[k], outs, strict=True)
            return [old if _is_decision(eqn, old) else new for old, new in pairs]

        return same


def _decides(eqn, outs) -> bool:
    return any(_is_decision(eqn, x) for x in outs)


def _is_decision(eqn, x) -> bool:
    return eqn.primitive.name in JUMPS or not is_inexact(dtype_of(x))


class _Spread:
    """Smallest and largest of the draws so far: none of them is kept."""

    def __init__(self, first: Any):
        # Real and imaginary parts apart; copied, since what is added changes them.
        self._low = [np.array(part) for part in real_parts(first)]
        self._high = [part.copy() for part in self._low]
        self._lost = np.isnan(first)  # a draw that is no number

    def add(self, draw: Any) -> None:
        for low, high, part in zip(
            self._low, self._high, real_parts(draw), strict=True
        ):
            np.fmin(low, part, out=low)
            np.fmax(high, part, out=high)
        self._lost = self._lost | np.isnan(draw)

    def width(self, needed: np.ndarray | None = None) -> np.ndarray:
        """NaN where a draw is, unless those that are numbers are so far apart."""
        width = self.of_numbers()
        enough = False if needed is None else width >= needed
        return np.where(self._lost & ~np.asarray(enough), np.nan, width)

    def of_numbers(self) -> np.ndarray:
        widths = []
        for high, low in zip(self._high, self._low, strict=True):
            agreed = high == low  # also on an infinity, whose width is 0
            with np.errstate(all="ignore"):  # inf - inf
                width = np.subtract(high, low)
            width = np.where(agreed, 0, width)
            widths.append(width)
        return np.hypot(*widths) if len(widths) == 2 else widths[0]
