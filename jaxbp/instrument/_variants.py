"""The same question of other arguments: lengths of axes, dtypes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import is_differentiable

_DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


class Variant(NamedTuple):
    """Other arguments of the same function."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def other_lengths(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Variant]:
    """Every length of an axis, wherever it occurs, as 1, one more, and twice and one.

    Arrays are extended by repeating them. Whether the function accepts the lengths is
    for the caller to find out.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    lengths = {n for x in leaves for n in _shape(x)} - {0, 1}
    for old in sorted(lengths):
        for new in (1, old + 1, 2 * old + 1):
            resized = [_with_length(x, old, new) for x in leaves]
            new_args, new_kwargs = jax.tree.unflatten(tree, resized)
            yield Variant(f"axes of {old} made {new}", new_args, new_kwargs)


def other_dtypes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Variant]:
    """The floating leaves in each of the narrower dtypes, also 64 times as large."""
    for dtype in _DTYPES:
        for scale in (1.0, 64.0):

            def cast(leaf, dtype=dtype, scale=scale):
                if not is_differentiable(leaf) or jnp.iscomplexobj(leaf):
                    return leaf
                return jnp.asarray(np.asarray(leaf, np.float64) * scale, dtype)

            new_args, new_kwargs = jax.tree.map(cast, (args, kwargs))
            size = "" if scale == 1 else f", {scale:g} times as large"
            yield Variant(f"{jnp.dtype(dtype)}{size}", new_args, new_kwargs)


def _shape(leaf):
    return np.shape(leaf) if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else ()


def _with_length(leaf, old, new):
    for axis, length in enumerate(_shape(leaf)):
        if length == old:
            leaf = jnp.take(jnp.asarray(leaf), np.arange(new) % old, axis=axis)
    return leaf
