"""Kinks and ties, where a rule may choose, but not anything."""

import jax
import jax.numpy as jnp
import numpy as np

from ._rule import FLAGS, Rule, U, V, X

WRONG = {
    "maximum: both at a tie": Rule(
        jnp.maximum,
        lambda r, g: (
            jnp.where(r[0] >= r[1], g, 0),
            jnp.where(r[1] >= r[0], g, 0),
        ),
        (V, np.where(FLAGS, V, U)),
    ),
    "maximum: neither at a tie": Rule(
        jnp.maximum,
        lambda r, g: (
            jnp.where(r[0] > r[1], g, 0),
            jnp.where(r[1] > r[0], g, 0),
        ),
        (V, np.where(FLAGS, V, U)),
        "[1]",
    ),
    "top two: all that tie": Rule(
        lambda x: jax.lax.top_k(x, 2)[0],
        lambda x, g: (
            jnp.where(
                jnp.arange(x.size) == jnp.argmax(x),
                g[0],
                jnp.where(x == jnp.sort(x)[-2], g[1], 0),
            ),
        ),
        (np.array([1.0, 1.0, 1.0, 0.0]),),
    ),
    "maximum: first always": Rule(
        jnp.maximum, lambda r, g: (g, jnp.zeros_like(g)), (V, U), "[0]"
    ),
    "clip passes all": Rule(lambda x: jnp.clip(x, -0.5, 0.5), lambda x, g: (g,), (V,)),
    "relu of the cotangent": Rule(
        jax.nn.relu, lambda x, g: (jnp.where(g > 0, g, 0),), (V,)
    ),
    "every tie is first": Rule(
        jnp.max,
        lambda x, g: (g * (x == x.max()).astype(x.dtype),),
        (np.array([1.0, 2.0, 2.0]),),
    ),
}

RIGHT = {
    "relu at zero": Rule(
        jax.nn.relu,
        lambda x, g: (jnp.where(x > 0, g, 0),),
        (np.array([0.0, 1, -1]),),
        None,
    ),
    "relu, one at zero": Rule(
        jax.nn.relu,
        lambda x, g: (jnp.where(x >= 0, g, 0),),
        (np.array([0.0, 1, -1]),),
        None,
    ),
    "absolute value at zero": Rule(
        jnp.abs,
        lambda x, g: (jnp.where(x >= 0, g, -g),),
        (np.array([0.0, 2, -1]),),
        None,
    ),
    "maximum at a tie, first": Rule(
        jnp.max,
        lambda x, g: (jnp.zeros_like(x).at[jnp.argmax(x)].set(g),),
        (np.array([1.0, 2.0, 2.0]),),
        None,
    ),
    "maximum at a tie, shared": Rule(
        jnp.max,
        lambda x, g: ((m := (x == x.max()).astype(x.dtype)) / m.sum() * g,),
        (np.array([1.0, 2.0, 2.0]),),
        None,
    ),
    "clip to bounds": Rule(
        jnp.clip,
        lambda r, g: (
            jnp.where((r[0] > r[1]) & (r[0] < r[2]), g, 0),
            jnp.where(r[0] <= r[1], g, 0).sum(),
            jnp.where(r[0] >= r[2], g, 0).sum(),
        ),
        (X, np.array(-0.5), np.array(0.5)),
        None,
    ),
    "sort, ties the other way round": Rule(
        jnp.sort,
        lambda x, g: (jnp.zeros_like(x).at[x.size - 1 - jnp.argsort(x[::-1])].set(g),),
        (np.array([1.0, 0.0, 1.0, 1.0, -2.0]),),
        None,
    ),
}
