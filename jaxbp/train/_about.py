"""What tells one run from another: of arrays shapes, dtypes and checksums, by name."""

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbp._errors import describe, function_name

About = dict[str, dict[str, str]]


def about(
    params: Any,
    opt_state: Any,
    state: Any,
    metrics: Any,
    data: Any,
    optimizer: str,
    **how: Any,
) -> About:
    """What a run must have in common with the one that it goes on with."""
    kind = "a function" if callable(data) else "arrays"
    return {
        "": {"data": kind} | {name: str(value) for name, value in how.items()},
        "params": described(params),
        "the optimizer's state": described(opt_state),
        "state": described(state),
        "the loss's metrics": described(metrics),
        "data": {} if callable(data) else marked(data),
        "optimizer": {"": optimizer},
    }


def moves(optimizer: optax.GradientTransformation, params: Any) -> str:
    """An optimiser by how far it goes: its constants are nowhere in its state.

    From parameters of ones, by gradients of 1, 2 and 3: a rate that begins at 0 has
    left it by then. Rounded to what devices agree on.
    """

    @jax.jit
    def squares():
        ones = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), params)
        opt_state, found = optimizer.init(ones), []
        for k in range(3):
            grads = jax.tree.map(lambda x, k=k: x * (k + 1), ones)
            updates, opt_state = optimizer.update(grads, opt_state, ones)
            leaves = map(jnp.abs, jax.tree.leaves(updates))  # complex ones, too
            found.append(sum(jnp.sum(x * x).astype(jnp.float32) for x in leaves))
        return found

    lengths = ", ".join(f"{math.sqrt(size):.4g}" for size in squares())
    return f"one whose first updates are {lengths} long"


def first_difference(one: About, other: About) -> tuple[str, str, str] | None:
    """The name of what two of them differ in, and what it is in either."""
    for what in one:
        for name in [*one[what], *(set(other[what]) - set(one[what]))]:
            here, there = (x[what].get(name, "nothing") for x in (one, other))
            if here != there:
                return what + name, here, there
    return None


def described(tree: Any) -> dict[str, str]:
    """Shapes and dtypes of its arrays, all else by name or value."""
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _described(x) for path, x in pairs}


def marked(tree: Any) -> dict[str, str]:
    """The same with what tells one content from another."""
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _marked(x) for path, x in pairs}


def _described(x: Any) -> str:
    if isinstance(x, str):
        return x
    # repr of a function has its address, another one in each process
    return function_name(x) if callable(x) else describe(x)


def _marked(x: Any) -> str:
    if not hasattr(x, "dtype") and not isinstance(x, (bool, int, float, complex)):
        return _described(x)
    x = jnp.asarray(x)
    if not (x.is_fully_addressable or x.is_fully_replicated):
        return f"{describe(x)} spread over processes"
    keys = jnp.issubdtype(x.dtype, jax.dtypes.extended)
    values = np.ascontiguousarray(jax.random.key_data(x) if keys else x)
    return f"{describe(x)} of checksum {zlib.crc32(values.view(np.uint8).data):08x}"
