"""Rules that go block by block over rows, so that each block is read once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

ROWS = 32


def by_rows(
    f: Callable[..., Any], *arrays: jax.Array, rows: int = ROWS
) -> tuple[Any, Any]:
    """`f(*arrays)`, a block of `rows` rows at a time.

    `f(*blocks) -> (of_rows, sums)`: outputs that belong to the rows, which are put
    together, and outputs that sum over them, which are added up. A block stays in the
    cache of a CPU while `f` passes over it, and what `f` makes on the way is as large
    as a block.
    """
    n = arrays[0].shape[0]
    if n <= rows:
        return f(*arrays)
    first = n % rows or rows
    head, sums = f(*(a[:first] for a in arrays))

    def put(whole, block, start):
        return jax.lax.dynamic_update_slice_in_dim(whole, block, start, 0)

    def step(k, carry):
        whole, sums = carry
        start = first + k * rows
        blocks = [jax.lax.dynamic_slice_in_dim(a, start, rows) for a in arrays]
        of_rows, more = f(*blocks)
        whole = jax.tree.map(lambda w, b: put(w, b, start), whole, of_rows)
        return whole, jax.tree.map(jnp.add, sums, more)

    # Made of the first block, so that it varies over the mesh axes that `f`'s do.
    empty = lambda b: jnp.broadcast_to(jnp.zeros_like(b[:1]), (n, *b.shape[1:]))
    whole = jax.tree.map(lambda b: put(empty(b), b, 0), head)
    return jax.lax.fori_loop(0, (n - first) // rows, step, (whole, sums))
