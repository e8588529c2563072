"""Products, transposes and reductions."""

import jax.numpy as jnp

from ._rule import LONG, LONGER, B, Rule, U, V, W, X


def dense(x, w, b):
    return x @ w + b


def _dense(x_bar=None, w_bar=None, b_bar=None):
    """dense's rule with one of its cotangents written otherwise."""

    def bwd(res, g):
        x, w, b = res
        right = (g @ w.T, x.T @ g, g.sum(0))
        mine = (x_bar, w_bar, b_bar)
        return tuple(
            m(x, w, b, g) if m else r for m, r in zip(mine, right, strict=True)
        )

    return bwd


WRONG = {
    "dense: w not transposed": Rule(dense, _dense(lambda x, w, b, g: g @ w), (X, W, B)),
    "dense: weights transposed": Rule(
        dense, _dense(w_bar=lambda x, w, b, g: (x.T @ g).T), (X, W, B), "[1]"
    ),
    "dense: mean over batch": Rule(
        dense, _dense(w_bar=lambda x, w, b, g: x.T @ g / 4), (X, W, B), "[1]"
    ),
    "dense: last example": Rule(
        dense,
        _dense(w_bar=lambda x, w, b, g: jnp.outer(x[-1], g[-1])),
        (X, W, B),
        "[1]",
    ),
    "dense: bias mean": Rule(
        dense, _dense(b_bar=lambda x, w, b, g: g.mean(0)), (X, W, B), "[2]"
    ),
    "dense: bias of one row": Rule(
        dense, _dense(b_bar=lambda x, w, b, g: g[0]), (X, W, B), "[2]"
    ),
    "sum: mean instead": Rule(
        jnp.sum, lambda x, g: (jnp.full_like(x, g / x.size),), (X,)
    ),
    "mean: sum instead": Rule(jnp.mean, lambda x, g: (jnp.full_like(x, g),), (X,)),
    "mean over an axis": Rule(
        lambda x: x.mean(1), lambda x, g: (jnp.repeat(g[:, None], 3, 1) / 4,), (X,)
    ),
    "variance: biased twice": Rule(
        lambda x: x.var(-1, ddof=1),
        lambda x, g: (2 * (x - x.mean(-1, keepdims=True)) / 3 * g[:, None],),
        (X,),
    ),
    "outer product": Rule(jnp.outer, lambda r, g: (g @ r[1], g @ r[0]), (V, U), "[1]"),
    "trace": Rule(jnp.trace, lambda a, g: (g * jnp.ones_like(a),), (W,)),
    "quadratic form": Rule(
        lambda x, a: x @ a @ x,
        lambda r, g: (2 * g * (r[1] @ r[0]), g * jnp.outer(r[0], r[0])),
        (B, W),
    ),
}

RIGHT = {
    "dense": Rule(dense, _dense(), (X, W, B), None),
    "dense by einsum": Rule(
        dense,
        _dense(w_bar=lambda x, w, b, g: jnp.einsum("ni,no->io", x, g)),
        (X, W, B),
        None,
    ),
    "variance by moments": Rule(
        lambda x: jnp.mean((x - x.mean()) ** 2),
        lambda x, g: (2 * (x - x.mean()) / x.size * g,),
        (1e5 + V,),
        None,
    ),
    "long sum": Rule(
        lambda x: jnp.sum(x * x), lambda x, g: (2 * x * g,), (LONG,), None
    ),
    "mean of many": Rule(
        jnp.mean, lambda x, g: (jnp.full_like(x, g / x.size),), (LONGER,), None
    ),
}
