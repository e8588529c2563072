"""Mean over windows of an image."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp._errors import as_floats
from jaxbp.ops import _windows as windows
from jaxbp.ops._case import Case, normal
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._phases import FUSED, into_elements


def avg_pool2d(
    x: ArrayLike,
    *,
    window: windows.Pair = 2,
    stride: windows.Pair | None = None,
    padding: str = "VALID",
    count_include_pad: bool = True,
) -> Float[Array, "*n p q c"]:
    r"""Mean over windows, channel by channel: $y_{pq} = \sum_k x_{pq,k}/m_{pq}$.

    VJP: $\bar x_e = \sum_{pq \ni e} \bar y_{pq}/m_{pq}$.

    Args:
        x: images (*n, h, w, c), any leading axes, channels last.
        window: its rows and columns; one number for both, or two.
        stride: from one window to the next; the window's size if None.
        padding: "VALID" (rows and columns that fill no window are dropped) or "SAME"
            (⌈h/stride⌉ outputs, zeros around).
        count_include_pad: $m_{pq}$ is the window's size everywhere; if False the number
            of its elements that are not padding.
    Returns:
        means, of sums in float32 at least. Residuals kept: none but x's shape; the rule
        is linear. Both passes are sums of shifted arrays, one loop each up to windows
        of 16 elements.
    Raises:
        ValueError: no window fits; an option is out of its range.
        TypeError: not floating.
    Source: LeCun et al., "Gradient-based learning applied to document recognition"
        (1998), §II.B, layers S2 and S4.
    """
    (x,) = as_floats("avg_pool2d", x=x)
    windows.of_pool("avg_pool2d", x, window, stride, padding)
    window = windows.pair("avg_pool2d", "window", window)
    if stride is not None:
        stride = windows.pair("avg_pool2d", "stride", stride)
    return _avg_pool2d(x, window, stride, padding, bool(count_include_pad))


_options = ("window", "stride", "padding", "count_include_pad")


@functools.partial(jax.custom_vjp, nondiff_argnames=_options)
def _avg_pool2d(x, window, stride, padding, count_include_pad):
    rows, columns = windows.of_pool("avg_pool2d", x, window, stride, padding)
    return _means(x, rows, columns, count_include_pad)


def avg_pool2d_fwd(x, window, stride, padding, count_include_pad):
    y = _avg_pool2d(x, window, stride, padding, count_include_pad)
    return y, x[..., :0]


def avg_pool2d_bwd(window, stride, padding, count_include_pad, empty, y_bar):
    rows, columns = windows.of_pool("avg_pool2d", empty, window, stride, padding)
    chex.assert_shape(y_bar, (*empty.shape[:-3], rows.outputs, columns.outputs, None))
    return (_spread(y_bar, rows, columns, count_include_pad),)


_avg_pool2d.defvjp(avg_pool2d_fwd, avg_pool2d_bwd)


# One program where nobody has jitted: dozens of small ones take long to compile.
@functools.partial(jax.jit, static_argnames=("rows", "columns", "count_include_pad"))
def _means(x, rows, columns, count_include_pad):
    wide = accumulator(x.dtype)
    shares = _shares(rows, columns, count_include_pad, wide)

    def block(x):
        return (_sums(x.astype(wide), rows, columns) * shares).astype(x.dtype), ()

    return windows.by_images(block, x, elements=math.prod(x.shape[-3:]))[0]


@functools.partial(jax.jit, static_argnames=("rows", "columns", "count_include_pad"))
def _spread(y_bar, rows, columns, count_include_pad):
    wide = accumulator(y_bar.dtype)
    shares = _shares(rows, columns, count_include_pad, wide)

    def term(number, share):
        return jnp.where(number >= 0, share, 0)

    def block(y_bar):
        each = y_bar.astype(wide) * shares
        return into_elements(term, (each,), rows, columns).astype(y_bar.dtype), ()

    elements = rows.length * columns.length * y_bar.shape[-1]
    return windows.by_images(block, y_bar, elements=elements)[0]


def _sums(x, rows, columns):
    size = rows.size * columns.size
    if size > FUSED:
        ones, both = (1,) * (x.ndim - 3), (rows, columns)
        return jax.lax.reduce_window(
            x,
            np.zeros((), x.dtype),
            jax.lax.add,
            (*ones, rows.size, columns.size, 1),
            (*ones, rows.stride, columns.stride, 1),
            [(0, 0)] * len(ones) + [(a.low, a.high) for a in both] + [(0, 0)],
        )
    x = windows.padded(x, rows, columns, 0)
    elements = [
        windows.element(x, k // columns.size, k % columns.size, rows, columns)
        for k in range(size)
    ]
    return functools.reduce(jnp.add, elements)


def _shares(rows, columns, count_include_pad, dtype):
    """1/m of every window, (p, q, 1)."""
    if count_include_pad:
        return np.asarray(1 / (rows.size * columns.size), dtype)
    counts = [a.counts for a in (rows, columns)]
    return np.asarray(1 / np.outer(*counts), dtype)[..., None]


def _plain(x, window=2, stride=None, padding="VALID", count_include_pad=True):
    """Sums by `jax.lax.reduce_window`, as flax takes them."""
    sizes = (window, window) if isinstance(window, int) else window
    steps = sizes if stride is None else stride
    steps = (steps, steps) if isinstance(steps, int) else steps
    ones = (1,) * (x.ndim - 3)

    def summed(x):
        return jax.lax.reduce_window(
            x,
            np.zeros((), x.dtype),
            jax.lax.add,
            (*ones, *sizes, 1),
            (*ones, *steps, 1),
            padding,
        )

    if count_include_pad:
        return summed(x) / (sizes[0] * sizes[1])
    return summed(x) / summed(jnp.ones((*ones, *x.shape[-3:-1], 1), x.dtype))


def _reshaped(x):
    *n, h, w, c = x.shape
    return x.reshape(*n, h // 2, 2, w // 2, 2, c).mean((-4, -2))


def _case(inputs, cost=None, rivals=None, variant="", **options) -> Case:
    return Case(
        functools.partial(avg_pool2d, **options) if options else avg_pool2d,
        functools.partial(_plain, **options) if options else _plain,
        inputs,
        cost or {},
        "LeCun et al. (1998), §II.B",
        0,
        variant=variant,
        rivals=rivals or {},
    )


_image = {"8×112×112×64": normal((8, 112, 112, 64))}
CASES = (
    _case(
        {
            "ordinary": normal((2, 4, 6, 3)),
            "odd sizes": normal((2, 5, 7, 2)),
            "no leading axis": normal((4, 2, 2)),
            "two leading axes": normal((2, 1, 3, 3, 1)),
            "one window": normal((3, 2, 2, 2)),
            "empty batch": normal((0, 4, 4, 2)),
        },
        _image,
        {"mean of a reshape": _reshaped},
        "2×2",
    ),
    _case(
        {
            "ordinary": normal((2, 6, 7, 2)),
            "one row": normal((2, 1, 5, 1)),
            "one pixel": normal((1, 1, 1, 2)),
        },
        _image,
        variant="3×3/2",
        window=3,
        stride=2,
        padding="SAME",
        count_include_pad=False,
    ),
    _case(
        {"ordinary": normal((2, 7, 8, 2))},
        variant="6×3, stride 1 and 4",
        window=(6, 3),
        stride=(1, 4),
        padding="SAME",
    ),
)
