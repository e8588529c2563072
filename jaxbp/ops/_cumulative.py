"""Cumulative log-sum-exp."""

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats
from jaxbp.ops import _logs as logs
from jaxbp.ops._case import Case, normal, points
from jaxbp.ops._dtypes import accumulator

# A piece is 4 blocks of 64: the 64 steps of a loop go through all blocks together.
_BLOCK, _BLOCKS = 64, 4


def cumlogsumexp(x: ArrayLike) -> Float[Array, "*n k"]:
    r"""Cumulative log-sum-exp of the last axis: $y_i = \ln\sum_{j \le i} e^{x_j}$.

    VJP: $\bar x_i = e^{x_i - y_i} r_i$ with $r_i = \sum_{j \ge i} e^{y_i - y_j}\bar y_j
    = \bar y_i + e^{y_i - y_{i+1}} r_{i+1}$. As y does not fall, no factor is above 1,
    and none has to be divided out again.

    Both passes go over pieces of the axis: temporary memory is the result's and that of
    one piece, time is linear in k.

    Args:
        x: any leading axes; below inf, -inf counts for nothing.
    Returns:
        log-sum-exps of the same shape; -inf, with gradient 0, up to the first finite
        one. Rounded to a unit in the last place of 1, where y is smaller than that.
        Residuals kept: `x`, `y`.
    Raises:
        ValueError: no axis to accumulate over.
        TypeError: not floating.
    Source: Blelloch, "Prefix sums and their applications" (1990), §1.4, for recurrences
        in blocks.
    """
    (x,) = as_floats("cumlogsumexp", x=x)
    if x.ndim == 0:
        raise argument_error(
            "cumlogsumexp", "x", "of shape (*n, k)", f"shape {x.shape}"
        )
    return _cumlogsumexp(x)


@jax.custom_vjp
def _cumlogsumexp(x):
    wide = accumulator(x.dtype)
    if not x.size:
        return x
    before = jnp.zeros_like(x[..., 0], wide) - jnp.inf
    _, y = _over_pieces(_piece, before, (x,), (-jnp.inf,))
    return y


def cumlogsumexp_fwd(x):
    y = _cumlogsumexp(x)
    return y, (x, y)


def cumlogsumexp_bwd(res, y_bar):
    x, y = res
    chex.assert_trees_all_equal_shapes_and_dtypes(y, y_bar)
    if not x.size:
        return (y_bar,)
    wide = accumulator(x.dtype)
    after = jnp.zeros_like(y[..., -1], wide), y[..., -1].astype(wide)
    fill = -jnp.inf, y[..., -1:], 0
    _, x_bar = _over_pieces(_piece_bar, after, (x, y, y_bar), fill, reverse=True)
    return (x_bar,)


_cumlogsumexp.defvjp(cumlogsumexp_fwd, cumlogsumexp_bwd)


def _over_pieces(body, carry, arrays, fill, *, reverse=False):
    """Scan over pieces of the last axis, each turned to (block, *n, blocks)."""
    x = arrays[0]
    *n, k = x.shape
    block = min(_BLOCK, k)
    blocks = min(_BLOCKS, -(-k // block))
    pieces = -(-k // (block * blocks))
    extra = pieces * blocks * block - k

    def filled(a, value):
        if not extra:
            return a
        tail = jnp.broadcast_to(jnp.asarray(value, a.dtype), (*n, extra))
        return jnp.concatenate([a, tail], axis=-1)

    arrays = [filled(a, value) for a, value in zip(arrays, fill, strict=True)]
    size = block * blocks

    def step(carry, start):
        cut = (jax.lax.dynamic_slice_in_dim(a, start, size, axis=-1) for a in arrays)
        turned = (jnp.moveaxis(a.reshape(*n, blocks, block), -1, 0) for a in cut)
        carry, out = body(carry, *(a.astype(accumulator(a.dtype)) for a in turned))
        return carry, jnp.moveaxis(out, 0, -1).reshape(*n, size).astype(x.dtype)

    starts = jnp.arange(pieces) * size
    carry, out = jax.lax.scan(step, carry, starts, reverse=reverse)
    return carry, jnp.moveaxis(out, 0, -2).reshape(*n, pieces * size)[..., :k]


def _piece(before, x):
    """y of a piece after the sum before it: in all blocks at once, then across them."""

    def add(sums, x):
        highest, total = sums
        higher = jnp.maximum(highest, jax.lax.stop_gradient(x))
        total = total * jnp.exp(highest - higher) + jnp.exp(x - higher)
        return (higher, total), (higher, total)

    def across(before, end):
        return logs.log_sum_exp(jnp.stack([before, end]), 0), before

    zero = jnp.zeros_like(x[0])
    # Finite, so that -inf is far below it.
    sums = zero + jnp.finfo(x.dtype).min, zero
    (highest, total), (highests, totals) = jax.lax.scan(add, sums, x)
    ends = jnp.moveaxis(highest + logs.log(total), -1, 0)
    after, before = jax.lax.scan(across, before, ends)
    before = jnp.moveaxis(before, 0, -1)
    shift = jnp.maximum(highests, jax.lax.stop_gradient(before))
    totals = totals * jnp.exp(highests - shift) + jnp.exp(before - shift)
    return after, shift + logs.log(totals)


def _piece_bar(after, x, y, y_bar):
    """x_bar of a piece, from r and y of the element after it; the same way back."""

    def add(after, here):
        r, later = after
        y, y_bar = here
        r = y_bar + _share(y, later) * r
        return (r, y), r

    def across(after, first):
        r, y = first
        return (r + _share(y, after[1]) * after[0], y), after

    end = jnp.zeros_like(y[-1]), y[-1]
    firsts, r = jax.lax.scan(add, end, (y, y_bar), reverse=True)
    firsts = tuple(jnp.moveaxis(a, -1, 0) for a in firsts)
    before, after = jax.lax.scan(across, after, firsts, reverse=True)
    later_r, later = (jnp.moveaxis(a, 0, -1) for a in after)
    return before, _share(x, y) * (r + _share(y, later) * later_r)


def _share(part, whole):
    """exp(part - whole) for a part of a sum; 0 where both are nothing."""
    return jnp.exp(part - jnp.where(jnp.isneginf(whole), 0, whole))


def _plain(x):
    return jax.lax.cumlogsumexp(x, axis=x.ndim - 1)


def _shifted(x):
    """Autodiff of a cumulative sum of exponentials under the highest of all."""
    shift = jax.lax.stop_gradient(x.max(axis=-1, keepdims=True))
    return jnp.log(jnp.cumsum(jnp.exp(x - shift), axis=-1)) + shift


CASES = (
    Case(
        cumlogsumexp,
        _plain,
        {
            "ordinary": normal((3, 5)),
            "one row": normal((4,)),
            "one element": normal((3, 1)),
            "ties": points([[0.0, 0.0, 0.0], [2.0, 1.0, 2.0]]),
            "far apart": points([[-700.0, 3.0, 700.0, 1e4], [1e4, 0.0, -1e4, 1e4]]),
            "empty batch": normal((0, 3)),
            "no elements": normal((2, 0)),
        },
        {"64×4096": normal((64, 4096))},
        "Blelloch (1990), §1.4",
        30,
        rivals={"shifted by the highest": _shifted},
    ),
)
