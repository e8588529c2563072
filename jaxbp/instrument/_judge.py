"""The verdict on one leaf: agreement within rounding, or else the numeric witness."""

from typing import NamedTuple

import numpy as np

from jaxbp.instrument._comparison import Finding, Verdict, Worst, worst_of
from jaxbp.instrument._kinds import Evidence, kind_of_mistake

_CHEAP = 8  # units of roundoff of |A| + |M|: a few roundings in each
_NOISE = 16  # times the spread of 8 draws, of which the true error is one more
ASKED = 8  # elements of a leaf that the numeric witness is asked about


class Numeric(NamedTuple):
    """The numeric witness's answer at some flat elements of a leaf."""

    elements: np.ndarray
    value: np.ndarray
    error: np.ndarray
    least: np.ndarray  # of the one-sided derivatives, less their error
    largest: np.ndarray


def disagreement(manual, auto, unit, noise=None):
    """Where M and A differ beyond rounding, as a multiple of what rounding allows.

    0 where they agree. With `noise` (their spread in every element) the allowance is 16
    times that, where it is the larger.
    """
    with np.errstate(all="ignore"):
        allowed = _CHEAP * unit * (np.abs(auto) + np.abs(manual))
        if noise is not None:
            allowed = np.maximum(allowed, _NOISE * noise)
        difference = np.abs(manual - auto)
        multiple = difference / allowed
    same = (manual == auto) | (np.isnan(manual) & np.isnan(auto))
    # What is finite on one side only differs without bound.
    multiple = np.where(same, 0.0, np.where(np.isnan(multiple), np.inf, multiple))
    return np.where(multiple > 1, multiple, 0.0)


def worst_elements(multiple: np.ndarray) -> np.ndarray:
    """Flat indices of the elements that disagree most."""
    order = np.argsort(-multiple, axis=None, kind="stable")[:ASKED]
    return order[multiple.ravel()[order] > 0]


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

    `evidence` adds the other probes and leaves to what the kind of mistake is told by.
    """
    elements = worst_elements(multiple) if numeric is None else numeric.elements
    verdicts: list[Verdict] = []
    for k, element in enumerate(elements):
        m, a = manual.flat[element], auto.flat[element]
        if numeric is None:
            verdicts.append("wrong")
        else:
            answer = [column[k] for column in numeric[1:]]
            verdicts.append(_side(m, a, answer, unit))
    verdict = worst_of(verdicts)
    k = verdicts.index(verdict)
    element = int(elements[k])
    worst = Worst(
        tuple(int(i) for i in np.unravel_index(element, manual.shape)),
        manual.flat[element].item(),
        auto.flat[element].item(),
        None if numeric is None else float(numeric.value[k]),
    )
    count = f"{np.count_nonzero(multiple)} of {multiple.size} elements differ"
    kind, reason = kind_of_mistake(evidence or Evidence([manual], [auto], 0, {}))
    if verdict == "wrong" and kind == "missing":
        verdict = "broken-contract"
    meaning = _MEANING[verdict] if numeric is not None else ""
    message = "; ".join(part for part in (count, reason, meaning) if part)
    return Finding(verdict, argument, worst=worst, kind=kind, message=message)


_MEANING = {
    "broken-contract": "a live input is given no cotangent",
    "wrong": "the numeric derivative sides with autodiff",
    "autodiff-wrong": "the numeric derivative sides with the hand-written rule",
    "kink": "both lie between the one-sided derivatives: a choice of subgradient",
    "unproven": "the numeric derivative cannot tell which is right: ask where the "
    "function is smooth and finite",
}


def _side(m, a, numeric, unit) -> Verdict:
    """Whom the numeric witness believes at one element."""
    value, error, least, largest = numeric
    if not np.isfinite(value) or not np.isfinite(error):
        return "unproven" if np.isfinite(a) or np.isfinite(m) else "right"
    allowed = 4 * error + _CHEAP * unit * abs(value)
    manual_near = abs(m - value) <= allowed
    auto_near = abs(a - value) <= allowed
    if largest - least > allowed and _between(least, m, largest):
        return "kink" if _between(least, a, largest) else "autodiff-wrong"
    if manual_near and auto_near:
        return "unproven"
    if manual_near:
        return "autodiff-wrong"
    return "wrong"


def _between(least, x, largest):
    return bool(least <= x <= largest)
