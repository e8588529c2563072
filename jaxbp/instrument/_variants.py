"""The same question of other arguments: lengths of axes, flags, dtypes."""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import is_differentiable
from jaxbp.instrument._data import is_data, is_pointers
from jaxbp.instrument._program import LARGE
from jaxbp.instrument._structure import (
    apart,
    is_real,
    keeping,
    keeping_permutation,
    keeping_rows,
    knots,
    permutes,
)

_DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
SQUARES = "its square overflows"
_ALONE = 12  # ways to change an axis in one array alone

Shape = tuple[int, ...]


class Variant(NamedTuple):
    """Other arguments of the same function.

    `beside` are others that it takes as well, or else takes these by chance alone: an
    axis of length 1 is broadcast where one of 2 would not fit.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    beside: tuple[tuple[Any, ...], dict[str, Any]] | None = None


def other_lengths(
    args: tuple[Any, ...], kwargs: dict[str, Any], counts: Collection[int] = ()
) -> Iterator[Variant]:
    """All axes of other odd lengths, of one; then every length as 1 and as one more.

    A length changes wherever it occurs, and then in one array alone: queries need not
    be as many as keys, nor a batch be 1. Arrays are extended by repeating them. Whether
    the function accepts the lengths is for the caller to find out. Integers that may
    index an axis stay below its length; the leaves among `counts`, which are lengths,
    go up to it.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    old = [_shape(x) for x in leaves]
    tables, tied = _tables(leaves), _tied(leaves)
    for name, new in _other_shapes(old):
        if any(t and a != b for t, a, b in zip(tied, old, new, strict=True)):
            continue
        one_place = any(k and 1 in n for k, n in zip(tables, new, strict=True))
        if one_place or not _fits(old, new):
            continue
        beside = None
        if 1 in set(_all(new)) - set(_all(old)):
            pairs = [zip(*shapes, strict=True) for shapes in zip(new, old, strict=True)]
            two = [tuple(2 if n == 1 != m else n for n, m in pair) for pair in pairs]
            beside = jax.tree.unflatten(tree, _resized(leaves, old, two, counts))
        resized = jax.tree.unflatten(tree, _resized(leaves, old, new, counts))
        yield Variant(name, *resized, beside=beside)


def _resized(leaves, old, new, counts) -> list[Any]:
    asked = zip(leaves, new, _tables(leaves), strict=True)
    resized = [_with_lengths(x, n, apart if k else keeping_rows) for x, n, k in asked]
    pairs = zip(_all(new), _all(old), strict=True)
    shorter = min((n for n, before in pairs if n < before), default=0)
    if shorter:
        resized = [
            x if tied else np.minimum(x, shorter) if k in counts else _below(x, shorter)
            for k, (x, tied) in enumerate(zip(resized, _tied(leaves), strict=True))
        ]
    # NumPy raises where JAX clamps an index, and has no `.at`.
    pairs = zip(resized, leaves, strict=True)
    return [jnp.asarray(x) if isinstance(old, jax.Array) else x for x, old in pairs]


def _tied(leaves: list[Any]) -> list[bool]:
    """The leaves whose lengths pointers hold, and the pointers."""
    shapes = [_shape(x) for x in leaves]
    lengths = [n for shape in shapes if len(shape) == 1 for n in shape]
    found = [is_data(x) and is_pointers(np.asarray(x), lengths) for x in leaves]
    pairs = zip(leaves, found, strict=True)
    ends = [(int(x[-1]),) for x, yes in pairs if yes]
    return [yes or shape in ends for yes, shape in zip(found, shapes, strict=True)]


def _tables(leaves: list[Any]) -> list[bool]:
    """The leaves that a table's places are."""
    real = [np.asarray(x, np.float64) for x in leaves if is_real(x)]
    which = iter(knots(real))
    return [is_real(x) and next(which) for x in leaves]


