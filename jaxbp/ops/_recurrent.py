"""What the recurrent ops share: a cell walked over a sequence, forward and back.

Both walks go in chunks of steps. A chunk's products with the inputs, its gates and its
share of the weights' cotangents are each one matrix product; only what a step owes to
the step before it stays in the inner loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbp._errors import argument_error, as_floats, check_shapes, describe
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike

_CHUNK = 32  # steps


class Cell(NamedTuple):
    """One step of a recurrent op, apart from its weights.

    A state is a tuple, its first member h the one that the weights meet and the output.
    `step(zx, zh, state)` is the next state from $z_x = xW_x + b$ and $z_h = hW_h$.
    `slopes(zx, zh, before, after)` are derivatives, for many steps at once; what they
    do not look at is not computed.
    `back(bars, slopes)` is the cotangent of $z_x$, and those of the state before, but
    for the way through $z_h$; `hidden(z_bar, slopes)` is that of $z_h$.
    """

    step: Callable[..., tuple[jax.Array, ...]]
    slopes: Callable[..., Any]
    back: Callable[..., tuple[jax.Array, tuple[jax.Array, ...]]]
    hidden: Callable[..., jax.Array] = lambda z_bar, slopes: z_bar


def checked(function, expected, gates, lengths, **arrays):
    """The arrays in one dtype and the lengths, varying over the same mesh axes."""
    values = as_floats(function, **arrays)
    arrays = dict(zip(arrays, values, strict=True))
    check_shapes(function, expected, **arrays)
    h, g = arrays["wh"].shape
    if g != gates * h:
        raise argument_error(
            function, "wh", f"of shape (h, {gates}h)", f"shape {(h, g)}"
        )
    if lengths is not None:
        if not jnp.issubdtype(jnp.result_type(lengths), jnp.integer):
            got = describe(lengths)
            raise argument_error(
                function, "lengths", "integers, one a sequence", got, kind=TypeError
            )
        lengths = jnp.asarray(lengths)
        check_shapes(
            function, "x (*n, t, i), lengths (*n)", x=arrays["x"], lengths=lengths
        )
    return alike(*values, lengths)


def product(a, w):
    """`a @ w` in the accumulator's dtype."""
    return jnp.matmul(a, w, preferred_element_type=accumulator(w.dtype))


def _wide(arrays):
    return tuple(x.astype(accumulator(x.dtype)) for x in arrays)


def _first(x):
    """The axis of time, second to last, in front: what a scan walks over."""
    return jnp.moveaxis(x, -2, 0)


def _live(lengths, start, size):
    """Which steps of a chunk are inside their sequence, (size, *n, 1); None: all."""
    if lengths is None:
        return None
    step = start + jnp.arange(size)
    return _first(step[:, None] < lengths[..., None, None])


def _where(live, x, other):
    return x if live is None else jnp.where(live, x, other)


def _cut(x, start, size):
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis=-2)


def _in_chunks(body, carry, length, *, reverse=False):
    """Scan `body(carry, start, size)` over chunks, the shorter last one by itself.

    It stacks what it emits along axis 0 in chunks; here they are joined along axis -2.
    """
    chunks, rest = divmod(length, _CHUNK)
    emitted = []

    def whole(carry):
        starts = jnp.arange(chunks) * _CHUNK
        step = lambda carry, start: body(carry, start, _CHUNK)
        carry, out = jax.lax.scan(step, carry, starts, reverse=reverse)
        flat = lambda y: y.reshape(length - rest, *y.shape[2:])
        emitted.append(jax.tree.map(flat, out))
        return carry

    def last(carry):
        carry, out = body(carry, length - rest, rest)
        emitted.append(out)
        return carry

    parts = [whole] * (chunks > 0) + [last] * (rest > 0 or not chunks)
    for part in parts[::-1] if reverse else parts:
        carry = part(carry)
    emitted = emitted[::-1] if reverse else emitted

    def join(*ys):
        return jnp.moveaxis(ys[0] if len(ys) == 1 else jnp.concatenate(ys), 0, -2)

    return carry, jax.tree.map(join, *emitted)


