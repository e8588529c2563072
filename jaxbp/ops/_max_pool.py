"""Maximum over windows: what is kept is which element won, in a byte."""

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
from jaxbp.ops._case import Case, normal, points
from jaxbp.ops._phases import each, into_elements
from jaxbp.ops._sharding import alike


def max_pool2d(
    x: ArrayLike,
    *,
    window: windows.Pair = 2,
    stride: windows.Pair | None = None,
    padding: str = "VALID",
) -> Float[Array, "*n p q c"]:
    r"""Maximum over windows, channel by channel: $y_{pq} = \max_k x_{pq,k}$.

    VJP: $\bar x_e = \sum_{pq:\,k^*_{pq} = e} \bar y_{pq}$: all of a window's cotangent
    goes to its winner $k^*$.

    Ties: the first of the highest, by rows, gets it all. NaN is higher than any number,
    and the first NaN of a window gets its cotangent. A window of -inf alone is won by
    its first element; padding never wins. The second derivative is that of a choice: 0.

    Args:
        x: images (*n, h, w, c), any leading axes, channels last.
        window: its rows and columns; one number for both, or two.
        stride: from one window to the next; the window's size if None.
        padding: "VALID" (rows and columns that fill no window are dropped) or "SAME"
            (⌈h/stride⌉ outputs).
    Returns:
        maxima. Residuals kept: the winner's number in its window, one byte up to 256
        elements, two up to 65,536, four beyond; x is not needed. Windows of more than
        16 elements are gone through in a loop: temporary memory stays that of y.
    Raises:
        ValueError: no window fits; an option is out of its range.
        TypeError: not floating.
    Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks"
        (2014), §2.1, their switches.
    """
    (x,) = as_floats("max_pool2d", x=x)
    _axes(x, window, stride, padding)
    window = windows.pair("max_pool2d", "window", window)
    if stride is not None:
        stride = windows.pair("max_pool2d", "stride", stride)
    return _max_pool2d(x, window, stride, padding)


_options = ("window", "stride", "padding")


@functools.partial(jax.custom_vjp, nondiff_argnames=_options)
def _max_pool2d(x, window, stride, padding):
    return _winners(x, *_axes(x, window, stride, padding))[0]


def max_pool2d_fwd(x, window, stride, padding):
    y, winner = _winners(x, *_axes(x, window, stride, padding))
    # Laid down, or the backward pass looks for the winners again, in every term.
    return y, (jax.lax.optimization_barrier(winner), x[..., :0])


def max_pool2d_bwd(window, stride, padding, res, y_bar):
    winner, empty = res
    rows, columns = _axes(empty, window, stride, padding)
    chex.assert_equal_shape([winner, y_bar])
    return (_to_winners(y_bar, winner, rows, columns),)


_max_pool2d.defvjp(max_pool2d_fwd, max_pool2d_bwd)


# One program where nobody has jitted: dozens of small ones take long to compile.
@functools.partial(jax.jit, static_argnames=("rows", "columns"))
def _winners(x, rows, columns):
    """Every window's highest element, and the number of the first that is it."""
    block = lambda x: (_winners_of(x, rows, columns), ())
    return windows.by_images(block, x, elements=math.prod(x.shape[-3:]))[0]


def _winners_of(x, rows, columns):
    x = windows.padded(x, rows, columns, -jnp.inf)
    size = rows.size * columns.size
    kind = np.uint8 if size <= 1 << 8 else np.uint16 if size <= 1 << 16 else np.uint32

    def step(k, best):
        y, winner = best
        v = windows.element(x, k // columns.size, k % columns.size, rows, columns)
        higher = ~(v <= y) & (y == y)  # a NaN is; nothing is higher than one
        number = jnp.asarray(k).astype(kind)
        return jnp.where(higher, v, y), jnp.where(higher, number, winner)

    # Not of the padding, also where all that follows is -inf.
    first = _first(rows)[:, None] * columns.size + _first(columns)
    y = windows.element(x, 0, 0, rows, columns)
    winner = jnp.broadcast_to(first.astype(kind)[..., None], y.shape)
    return each(1, size, step, alike(y, winner))


@functools.partial(jax.jit, static_argnames=("rows", "columns"))
def _to_winners(y_bar, winner, rows, columns):
    def term(number, y_bar, winner):
        return jnp.where(winner.astype(jnp.int32) == number, y_bar, 0)

    def block(y_bar, winner):
        return into_elements(term, (y_bar, winner), rows, columns), ()

    elements = rows.length * columns.length * y_bar.shape[-1]
    return windows.by_images(block, y_bar, winner, elements=elements)[0]


def _first(axis):
    """Of every window the first element that is not padding."""
    return np.maximum(0, axis.low - np.arange(axis.outputs) * axis.stride)


def _axes(x, window, stride, padding):
    return windows.of_pool("max_pool2d", x, window, stride, padding)


def _plain(x, window=2, stride=None, padding="VALID"):
    """By `jax.lax.reduce_window`, whose gradient also goes to the first of a tie."""
    sizes = (window, window) if isinstance(window, int) else window
    steps = sizes if stride is None else stride
    steps = (steps, steps) if isinstance(steps, int) else steps
    ones = (1,) * (x.ndim - 3)
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (*ones, *sizes, 1), (*ones, *steps, 1), padding
    )


def _reshaped(x):
    """The maximum of 2×2 blocks side by side: its gradient is split among ties."""
    *n, h, w, c = x.shape
    return x.reshape(*n, h // 2, 2, w // 2, 2, c).max((-4, -2))


def _case(inputs, residuals, cost=None, rivals=None, variant="", **options) -> Case:
    return Case(
        functools.partial(max_pool2d, **options) if options else max_pool2d,
        functools.partial(_plain, **options) if options else _plain,
        inputs,
        cost or {},
        "Zeiler and Fergus (2014), §2.1",
        residuals,
        variant=variant,
        rivals=rivals or {},
    )


_image = {"8×112×112×64": normal((8, 112, 112, 64))}
_ties = np.array([[1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 2.0, 2.0], [-0.0, 0.0, 3.0, 3.0]])
_ties = np.concatenate([_ties, _ties[::-1]])[..., None]
CASES = (
    _case(
        {
            "ordinary": normal((2, 4, 6, 3)),
            "odd sizes": normal((2, 5, 7, 2)),
            "no leading axis": normal((4, 2, 2)),
            "two leading axes": normal((2, 1, 3, 3, 1)),
            "one window": normal((3, 2, 2, 2)),
            "ties": points(_ties),
            "infinite": points(np.where(_ties == 1, -np.inf, _ties)),
            "empty batch": normal((0, 4, 4, 2)),
        },
        2 * 2 * 3 * 3,
        _image,
        {"maximum of a reshape": _reshaped},
        "2×2",
    ),
    _case(
        {
            "ordinary": normal((2, 6, 7, 2)),
            "one row": normal((2, 1, 5, 1)),
            "one pixel": normal((1, 1, 1, 2)),
            "ties": points(_ties),
            "infinite at the edge": points(np.where(_ties == 1, -np.inf, _ties)),
        },
        2 * 3 * 4 * 2,
        _image,
        variant="3×3/2",
        window=3,
        stride=2,
        padding="SAME",
    ),
    _case(
        {"ordinary": normal((2, 7, 8, 2)), "ties": points(np.zeros((7, 5, 1)))},
        2 * 2 * 2 * 2,
        variant="6×3, stride 1 and 4",
        window=(6, 3),
        stride=(1, 4),
    ),
)
