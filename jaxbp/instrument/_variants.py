"""The same question of other arguments: lengths of axes, dtypes."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import is_differentiable
from jaxbp.instrument._witnesses import LARGE

_DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


class Variant(NamedTuple):
    """Other arguments of the same function."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def other_lengths(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Variant]:
    """All axes of other odd lengths at once; then every length as 1 and as one more.

    A length changes wherever it occurs. Arrays are extended by repeating them. Whether
    the function accepts the lengths is for the caller to find out. What would be larger
    than the caller's arguments, and large, is left out.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    lengths = sorted({n for x in leaves for n in _shape(x)} - {0, 1})
    most = max(LARGE, _size(leaves))
    changes = [("all axes of other lengths", {n: 2 * n + 1 for n in lengths})]
    for old in lengths:
        changes += [(f"axes of {old} made {new}", {old: new}) for new in (1, old + 1)]
    for name, change in changes if lengths else ():
        resized = [_with_lengths(x, change, most) for x in leaves]
        if _size(resized) <= most:
            yield Variant(name, *jax.tree.unflatten(tree, resized))


def other_dtypes(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[Variant, Variant]]:
    """The floating leaves in each of the narrower dtypes, also 64 times as large."""
    complexes = any(map(_is_complex, jax.tree.leaves((args, kwargs))))
    for dtype in _DTYPES[:1] if complexes else _DTYPES:  # complex64 is the narrowest

        def cast(scale, dtype=dtype):
            def one(leaf):
                if not is_differentiable(leaf):
                    return leaf
                if _is_complex(leaf):
                    return jnp.asarray(np.asarray(leaf) * scale, np.complex64)
                with np.errstate(over="ignore"):
                    return jnp.asarray(np.asarray(leaf, np.float64) * scale, dtype)

            return jax.tree.map(one, (args, kwargs))

        name = str(jnp.dtype(dtype))
        yield (
            Variant(name, *cast(1.0)),
            Variant(f"{name}, 64 times as large", *cast(64.0)),
        )


def _is_complex(leaf):
    return is_differentiable(leaf) and jnp.iscomplexobj(leaf)


def _shape(leaf):
    return np.shape(leaf) if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else ()


def _size(leaves):
    return sum(math.prod(_shape(x)) for x in leaves)


def _with_lengths(leaf, change, most):
    """As a shape alone, where it is too large to be made."""
    lengths = [change.get(n, n) for n in _shape(leaf)]
    if lengths == list(_shape(leaf)):
        return leaf
    if math.prod(lengths) > most:
        return np.broadcast_to(0.0, lengths)
    for axis, new in enumerate(lengths):
        if new != leaf.shape[axis]:
            leaf = _taken(leaf, np.arange(new) % leaf.shape[axis], axis)
    return leaf


def _taken(leaf, places, axis):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return jnp.take(leaf, places, axis=axis)
    return np.take(np.asarray(leaf), places, axis=axis)
