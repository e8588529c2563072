"""Batch norm: in training by the batch's statistics, afterwards by running ones."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats, check_shapes
from jaxbp.ops._case import Case, normal, points, then
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike


def batch_norm(
    x: Float[Array, "*n k"],
    scale: Float[Array, " k"],
    bias: Float[Array, " k"],
    *,
    eps: float = 1e-5,
) -> tuple[Float[Array, "*n k"], Float[Array, " k"], Float[Array, " k"]]:
    r"""Batch norm in training: $y = \hat x\gamma + \beta$, $\hat x = (x - \mu)/\sigma$.

    Mean $\mu$ and variance $v$ are those of the column over all leading axes,
    $\sigma^2 = v + eps$. A network moves its running statistics towards them
    (`state = m * state + (1 - m) * mean`) and hands them to `batch_norm_inference`.

    VJP: with $g = \bar y\gamma$ and means over the N examples,
    $\bar x = \bigl(g - \langle g\rangle - \hat x\langle g\hat x\rangle\bigr)/\sigma
    + \bigl(\bar\mu + 2(x - \mu)\bar v\bigr)/N$,
    $\bar\gamma = \sum_n\bar y\hat x$, $\bar\beta = \sum_n\bar y$.

    Args:
        x: examples, any leading axes `*n`, at least one; their squares must not
            overflow. Under `shard_map` a device takes the statistics of its own shard.
        scale: $\gamma$, one factor a column.
        bias: $\beta$, one summand a column.
        eps: added to the variance, above 0.
    Returns:
        `(y, mean, var)`, the variance divided by N, not N - 1. Residuals kept: `x`,
        `scale`, and of each column $\mu$ and $1/\sigma$.
    Raises:
        ValueError: the axes do not fit; no examples; eps not above 0.
        TypeError: not floating, or of more than one dtype.
    Source: Ioffe and Szegedy, "Batch normalization" (2015), algorithm 1 and the
        gradients after it.
    """
    x, scale, bias = as_floats("batch_norm", x=x, scale=scale, bias=bias)
    expected = "x (*n, k), scale (k,), bias (k,)"
    check_shapes("batch_norm", expected, x=x, scale=scale, bias=bias)
    if math.prod(x.shape[:-1]) == 0:
        expected = "a batch of at least one example"
        raise argument_error("batch_norm", "x", expected, f"shape {x.shape}")
    return _batch_norm(*alike(x, scale, bias), _positive("batch_norm", eps))


@functools.partial(jax.custom_vjp, nondiff_argnames=("eps",))
def _batch_norm(x, scale, bias, eps):
    return batch_norm_fwd(x, scale, bias, eps)[0]


def batch_norm_fwd(x, scale, bias, eps):
    wide, n = _wide(x), _leading(x)
    mean = wide.mean(axis=n)
    var = jnp.square(wide - mean).mean(axis=n)
    inverse = jax.lax.rsqrt(var + eps)
    y = (wide - mean) * inverse * _wide(scale) + _wide(bias)
    outs = tuple(out.astype(x.dtype) for out in (y, mean, var))
    return outs, (x, scale, mean, inverse)


def batch_norm_bwd(eps, res, bars):
    del eps
    x, scale, mean, inverse = res
    y_bar, mean_bar, var_bar = map(_wide, bars)
    chex.assert_equal_shape([x, y_bar])
    centred, n, size = _wide(x) - mean, _leading(x), x.size // x.shape[-1]
    bias_bar = y_bar.sum(axis=n)
    scale_bar = (y_bar * centred).sum(axis=n) * inverse
    # Of what x_bar takes off, one number a column of each kind.
    along = 2 * var_bar - _wide(scale) * inverse * inverse * scale_bar
    off = mean_bar - _wide(scale) * inverse * bias_bar
    x_bar = y_bar * (_wide(scale) * inverse) + (centred * along + off) / size
    return x_bar.astype(x.dtype), scale_bar.astype(x.dtype), bias_bar.astype(x.dtype)


_batch_norm.defvjp(batch_norm_fwd, batch_norm_bwd)


def batch_norm_inference(
    x: Float[Array, "*n k"],
    scale: Float[Array, " k"],
    bias: Float[Array, " k"],
    mean: Float[Array, " k"],
    var: Float[Array, " k"],
    *,
    eps: float = 1e-5,
) -> Float[Array, "*n k"]:
    r"""Batch norm by given statistics: $y = (x - \mu)\gamma/\sigma + \beta$.

    VJP: with $g = \bar y\gamma$, $\bar x = g/\sigma$,
    $\bar\gamma = \sum_n\bar y\hat x$, $\bar\beta = \sum_n\bar y$,
    $\bar\mu = -\bar\beta\gamma/\sigma$, $\bar v = -\bar\gamma\gamma/2\sigma^2$.

    Args:
        x: examples, any leading axes `*n`.
        scale: $\gamma$, one factor a column.
        bias: $\beta$, one summand a column.
        mean: $\mu$, of each column.
        var: the variance of each column, from 0; $\sigma^2$ is it plus eps.
        eps: added to the variance, above 0.
    Returns:
        normalised examples. Residuals kept: `x`, `scale`, `mean`, and $1/\sigma$ of
        each column.
    Raises:
        ValueError: the axes do not fit; eps not above 0.
        TypeError: not floating, or of more than one dtype.
    Source: Ioffe and Szegedy, "Batch normalization" (2015), algorithm 2.
    """
    arrays = {"x": x, "scale": scale, "bias": bias, "mean": mean, "var": var}
    values = as_floats("batch_norm_inference", **arrays)
    expected = "x (*n, k), scale (k,), bias (k,), mean (k,), var (k,)"
    check_shapes(
        "batch_norm_inference", expected, **dict(zip(arrays, values, strict=True))
    )
    eps = _positive("batch_norm_inference", eps)
    return _batch_norm_inference(*alike(*values), eps)


@functools.partial(jax.custom_vjp, nondiff_argnames=("eps",))
def _batch_norm_inference(x, scale, bias, mean, var, eps):
    return batch_norm_inference_fwd(x, scale, bias, mean, var, eps)[0]


def batch_norm_inference_fwd(x, scale, bias, mean, var, eps):
    inverse = jax.lax.rsqrt(_wide(var) + eps)
    y = (_wide(x) - _wide(mean)) * (inverse * _wide(scale)) + _wide(bias)
    return y.astype(x.dtype), (x, scale, mean, inverse)


def batch_norm_inference_bwd(eps, res, y_bar):
    del eps
    x, scale, mean, inverse = res
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    n, factor, y_bar = _leading(x), _wide(scale) * inverse, _wide(y_bar)
    bias_bar = y_bar.sum(axis=n)
    scale_bar = (y_bar * (_wide(x) - _wide(mean))).sum(axis=n) * inverse
    var_bar = -scale_bar * factor * inverse / 2
    bars = y_bar * factor, scale_bar, bias_bar, -bias_bar * factor, var_bar
    return tuple(bar.astype(x.dtype) for bar in bars)


_batch_norm_inference.defvjp(batch_norm_inference_fwd, batch_norm_inference_bwd)


def _positive(function, eps) -> float:
    if not 0 < eps < math.inf:
        raise argument_error(function, "eps", "above 0 and finite", eps)
    return float(eps)


def _leading(x):
    return tuple(range(x.ndim - 1))


def _wide(x):
    return x.astype(accumulator(x.dtype))


def _plain_batch_norm(x, scale, bias):
    n = tuple(range(x.ndim - 1))
    mean, var = x.mean(n), x.var(n)
    return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias, mean, var


def _plain_inference(x, scale, bias, mean, var):
    return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias


def _inputs(given, **more):
    """Examples and `given` vectors, the last of them, if there are four, positive."""

    def shapes(*rows):
        make = normal(rows, *[(rows[-1],)] * given)
        positive = (*[None] * given, jnp.square)
        return then(make, *positive) if given == 4 else make

    return {
        "ordinary": shapes(5, 3),
        "two leading axes": shapes(2, 3, 2),
        "one column": shapes(4, 1),
    } | {name: shapes(*rows) for name, rows in more.items()}


_flat = [[2.0, 1e4, 0.0], [2.0, -1e4, 1e-4]], [1.0, -2.0, 0.5], [0.0, 1.0, 3.0]
CASES = (
    Case(
        batch_norm,
        _plain_batch_norm,
        {**_inputs(2), "flat column": points(*_flat)},
        {"4096×256": normal((4096, 256), (256,), (256,))},
        "Ioffe and Szegedy (2015), algorithm 1",
        24,
    ),
    Case(
        batch_norm_inference,
        _plain_inference,
        {
            **_inputs(4, **{"empty batch": (0, 3), "no leading axis": (3,)}),
            "no variance": points(*_flat, [0.0, 1.0, -1.0], [0.0, 1.0, 0.0]),
        },
        {"4096×256": then(normal((4096, 256), *[(256,)] * 4), *[None] * 4, jnp.square)},
        "Ioffe and Szegedy (2015), algorithm 2",
        24,
    ),
)
