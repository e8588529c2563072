"""Norms of the last axis: layer norm, RMS norm, and division by the length.

The backward passes go by blocks of rows: neither the normalised input nor a product
with the cotangent is ever whole. Sums along rows are products with the scale, which a
CPU takes several elements at a time; it adds those of a plain sum one by one.
"""

import functools
import math

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats, check_shapes
from jaxbp.ops._case import Case, normal, points
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._rows import ROWS, by_rows
from jaxbp.ops._sharding import alike


def layer_norm(
    x: Float[Array, "*n k"],
    scale: Float[Array, " k"],
    bias: Float[Array, " k"],
    *,
    eps: float = 1e-6,
) -> Float[Array, "*n k"]:
    r"""Layer norm: $y = \hat x\gamma + \beta$, $\hat x = (x - \mu)/\sigma$.

    Mean $\mu$ and variance are those of the row, $\sigma^2$ the variance plus eps.

    VJP: with $g = \bar y\gamma$ and means over the row,
    $\bar x = \bigl(g - \langle g\rangle - \hat x\langle g\hat x\rangle\bigr)/\sigma$,
    $\bar\gamma = \sum_n\bar y\hat x$, $\bar\beta = \sum_n\bar y$.

    Args:
        x: rows, any leading axes `*n`; their squares must not overflow.
        scale: $\gamma$, one factor a column.
        bias: $\beta$, one summand a column.
        eps: added to the variance, above 0: a row of one value has gradient
            $(g - \langle g\rangle)/\sqrt{eps}$.
    Returns:
        normalised rows. Residuals kept: `x`, `scale`, and of each row $\mu$ and
        $1/\sigma$, which another two sweeps over x would make again. Beside its result
        the backward pass needs a block of rows, however many there are.
    Raises:
        ValueError: the axes do not fit; eps not above 0; rows of length 0.
        TypeError: not floating, or of more than one dtype.
    Source: Ba, Kiros and Hinton, "Layer normalization" (2016), eqs. 3–4.
    """
    x, scale, bias = as_floats("layer_norm", x=x, scale=scale, bias=bias)
    expected = "x (*n, k), scale (k,), bias (k,)"
    check_shapes("layer_norm", expected, x=x, scale=scale, bias=bias)
    _check("layer_norm", x, eps)
    return _layer_norm(*alike(x, scale, bias), float(eps))


@functools.partial(jax.custom_vjp, nondiff_argnames=("eps",))
def _layer_norm(x, scale, bias, eps):
    return layer_norm_fwd(x, scale, bias, eps)[0]


def layer_norm_fwd(x, scale, bias, eps):
    centred, mean = _centred(_wide(x))
    inverse = jax.lax.rsqrt(_mean(jnp.square(centred)) + eps)
    y = centred * inverse * _wide(scale) + _wide(bias)
    return y.astype(x.dtype), (x, scale, mean, inverse)


def layer_norm_bwd(eps, res, y_bar):
    del eps
    x, scale, mean, inverse = res
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    wide = _wide(scale)

    def block(x, mean, inverse, y_bar):
        x_hat, y_bar = (_wide(x) - mean) * inverse, _wide(y_bar)
        g, product = y_bar * wide, y_bar * x_hat
        rest = g - _mean_product(y_bar, wide) - x_hat * _mean_product(product, wide)
        return (inverse * rest).astype(x.dtype), (product.sum(0), y_bar.sum(0))

    arrays = map(_rows, (x, mean, inverse, y_bar))
    x_bar, columns = by_rows(block, *arrays)
    scale_bar, bias_bar = (c.astype(scale.dtype) for c in columns)
    return x_bar.reshape(x.shape), scale_bar, bias_bar


_layer_norm.defvjp(layer_norm_fwd, layer_norm_bwd)


def rms_norm(
    x: Float[Array, "*n k"], scale: Float[Array, " k"], *, eps: float = 1e-6
) -> Float[Array, "*n k"]:
    r"""RMS norm: $y = \hat x\gamma$, $\hat x = x/r$, $r^2 = \langle x^2\rangle + eps$.

    VJP: with $g = \bar y\gamma$ and means over the row,
    $\bar x = \bigl(g - \hat x\langle g\hat x\rangle\bigr)/r$,
    $\bar\gamma = \sum_n\bar y\hat x$.

    Args:
        x: rows, any leading axes `*n`; their squares must not overflow.
        scale: $\gamma$, one factor a column.
        eps: added to the mean square, above 0: a row of zeros has gradient
            $g/\sqrt{eps}$.
    Returns:
        normalised rows. Residuals kept: `x`, `scale`, and $1/r$ of each row, which
        another sweep over x would make again. Beside its result the backward pass needs
        a block of rows, however many there are.
    Raises:
        ValueError: the axes do not fit; eps not above 0; rows of length 0.
        TypeError: not floating, or of two dtypes.
    Source: Zhang and Sennrich, "Root mean square layer normalization" (2019), eq. 4.
    """
    x, scale = as_floats("rms_norm", x=x, scale=scale)
    check_shapes("rms_norm", "x (*n, k), scale (k,)", x=x, scale=scale)
    _check("rms_norm", x, eps)
    return _rms_norm(*alike(x, scale), float(eps))


@functools.partial(jax.custom_vjp, nondiff_argnames=("eps",))
def _rms_norm(x, scale, eps):
    return rms_norm_fwd(x, scale, eps)[0]


