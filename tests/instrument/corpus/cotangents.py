"""The cotangent lost, bent or summed; gradients given to the wrong argument."""

import jax.numpy as jnp

from ._rule import IDS, P, Rule, U, V

WRONG = {
    "cotangent ignored": Rule(jnp.sin, lambda x, g: (jnp.cos(x) + 0 * g,), (V,)),
    "cotangent summed": Rule(jnp.sin, lambda x, g: (jnp.cos(x) * g.sum(),), (V,)),
    "cotangent averaged": Rule(jnp.sin, lambda x, g: (jnp.cos(x) * g.mean(),), (V,)),
    "cotangent squared": Rule(jnp.sin, lambda x, g: (jnp.cos(x) * g * g,), (V,)),
    "cotangent's sign": Rule(jnp.sin, lambda x, g: (jnp.cos(x) * jnp.sign(g),), (V,)),
    "cotangent clipped": Rule(
        jnp.sin, lambda x, g: (jnp.cos(x) * jnp.clip(g, -1e3, 1e3),), (V,)
    ),
    "nothing for a live input": Rule(jnp.sin, lambda x, g: (None,), (V,)),
    "zeros for a live input": Rule(
        lambda x, y: x * y, lambda r, g: (r[1] * g, jnp.zeros_like(r[1])), (V, U), "[1]"
    ),
    "first output only": Rule(
        lambda x: (jnp.sin(x), x * x), lambda x, g: (jnp.cos(x) * g[0],), (V,)
    ),
    "swapped": Rule(
        lambda x, y: x * x * y,
        lambda r, g: (r[0] ** 2 * g, 2 * r[0] * r[1] * g),
        (V, U),
    ),
    "divided the wrong way": Rule(
        lambda x, y: x / y, lambda r, g: (g / r[1], -g * r[0] / r[1]), (V, U), "[1]"
    ),
    "minus lost": Rule(lambda x, y: x - y, lambda r, g: (g, g), (V, U), "[1]"),
    "power's base": Rule(
        lambda x, n: x**n,
        lambda r, g: (r[1] * r[0] ** r[1] * g, g * r[0] ** r[1] * jnp.log(r[0])),
        (P, P + 1),
    ),
    "power's logarithm": Rule(
        lambda x, n: x**n,
        lambda r, g: (r[1] * r[0] ** (r[1] - 1) * g, g * r[0] ** r[1]),
        (P, P + 1),
        "[1]",
    ),
}

RIGHT = {
    "nothing to differentiate in data": Rule(
        lambda x, n: x * n.sum().astype(x.dtype),
        lambda r, g: (g * r[1].sum().astype(g.dtype), None),
        (V, IDS),
        None,
    ),
}
