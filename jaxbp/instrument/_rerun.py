"""Kinds of mistake that show when autodiff is asked again: elsewhere, or for less.

Each takes the evidence and returns the kind and what shows it, or None. All are asked
with the program that is compiled already.
"""

from collections.abc import Iterator

import numpy as np

from jaxbp.instrument._evidence import Evidence, same

Kind = tuple[str, str] | None

_ASKED = 64  # runs at most that one hypothesis is worth
# Derivatives that are written in terms of the output.
_FORMULAS = {"y(1 - y)": lambda y: y * (1 - y), "1 - y²": lambda y: 1 - y**2}
_SIZE = 2**22  # numbers at most that it may keep


def one_output(evidence: Evidence) -> Kind:
    """Of many outputs, what comes from one is left out, or from all others."""
    names, cotangents = list(evidence.outputs), evidence.cotangents
    if evidence.again is None or not 1 < len(cotangents) <= _ASKED:
        return None
    for alone, said in ((False, "{} is left out"), (True, "{} alone is used")):
        for k, name in enumerate(names):
            chosen = [
                g if (j == k) is alone else np.zeros_like(g)
                for j, g in enumerate(cotangents)
            ]
            if same(evidence.m, evidence.again(cotangents=chosen)):
                return "ignored cotangent", f"the cotangent of {said.format(name)}"
    return None


def at_output(evidence: Evidence) -> Kind:
    """The derivative taken at y where it belongs at x, or its formula in y given x."""
    leaf = evidence.leaf
    for (name, y), g in zip(
        evidence.outputs.items(), evidence.cotangents, strict=False
    ):
        if leaf is None or (y.shape, y.dtype) != (leaf.shape, leaf.dtype):
            continue
        if same(y, leaf):
            continue
        if evidence.again and same(evidence.m, evidence.again(leaf=y)):
            said = f"hand-written is autodiff's cotangent with {name} in the argument's"
            return "at the output", f"{said} place: f'(f(x)) where f'(x) belongs"
        for formula, of in _FORMULAS.items():
            if same(evidence.m, of(leaf) * g) and same(evidence.a, of(y) * g):
                said = f"hand-written is {formula} of the argument times the cotangent"
                return "at the input", f"{said}: y is the output"
    return None


def stale(evidence: Evidence) -> Kind:
    """Residuals of another call.

    Where the derivative is constant near that point too, as relu's is, nothing that was
    kept went into it.
    """
    for before, near_it in evidence.earlier():
        if same(evidence.m, before) and before.any() and not same(before, near_it):
            said = "hand-written is autodiff's cotangent at a point asked before"
            return "stale residual", f"{said}: residuals of another call"
    return None


def overwritten(evidence: Evidence) -> Kind:
    """Contributions of the output's rows of which only one reaches each element."""
    for axis, parts in _contributions(evidence):
        hits = np.count_nonzero(parts, axis=0)
        if hits.max(initial=0) < 2:
            continue
        for j, part in enumerate(parts):
            if part.any() and same(evidence.m, part):
                said = f"hand-written is what index {j} of the output's axis {axis} "
                return "missing sum", f"{said}gives alone: not summed over that axis"
        for which, ordered in (("last", parts[::-1]), ("first", parts)):
            chosen = np.argmax(ordered != 0, axis=0)
            one = np.take_along_axis(ordered, chosen[None], axis=0)[0]
            if same(evidence.m, one):
                said = f"of up to {hits.max()} contributions an element has the {which}"
                return "overwritten", f"{said} alone: accumulate them"
    return None


def _contributions(evidence) -> Iterator[tuple[int, np.ndarray]]:
    """Autodiff's cotangent by single indices along each axis of the one output."""
    if evidence.again is None or len(evidence.cotangents) != 1:
        return
    (g,) = evidence.cotangents
    for axis, length in enumerate(g.shape):
        if not 1 < length <= _ASKED or length * evidence.m.size > _SIZE:
            continue
        parts = []
        for j in range(length):
            only = np.zeros_like(g)
            at = (slice(None),) * axis + (j,)
            only[at] = g[at]
            parts.append(evidence.again(cotangents=[only]))
        yield axis, np.stack(parts)


def summed_cotangent(evidence: Evidence) -> Kind:
    """Elements that share a cotangent where each has its own."""
    if evidence.again is None:
        return None
    for word, reduce in (("sum", np.sum), ("mean", np.mean)):
        axes = {None, *(k for g in evidence.cotangents for k in range(g.ndim))}
        for axis in sorted(axes, key=str):
            shared = [
                np.broadcast_to(reduce(g, axis=axis, keepdims=True), g.shape)
                if axis is None or axis < g.ndim
                else g
                for g in evidence.cotangents
            ]
            if same(evidence.m, evidence.again(cotangents=shared)):
                over = "" if axis is None else f" over axis {axis}"
                said = f"hand-written is autodiff's for the {word} of the cotangent"
                return "summed cotangent", said + over
    return None


def diagonal(evidence: Evidence) -> Kind:
    """Each output taken to depend on the one element at its own place."""
    if evidence.again is None or len(evidence.cotangents) != 1:
        return None
    (g,) = evidence.cotangents
    if g.shape != evidence.m.shape:
        return None
    asked = np.unique(np.linspace(0, g.size - 1, min(g.size, _ASKED)).astype(int))
    for k in asked:
        only = np.zeros_like(g)
        only.flat[k] = g.flat[k]
        if not same(evidence.again(cotangents=[only]).flat[k], evidence.m.flat[k]):
            return None
    said = "hand-written is the Jacobian's diagonal times the cotangent"
    return "diagonal", f"{said}: the other entries are left out"