def forward(cell: Cell, x, state, wx, wh, biases, lengths):
    """States after every step, (*n, t, h), 0 after the end; and the last one."""
    bx, *bh = _wide(biases)

    def chunk(state, start, size):
        zx = _first(product(_cut(x, start, size), wx) + bx)

        def step(state, inputs):
            zx, live = inputs
            zh = sum(bh, product(state[0], wh))
            new = cell.step(zx, zh, _wide(state))
            new = tuple(s.astype(x.dtype) for s in new)
            kept = tuple(_where(live, a, b) for a, b in zip(new, state, strict=True))
            return kept, tuple(_where(live, a, 0) for a in new)

        return jax.lax.scan(step, state, (zx, _live(lengths, start, size)))

    state, states = _in_chunks(chunk, state, x.shape[-2])
    return states, state


def _before(first, states, start, size):
    """The states that the steps of a chunk start from, time in front."""
    previous = jnp.maximum(start - 1, 0)
    before = _first(_cut(states, previous, min(1, size)))
    before = jnp.where(start == 0, first, before)
    return jnp.concatenate([before, _first(_cut(states, start, size))[:-1]])


def backward(cell: Cell, x, state, wx, wh, biases, lengths, states, y_bar, bars):
    """Cotangents of x, the first state, both weights and the biases."""
    bx, *bh = _wide(biases)
    wide = accumulator(x.dtype)
    turned = wh.T

    def step(bars, inputs):
        slopes, y_bar, live = inputs
        z_bar, before = cell.back((bars[0] + y_bar, *bars[1:]), slopes)
        through = product(cell.hidden(z_bar, slopes).astype(wh.dtype), turned)
        before = (before[0] + through, *before[1:])
        before = tuple(_where(live, a, b) for a, b in zip(before, bars, strict=True))
        return before, _where(live, z_bar, 0)

    def chunk(carry, start, size):
        bars, sums = carry
        x_here = _first(_cut(x, start, size))
        here = lambda first, all: _before(first, all, start, size)
        before = tuple(map(here, state, states))
        after = tuple(_first(_cut(s, start, size)) for s in states)
        zx = product(x_here, wx) + bx
        zh = sum(bh, product(before[0], wh))
        slopes = cell.slopes(zx, zh, _wide(before), _wide(after))
        y_bar_here = _first(_cut(y_bar, start, size)).astype(wide)
        inputs = slopes, y_bar_here, _live(lengths, start, size)
        bars, zx_bar = jax.lax.scan(step, bars, inputs, reverse=True)
        zh_bar = cell.hidden(zx_bar, slopes)
        zx_bar, zh_bar = zx_bar.astype(x.dtype), zh_bar.astype(x.dtype)
        new = _weights_bar(x_here, zx_bar), _weights_bar(before[0], zh_bar)
        new = (*new, *(_summed(z) for z in (zx_bar, zh_bar)[: len(biases)]))
        sums = tuple(a + b for a, b in zip(sums, new, strict=True))
        return (bars, sums), product(zx_bar, wx.T).astype(x.dtype)

    sums = tuple(jnp.zeros_like(w, wide) for w in (wx, wh, *biases))
    carry = _wide(bars), sums
    (bars, sums), x_bar = _in_chunks(chunk, carry, x.shape[-2], reverse=True)
    bars, sums = ([a.astype(x.dtype) for a in group] for group in (bars, sums))
    return x_bar, tuple(bars), *sums


def _weights_bar(a, z_bar):
    n = tuple(range(a.ndim - 1))
    wide = accumulator(a.dtype)
    return jnp.tensordot(a, z_bar, axes=(n, n), preferred_element_type=wide)


def _summed(z_bar):
    return z_bar.sum(axis=tuple(range(z_bar.ndim - 1)), dtype=accumulator(z_bar.dtype))
