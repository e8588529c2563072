"""The same question of other arguments: lengths of axes, dtypes, transformations."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import is_differentiable
from jaxbp.instrument._witnesses import Pullback, Witness

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


def transformed(
    witness: Witness, inputs: Sequence[Any], cotangents: Sequence[Any]
) -> dict[str, Pullback | Exception]:
    """The pullback under vmap, scan and remat; the exception where one raises.

    Two copies are mapped over, the second with twice the cotangent: under vmap of
    values and cotangents, of cotangents alone, and in turn in a scan. What comes back
    is the second's, halved.
    """
    inputs, cotangents = list(inputs), list(cotangents)
    twice = [jnp.stack([jnp.asarray(g), 2 * jnp.asarray(g)]) for g in cotangents]
    copies = [jnp.stack([jnp.asarray(x)] * 2) for x in inputs]

    def scanned(xs, gs):
        return jax.lax.scan(lambda c, xg: (c, witness.pullback(*xg)), 0, (xs, gs))[1]

    def remat(xs, gs):
        whole = Witness(witness.jaxpr, witness.wrt, witness.outputs)
        whole.primal = jax.checkpoint(witness.primal)  # pyright: ignore
        return whole.pullback(xs, gs)

    ways = {
        "vmap": (jax.vmap(witness.pullback), copies, twice),
        "vmap over cotangents": (
            jax.vmap(witness.pullback, in_axes=(None, 0)),
            inputs,
            twice,
        ),
        "scan": (scanned, copies, twice),
        "remat": (remat, inputs, cotangents),
    }
    found: dict[str, Pullback | Exception] = {}
    for name, (function, xs, gs) in ways.items():
        try:
            outs, bars = jax.jit(function)(xs, gs)
        except Exception as error:
            found[name] = error
            continue
        if name != "remat":
            outs, bars = [o[1] for o in outs], [b[1] / 2 for b in bars]
        found[name] = Pullback(list(map(np.asarray, outs)), list(map(np.asarray, bars)))
    return found


def _shape(leaf):
    return np.shape(leaf) if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else ()


def _with_length(leaf, old, new):
    for axis, length in enumerate(_shape(leaf)):
        if length == old:
            leaf = jnp.take(jnp.asarray(leaf), np.arange(new) % old, axis=axis)
    return leaf
