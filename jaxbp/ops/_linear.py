"""The affine map."""

import math

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxbp._errors import as_floats, check_shapes
from jaxbp.ops._case import Case, normal, points
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike

# Multiplications up to which a fused loop beats a matrix product on a CPU: 8×8×8 by 15,
# 32×8×8 by 9; at 16×16×16 they are equal.
_TINY = 2048
_WIDE = 8192


def dense(
    x: Float[Array, "*n i"], w: Float[Array, "i o"], b: Float[Array, " o"]
) -> Float[Array, "*n o"]:
    r"""Affine map of the last axis: $y = xW + b$.

    VJP: $\bar x = \bar y W^\top$, $\bar W = \sum_n x_n^\top \bar y_n$,
    $\bar b = \sum_n \bar y_n$.

    Args:
        x: inputs, any leading axes `*n`; `w_bar` and `b_bar` sum over them.
        w: weights, stored (in, out).
        b: bias.
    Returns:
        pre-activations. Residuals kept: `x`, `w` (b enters affinely, its value is never
        needed). Products and sums accumulate in float32 at least. Products of at most
        2,048 multiplications are written as broadcast, multiply, sum: on a CPU the call
        of a matrix product costs more than they do.
    Raises:
        ValueError: the axes of `x`, `w`, `b` do not chain.
        TypeError: not floating, or of more than one dtype.
    Source: Nielsen, *Neural Networks and Deep Learning*, ch. 2, eqs. BP2–BP4.
    """
    x, w, b = as_floats("dense", x=x, w=w, b=b)
    check_shapes("dense", "x (*n, i), w (i, o), b (o,)", x=x, w=w, b=b)
    return _dense(*alike(x, w, b))


@jax.custom_vjp
def _dense(x, w, b):
    return _product(x, w).astype(x.dtype) + b  # (*n, o)


def dense_fwd(x, w, b):
    return _dense(x, w, b), (x, w)


def dense_bwd(res, y_bar):
    x, w = res
    chex.assert_shape(y_bar, (*x.shape[:-1], w.shape[1]))
    x_bar = _product(y_bar, w.T)
    n = math.prod(x.shape[:-1])
    columns = x.reshape(n, x.shape[-1]).T
    if w.shape[1] >= _WIDE:  # at half the speed unless the transpose is laid out
        columns = jax.lax.optimization_barrier(columns)
    w_bar = _product(columns, y_bar.reshape(n, w.shape[1]))
    b_bar = y_bar.sum(axis=tuple(range(x.ndim - 1)), dtype=accumulator(x.dtype))
    return x_bar.astype(x.dtype), w_bar.astype(w.dtype), b_bar.astype(w.dtype)


_dense.defvjp(dense_fwd, dense_bwd)


def _product(a, b):
    """(*n, k) by (k, m), the form chosen by size while tracing."""
    wide = accumulator(a.dtype)
    if a.size * b.shape[1] > _TINY:
        return jnp.matmul(a, b, preferred_element_type=wide)
    return (a.astype(wide)[..., None] * b.astype(wide)).sum(axis=-2)


CASES = (
    Case(
        dense,
        lambda x, w, b: jnp.einsum("...i,io->...o", x, w) + b,
        {
            "ordinary": normal((5, 3), (3, 4), (4,)),
            "no leading axis": normal((3,), (3, 4), (4,)),
            "two leading axes": normal((2, 3, 3), (3, 4), (4,)),
            "one by one": normal((1, 1), (1, 1), (1,)),
            "empty batch": normal((0, 3), (3, 4), (4,)),
            "zeros": points([[0.0, 1.0], [0.0, 0.0]], [[0.0], [2.0]], [0.0]),
        },
        {"2048×1024 → 1024": normal((2048, 1024), (1024, 1024), (1024,))},
        "Nielsen, ch. 2, BP2–BP4",
        27,
    ),
)
