"""Loops, solves and implicit functions."""

import jax
import jax.numpy as jnp
import numpy as np

from ._rule import B, P, Rule, W

A = W @ W.T + 3 * np.eye(3)


def scan_product(x):
    return jax.lax.scan(lambda c, v: (c * v, c * v), jnp.ones_like(x[0]), x)[1]


def solve(a, b):
    return jnp.linalg.solve(a, b)


def _solve(a, b, g):
    b_bar = jnp.linalg.solve(a.T, g)
    return -jnp.outer(b_bar, jnp.linalg.solve(a, b)), b_bar


WRONG = {
    "scan: last step only": Rule(
        scan_product,
        lambda x, g: (jnp.zeros_like(x).at[-1].set(g[-1] * jnp.prod(x[:-1])),),
        (P[:, 0],),
    ),
    "solve: a not transposed": Rule(
        solve,
        lambda r, g: (_solve(*r, g)[0], jnp.linalg.solve(r[0] + W, g)),
        (A, B),
        "[1]",
    ),
    "solve: sign": Rule(
        solve, lambda r, g: (-_solve(*r, g)[0], _solve(*r, g)[1]), (A, B)
    ),
    "log-determinant": Rule(
        lambda a: jnp.linalg.slogdet(a)[1], lambda a, g: (g * jnp.linalg.inv(a),), (W,)
    ),
}

RIGHT = {
    "solve": Rule(solve, lambda r, g: _solve(*r, g), (A, B), None),
    "scan": Rule(
        scan_product, lambda x, g: jax.vjp(scan_product, x)[1](g), (P[:, 0],), None
    ),
}
