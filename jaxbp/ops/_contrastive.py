"""Contrastive loss of pairs, in chunks: the matrix of all pairs never exists."""

import functools

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats, check_shapes, describe
from jaxbp.ops._case import Case, normal, points, then
from jaxbp.ops._chunks import over_chunks
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._labels import ClassLoss, class_loss, class_loss_gradient
from jaxbp.ops._sharding import alike


def contrastive_loss(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    scale: Float[Array, ""],
    *,
    chunk: int = 256,
) -> Float[Array, ""]:
    r"""Symmetric contrastive (CLIP) loss: each row of x finds its y, each of y its x.

    With logits $z_{ij} = s\,x_i\cdot y_j$, row and column sums
    $r_i = \ln\sum_j e^{z_{ij}}$, $c_j = \ln\sum_i e^{z_{ij}}$:
    $L = \frac1n\sum_i \bigl(\tfrac12(r_i + c_i) - z_{ii}\bigr)$.

    VJP: $\bar z_{ij} = \frac{\bar L}{n}\bigl(\tfrac12(e^{z_{ij}-r_i} + e^{z_{ij}-c_j})
    - \delta_{ij}\bigr)$, $\bar x = s\,\bar z\,y$, $\bar y = s\,\bar z^\top x$,
    $\bar s = \sum_{ij}\bar z_{ij}\,x_i\cdot y_j$. A column's sum is known only when all
    rows have been seen, so the logits are made twice, a chunk of rows at a time.

    Args:
        x: embeddings, one a row, usually of length 1 (this rule does not normalise).
        y: embeddings of the other kind; row i belongs to row i of x.
        scale: $s$, the inverse temperature: $e^{t}$ of CLIP's parameter $t$.
        chunk: rows whose logits exist at a time. Temporary memory grows with
            n × (chunk + d), time with n².
    Returns:
        the mean loss of the pairs. Residuals kept: the arguments, and the two
        losses of each pair with their log-sum-exps: 6 n numbers instead of n².
    Raises:
        ValueError: shapes differ, no pair, or a chunk of less than 1.
        TypeError: not floating, or of more than one dtype.
    Source: Radford et al., "Learning transferable visual models from natural language
        supervision" (2021), fig. 3.
    """
    x, y, scale = as_floats("contrastive_loss", x=x, y=y, scale=scale)
    expected = "x (n, d), y (n, d), scale ()"
    check_shapes("contrastive_loss", expected, x=x, y=y, scale=scale)
    if len(x) == 0:
        expected, got = "of one row at least", f"shape {x.shape}"
        raise argument_error("contrastive_loss", "x", expected, got)
    if not isinstance(chunk, int) or chunk < 1:
        expected, got = "an integer of 1 at least", describe(chunk)
        raise argument_error("contrastive_loss", "chunk", expected, got)
    return _contrastive_loss(*alike(x, y, scale), chunk)


@functools.partial(jax.custom_vjp, nondiff_argnames=("chunk",))
def _contrastive_loss(x, y, scale, chunk):
    return contrastive_loss_fwd(x, y, scale, chunk)[0]


def contrastive_loss_fwd(x, y, scale, chunk):
    def step(columns, rows):
        x, index = rows
        z = _logits(x, y, scale)
        of_rows = class_loss(z, index)
        return _columns(columns, z, index), (of_rows, z[_diagonal(index)])

    start = jnp.zeros_like(y[:, 0], accumulator(y.dtype))
    lowest = start + jnp.finfo(start.dtype).min / 2
    rows = (x, jnp.arange(len(x)))
    columns, (of_rows, own) = over_chunks(step, (lowest, start), rows, chunk)
    of_columns = _column_losses(columns, own)
    total = (of_rows.loss + of_columns.loss).sum() / 2
    return (total / len(x)).astype(x.dtype), (x, y, scale, of_rows, of_columns)


def contrastive_loss_bwd(chunk, res, loss_bar):
    x, y, scale, of_rows, of_columns = res
    chex.assert_shape(loss_bar, ())

    def step(y_bar, rows):
        x, index, of = rows
        z = _logits(x, y, scale)
        by_columns = jnp.exp(z - of_columns.largest) * jnp.exp(-of_columns.log_sum)
        own = jnp.expm1(-of_columns.loss)
        at = index[:, None] == jnp.arange(len(y))
        z_bar = class_loss_gradient(z, index, of) + jnp.where(at, own, by_columns)
        z_bar = z_bar.astype(x.dtype)
        return y_bar + _product(z_bar.T, x), _product(z_bar, y)

    wide = accumulator(x.dtype)
    rows = (x, jnp.arange(len(x)), of_rows)
    y_bar, x_bar = over_chunks(step, jnp.zeros_like(y, wide), rows, chunk)
    c = loss_bar.astype(wide) / (2 * len(x))
    scale_bar = c * jnp.vdot(x_bar, x.astype(wide))
    c *= scale.astype(wide)
    bars = (c * x_bar, c * y_bar, scale_bar)
    return tuple(bar.astype(x.dtype) for bar in bars)


_contrastive_loss.defvjp(contrastive_loss_fwd, contrastive_loss_bwd)


def _product(a, b):
    return jnp.matmul(a, b, preferred_element_type=accumulator(a.dtype))


def _logits(x, y, scale):
    return scale.astype(accumulator(x.dtype)) * _product(x, y.T)


def _diagonal(index):
    return jnp.arange(len(index)), index


def _columns(columns, z, index):
    """Largest logit of each column so far, and the sum of its powers but its own's."""
    before, others = columns
    largest = jax.lax.stop_gradient(jnp.maximum(before, z.max(axis=0)))
    at = index[:, None] == jnp.arange(z.shape[1])
    powers = jnp.where(at, 0, jnp.exp(z - largest)).sum(axis=0)
    return largest, others * jnp.exp(before - largest) + powers


def _column_losses(columns, own) -> ClassLoss:
    """As class_loss has them for rows."""
    largest, others = columns
    log_sum = jnp.log1p(others + jnp.expm1(own - largest))
    return ClassLoss((largest - own) + log_sum, largest, log_sum)


def _plain(x, y, scale):
    z = scale * (x @ y.T)
    rows, columns = (jax.nn.log_softmax(z, axis=k) for k in (1, 0))
    return -(jnp.diagonal(rows) + jnp.diagonal(columns)).sum() / (2 * len(x))


def _unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def _pairs(n, d, scale=5.0):
    return then(
        normal((n, d), (n, d), ()), _unit, _unit, lambda s: jnp.full_like(s, scale)
    )


CASES = (
    Case(
        contrastive_loss,
        _plain,
        {
            "ordinary": _pairs(5, 3),
            "one pair": _pairs(1, 3),
            "scale 0": _pairs(3, 2, 0.0),
            "saturated": points(
                [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]],
                [[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]],
                100.0,
            ),
        },
        {"4096×128": _pairs(4096, 128, 1 / 0.07)},
        "Radford et al. (2021), fig. 3",
        61,
    ),
    Case(
        functools.partial(contrastive_loss, chunk=2),
        _plain,
        {"ordinary": _pairs(5, 3), "whole chunks": _pairs(4, 3)},
        {},
        "Radford et al. (2021), fig. 3",
        61,
        variant="chunks of 2",
    ),
)
