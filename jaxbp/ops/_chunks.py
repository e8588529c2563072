"""A scan over blocks of rows, whose last block may be shorter: nothing is padded."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_BLOCK = 2**14  # numbers: some arrays of 64 kB fit in a core's own cache


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


def over_rows(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any
) -> tuple[Any, Any]:
    """`over_chunks` of the leading axes of the first leaf, in blocks of a cache's size.

    On a CPU a reduction whose input is computed writes that input to memory first; in
    the cache that costs little. Accelerators fuse the two: they get all rows at once.
    """
    *lead, k = jax.tree.leaves(xs)[0].shape
    n = math.prod(lead)
    rows = jax.tree.map(lambda a: a.reshape(n, *a.shape[len(lead) :]), xs)
    chunk = n if jax.default_backend() != "cpu" else max(1, _BLOCK // max(1, k))
    # A length that divides n leaves no rest, to cut off which would copy the others.
    chunk = next((c for c in range(chunk, chunk // 4, -1) if n % c == 0), chunk)
    carry, outs = over_chunks(step, carry, rows, chunk)
    return carry, jax.tree.map(lambda a: a.reshape(*lead, *a.shape[1:]), outs)
