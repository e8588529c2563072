"""The weights' cotangent of a convolution as matrix products, for CPUs.

As a convolution its window is as large as the cotangent of the output, at as few
positions as the filter has elements: XLA's CPU backend is slow at these.
"""

import functools

import jax
import jax.numpy as jnp

from jaxbp.ops import _windows as windows
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._rows import by_rows

_BLOCK = 1 << 18  # elements of a matrix of columns


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"


@functools.partial(jax.jit, static_argnames=("rows", "columns"))
def of_weights(
    x: jax.Array, y_bar: jax.Array, rows: windows.Axis, columns: windows.Axis
) -> jax.Array:
    """(k, l, i, o) of x (n, h, w, i) and y_bar (n, p, q, o).

    A row of the window and a block of images at a time: what each output saw of that
    row, side by side, is a matrix that meets y_bar.
    """
    i, o = x.shape[-1], y_bar.shape[-1]
    wide, axes = accumulator(x.dtype), (0, 1, 2)

    def block(x, y_bar):
        padded = windows.padded(x, rows, columns, 0)

        def row(k):
            of = range(columns.size)
            seen = [windows.element(padded, k, l, rows, columns) for l in of]
            seen = jnp.concatenate(seen, axis=-1)  # (n, p, q, l i)
            return jnp.tensordot(seen, y_bar, (axes, axes), preferred_element_type=wide)

        return (), jax.lax.map(row, jnp.arange(rows.size))

    elements = rows.outputs * columns.outputs * columns.size * i
    images = max(1, _BLOCK // max(1, elements))
    _, w_bar = by_rows(block, x, y_bar, rows=images)
    return w_bar.reshape(rows.size, columns.size, i, o).astype(x.dtype)
