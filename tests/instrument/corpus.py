"""Wrong rules of the kinds that people really write, and right ones that look wrong.

Each is `(primal, bwd, args, blamed)`: residuals are the arguments, or the argument
where there is one; `blamed` is the leaf whose gradient is wrong, None of a right rule.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_rng = np.random.default_rng(5)


def _normal(*shape):
    return _rng.standard_normal(shape)


X, W, B = _normal(4, 3), _normal(3, 3), _normal(3)
V, U = _normal(5), _normal(5)
P = np.abs(_normal(4, 3)) + 0.2
IDS = np.array([2, 0, 2, 1])
FLAGS = np.array([True, False, True, True, False])


class Rule(NamedTuple):
    primal: Callable
    bwd: Callable
    args: tuple
    blamed: str | None = "[0]"

    def function(self):
        @jax.custom_vjp
        def f(*args):
            return self.primal(*args)

        def fwd(*args):
            return self.primal(*args), args if len(args) > 1 else args[0]

        f.defvjp(fwd, self.bwd)
        return f


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


def softmax(x):
    return jax.nn.softmax(x, axis=-1)


def layer_norm(x):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def _normed(x):
    scale = jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return (x - x.mean(-1, keepdims=True)) / scale, scale


def _layer_norm(x, g):
    y, scale = _normed(x)
    mean = lambda a: a.mean(-1, keepdims=True)
    return ((g - mean(g) - y * mean(g * y)) / scale,)


def norm(x):
    return jnp.sqrt(jnp.sum(x * x, -1))


def logsumexp(x):
    return jax.nn.logsumexp(x, axis=-1)


def cross_entropy(x, ids):
    return logsumexp(x) - jnp.take_along_axis(x, ids[:, None], -1)[:, 0]


def _one_hot(ids, n, like):
    return jax.nn.one_hot(ids, n, dtype=like.dtype)


def embed(table, ids):
    return table[ids]


def where(flags, x, y):
    return jnp.where(flags, x, y)


def scan_product(x):
    return jax.lax.scan(lambda c, v: (c * v, c * v), jnp.ones_like(x[0]), x)[1]


def solve(a, b):
    return jnp.linalg.solve(a, b)


A = W @ W.T + 3 * np.eye(3)


def _solve(a, b, g):
    b_bar = jnp.linalg.solve(a.T, g)
    return -jnp.outer(b_bar, jnp.linalg.solve(a, b)), b_bar


s = jax.nn.sigmoid

WRONG = {
    # sign, factor, constant
    "sign of sin": Rule(jnp.cos, lambda x, g: (jnp.sin(x) * g,), (V,)),
    "no 2 in square": Rule(lambda x: x * x, lambda x, g: (x * g,), (V,)),
    "half kept": Rule(lambda x: x * x / 2, lambda x, g: (2 * x * g,), (V,)),
    "degrees": Rule(
        lambda x: jnp.sin(x * np.pi / 180),
        lambda x, g: (jnp.cos(x * np.pi / 180) * g,),
        (V,),
    ),
    "log base": Rule(jnp.log2, lambda x, g: (g / x,), (P,)),
    "exponent off by one": Rule(lambda x: x**3, lambda x, g: (3 * x * g,), (V,)),
    "one percent": Rule(jnp.exp, lambda x, g: (1.01 * jnp.exp(x) * g,), (V,)),
    "one in a million": Rule(
        jnp.exp, lambda x, g: ((jnp.exp(x) * g).at[3].multiply(1 + 1e-6),), (V,)
    ),
    "softplus of minus": Rule(jax.nn.softplus, lambda x, g: (s(-x) * g,), (V,)),
    "tanh without square": Rule(jnp.tanh, lambda x, g: ((1 - jnp.tanh(x)) * g,), (V,)),
    # derivative at the output, stale or wrong residuals
    "sigmoid of sigmoid": Rule(s, lambda x, g: (s(s(x)) * (1 - s(s(x))) * g,), (V,)),
    "sigmoid of input": Rule(s, lambda x, g: (x * (1 - x) * g,), (V,)),
    "exp of exp": Rule(jnp.exp, lambda x, g: (jnp.exp(jnp.exp(x)) * g,), (V,)),
    "silu without second term": Rule(jax.nn.silu, lambda x, g: (s(x) * g,), (V,)),
    "gelu's other form": Rule(
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x, g: jax.vjp(lambda x: jax.nn.gelu(x, approximate=True), x)[1](g),
        (V,),
    ),
    # the cotangent
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
    # arguments
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
    # products, transposes, reductions
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
    # normalisations and losses
    "softmax: diagonal": Rule(
        softmax, lambda x, g: (softmax(x) * (1 - softmax(x)) * g,), (X,)
    ),
    "softmax: mean of g": Rule(
        softmax, lambda x, g: (softmax(x) * (g - g.mean(-1, keepdims=True)),), (X,)
    ),
    "log-softmax: no sum": Rule(
        jax.nn.log_softmax, lambda x, g: (g - softmax(x) * g,), (X,)
    ),
    "logsumexp: not normalised": Rule(
        logsumexp, lambda x, g: (jnp.exp(x) * g[:, None],), (X,)
    ),
    "cross-entropy: sign": Rule(
        cross_entropy,
        lambda r, g: ((_one_hot(r[1], 3, r[0]) - softmax(r[0])) * g[:, None], None),
        (X, IDS),
    ),
    "cross-entropy: no label": Rule(
        cross_entropy, lambda r, g: (softmax(r[0]) * g[:, None], None), (X, IDS)
    ),
    "cross-entropy: batch mean": Rule(
        cross_entropy,
        lambda r, g: ((softmax(r[0]) - _one_hot(r[1], 3, r[0])) * g.mean(), None),
        (X, IDS),
    ),
    "layer norm: mean constant": Rule(
        layer_norm,
        lambda x, g: (
            (g - (y := _normed(x))[0] * (g * y[0]).mean(-1, keepdims=True)) / y[1],
        ),
        (X,),
    ),
    "layer norm: variance constant": Rule(
        layer_norm,
        lambda x, g: ((g - g.mean(-1, keepdims=True)) / _normed(x)[1],),
        (X,),
    ),
    "norm: not divided": Rule(norm, lambda x, g: (x * g[:, None],), (X,)),
    "normalise: no projection": Rule(
        lambda x: x / norm(x)[:, None], lambda x, g: (g / norm(x)[:, None],), (X,)
    ),
    # indices, order, selection
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
    "maximum: first always": Rule(
        jnp.maximum, lambda r, g: (g, jnp.zeros_like(g)), (V, U), "[0]"
    ),
    "sort: not unsorted": Rule(jnp.sort, lambda x, g: (g,), (V,)),
    "cumsum: not reversed": Rule(jnp.cumsum, lambda x, g: (jnp.cumsum(g),), (V,)),
    "roll: same direction": Rule(
        lambda x: jnp.roll(x, 1), lambda x, g: (jnp.roll(g, 1),), (V,)
    ),
    "flip forgotten": Rule(jnp.flip, lambda x, g: (g,), (V,)),
    "clip passes all": Rule(lambda x: jnp.clip(x, -0.5, 0.5), lambda x, g: (g,), (V,)),
    "relu of the cotangent": Rule(
        jax.nn.relu, lambda x, g: (jnp.where(g > 0, g, 0),), (V,)
    ),
    "every tie is first": Rule(
        jnp.max,
        lambda x, g: (g * (x == x.max()).astype(x.dtype),),
        (np.array([1.0, 2.0, 2.0]),),
    ),
    # loops, solves, implicit functions
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
    "exp by its value": Rule(jnp.exp, lambda x, g: (jnp.exp(x) * g,), (V,), None),
    "sigmoid by its value": Rule(s, lambda x, g: (s(x) * (1 - s(x)) * g,), (V,), None),
    "sigmoid by the other": Rule(s, lambda x, g: (s(x) * s(-x) * g,), (10 * V,), None),
    "tanh factored": Rule(
        jnp.tanh, lambda x, g: ((1 - jnp.tanh(x)) * (1 + jnp.tanh(x)) * g,), (V,), None
    ),
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
    "norm safe at zero": Rule(
        norm,
        lambda x, g: (
            jnp.where((n := norm(x)[:, None]) == 0, 0, x / jnp.where(n == 0, 1, n))
            * g[:, None],
        ),
        (np.zeros((2, 3)),),
        None,
    ),
    "squared norm at zero": Rule(
        lambda x: jnp.linalg.norm(x) ** 2,
        lambda x, g: (2 * x * g,),
        (np.zeros(3),),
        None,
    ),
    "logaddexp by sigmoid": Rule(
        lambda x: jnp.logaddexp(x, 0.0 * x), lambda x, g: (s(x) * g,), (100 * V,), None
    ),
    "dense": Rule(dense, _dense(), (X, W, B), None),
    "dense by einsum": Rule(
        dense,
        _dense(w_bar=lambda x, w, b, g: jnp.einsum("ni,no->io", x, g)),
        (X, W, B),
        None,
    ),
    "softmax": Rule(
        softmax,
        lambda x, g: ((y := softmax(x)) * (g - (g * y).sum(-1, keepdims=True)),),
        (X,),
        None,
    ),
    "softmax, one class": Rule(
        softmax, lambda x, g: (jnp.zeros_like(x),), (X[:, :1],), None
    ),
    "logsumexp": Rule(
        logsumexp, lambda x, g: (softmax(x) * g[:, None],), (100 * X,), None
    ),
    "cross-entropy": Rule(
        cross_entropy,
        lambda r, g: ((softmax(r[0]) - _one_hot(r[1], 3, r[0])) * g[:, None], None),
        (X, IDS),
        None,
    ),
    "layer norm": Rule(layer_norm, _layer_norm, (X,), None),
    "layer norm far from zero": Rule(layer_norm, _layer_norm, (1e4 + X,), None),
    "variance by moments": Rule(
        lambda x: jnp.mean((x - x.mean()) ** 2),
        lambda x, g: (2 * (x - x.mean()) / x.size * g,),
        (1e5 + V,),
        None,
    ),
    "long sum": Rule(
        lambda x: jnp.sum(x * x), lambda x, g: (2 * x * g,), (_normal(5000),), None
    ),
    "mean of many": Rule(
        jnp.mean, lambda x, g: (jnp.full_like(x, g / x.size),), (_normal(10_000),), None
    ),
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
    "solve": Rule(solve, lambda r, g: _solve(*r, g), (A, B), None),
    "scan": Rule(
        scan_product, lambda x, g: jax.vjp(scan_product, x)[1](g), (P[:, 0],), None
    ),
    "tiny values": Rule(
        lambda x: x**3, lambda x, g: (3 * x * x * g,), (1e-20 * V,), None
    ),
    "huge values": Rule(lambda x: x * x, lambda x, g: (2 * x * g,), (1e60 * V,), None),
    "cancelling terms": Rule(lambda x: (1e8 + x) - 1e8, lambda x, g: (g,), (V,), None),
    "log of one plus": Rule(jnp.log1p, lambda x, g: (g / (1 + x),), (1e-9 * P,), None),
    "square root at zero": Rule(
        jnp.sqrt,
        lambda x, g: (jnp.where(x > 0, g / (2 * jnp.sqrt(jnp.where(x > 0, x, 1))), 0),),
        (np.array([0.0, 0.3, 2.0]),),
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
    "nothing to differentiate in data": Rule(
        lambda x, n: x * n.sum().astype(x.dtype),
        lambda r, g: (g * r[1].sum().astype(g.dtype), None),
        (V, IDS),
        None,
    ),
}
