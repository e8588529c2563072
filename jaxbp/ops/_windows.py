"""Windows over the two axes of an image: sizes, strides, padding, checked once."""

import math
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._errors import argument_error
from jaxbp.ops._rows import by_rows

# Elements that are worked on together: with their neighbours and the results they stay
# in a core's cache, and what is padded is a block of images.
_BLOCK = 1 << 18

Pair = int | tuple[int, int]
Padding = str | Sequence[tuple[int, int]]


class Axis(NamedTuple):
    """Windows along one axis: element k of window o is at o·stride + k·dilation - low.

    `low` and `high` elements of padding lie before and after the axis's `length`.
    """

    length: int
    size: int
    stride: int
    dilation: int
    low: int
    high: int

    @property
    def reach(self) -> int:
        """From a window's first element to its last."""
        return (self.size - 1) * self.dilation + 1

    @property
    def outputs(self) -> int:
        return (self.length + self.low + self.high - self.reach) // self.stride + 1

    @property
    def span(self) -> int:
        """From the first window's first element to the last one's first."""
        return (self.outputs - 1) * self.stride + 1

    @property
    def counts(self) -> np.ndarray:
        """How many elements of each window, undilated, are not padding."""
        start = np.arange(self.outputs) * self.stride - self.low
        stop = np.minimum(start + self.size, self.length)
        return stop - np.maximum(start, 0)


def axes(
    function: str,
    x: jax.Array,
    size: Pair,
    stride: Pair,
    dilation: Pair,
    padding: Padding,
) -> tuple[Axis, Axis]:
    """Of the rows and of the columns of x (*n, h, w, c).

    Raises:
        ValueError: a size, stride or dilation below 1, padding that is none of its
            forms, or windows larger than the padded image.
        TypeError: no integers.
    """
    if x.ndim < 3:
        expected = "of shape (*n, h, w, c)"
        raise argument_error(function, "x", expected, f"shape {x.shape}")
    lengths = x.shape[-3:-1]
    given = (("window", size), ("stride", stride), ("dilation", dilation))
    sizes, strides, dilations = (pair(function, *option) for option in given)
    pads = paddings(function, padding)
    found = []
    for k, (length, s, step, d) in enumerate(
        zip(lengths, sizes, strides, dilations, strict=True)
    ):
        low, high = _same(length, s, step, d) if pads == "SAME" else (0, 0)
        if isinstance(pads, tuple):
            low, high = pads[k]
        axis = Axis(length, s, step, d, low, high)
        if length < 1 or axis.outputs < 1:
            name = ("high", "wide")[k]
            expected = f"at least {max(1, axis.reach - low - high)} {name}"
            got = f"shape {x.shape}"
            raise argument_error(function, "x", expected, got, "no window fits")
        found.append(axis)
    return found[0], found[1]


def of_pool(
    function: str, x: jax.Array, window: Pair, stride: Pair | None, padding: str
) -> tuple[Axis, Axis]:
    """As `axes`, undilated, a stride of None being the window's size."""
    if padding not in ("SAME", "VALID"):
        expected = '"SAME" or "VALID"'
        raise argument_error(function, "padding", expected, repr(padding))
    stride = window if stride is None else stride
    return axes(function, x, window, stride, 1, padding)


def pair(function: str, name: str, value: Any) -> tuple[int, int]:
    """Two integers of at least 1; one stands for both."""
    both = tuple(value) if isinstance(value, Sequence) else (value, value)
    if not all(isinstance(v, numbers.Integral) for v in both):
        expected = "an integer or two"
        raise argument_error(function, name, expected, repr(value), kind=TypeError)
    if len(both) != 2 or min(both) < 1:
        raise argument_error(function, name, "one or two of at least 1", repr(value))
    return int(both[0]), int(both[1])


def paddings(function: str, value: Any) -> str | tuple[tuple[int, int], ...]:
    """ "SAME", "VALID", or the rows' and the columns' (low, high)."""
    if value in ("SAME", "VALID"):
        return value
    try:
        pads = tuple((operator.index(low), operator.index(high)) for low, high in value)
    except (TypeError, ValueError):
        pads = ()
    if len(pads) != 2 or min(map(min, pads)) < 0:
        expected = '"SAME", "VALID" or ((top, bottom), (left, right)), none negative'
        raise argument_error(function, "padding", expected, repr(value))
    return pads


def by_images(
    f: Callable[..., Any], *arrays: jax.Array, elements: int
) -> tuple[Any, Any]:
    """`by_rows` over blocks of images, `elements` the size of the largest one's.

    Of arrays (*n, …, …, …), and so are the outputs that belong to images.
    """
    images = max(1, _BLOCK // max(1, elements))
    outputs, sums = by_rows(f, *map(flat, arrays), rows=images)
    lead = arrays[0].shape[:-3]
    return jax.tree.map(lambda y: y.reshape(*lead, *y.shape[1:]), outputs), sums


def flat(x: jax.Array) -> jax.Array:
    """(*n, h, w, c) with its leading axes made one."""
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])


def padded(x: jax.Array, rows: Axis, columns: Axis, value: float) -> jax.Array:
    """(…, h, w, c) with the padding around it."""
    around = [(0, 0, 0)] * (x.ndim - 3)
    around += [(rows.low, rows.high, 0), (columns.low, columns.high, 0), (0, 0, 0)]
    return jax.lax.pad(x, jnp.asarray(value, x.dtype), around)


def element(x: jax.Array, r: Any, q: Any, rows: Axis, columns: Axis) -> jax.Array:
    """Element (r, q) of every window of a padded x: (…, outputs, outputs, c)."""
    for axis, k, along in ((x.ndim - 3, r, rows), (x.ndim - 2, q, columns)):
        start = k * along.dilation
        if isinstance(k, int):
            x = jax.lax.slice_in_dim(x, start, start + along.span, along.stride, axis)
        else:
            x = jax.lax.dynamic_slice_in_dim(x, start, along.span, axis)
            x = jax.lax.slice_in_dim(x, 0, along.span, along.stride, axis)
    return x


def _same(length: int, size: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding for ⌈length/stride⌉ outputs; the odd element comes last."""
    reach = (size - 1) * dilation + 1
    total = max(0, (-(-length // stride) - 1) * stride + reach - length)
    return total // 2, total - total // 2
