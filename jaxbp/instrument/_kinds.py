"""What kind of mistake a wrong gradient looks like: hypotheses tried on the data."""

import itertools

import numpy as np

from jaxbp.instrument._evidence import Evidence, same
from jaxbp.instrument._factors import extra_term, factor
from jaxbp.instrument._rerun import (
    at_output,
    diagonal,
    one_output,
    overwritten,
    stale,
    summed_cotangent,
)

_CONSTANTS = {
    np.pi / 180: "π/180",
    180 / np.pi: "180/π",
    np.log(2): "log 2",
    1 / np.log(2): "1/log 2",
    np.log(10): "log 10",
    1 / np.log(10): "1/log 10",
}

_WRITTEN = 60  # halves, thirds, quarters, fifths and sixths are whole numbers of 1/60

Kind = tuple[str, str] | None  # its name, and the evidence in words


def kind_of_mistake(evidence: Evidence) -> tuple[str, str]:
    """The first hypothesis that explains every element: its name, and the evidence.

    ("", "") where none does. The simplest are tried first, and those that ask autodiff
    again last.
    """
    manual, auto = evidence.m, evidence.a
    if manual.shape != auto.shape or not manual.size or same(manual, auto):
        return "", ""
    with np.errstate(all="ignore"):
        kinds = (hypothesis(evidence) for hypothesis in _HYPOTHESES)
        return next((kind for kind in kinds if kind), ("", ""))


def _missing(evidence) -> Kind:
    if not evidence.m.any() and evidence.a.any():
        return "missing", "hand-written is 0 in every element, autodiff is not"
    return None


def _ignores_cotangent(evidence) -> Kind:
    first, *rest = evidence.manual
    same_for_all = rest and all(
        same(first, m) and not same(a, evidence.auto[0])
        for m, a in zip(rest, evidence.auto[1:], strict=True)
    )
    if not same_for_all:
        return None
    return "ignored cotangent", "hand-written is the same for every cotangent"


def _constant_factor(evidence) -> Kind:
    ratio = _constant_ratio(evidence.m, evidence.a)
    if ratio is None:
        return None
    # Of one number alone any other is a multiple: it has to be so for every cotangent.
    pairs = zip(evidence.manual, evidence.auto, strict=True)
    if not all(same(m, ratio * a) for m, a in pairs):
        return None
    if same(np.asarray(ratio), np.asarray(-1.0)):
        return "sign", "hand-written is minus autodiff in every element"
    known = _as_count(ratio, evidence)
    # Between two numbers there always is one: it has to be one that is written down.
    alone = evidence.a.size == 1 == sum(g.size for g in evidence.cotangents)
    times = np.asarray(ratio * _WRITTEN)
    if alone and not known and not same(times, np.rint(times)):
        return None
    return "factor", f"hand-written / autodiff is {ratio:.6g} in every element{known}"


def _constant_ratio(manual, auto):
    """The one number c, not 0, nor 1, with manual = c·auto in every element."""
    pivot = int(np.argmax(np.abs(auto)))
    if not auto.flat[pivot]:
        return None
    ratio = (manual.flat[pivot] / auto.flat[pivot]).real
    if not ratio or not same(manual, ratio * auto):
        return None
    return float(ratio)


def _as_count(ratio, evidence):
    of_leaf = {*evidence.a.shape, evidence.a.size}
    of_outputs = {n for g in evidence.cotangents for n in g.shape} - of_leaf
    counts = {"this array": of_leaf, "an output": of_outputs}
    for where, lengths in counts.items():
        for length in sorted(lengths - {0, 1}):
            two = length == 2  # which is the commonest constant, too
            if same(np.asarray(ratio * length), np.asarray(1.0)):
                mistake = "a mean where a sum belongs" + ", or a 2 is missing" * two
                return f" = 1/{length}, a length of {where}: {mistake}"
            if same(np.asarray(ratio / length), np.asarray(1.0)):
                mistake = "a sum where a mean belongs" + ", or a 2 too much" * two
                return f", a length of {where}: {mistake}"
    for constant, name in _CONSTANTS.items():
        if same(np.asarray(ratio), np.asarray(constant)):
            return f" = {name}"
    return ""


def _swapped(evidence) -> Kind:
    for path, other in evidence.others.items():
        if same(evidence.m, other) and other.any():
            return "swapped", f"hand-written is what belongs to {path}"
    return None


def _transposed(evidence) -> Kind:
    auto = evidence.a
    for j, i in itertools.combinations(range(auto.ndim), 2):
        if same(evidence.m, np.swapaxes(auto, i, j)):
            axes = f" in axes {j} and {i}" if auto.ndim > 2 else ""
            return "transposed", f"hand-written is the transpose of autodiff{axes}"
    return None


def _conjugated(evidence) -> Kind:
    if np.iscomplexobj(evidence.a) and same(evidence.m, np.conj(evidence.a)):
        return "conjugate", "hand-written is the complex conjugate of autodiff"
    return None


def _signs(evidence) -> Kind:
    manual, auto = evidence.m, evidence.a
    if np.iscomplexobj(auto) or not same(np.abs(manual), np.abs(auto)):
        return None
    flipped = np.count_nonzero(np.sign(manual) != np.sign(auto))
    said = f"hand-written is minus autodiff in {flipped} elements, equal in the others"
    return "sign", said


_HYPOTHESES = (
    _missing,
    _ignores_cotangent,
    _constant_factor,
    _signs,
    _swapped,
    _transposed,
    _conjugated,
    one_output,
    at_output,
    overwritten,
    summed_cotangent,
    diagonal,
    stale,
    factor,
    extra_term,
)
