"""Indices, order and selection."""

import jax.numpy as jnp

from ._rule import FLAGS, IDS, Rule, U, V, W


def embed(table, ids):
    return table[ids]


def where(flags, x, y):
    return jnp.where(flags, x, y)


WRONG = {
    "repeated indices overwrite": Rule(
        embed, lambda r, g: (jnp.zeros_like(r[0]).at[r[1]].set(g), None), (W, IDS)
    ),
    "where: arms swapped": Rule(
        where,
        lambda r, g: (None, jnp.where(r[0], 0, g), jnp.where(r[0], g, 0)),
        (FLAGS, V, U),
        "[1]",
    ),
    "where: both arms": Rule(where, lambda r, g: (None, g, g), (FLAGS, V, U), "[1]"),
    "sort: not unsorted": Rule(jnp.sort, lambda x, g: (g,), (V,)),
    "cumsum: not reversed": Rule(jnp.cumsum, lambda x, g: (jnp.cumsum(g),), (V,)),
    "roll: same direction": Rule(
        lambda x: jnp.roll(x, 1), lambda x, g: (jnp.roll(g, 1),), (V,)
    ),
    "flip forgotten": Rule(jnp.flip, lambda x, g: (g,), (V,)),
}

RIGHT = {
    "repeated indices": Rule(
        embed, lambda r, g: (jnp.zeros_like(r[0]).at[r[1]].add(g), None), (W, IDS), None
    ),
    "where": Rule(
        where,
        lambda r, g: (None, jnp.where(r[0], g, 0), jnp.where(r[0], 0, g)),
        (FLAGS, V, U),
        None,
    ),
    "sort": Rule(
        jnp.sort,
        lambda x, g: (jnp.zeros_like(x).at[jnp.argsort(x)].set(g),),
        (V,),
        None,
    ),
    "cumsum": Rule(
        jnp.cumsum, lambda x, g: (jnp.flip(jnp.cumsum(jnp.flip(g))),), (V,), None
    ),
}
