"""The verdict on one leaf: agreement within rounding, or else the numeric witness."""

from collections import Counter
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxbp.instrument._comparison import NEVER_GIVEN, Finding, Verdict, Worst, worst_of
from jaxbp.instrument._evidence import Evidence, same
from jaxbp.instrument._kinds import kind_of_mistake
from jaxbp.instrument._numeric import Secants
from jaxbp.instrument._parts import cotangent, slopes

_CHEAP = 8  # units of roundoff of |A| + |M|: a few roundings in each
_NOISE = 16  # times the spread of 8 draws, of which the true error is one more
ASKED = 8  # elements that the numeric witness is asked about at once
_APART = 1e-2  # of gradients a millionth away: what is smooth differs by a millionth
_PART = 1e-3  # of a complex difference: a part that does not make it
_MOST = 64  # and of one leaf in all


class Numeric(NamedTuple):
    """The numeric witness's answer at some flat elements of a leaf's `parts`."""

    elements: np.ndarray
    value: np.ndarray
    error: np.ndarray
    left: np.ndarray
    right: np.ndarray
    slack: np.ndarray  # error of the one-sided derivatives together
    unbounded: np.ndarray
    edge: np.ndarray  # the one-sided derivative where there is one only, or NaN
    edge_error: np.ndarray
    lost: np.ndarray  # the function's own value is not finite

    @classmethod
    def of(cls, elements: np.ndarray, s: Secants, *, lost: bool = False) -> "Numeric":
        """The first answers of `s`, which may have been asked about more."""
        slack = s.left_error + s.right_error
        from_left = np.isfinite(s.left_error)
        alone = from_left != np.isfinite(s.right_error)
        edge = np.where(alone, np.where(from_left, s.left, s.right), np.nan)
        edge_error = np.where(from_left, s.left_error, s.right_error)
        columns = (s.central, s.error, s.left, s.right, slack, s.unbounded)
        columns = (*columns, edge, edge_error, np.full(s.central.shape, lost))
        return cls(elements, *(column[: len(elements)] for column in columns))

    def at(self, k: int, like: np.ndarray) -> tuple[complex, int]:
        """Of answer k the cotangent, with its other part's, and the flat index."""
        if not np.iscomplexobj(like):
            return float(self.value[k]), int(self.elements[k])
        both = self.value[k - k % 2 :][:2]
        return complex(cotangent(both, like)), int(self.elements[k]) // 2

    def bent(self, unit: float) -> np.ndarray:
        """Where the one-sided derivatives differ: at a kink."""
        with np.errstate(all="ignore"):
            sizes = np.abs(self.left) + np.abs(self.right)
            return np.abs(self.right - self.left) > self.slack + _CHEAP * unit * sizes

    def doubtful(self, manual: np.ndarray, unit: float) -> "Numeric":
        """Silent at kinks where M is on neither side: it may lie between others."""
        low, high = np.minimum(self.left, self.right), np.maximum(self.left, self.right)
        outside = (manual < low - self.slack) | (manual > high + self.slack)
        slack = np.where(self.bent(unit) & outside, np.inf, self.slack)
        return self._replace(slack=slack)

    def beside(self, near: np.ndarray, unit: float) -> "Numeric":
        """At kinks, with the gradients `near` by between its one-sided derivatives.

        Where three paths tie, the one in the middle is on neither side. A kink is also
        where those gradients are far from one another.
        """
        least, most = np.fmin.reduce(near), np.fmax.reduce(near)
        apart = most - least > _APART * np.fmax(np.abs(least), np.abs(most))
        bent = self.bent(unit) | apart
        low = np.fmin(np.minimum(self.left, self.right), least)
        high = np.fmax(np.maximum(self.left, self.right), most)
        left, right = np.where(bent, low, self.left), np.where(bent, high, self.right)
        return self._replace(left=left, right=right)


