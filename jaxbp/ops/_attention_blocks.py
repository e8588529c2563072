"""Attention block by block: what `attention_fwd` and `attention_bwd` run.

A block of queries walks over the blocks of keys that it may see and no others: its trip
count depends on the block, which reverse mode refuses. So each walk is a function with
the derivative of its plain form, which is written beside it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbp.ops._dtypes import accumulator


class Setting(NamedTuple):
    """The options of an attention, hashable."""

    causal: bool
    scale: float
    block: int


def visible(shape, mask, causal) -> jax.Array:
    """Who sees whom: (..., t, s) that broadcasts against the scores."""
    seen = jnp.ones((1, 1), bool) if mask is None else mask
    return seen & jnp.tri(*shape, dtype=bool) if causal else seen


def scores(q, k, mask, setting: Setting) -> jax.Array:
    """All scores, in the accumulator's dtype; -inf where a query may not look."""
    s = _dot(q, jnp.swapaxes(k, -1, -2)) * setting.scale
    return jnp.where(visible(s.shape[-2:], mask, setting.causal), s, -jnp.inf)


def _dot(a, b):
    return jnp.matmul(a, b, preferred_element_type=accumulator(b.dtype))


def plain_forward(q, k, v, mask, setting: Setting):
    """Values, and of each query the highest score and the sum of exp(score - highest).

    The two lose nothing, where their log-sum-exp loses the digits that the highest has
    before the point. Of a query that sees nothing they are 0 and 1: its scores are
    -inf, so each weight is 0, and every gradient.
    """
    s = scores(q, k, mask, setting)
    highest = jax.lax.stop_gradient(s.max(axis=-1, initial=-jnp.inf))
    highest = jnp.where(jnp.isneginf(highest), 0, highest)
    e = jnp.exp(s - highest[..., None])
    total = _dot(e.astype(v.dtype), v)
    return _normalised((total, highest, e.sum(axis=-1)), v.dtype)


def _normalised(sums, dtype):
    total, highest, weight = sums
    blind = weight == 0
    highest, weight = jnp.where(blind, 0, highest), jnp.where(blind, 1, weight)
    return (total / weight[..., None]).astype(dtype), highest, weight


def plain_backward(q, k, v, mask, y, highest, weight, y_bar, setting: Setting):
    """Cotangents of q, k, v with all weights at once."""
    e = jnp.exp(scores(q, k, mask, setting) - highest[..., None])
    y_bar, mean = _shares(y, weight, y_bar)
    s_bar = e * (_dot(y_bar, jnp.swapaxes(v, -1, -2)) - mean[..., None]) * setting.scale
    e, s_bar = e.astype(q.dtype), s_bar.astype(q.dtype)
    turned = lambda a: jnp.swapaxes(a, -1, -2)
    bars = _dot(s_bar, k), _dot(turned(s_bar), q), _dot(turned(e), y_bar)
    return tuple(bar.astype(q.dtype) for bar in bars)


def _shares(y, weight, y_bar):
    """`y_bar` over the sum of exponentials, and its product with `y`.

    Divided here, once a query, no weight needs to be.
    """
    wide = accumulator(y.dtype)
    y_bar = y_bar.astype(wide) / weight[..., None]
    return y_bar.astype(y.dtype), (y.astype(wide) * y_bar).sum(axis=-1)


def _differentiated_as(plain: Callable) -> Callable[[Callable], Callable]:
    """Let `walk(*arrays, setting)` have the derivative of `plain(*arrays, setting)`."""

    def decorate(walk):
        rule = functools.partial(jax.custom_vjp, nondiff_argnames=("setting",))(walk)

        def fwd(*args):
            return walk(*args), args[:-1]

        def bwd(setting, arrays, bars):
            q, k, v, mask, *rest = arrays
            _, back = jax.vjp(
                lambda q, k, v, *rest: plain(q, k, v, mask, *rest, setting),
                q, k, v, *rest,
            )  # fmt: skip
            q_bar, k_bar, v_bar, *others = back(bars)
            return q_bar, k_bar, v_bar, None, *others

        rule.defvjp(fwd, bwd)
        return rule

    return decorate


