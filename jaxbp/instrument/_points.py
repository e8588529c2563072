"""Where else to ask: points that show what the caller's ordinary arguments hide.

Every point has the shapes and dtypes of the caller's arguments and is asked with the
programs that are compiled already. What an array evidently is it stays.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import is_differentiable
from jaxbp.instrument._structure import (
    fractions,
    in_order,
    is_mask,
    is_one_hot,
    keeping,
    keeping_data,
    positive,
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

New = Callable[[np.ndarray], np.ndarray]


class Point(NamedTuple):
    """Inputs of a traced program, and what is special about them."""

    name: str
    inputs: list[Any]


def points(
    inputs: Sequence[Any],
    constants: Sequence[float],
    sentinels: Sequence[int],
    seed: int,
    finite: Callable[[list[Any]], bool] = lambda inputs: True,
    outputs: Sequence[tuple[int, ...]] = (),
    *,
    repeats: bool = True,
) -> Iterator[Point]:
    """Neighbours near and far, special values, ties, order, extremes, other data.

    `constants` are the program's own boundaries, `sentinels` the whole numbers that it
    looks for, `outputs` the shapes that it gives: an index may be as large as an axis
    is long. Without `repeats`, integers that are all different stay so. Where the
    function's values are not all `finite`, a positive array is asked with its new
    values made positive as well, or any with new values from its own range.
    """
    rng = np.random.default_rng((seed, 1))
    specials = [*_PLAIN, *constants, *_EXTREME]
    for name, new in _everywhere(inputs, specials, rng):
        old = _arrays(inputs)
        values = in_order(old, [_changed_finite(x, new) for x in old])
        yield from _tame(name, inputs, values, finite)
    for name, values in _one_by_one(inputs, specials, rng):
        yield from _tame(name, inputs, values, finite)
    for name, values in _unbounded(inputs):
        point = Point(name, _moved(inputs, values, keeping))
        if finite(point.inputs):
            yield point
    yield from _other_phases(inputs, rng)
    for point in _other_data(inputs, sentinels, outputs):
        pairs = zip(inputs, point.inputs, strict=True)
        if repeats or not any(repeated(*pair) for pair in pairs):
            yield point


def is_data(leaf: Any) -> bool:
    """Integers or booleans in an array: no gradient, but values that matter."""
    return getattr(getattr(leaf, "dtype", None), "kind", "?") in "iub"


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


def _other_phases(inputs, rng) -> Iterator[Point]:
    """Complex numbers turned, at random and onto the axes."""
    turned = [
        is_differentiable(x) and jnp.iscomplexobj(x) and np.size(x) > 0 for x in inputs
    ]
    if not any(turned):
        return
    changes: dict[str, New] = {
        "other phases": lambda x: x * np.exp(2j * np.pi * rng.random(x.shape)),
        "real numbers": lambda x: np.abs(x) + 0j,
        "imaginary numbers": lambda x: 1j * np.abs(x),
    }
    for name, new in changes.items():
        pairs = zip(inputs, turned, strict=True)
        moved = [jnp.asarray(new(np.asarray(x)), x.dtype) if t else x for x, t in pairs]
        yield Point(name, moved)


def _other_data(inputs, sentinels, outputs) -> Iterator[Point]:
    """Other integers, and masks of every kind, floating ones too."""
    shapes = [*(np.shape(x) for x in inputs if is_differentiable(x)), *outputs]
    lengths = {n for shape in shapes for n in shape}

    def last_valid(x):
        limits = [n for n in sorted(lengths) if n > x.max(initial=0)]
        ends = [limits[0] - 1 if limits else x.max(initial=0)]
        valid = x.min(initial=0) >= 0
        return np.resize(np.asarray([*ends, 0], x.dtype), x.shape) if valid else x

    changes: dict[str, New] = {
        "data all smallest": lambda x: np.full_like(x, x.min(initial=0)),
        "data all largest": lambda x: np.full_like(x, x.max(initial=0)),
        "data reversed": np.flip,
        "data repeated": lambda x: np.resize(x.ravel()[: max(1, x.size // 2)], x.shape),
        "the last valid index and the first": last_valid,
    }
    for mark in sentinels:
        changes[f"{mark} among the data"] = functools.partial(_marked, mark)
    of_masks: dict[str, New] = {
        "flags all off": np.zeros_like,
        "flags all on": np.ones_like,
        "flags of one row off": _one_row_off,
    }
    arrays = [np.asarray(x) for x in inputs]
    whole = [is_data(x) and x.dtype != bool for x in arrays]
    flags = [
        is_mask(x) and (x.dtype == bool or is_differentiable(x)) and not is_one_hot(x)
        for x in arrays
    ]
    labels = [is_mask(x) and is_differentiable(x) and is_one_hot(x) for x in arrays]
    yield from _changed(inputs, arrays, whole, changes, keeping_data)
    yield from _changed(inputs, arrays, flags, of_masks, lambda old, new: new)
    others: dict[str, New] = {"other labels": lambda x: np.roll(x, 1, axis=-1)}
    yield from _changed(inputs, arrays, labels, others, lambda old, new: new)


def repeated(old, new) -> bool:
    """Whether integers that were all different are no longer."""
    if not is_data(old) or old.dtype == bool:
        return False
    distinct = np.unique(old).size == np.size(old) > 1
    return bool(distinct and np.unique(new).size < np.size(new))


def _changed(inputs, arrays, chosen, changes, keep) -> Iterator[Point]:
    """A point for each change that leaves anything different."""
    for name, new in changes.items():
        values = [
            keep(x, new(x)) if yes else x for x, yes in zip(arrays, chosen, strict=True)
        ]
        pairs = zip(arrays, values, strict=True)
        if any(yes for yes in chosen) and not all(np.array_equal(*p) for p in pairs):
            moved = zip(inputs, values, chosen, strict=True)
            yield Point(name, [jnp.asarray(v) if yes else x for x, v, yes in moved])


def _tame(name, inputs, values, finite) -> Iterator[Point]:
    """The point; where not all is finite there, the first kinder one as well."""
    point = Point(name, _moved(inputs, values, keeping))
    yield point
    if finite(point.inputs):
        return
    for word, kinder in _KINDER.items():
        tame = [kinder(*pair) for pair in zip(_arrays(inputs), values, strict=True)]
        tried = _moved(inputs, tame, keeping)
        if finite(tried):
            yield Point(f"{name}, {word}", tried)
            return


def _is_moved(leaf) -> bool:
    return is_differentiable(leaf) and not jnp.iscomplexobj(leaf)


def _arrays(inputs) -> list[np.ndarray]:
    return [np.asarray(x).astype(np.float64) for x in inputs if _is_moved(x)]


def _moved(inputs, values, keep) -> list[Any]:
    """The inputs with new values on the real differentiable leaves, dtypes kept."""
    given = iter(values)
    moved = []
    for x in inputs:
        if _is_moved(x):
            old = np.asarray(x)
            new = keep(old.astype(np.float64), next(given))
            with np.errstate(over="ignore"):  # too large for a narrow dtype: inf
                x = jnp.asarray(new.reshape(old.shape), old.dtype)
        moved.append(x)
    return moved


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


def _marked(mark, x):
    info, marked = np.iinfo(x.dtype), x.copy()
    if info.min <= mark <= info.max:
        marked.flat[-1:] = mark
    return marked


def _one_row_off(x):
    if not x.ndim:
        return x
    off = x.copy()
    off[0] = 0
    return off
