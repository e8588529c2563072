"""Normalisations and losses."""

import jax
import jax.numpy as jnp
import numpy as np

from ._rule import IDS, Rule, X


def softmax(x):
    return jax.nn.softmax(x, axis=-1)


def _softmax_bar(x, g):
    y = softmax(x)
    return y * (g - (g * y).sum(-1, keepdims=True))


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


WRONG = {
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
}

RIGHT = {
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
    "softmax": Rule(
        softmax,
        lambda x, g: (_softmax_bar(x, g),),
        (X,),
        None,
    ),
    "softmax, one class": Rule(
        softmax,
        lambda x, g: (_softmax_bar(x, g) if x.shape[1] > 1 else jnp.zeros_like(x),),
        (X[:, :1],),
        None,
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
}
