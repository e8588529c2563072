"""What kind of mistake a wrong gradient looks like: hypotheses tried on the data."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_SAME = 1e-6  # far above float64's rounding, far below any factor worth naming


class Evidence(NamedTuple):
    """One leaf's cotangents, probe by probe, and what autodiff gives the other leaves.

    `probe` is the one that is judged; `others` maps the paths of other leaves to
    autodiff's cotangents at that probe.
    """

    manual: Sequence[np.ndarray]
    auto: Sequence[np.ndarray]
    probe: int
    others: Mapping[str, np.ndarray]


def kind_of_mistake(evidence: Evidence) -> tuple[str, str]:
    """The first hypothesis that explains every element: its name, and the evidence.

    ("", "") where none does.
    """
    manual = evidence.manual[evidence.probe]
    auto = evidence.auto[evidence.probe]
    if manual.shape != auto.shape or not manual.size:
        return "", ""
    if not manual.any() and auto.any():
        return "missing", "hand-written is 0 in every element, autodiff is not"
    if _ignores_cotangent(evidence):
        return "ignored cotangent", "hand-written is the same for every cotangent"
    ratio = _constant_ratio(manual, auto)
    if ratio is not None:
        if abs(ratio + 1) < _SAME:
            return "sign", "hand-written is minus autodiff in every element"
        said = f"hand-written / autodiff is {ratio:.6g} in every element"
        return "factor", said + _as_count(ratio, auto.shape)
    for path, other in evidence.others.items():
        if _equal(manual, other) and other.any():
            return "swapped", f"hand-written is what belongs to {path}"
    if auto.ndim == 2 and auto.shape[0] == auto.shape[1] and _equal(manual, auto.T):
        return "transposed", "hand-written is the transpose of autodiff"
    return "", ""


def _ignores_cotangent(evidence):
    first, *rest = evidence.manual
    return bool(rest) and all(
        _equal(first, m) and not _equal(a, evidence.auto[0])
        for m, a in zip(rest, evidence.auto[1:], strict=True)
    )


def _constant_ratio(manual, auto):
    """The one number c, not 0, nor 1, with manual = c·auto in every element."""
    pivot = int(np.argmax(np.abs(auto)))
    if np.iscomplexobj(auto) or not auto.flat[pivot]:
        return None
    ratio = manual.flat[pivot] / auto.flat[pivot]
    if not ratio or abs(ratio - 1) < _SAME or not _equal(manual, ratio * auto):
        return None
    return float(ratio)


def _as_count(ratio, shape):
    for length in {*shape, int(np.prod(shape))} - {0, 1}:
        if abs(ratio * length - 1) < _SAME:
            return f" = 1/{length}, a length of this array: a mean where a sum belongs"
        if abs(ratio / length - 1) < _SAME:
            return ", a length of this array: a sum where a mean belongs"
    return ""


def _equal(a, b):
    return a.shape == b.shape and np.allclose(a, b, rtol=_SAME, atol=0)
