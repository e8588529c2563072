"""A scan over blocks of rows, whose last block may be shorter: nothing is padded."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def over_chunks(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any, chunk: int
) -> tuple[Any, Any]:
    """`lax.scan` of `step` over blocks of `chunk` rows of the leaves of `xs`.

    `step(carry, rows) -> (carry, outs)`; the outs' rows are put together again. The
    rows left over are one more call of `step`.
    """
    length = jax.tree.leaves(xs)[0].shape[0]
    if length <= chunk:
        return step(carry, xs)
    whole = length - length % chunk
    blocks = jax.tree.map(lambda a: a[:whole].reshape(-1, chunk, *a.shape[1:]), xs)
    carry, outs = jax.lax.scan(step, carry, blocks)
    outs = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), outs)
    if whole == length:
        return carry, outs
    carry, rest = step(carry, jax.tree.map(lambda a: a[whole:], xs))
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outs, rest)
