"""From windows back to the elements they hold, without a scatter.

Element s·i + a of a padded axis, s the stride, is element a + s·m of window i - m, for
every m that makes this less than the window's size. With i and a an axis each, all
elements find their windows by shifts alone: a sum over m of whole arrays.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp.ops._windows import Axis

# Terms up to which a sum is one fused loop; a program of many is slow to compile.
FUSED = 16


def into_elements(
    term: Callable[..., jax.Array],
    arrays: tuple[jax.Array, ...],
    rows: Axis,
    columns: Axis,
) -> jax.Array:
    """Sum over the windows that hold an element: (…, h, w, c).

    `arrays` are (…, outputs, outputs, c), one element a window, no dilation.
    `term(number, *arrays)` is what a window brings to its element of this number (-1:
    it holds no such element), and linear in the first array.
    """
    windows = [_windows(axis) for axis in (rows, columns)]
    arrays = _around(arrays, windows, (rows, columns))

    def brought(k: Any) -> jax.Array:
        shifts = k // windows[1][0], k % windows[1][0]
        r, q = (
            shift * axis.stride + np.arange(axis.stride, dtype=np.int32)
            for shift, axis in zip(shifts, (rows, columns), strict=True)
        )
        inside = (r < rows.size)[:, None] & (q < columns.size)
        number = jnp.where(inside, r[:, None] * columns.size + q, -1)
        cut = (_shifted(a, shifts, windows) for a in arrays)
        return term(number[:, None, :, None], *cut)

    terms = windows[0][0] * windows[1][0]
    total = each(1, terms, lambda k, total: total + brought(k), brought(0))
    *n, i, a, j, b, c = total.shape
    whole = total.reshape(*n, i * a, j * b, c)
    for axis, along in ((-3, rows), (-2, columns)):
        stop = along.low + along.length
        whole = jax.lax.slice_in_dim(whole, along.low, stop, axis=whole.ndim + axis)
    return whole


def each(start: int, stop: int, step: Callable[[Any, Any], Any], carry: Any) -> Any:
    """`jax.lax.fori_loop`, unrolled where it is short."""
    if stop > FUSED:
        return jax.lax.fori_loop(np.int32(start), np.int32(stop), step, carry)
    for k in range(start, stop):
        carry = step(k, carry)
    return carry


def _windows(axis: Axis) -> tuple[int, int]:
    """Windows that hold one element at most, and whole strides in the padded axis."""
    padded = axis.length + axis.low + axis.high
    return -(-axis.size // axis.stride), -(-padded // axis.stride)


def _around(arrays, windows, both):
    """The arrays with zeros for the windows before the first and after the last."""
    n = arrays[0].ndim - 3
    widths = [
        (held - 1, strides - axis.outputs, 0)
        for (held, strides), axis in zip(windows, both, strict=True)
    ]
    if not any(low or high for low, high, _ in widths):
        return arrays
    widths = [(0, 0, 0)] * n + widths + [(0, 0, 0)]
    # Laid down: else every term asks of every element whether it is of the padding.
    return jax.lax.optimization_barrier(
        tuple(jax.lax.pad(a, jnp.zeros((), a.dtype), widths) for a in arrays)
    )


def _shifted(array, shifts, windows):
    """Of every stride of the axes, the window that began `shifts` strides before it."""
    for k, (shift, (held, strides)) in enumerate(zip(shifts, windows, strict=True)):
        axis = array.ndim - 3 + k
        start = held - 1 - shift
        array = jax.lax.dynamic_slice_in_dim(array, start, strides, axis)
    return jnp.expand_dims(array, (-4, -2))