def too_large(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """What `other_lengths` leaves out: large, and larger than what the caller gave."""
    old = [_shape(x) for x in jax.tree.leaves((args, kwargs))]
    return [name for name, new in _other_shapes(old) if not _fits(old, new)]


def _other_shapes(shapes: list[Shape]) -> Iterator[tuple[str, list[Shape]]]:
    lengths = sorted(set(_all(shapes)) - {0, 1})

    def change(name: str, new: dict[int, int]):
        return name, [tuple(new.get(n, n) for n in shape) for shape in shapes]

    if lengths:
        yield change("all axes of other lengths", {n: 2 * n + 1 for n in lengths})
    if len(lengths) > 1:
        yield change("all axes of one length", dict.fromkeys(lengths, lengths[0]))
    for old in lengths:
        yield change(f"axes of {old} made 1", {old: 1})
        yield change(f"axes of {old} made {old + 1}", {old: old + 1})
    yield from itertools.islice(_alone(shapes), _ALONE)


def _fits(old, new) -> bool:
    return sum(map(math.prod, new)) <= max(LARGE, sum(map(math.prod, old)))


def _all(shapes) -> list[int]:
    return [n for shape in shapes for n in shape]


def _below(leaf, length):
    whole = (
        getattr(getattr(leaf, "dtype", None), "kind", "") in ("i", "u") and leaf.shape
    )
    # A permutation indexes an axis of its own length.
    if not whole or permutes(np.asarray(leaf)):
        return leaf
    return np.where(leaf < 0, leaf, leaf % length)


def _alone(shapes: list[Shape]) -> Iterator[tuple[str, list[Shape]]]:
    """One axis of one array made longer: of length 1, or one that others share."""
    shared = Counter(_all(shapes))
    for k, shape in enumerate(shapes):
        for axis, n in enumerate(shape):
            if n == 1 or (n > 1 and shared[n] > 1):
                for new in sorted({n + 2, 2 * n} - {2}):
                    longer = (*shape[:axis], new, *shape[axis + 1 :])
                    name = f"axis {axis} of one array, {n}, made {new}"
                    yield name, [*shapes[:k], longer, *shapes[k + 1 :]]


def other_flags(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Variant]:
    """Each Python boolean the other way: how the function is traced may hang on it."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    for k, leaf in enumerate(leaves):
        if isinstance(leaf, bool):
            flipped = [*leaves[:k], not leaf, *leaves[k + 1 :]]
            yield Variant(f"{not leaf} for {leaf}", *jax.tree.unflatten(tree, flipped))


def other_dtypes(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[Iterator[Variant]]:
    """The floating leaves in each of the narrower dtypes, also of other sizes.

    So small that 1 + x is 1 in that dtype; so large that 1 + exp(-x) is; 64 times as
    large; so large that their exponentials overflow in it; and their squares: one by
    one, since all of them take much memory. What an array evidently is it stays.
    """
    complexes = any(map(_is_complex, jax.tree.leaves((args, kwargs))))
    for dtype in _DTYPES[:1] if complexes else _DTYPES:  # complex64 is the narrowest

        def cast(scale, largest=None, dtype=dtype):
            def one(leaf, scale=scale):
                if not is_differentiable(leaf):
                    return leaf
                if _is_complex(leaf):
                    return jnp.asarray(np.asarray(leaf) * scale, np.complex64)
                x = np.asarray(leaf, np.float64)
                if largest is not None and x.any():
                    scale = largest / np.max(np.abs(x))
                with np.errstate(all="ignore"):  # infinities, a mask's or of the cast
                    new = x if scale == 1 else keeping(x, x * scale)
                    return jnp.asarray(new, dtype)

            return jax.tree.map(one, (args, kwargs))

        name, info = str(jnp.dtype(dtype)), jnp.finfo(dtype)
        top = float(info.max)
        leaves = jax.tree.leaves((args, kwargs))
        if max(math.prod(_shape(x)) for x in leaves) > top:
            continue  # which cannot count so far: no mean is possible in it
        scales = {
            name: (1.0,),
            f"{name}, an eighth of its unit": (1.0, float(info.eps) / 8),
            f"{name}, exp of it below its unit": (1.0, -1.5 * math.log(info.eps)),
            f"{name}, 64 times as large": (64.0,),
            f"{name}, exp of it overflows": (1.0, 1.2 * math.log(top)),
            f"{name}, {SQUARES}": (1.0, 1.1 * math.sqrt(top)),
        }
        yield (Variant(n, *cast(*scale)) for n, scale in scales.items())


def _is_complex(leaf):
    return is_differentiable(leaf) and jnp.iscomplexobj(leaf)


def _shape(leaf) -> Shape:
    return np.shape(leaf) if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else ()


def _with_lengths(old, lengths, keep):
    leaf = old
    for axis, new in enumerate(lengths):
        if new != leaf.shape[axis]:
            leaf = _taken(leaf, np.arange(new) % leaf.shape[axis], axis)
    if leaf is old:
        return leaf
    if is_data(old):
        leaf = keeping_permutation(np.asarray(old), np.asarray(leaf))
    elif is_real(old):
        wide = np.asarray(old, np.float64), np.asarray(leaf, np.float64)
        leaf = np.asarray(keep(*wide), leaf.dtype)
    return leaf


def _taken(leaf, places, axis):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return jnp.take(leaf, places, axis=axis)
    return np.take(np.asarray(leaf), places, axis=axis)
