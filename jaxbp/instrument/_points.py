"""Where else to ask: points that show what the caller's ordinary arguments hide.

Every point has the shapes and dtypes of the caller's arguments and is asked with the
programs that are compiled already. What an array evidently is it stays.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import is_differentiable
from jaxbp.instrument._boundaries import Sentinel
from jaxbp.instrument._data import Changes, New, other_data, repeated
from jaxbp.instrument._structure import (
    SYMMETRIC,
    apart,
    as_it_was,
    fractions,
    in_order,
    is_mask,
    is_one_hot,
    is_real,
    knots,
    positive,
    structure,
    structures,
    within,
)

_PLAIN = (0.0, -0.0, 1.0, -1.0)
_EXTREME = (1e-30, -1e-30, 1e3, -1e3)
_PARAMETERS = (-1.0, 0.5, -0.5, 2.0, 1.5, -2.5)  # of a scalar: below 0, not whole
_ROUNDS = 6, 24  # ways, at least and most, to lay the special values over an array
_ALONE = 4  # arguments that are special one by one
_EXP = 720.0  # exp of it overflows in float64
_KINDER = {
    "kept in [0, 1]": fractions,
    "kept positive": positive,
    "kept in range": within,
}


class Point(NamedTuple):
    """Inputs of a traced program, and what is special about them."""

    name: str
    inputs: list[Any]

    def kept_positive(self, places: Collection[int]) -> "Point":
        """The point with magnitudes at these places."""
        negative = [k for k in places if (np.asarray(self.inputs[k]) < 0).any()]
        if not negative:
            return self
        moved = [jnp.abs(x) if k in negative else x for k, x in enumerate(self.inputs)]
        return Point(f"{self.name}, kept positive", moved)


def points(
    inputs: Sequence[Any],
    constants: Sequence[float],
    sentinels: Sequence[Sentinel],
    seed: int,
    finite: Callable[[list[Any]], bool] = lambda inputs: True,
    outputs: Sequence[tuple[int, ...]] = (),
    *,
    counts: Collection[int] = (),
    numbers: Collection[int] = (),
    repeats: bool = True,
    infinities: bool = True,
) -> Iterator[Point]:
    """Neighbours near and far, special values, ties, order, extremes, other data.

    `constants` are the program's own boundaries, `sentinels` the whole numbers that it
    looks for, `outputs` the shapes that it gives: an index may be as large as an axis
    is long. The inputs among `counts` are lengths, those among `numbers` reckoned
    with. Without `repeats`, integers that are all different stay so; without
    `infinities` there are none. Where the function's values are not all `finite`, a
    positive array is asked with its new values made positive as well, or any with new
    values from its own range.
    """
    rng = np.random.default_rng((seed, 1))
    specials = [*_PLAIN, *constants, *_EXTREME]
    for name, new in _everywhere(inputs, specials, rng):
        yield from _tame(name, inputs, _renewed(_arrays(inputs), new), finite)
    if any(structure(x) == SYMMETRIC for x in _arrays(inputs)):
        name = "a multiple of the identity"
        yield from _tame(name, inputs, _renewed(_arrays(inputs), _of_identity), finite)
    for name, values in _one_by_one(inputs, specials, rng):
        yield from _tame(name, inputs, values, finite)
    for name, values in _unbounded(inputs) if infinities else ():
        point = Point(name, _moved(inputs, values))
        if finite(point.inputs):
            yield point
    yield from _between(inputs, rng)
    yield from _other_phases(inputs, rng)
    for name, changed in other_data(inputs, sentinels, outputs, rng, counts, numbers):
        pairs = zip(inputs, changed, strict=True)
        if repeats or not any(repeated(*pair) for pair in pairs):
            yield Point(name, changed)


def _everywhere(inputs, specials, rng) -> Iterator[tuple[str, New]]:
    """Changes made to every differentiated leaf at once."""
    yield "a near neighbour", lambda x: x * (1 + 0.1 * rng.standard_normal(x.shape))
    yield "far away", lambda x: 3 * _scale(x) * rng.standard_normal(x.shape)
    smallest = min((x.size for x in _arrays(inputs) if x.size), default=1)
    count = int(np.clip(2 * len(specials) // smallest, *_ROUNDS))
    for first in np.linspace(0, len(specials), count, endpoint=False).astype(int):
        yield "special values", lambda x, k=first: _laid_over(x, specials, k, rng)
    yield "a row of zeros", _row_of_zeros
    yield "the other signs", np.negative
    yield "all elements equal", lambda x: np.full_like(x, _scale(x))
    yield "elements in order", lambda x: np.sort(x, axis=-1) if x.ndim else x
    yield "elements in falling order", lambda x: -np.sort(-x, axis=-1) if x.ndim else x
    yield "elements in equal pairs", lambda x: _paired(x, -1)
    yield "rows in equal pairs", lambda x: _paired(x, 0)
    yield "large values", lambda x: 100 * x
    yield "small values", lambda x: 1e-8 * x
    yield "values whose exp overflows", lambda x: x * (_EXP / _largest(x))
    yield "one far larger", lambda x: _outlier(x, 1e3 * _scale(x), rng)
    yield "one far below", lambda x: _outlier(x, -1e3 * _scale(x), rng)


def _one_by_one(inputs, specials, rng) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Equal arguments, then one argument special and all others as they were."""
    old = _arrays(inputs)
    if len(old) < 2:
        return
    first = {x.shape: x for x in reversed(old)}
    yield "equal arguments", in_order(old, [first[x.shape] for x in old])
    chosen = [k for k, x in enumerate(old) if x.ndim][:_ALONE]
    for k in chosen:
        laid = _laid_over(old[k], specials, k, rng)
        yield "special values in one argument", [*old[:k], laid, *old[k + 1 :]]
    for k in [k for k, x in enumerate(old) if not x.ndim][:_ALONE]:
        for value in _PARAMETERS:
            name = f"{value} for a parameter"
            new = [*old[:k], np.asarray(value), *old[k + 1 :]]
            if all(map(np.array_equal, new, in_order(old, new))):
                yield name, new


