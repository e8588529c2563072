"""A factor or a term that is a value of the program: an argument, an intermediate."""

from collections.abc import Iterator

import numpy as np

from jaxbp.instrument._evidence import Evidence, laid_along, same

Kind = tuple[str, str] | None

_DIGITS = 1e-6  # of a piece that a difference has to show
_ROUNDING = 1e-12  # of what is subtracted: some thousand roundings

_FORMS = (
    ("{}", lambda v: v),
    ("(1 - {})", lambda v: 1 - v),
    ("(1 + {})", lambda v: 1 + v),
    ("{0}(1 - {0})", lambda v: v * (1 - v)),
    ("{}²", lambda v: v * v),
)


def factor(evidence: Evidence) -> Kind:
    """One of the two is the other times a value that the program holds.

    Not where that is so because one number, or none, is left of autodiff's.
    """
    if np.count_nonzero(evidence.a) < min(2, evidence.a.size):
        return None
    for name, value in _values(evidence):
        for written, form in _FORMS:
            v = form(value)
            if not np.isfinite(v).all():
                continue
            if same(evidence.a, evidence.m * v):
                said = f"autodiff / hand-written is {written.format(name)}"
                return "factor", f"{said} in every element: a factor is missing"
            if same(evidence.m, evidence.a * v):
                said = f"hand-written / autodiff is {written.format(name)}"
                return "factor", f"{said} in every element: a factor too much"
    return None


def extra_term(evidence: Evidence) -> Kind:
    """Their difference is the cotangent, or an argument or output times it."""
    difference = evidence.a - evidence.m
    if np.count_nonzero(difference) < 2 or not evidence.m.any():
        return None
    simple = {"1": np.ones(()), **evidence.inputs, **evidence.outputs}
    for name, value in simple.items():
        for g in evidence.cotangents:
            for v in laid_along(value, difference.shape):
                for bar in laid_along(g, difference.shape):
                    if kind := _as_term(evidence, difference, v * bar, name):
                        return kind
    return None


def _as_term(evidence, difference, piece, name) -> Kind:
    size = np.abs(evidence.a) + np.abs(evidence.m)
    # Below this the subtraction has left no digit that would tell.
    if np.count_nonzero(np.abs(piece) > _DIGITS * size) < 2:
        return None
    said = "the cotangent" if name == "1" else f"{name} times the cotangent"
    for times, meaning in (
        (1, f"autodiff - hand-written is {said}: a term is missing"),
        (-1, f"hand-written - autodiff is {said}: a term too much"),
        (2, f"autodiff - hand-written is twice {said}: a term has the wrong sign"),
        (-2, f"hand-written - autodiff is twice {said}: a term has the wrong sign"),
    ):
        off = np.abs(difference - times * piece)
        if (off <= _DIGITS * np.abs(piece) + _ROUNDING * size).all():
            return "term", meaning
    return None


def _values(evidence) -> Iterator[tuple[str, np.ndarray]]:
    """Arguments, outputs and cotangents first; what is inside only if none explains."""
    shape = evidence.m.shape
    bars = [f"the cotangent of {name}" for name in evidence.outputs]
    given = {**evidence.inputs, **evidence.outputs}
    given |= dict(zip(bars, evidence.cotangents, strict=False))
    for values in (lambda: given, evidence.intermediates):
        for name, value in values().items():
            for v in laid_along(np.asarray(value), shape):
                yield name, v