def disagreement(manual, auto, unit, noise=None):
    """Where M and A differ beyond rounding, as a multiple of what rounding allows.

    0 where they agree. With `noise` (their spread in every element) the allowance is 16
    times that, where it is the larger, without bound where rounding may give NaN; and
    M's smallest normal number, below which its dtype has no digits.
    """
    with np.errstate(all="ignore"):
        allowed = _CHEAP * unit * (np.abs(auto) + np.abs(manual))
        if noise is not None:
            floats = jnp.issubdtype(manual.dtype, jnp.inexact)
            tiny = float(jnp.finfo(manual.dtype).tiny) if floats else 0.0
            spread = np.where(np.isnan(noise), np.inf, _NOISE * noise)
            allowed = np.maximum(allowed, np.maximum(spread, tiny))
        difference = np.abs(manual - auto)
        multiple = difference / allowed
    same = (manual == auto) | (np.isnan(manual) & np.isnan(auto))
    # What is finite on one side only differs without bound.
    multiple = np.where(same, 0.0, np.where(np.isnan(multiple), np.inf, multiple))
    return np.where(multiple > 1, multiple, 0.0)


def further_than(part: float, one: np.ndarray, other: np.ndarray, places) -> bool:
    """Whether some element of these is off by more than this part of itself."""
    one, other = one.flat[places], other.flat[places]
    with np.errstate(all="ignore"):
        return not (np.abs(one - other) <= part * np.abs(other)).all()


def needed_noise(manual, auto) -> np.ndarray:
    """The noise from which on M and A agree; 0 where none would make them."""
    with np.errstate(all="ignore"):
        needed = np.abs(manual - auto) / _NOISE
    return np.where(np.isfinite(needed), needed, 0.0)


def worst_elements(multiple: np.ndarray) -> np.ndarray:
    """Flat indices of the elements that disagree most."""
    order = np.argsort(-multiple, axis=None, kind="stable")[:ASKED]
    return order[multiple.ravel()[order] > 0]


def telling_elements(
    multiple: np.ndarray, manual: np.ndarray, auto: np.ndarray
) -> np.ndarray:
    """Flat indices of differing elements, those that differ in another way first.

    Elements whose ratio M/A is the same to two digits differ in one way: of each way
    the worst is asked first, so that many kinks, or many elements where autodiff is not
    finite, hide nothing.
    """
    order = np.argsort(-multiple, axis=None, kind="stable")
    order = order[multiple.ravel()[order] > 0]
    with np.errstate(all="ignore"):
        ratio = np.abs(manual.ravel()[order] / auto.ravel()[order])
        digits = 10.0 ** (np.floor(np.log10(ratio)) - 1)
        ways = np.where(np.isfinite(digits) & (digits > 0), ratio / digits, ratio)
    seen: Counter[float] = Counter()
    turn = np.zeros(len(order), int)
    for k, way in enumerate(np.round(np.nan_to_num(ways, nan=-1.0))):
        turn[k] = seen[way]
        seen[way] += 1
    return order[np.argsort(turn, kind="stable")][:_MOST]


def judge(
    argument: str,
    manual: np.ndarray,
    auto: np.ndarray,
    multiple: np.ndarray,
    numeric: Numeric | None,
    unit: float,
    evidence: Evidence | None = None,
) -> Finding:
    """The finding on a leaf in which M and A differ at `numeric.elements`.

    `evidence` adds what the kind of a mistake is told by.
    """
    if numeric is None:
        number, element, verdict = None, worst_elements(multiple)[0], "wrong"
    else:
        verdicts = sides(manual, auto, numeric, unit)
        verdict = worst_of(verdicts)
        k = verdicts.index(verdict)
        number, element = numeric.at(k, manual)
        if verdict == "right" and not nowhere_finite(manual, auto).sum() < auto.size:
            verdict = "unproven"  # there is no other element that agrees
    worst = Worst(
        tuple(int(i) for i in np.unravel_index(element, manual.shape)),
        manual.flat[element].item(),
        auto.flat[element].item(),
        number,
    )
    count = f"{np.count_nonzero(multiple)} of {multiple.size} elements differ"
    kind = reason = ""
    if verdict == "autodiff-wrong" and evidence and _goes_on(evidence):
        verdict, kind = "wrong", "stop_gradient"
        reason = "hand-written goes on where autodiff stops, at a stop_gradient"
    elif verdict == "wrong":
        kind, reason = kind_of_mistake(evidence or Evidence([manual], [auto]))
    if kind == "missing":
        verdict = "broken-contract"
    told = numeric is not None and kind != "stop_gradient"
    meaning = _MEANING[verdict] if told else ""
    message = "; ".join(part for part in (count, reason, meaning) if part)
    return Finding(verdict, argument, worst=worst, kind=kind, message=message)