def rms_norm_fwd(x, scale, eps):
    inverse = jax.lax.rsqrt(_mean(jnp.square(_wide(x))) + eps)
    y = _wide(x) * inverse * _wide(scale)
    return y.astype(x.dtype), (x, scale, inverse)


def rms_norm_bwd(eps, res, y_bar):
    del eps
    x, scale, inverse = res
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    wide = _wide(scale)

    def block(x, inverse, y_bar):
        x_hat, y_bar = _wide(x) * inverse, _wide(y_bar)
        product = y_bar * x_hat
        rest = y_bar * wide - x_hat * _mean_product(product, wide)
        return (inverse * rest).astype(x.dtype), product.sum(0)

    x_bar, scale_bar = by_rows(block, *map(_rows, (x, inverse, y_bar)))
    return x_bar.reshape(x.shape), scale_bar.astype(scale.dtype)


_rms_norm.defvjp(rms_norm_fwd, rms_norm_bwd)


def l2_normalise(x: ArrayLike) -> Float[Array, "*n k"]:
    r"""Division by the length: $y = x/\|x\|$, and 0 at 0.

    VJP: $\bar x = (\bar y - y\,\langle y, \bar y\rangle)/\|x\|$: what is along y does
    not turn it. At 0 there is no direction to turn, and the gradient is 0.

    Args:
        x: rows, any leading axes `*n`, of any magnitude: they are divided by their
            largest element first.
    Returns:
        rows of length 1, or 0. Residuals kept: `y`, and of each row its length.
    Raises:
        ValueError: no axis, or one of length 0.
        TypeError: not floating.
    Source: Salimans and Kingma, "Weight normalization" (2016), eq. 3, with g = 1.
    """
    (x,) = as_floats("l2_normalise", x=x)
    _check("l2_normalise", x)
    return _l2_normalise(x)


@jax.custom_vjp
def _l2_normalise(x):
    return l2_normalise_fwd(x)[0]


def l2_normalise_fwd(x):
    wide = _wide(x)
    largest = jnp.max(jnp.abs(wide), axis=-1, keepdims=True)
    largest = jax.lax.stop_gradient(jnp.where(largest == 0, 1, largest))
    unit = wide / largest
    square = jnp.square(unit).sum(axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.where(square == 0, 1, square))
    y = (unit / length).astype(x.dtype)
    return y, (y, jnp.where(square == 0, 0, largest * length))


def l2_normalise_bwd(res, y_bar):
    y, length = res
    chex.assert_trees_all_equal_shapes_and_dtypes(y, y_bar)
    wide, wide_bar = _wide(y), _wide(y_bar)
    turning = wide_bar - wide * (wide * wide_bar).sum(axis=-1, keepdims=True)
    x_bar = jnp.where(length == 0, 0, turning / jnp.where(length == 0, 1, length))
    return (x_bar.astype(y.dtype),)


_l2_normalise.defvjp(l2_normalise_fwd, l2_normalise_bwd)


def _check(function, x, eps=1.0):
    if x.ndim == 0 or x.shape[-1] == 0:
        expected = "of shape (*n, k) with k at least 1"
        raise argument_error(function, "x", expected, f"shape {x.shape}")
    if not 0 < eps < math.inf:
        raise argument_error(function, "eps", "above 0 and finite", eps)


def _centred(x):
    mean = _mean(x)
    return x - mean, mean


def _mean(x):
    return x.mean(axis=-1, keepdims=True)


def _mean_product(rows, column):
    product = jnp.matmul(rows, column, precision=jax.lax.Precision.HIGHEST)
    return product[:, None] / column.size


def _wide(x):
    return x.astype(accumulator(x.dtype))


def _rows(x):
    return x.reshape(-1, x.shape[-1])


def _plain_layer_norm(x, scale, bias):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + 1e-6) * scale + bias


def _plain_rms_norm(x, scale):
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def _plain_l2_normalise(x):
    nothing = (x == 0).all(-1, keepdims=True)
    safe = jnp.where(nothing, 1, x)
    return jnp.where(nothing, 0, x / jnp.linalg.vector_norm(safe, axis=-1)[..., None])


def _inputs(*columns):
    """Rows, and as many vectors of a column's factors or summands as there are."""

    def shapes(*rows):
        return normal(rows, *[(rows[-1],) for _ in columns])

    flat = [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1e4, 1e-4, 0.0], [1.0, 1.0, -1.0]]
    return {
        "ordinary": shapes(5, 3),
        "one row": shapes(4),
        "two leading axes": shapes(2, 3, 2),
        "one column": shapes(3, 1),
        "empty batch": shapes(0, 3),
        "a block and a rest": shapes(2 * ROWS + 3, 2),
        "flat rows": points(flat, *columns),
    }


_one, _some = [1.0, -2.0, 0.5], [0.0, 1.0, 3.0]
CASES = (
    Case(
        layer_norm,
        _plain_layer_norm,
        _inputs(_one, _some),
        {"4096×1024": normal((4096, 1024), (1024,), (1024,))},
        "Ba et al. (2016), eqs. 3–4",
        28,
    ),
    Case(
        rms_norm,
        _plain_rms_norm,
        _inputs(_one),
        {"4096×1024": normal((4096, 1024), (1024,))},
        "Zhang and Sennrich (2019), eq. 4",
        23,
    ),
    Case(
        l2_normalise,
        _plain_l2_normalise,
        _inputs(),
        {"4096×1024": normal((4096, 1024))},
        "Salimans and Kingma (2016), eq. 3",
        20,
    ),
)
