"""Other data than the caller's: integers, flags and labels, no gradient but values."""

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import is_differentiable
from jaxbp.instrument._boundaries import Sentinel
from jaxbp.instrument._structure import is_mask, is_one_hot, keeping_data, keeping_order

New = Callable[[np.ndarray], np.ndarray]
Changes = dict[str, New]
Changed = tuple[str, list[Any]]  # what is different, and the inputs


def other_data(
    inputs: Sequence[Any],
    sentinels: Sequence[Sentinel],
    outputs: Sequence[tuple[int, ...]],
    rng: np.random.Generator,
    counts: Collection[int] = (),
    numbers: Collection[int] = (),
) -> Iterator[Changed]:
    """Other integers, and masks of every kind, floating ones too.

    The inputs among `counts` are lengths: none of 0 where there was none. Those among
    `numbers` are reckoned with: where they are zeros and ones, they are flags.
    """
    arrays = [np.asarray(x) for x in inputs]
    rows = [x.size for x in arrays if x.ndim == 1]
    masks = [_is_mask(x, k in numbers) for k, x in enumerate(arrays)]
    whole = [
        is_data(x) and not (x.dtype == bool or m or is_pointers(x, rows))
        for x, m in zip(arrays, masks, strict=True)
    ]
    flags = [m and not is_one_hot(x) for x, m in zip(arrays, masks, strict=True)]
    labels = [is_mask(x) and is_differentiable(x) and is_one_hot(x) for x in arrays]
    least = [int(k in counts and (x > 0).all()) for k, x in enumerate(arrays)]
    shapes = [*(np.shape(x) for x in inputs if is_differentiable(x)), *outputs]
    lengths = {n for shape in shapes for n in shape}

    change = functools.partial(_changed, inputs, arrays)
    others = change(whole, _of_integers(lengths, rng), keeping_data)
    yield from _at_least(least, others)
    for mark, place in sentinels:
        chosen = [yes and place in (None, k) for k, yes in enumerate(whole)]
        marked = {f"{mark} among the data": functools.partial(_marked, mark)}
        yield from _at_least(least, change(chosen, marked, keeping_order))
    yield from change(flags, _of_flags(rng), _as_it_is)
    of_labels: Changes = {"other labels": lambda x: np.roll(x, 1, axis=-1)}
    yield from change(labels, of_labels, _as_it_is)


def _of_integers(lengths: Collection[int], rng: np.random.Generator) -> Changes:
    def last_valid(x):
        limits = [n for n in sorted(lengths) if n > x.max(initial=0)]
        ends = [limits[0] - 1 if limits else x.max(initial=0)]
        valid = x.min(initial=0) >= 0
        return np.resize(np.asarray([*ends, 0], x.dtype), x.shape) if valid else x

    def one_more(x):
        return x + (x.ndim == 0 and 0 <= x < max(lengths, default=0) - 1)

    def between(x):
        high = x.max(initial=0)
        low = min(high, x.min(initial=1))
        return np.where(x < 0, x, rng.integers(low, high, x.shape, endpoint=True))

    return {
        "data all smallest": lambda x: np.full_like(x, x.min(initial=0)),
        "data all largest": lambda x: np.full_like(x, x.max(initial=0)),
        "data reversed": np.flip,
        "data repeated": lambda x: np.resize(x.ravel()[: max(1, x.size // 2)], x.shape),
        "other data": lambda x: between(x).astype(x.dtype),
        "the last valid index and the first": last_valid,
        "one more": lambda x: one_more(x).astype(x.dtype),
    }


def _of_flags(rng: np.random.Generator) -> Changes:
    def some_off(x):
        return np.where(rng.random(x.shape) < 0.5, x, np.zeros_like(x))

    return {
        "flags all off": np.zeros_like,
        "flags all on": np.ones_like,
        "flags of one row off": _one_row_off,
        "some flags off": some_off,
    }


def _at_least(least: Sequence[int], changed: Iterator[Changed]) -> Iterator[Changed]:
    for name, values in changed:
        pairs = zip(values, least, strict=True)
        yield name, [jnp.maximum(x, n) if n else x for x, n in pairs]


def _as_it_is(old, new):
    return new


def repeated(old, new) -> bool:
    """Whether integers that were all different are no longer."""
    if not is_data(old) or old.dtype == bool:
        return False
    distinct = np.unique(old).size == np.size(old) > 1
    return bool(distinct and np.unique(new).size < np.size(new))


def _changed(inputs, arrays, chosen, changes, keep) -> Iterator[Changed]:
    """A point for each change that leaves anything different."""
    for name, new in changes.items():
        values = [
            keep(x, new(x)) if yes else x for x, yes in zip(arrays, chosen, strict=True)
        ]
        pairs = zip(arrays, values, strict=True)
        if any(yes for yes in chosen) and not all(np.array_equal(*p) for p in pairs):
            moved = zip(inputs, values, chosen, strict=True)
            yield name, [jnp.asarray(v) if yes else x for x, v, yes in moved]


def _is_mask(x: np.ndarray, is_number: bool) -> bool:
    """Flags, as booleans, as floats or as integers that f reckons with."""
    if is_data(x) and x.dtype != bool:
        return is_number and x.ndim > 0 and bool(np.isin(x, (0, 1)).all())
    return is_mask(x)


def is_pointers(x: np.ndarray, lengths: Sequence[int]) -> bool:
    """Where rows begin, from 0 to an array's length: of a sparse matrix."""
    if x.ndim != 1 or x.size < 3 or x[0] != 0 or x.dtype == bool:
        return False
    return bool((x[1:] >= x[:-1]).all() and x[-1] in lengths and x[-1] != x.size)


def is_data(leaf: Any) -> bool:
    """Integers or booleans in an array: no gradient, but values that matter."""
    return getattr(getattr(leaf, "dtype", None), "kind", "?") in "iub"


def _marked(mark, x):
    """The last of all is, and where there are rows, of each: lists are padded so."""
    info, marked = np.iinfo(x.dtype), x.copy()
    if info.min <= mark <= info.max:
        in_rows = x.ndim > 1 and x.shape[-1] > 1
        rows = marked.reshape(-1, x.shape[-1] if in_rows else max(x.size, 1))
        rows[:, -1:] = mark
    return marked


def _one_row_off(x):
    if not x.ndim:
        return x
    off = x.copy()
    off[0] = 0
    return off