def _unbounded(inputs) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Infinities, as masks write them; of use where the function's value is finite."""
    for value in (-np.inf, np.inf):
        changed = [x.copy() for x in _arrays(inputs)]
        for x in changed:
            if x.size > 1:
                x.flat[-1] = value
        yield f"one element {value}", changed


def _between(inputs, rng) -> Iterator[Point]:
    """Zeros and ones may be flags, or an identity matrix that stands for any.

    Rows with a single one still sum to one: they may be labels.
    """
    old = _arrays(inputs)
    if any(map(is_mask, old)):
        new = [rng.uniform(0.1, 0.9, x.shape) if is_mask(x) else x for x in old]
        pairs = zip(old, new, strict=True)
        new = [
            y / y.sum(axis=-1, keepdims=True) if is_one_hot(x) else y for x, y in pairs
        ]
        yield Point("between zeros and ones", _moved(inputs, new, keep=False))


def _other_phases(inputs, rng) -> Iterator[Point]:
    """Complex numbers turned, at random and onto the axes."""
    turned = [
        is_differentiable(x) and jnp.iscomplexobj(x) and np.size(x) > 0 for x in inputs
    ]
    if not any(turned):
        return
    changes: Changes = {
        "other phases": lambda x: x * np.exp(2j * np.pi * rng.random(x.shape)),
        "real numbers": lambda x: np.abs(x) + 0j,
        "imaginary numbers": lambda x: 1j * np.abs(x),
    }
    for name, new in changes.items():
        pairs = zip(inputs, turned, strict=True)
        moved = [jnp.asarray(new(np.asarray(x)), x.dtype) if t else x for x, t in pairs]
        yield Point(name, moved)


def _tame(name, inputs, values, finite) -> Iterator[Point]:
    """The point; where not all is finite there, the first kinder one as well."""
    point = Point(name, _moved(inputs, values))
    if finite(point.inputs):
        del values  # of a large program they need not wait in memory
        yield point
        return
    yield point
    for word, kinder in _KINDER.items():
        tame = [kinder(*pair) for pair in zip(_arrays(inputs), values, strict=True)]
        tried = _moved(inputs, tame)
        if finite(tried):
            yield Point(f"{name}, {word}", tried)
            return


def _arrays(inputs) -> list[np.ndarray]:
    moved = [np.asarray(x) for x in inputs if is_real(x)]
    return [x.astype(np.float64, copy=False) for x in moved]


def _moved(inputs, values, keep=True) -> list[Any]:
    """The inputs with new values on the real differentiable leaves, dtypes kept."""
    old = _arrays(inputs)
    kinds = structures(old) if keep else [""] * len(old)
    given = zip(values, kinds, knots(old), strict=True)
    moved = []
    for x in inputs:
        if is_real(x):
            old = np.asarray(x)
            wide = old.astype(np.float64, copy=False)
            new, kind, is_knots = next(given)
            new = apart(wide, new) if is_knots else as_it_was(kind, wide, new)
            with np.errstate(over="ignore"):  # too large for a narrow dtype: inf
                x = jnp.asarray(new.reshape(old.shape), old.dtype)
        moved.append(x)
    return moved


def _renewed(old, new: New) -> list[np.ndarray]:
    return in_order(old, [_changed_finite(x, new) for x in old])


def _changed_finite(x, new):
    """Infinities, as masks write them, stay where they are."""
    with np.errstate(all="ignore"):
        return np.where(np.isfinite(x), new(x), x)


def _scale(x):
    x = x[np.isfinite(x)]
    rms = float(np.sqrt(np.mean(np.square(x)))) if x.size else 0.0
    return rms or 1.0


def _largest(x):
    return float(np.max(np.abs(x), initial=0.0)) or 1.0


def _laid_over(x, specials, first, rng):
    """Special values on the elements in turn; on a large array, on half of them."""
    chosen = np.resize(np.roll(specials, -first), x.size).reshape(x.shape)
    kept = rng.random(x.shape) < 0.5 if x.size > 1 else np.zeros(x.shape, bool)
    return np.where(kept, x, chosen)


def _row_of_zeros(x):
    """The first row; of what has one row, all."""
    if x.ndim < 2:
        return np.zeros_like(x)
    x = x.copy()
    x[:1] = 0
    return x


def _of_identity(x):
    """Of a symmetric matrix, one whose eigenvalues are all equal."""
    if structure(x) != SYMMETRIC:
        return x
    return np.broadcast_to(_scale(x) * np.eye(x.shape[-1]), x.shape)


def _paired(x, axis):
    if not x.ndim or x.shape[axis] < 2:
        return x
    places = np.arange(x.shape[axis]) // 2 * 2
    return np.take(x, places, axis=axis)


def _outlier(x, value, rng):
    if x.size < 2:
        return x
    x = x.copy()
    x.flat[rng.integers(x.size)] = value
    return x
