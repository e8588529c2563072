"""Where else to ask: points that show what the caller's ordinary arguments hide.

Every point has the shapes and dtypes of the caller's arguments and is asked with the
programs that are compiled already. What an array evidently is it stays: rows that sum
to one, zeros and ones, a symmetric matrix.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxbp._jaxpr import bodies, is_differentiable

_CHOOSES = frozenset(("lt", "le", "gt", "ge", "eq", "ne", "max", "min", "clamp"))
_PLAIN = (0.0, -0.0, 1.0, -1.0)
_EXTREME = (1e-30, -1e-30, 1e3, -1e3)
_ROUNDS = 6  # ways in which the special values are laid over an array


class Point(NamedTuple):
    """Inputs of a traced program, and what is special about them."""

    name: str
    inputs: list[Any]


def points(jaxpr: Any, inputs: Sequence[Any], seed: int) -> Iterator[Point]:
    """Neighbours near and far, special values, ties, order, extreme data."""
    rng = np.random.default_rng((seed, 1))
    specials = [*_PLAIN, *boundaries(jaxpr), *_EXTREME]

    def near(x):
        return x * (1 + 0.1 * rng.standard_normal(x.shape))

    def far(x):
        return 3 * _scale(x) * rng.standard_normal(x.shape)

    def special(first):
        return lambda x: _laid_over(x, specials, first, rng)

    made: list[tuple[str, Callable]] = [("a near neighbour", near), ("far away", far)]
    rounds = np.linspace(0, len(specials), _ROUNDS, endpoint=False).astype(int)
    made += [("special values", special(int(first))) for first in rounds]
    made += [
        ("the other signs", np.negative),
        ("all elements equal", lambda x: np.full_like(x, _scale(x))),
        ("elements in order", lambda x: np.sort(x, axis=-1) if x.ndim else x),
        ("large values", lambda x: 100 * x),
        ("small values", lambda x: 1e-8 * x),
    ]
    for name, new in made:
        yield Point(name, [_moved(x, new) for x in inputs])
    if any(is_data(x) for x in inputs):
        for name, new in _DATA.items():
            yield Point(name, [new(np.asarray(x)) if is_data(x) else x for x in inputs])


def boundaries(jaxpr: Any) -> list[float]:
    """Constants that a program compares or clamps with, and a step to either side."""
    steps = (0.0, 1e-3, -1e-3)
    return sorted({c + step for c in _constants(jaxpr, {}) for step in steps})


def is_data(leaf: Any) -> bool:
    """An array of integers or booleans: no gradient, but values that matter."""
    kind = getattr(getattr(leaf, "dtype", None), "kind", "?")
    return kind in "iub" and np.ndim(leaf) > 0


_DATA: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "data all smallest": lambda x: np.full_like(x, x.min(initial=0)),
    "data all largest": lambda x: np.full_like(x, x.max(initial=0)),
    "data reversed": lambda x: x[::-1],
    "data repeated": lambda x: np.resize(x.ravel()[: max(1, x.size // 2)], x.shape),
    "flags all off": lambda x: np.zeros_like(x) if x.dtype == bool else x,
    "flags all on": lambda x: np.ones_like(x) if x.dtype == bool else x,
}


def _constants(jaxpr, known) -> set[float]:
    known, found = dict(known), set()
    opened = getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in opened.eqns:
        values = [_scalar(v, known) for v in eqn.invars]
        name = eqn.primitive.name
        if name in ("broadcast_in_dim", "convert_element_type"):
            known[eqn.outvars[0]] = values[0]
        if name in _CHOOSES:
            found |= {v for v in values if v is not None and abs(v) < 1e30}
        for body in bodies(eqn):
            inner = getattr(body, "jaxpr", body).invars
            pairs = zip(reversed(inner), reversed(values), strict=False)
            found |= _constants(body, dict(pairs))
    return found


def _scalar(atom, known) -> float | None:
    """The value of a constant, also of one that was broadcast or cast."""
    if not isinstance(atom, Literal):
        return known.get(atom)
    value = np.asarray(atom.val)
    return float(value) if value.ndim == 0 and value.dtype.kind in "fiu" else None


def _moved(leaf, new):
    """A differentiable leaf with new values, of the same dtype and structure."""
    if not is_differentiable(leaf) or jnp.iscomplexobj(leaf):
        return leaf
    old = np.asarray(leaf)
    return jnp.asarray(_keeping_structure(old, new(old.astype(np.float64))), old.dtype)


def _keeping_structure(old, new):
    if old.ndim and old.size > 1 and np.isin(old, (0, 1)).all():
        return old
    if old.ndim and old.shape[-1] > 1 and _sums_to_one(old):
        weights = np.abs(new) + 1e-3
        return weights / weights.sum(axis=-1, keepdims=True)
    square = old.ndim >= 2 and old.shape[-1] == old.shape[-2] > 1
    if square and np.array_equal(old, np.swapaxes(old, -1, -2)):
        return (new + np.swapaxes(new, -1, -2)) / 2
    return new


def _sums_to_one(x):
    # Loose on purpose: probabilities of bfloat16, eight bits, are probabilities too.
    return bool((x >= 0).all() and np.allclose(x.sum(axis=-1), 1, atol=1e-3))


def _scale(x):
    rms = float(np.sqrt(np.mean(np.square(x)))) if x.size else 0.0
    return rms or 1.0


def _laid_over(x, specials, first, rng):
    """Special values on the elements in turn; on a large array, on half of them."""
    chosen = np.resize(np.roll(specials, -first), x.size).reshape(x.shape)
    kept = rng.random(x.shape) < 0.5 if x.size > 1 else np.zeros(x.shape, bool)
    return np.where(kept, x, chosen)