def nowhere_finite(manual: np.ndarray, auto: np.ndarray) -> np.ndarray:
    """Elements of which neither witness makes a number: nothing is held there."""
    return ~np.isfinite(manual) & ~np.isfinite(auto)


def _goes_on(evidence: Evidence) -> bool:
    """Whether M is what autodiff gives without stop_gradient, as N does."""
    free = evidence.unstopped()
    return free is not None and same(evidence.m, free) and not same(evidence.a, free)


def sides(
    manual: np.ndarray, auto: np.ndarray, numeric: Numeric, unit: float
) -> list[Verdict]:
    """Whom the numeric witness believes, element by element; of complex ones by parts.

    A part in which M and A are the same, or next to it beside the other, is `right`.
    """
    m, a = slopes(manual), slopes(auto)
    alike = np.zeros(m.shape, bool)
    if np.iscomplexobj(manual):
        with np.errstate(all="ignore"):
            off = np.abs(m - a)
            alike = off < _PART * off.max(axis=-1, keepdims=True)
    return [
        "right" if alike.flat[k] else _side(m.flat[k], a.flat[k], answer, unit)
        for k, *answer in zip(*numeric, strict=True)
    ]


_MEANING = {
    "right": "neither autodiff nor the numeric derivative is finite there",
    "broken-contract": NEVER_GIVEN,
    "wrong": "the numeric derivative contradicts the hand-written rule",
    "autodiff-wrong": "the numeric derivative sides with the hand-written rule",
    "kink": "both lie between the one-sided derivatives, or there is none: a choice of "
    "subgradient",
    "unproven": "the numeric derivative sides with neither: ask where the "
    "function is smooth and finite",
}


def _side(m, a, numeric, unit) -> Verdict:
    """Whom the numeric witness believes at one element."""
    value, error, left, right, slack, unbounded, edge, edge_error, lost = numeric
    if unbounded and np.isfinite(m) and not np.isfinite(a):
        return "kink"
    # At the edge of the domain: of a number and of none, the one that its side gives.
    near = abs(a - edge) <= 4 * edge_error + _CHEAP * unit * abs(edge)
    if near and not np.isfinite(m):
        return "wrong"
    low, high = min(left, right), max(left, right)
    if high - low > slack + _CHEAP * unit * (abs(low) + abs(high)):
        if low - slack <= m <= high + slack:
            between = low - slack <= a <= high + slack
            return "kink" if between else "autodiff-wrong"
        return "wrong"
    # A central secant of two sides of which one does not settle is no derivative.
    if not np.isfinite(value) or not np.isfinite(error) or not np.isfinite(slack):
        told = np.isfinite(a) or (np.isfinite(m) and not lost)
        return "unproven" if told else "right"
    allowed = 4 * error + _CHEAP * unit * abs(value)
    manual_near = abs(m - value) <= allowed
    auto_near = abs(a - value) <= allowed
    if manual_near:
        return "unproven" if auto_near else "autodiff-wrong"
    return "wrong" if auto_near or not np.isfinite(a) else "unproven"