class _Grid:
    """Blocks of equal length over queries and keys, the last ones padded."""

    def __init__(self, t, s, mask, setting: Setting):
        self.causal, self.keys = setting.causal, s
        self.block = max(1, min(setting.block, max(t, s)))
        self.rows, self.columns = (max(1, -(-n // self.block)) for n in (t, s))
        self.mask = mask
        if mask is not None:
            for axis, blocks in ((-2, self.rows), (-1, self.columns)):
                if self.mask.shape[axis] > 1:  # of length 1: the same for all
                    self.mask = self.padded(self.mask, blocks, axis)

    def padded(self, x, blocks, axis=-2):
        ends = [(0, 0)] * x.ndim
        ends[axis] = (0, blocks * self.block - x.shape[axis])
        return jnp.pad(x, ends) if ends[axis][1] else x

    def cut(self, x, k, axis=-2):
        return jax.lax.dynamic_slice_in_dim(x, k * self.block, self.block, axis)

    def put(self, x, piece, k):
        """`x` with `piece` added to block k of its last axis."""
        piece = self.cut(x, k, -1) + piece
        return jax.lax.dynamic_update_slice_in_dim(x, piece, k * self.block, -1)

    def visited(self, i):
        """How many blocks of keys block i of queries looks at: up to its diagonal."""
        return jnp.minimum(i + 1, self.columns) if self.causal else self.columns

    def hidden(self, s, i, j):
        """The block of scores with -inf where a query may not look."""
        column = j * self.block + jnp.arange(self.block)
        if self.causal:
            row = i * self.block + jnp.arange(self.block)
            s = jnp.where(column <= row[:, None], s, -jnp.inf)
        if self.keys < self.columns * self.block:
            s = jnp.where(column < self.keys, s, -jnp.inf)
        if self.mask is None:
            return s
        piece = self.mask
        for axis, k in ((-2, i), (-1, j)):
            piece = self.cut(piece, k, axis) if piece.shape[axis] > 1 else piece
        return jnp.where(piece, s, -jnp.inf)

    def joined(self, pieces, length):
        """Blocks stacked by a scan, (blocks, *n, block, d), as (*n, length, d)."""
        x = jnp.moveaxis(pieces, 0, -3)
        whole = self.rows * self.block
        return x.reshape(*x.shape[:-3], whole, x.shape[-1])[..., :length, :]


@_differentiated_as(plain_forward)
def forward(q, k, v, mask, setting):
    """`plain_forward` with a running maximum: never more than a block of scores."""
    t, s = q.shape[-2], k.shape[-2]
    grid = _Grid(t, s, mask, setting)
    q = grid.padded(q, grid.rows)
    k, v = (grid.padded(x, grid.columns) for x in (k, v))
    # Transposed once: the product of a block is then one of plain rows and columns.
    kt = jnp.swapaxes(k, -1, -2)

    def row(_, i):
        q_i = grid.cut(q, i)

        def look(j, carry):
            total, highest, weight = carry
            x = grid.hidden(_dot(q_i, grid.cut(kt, j, -1)) * setting.scale, i, j)
            higher = jnp.maximum(highest, x.max(axis=-1))
            e = jnp.exp(x - higher[..., None])
            fade = jnp.exp(highest - higher)
            value = _dot(e.astype(v.dtype), grid.cut(v, j))
            total = total * fade[..., None] + value
            return total, higher, weight * fade + e.sum(axis=-1)

        wide = accumulator(v.dtype)
        nothing = jnp.zeros_like(q_i[..., 0], wide)
        # Finite, so that a row that sees nothing yet meets no inf - inf.
        lowest = nothing + jnp.finfo(wide).min
        empty = nothing[..., None] * jnp.zeros(v.shape[-1], wide)
        carry = empty, lowest, nothing
        carry = jax.lax.fori_loop(0, grid.visited(i), look, carry)
        y, highest, weight = _normalised(carry, v.dtype)
        return None, (y, highest[..., None], weight[..., None])

    _, outs = jax.lax.scan(row, None, jnp.arange(grid.rows))
    y, highest, weight = (grid.joined(x, t) for x in outs)
    return y, highest[..., 0], weight[..., 0]


@_differentiated_as(plain_backward)
def backward(q, k, v, mask, y, highest, weight, y_bar, setting):
    """`plain_backward`, the weights made again from the scores block by block."""
    t, s, dtype = q.shape[-2], k.shape[-2], q.dtype
    grid = _Grid(t, s, mask, setting)
    y_bar, mean = _shares(y, weight, y_bar)
    mean, highest = (grid.padded(x, grid.rows, -1) for x in (mean, highest))
    q, y_bar = (grid.padded(x, grid.rows) for x in (q, y_bar))
    k, v = (grid.padded(x, grid.columns) for x in (k, v))
    kt, vt = (jnp.swapaxes(x, -1, -2) for x in (k, v))

    def row(bars, i):
        q_i, y_bar_i = grid.cut(q, i), grid.cut(y_bar, i)
        qt_i, yt_bar_i = (jnp.swapaxes(x, -1, -2) for x in (q_i, y_bar_i))
        mean_i, highest_i = (grid.cut(x, i, -1)[..., None] for x in (mean, highest))

        def look(j, carry):
            kt_bar, vt_bar, q_bar = carry
            x = grid.hidden(_dot(q_i, grid.cut(kt, j, -1)) * setting.scale, i, j)
            e = jnp.exp(x - highest_i)
            s_bar = e * (_dot(y_bar_i, grid.cut(vt, j, -1)) - mean_i) * setting.scale
            e, s_bar = e.astype(dtype), s_bar.astype(dtype)
            kt_bar = grid.put(kt_bar, _dot(qt_i, s_bar), j)
            vt_bar = grid.put(vt_bar, _dot(yt_bar_i, e), j)
            return kt_bar, vt_bar, q_bar + _dot(s_bar, grid.cut(k, j))

        carry = (*bars, jnp.zeros_like(q_i, accumulator(dtype)))
        *bars, q_bar = jax.lax.fori_loop(0, grid.visited(i), look, carry)
        return tuple(bars), q_bar.astype(dtype)

    bars = tuple(jnp.zeros_like(x, accumulator(dtype)) for x in (kt, vt))
    (kt_bar, vt_bar), q_bar = jax.lax.scan(row, bars, jnp.arange(grid.rows))
    back = lambda bar: jnp.swapaxes(bar, -1, -2)[..., :s, :].astype(dtype)
    return grid.joined(q_bar, t), back(kt_bar), back(vt_bar)
