"""Depth-wise convolution of images: a filter a channel, by shifts."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxbp._errors import as_floats, check_shapes
from jaxbp.ops import _windows as windows
from jaxbp.ops._case import Case, normal
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike


def depthwise_conv2d(
    x: Float[Array, "*n h w c"],
    w: Float[Array, "k l c"],
    *,
    stride: windows.Pair = 1,
    padding: windows.Padding = "SAME",
    dilation: windows.Pair = 1,
) -> Float[Array, "*n p q c"]:
    r"""Convolution (cross-correlation) of every channel with a filter of its own.

    $y_{npqc} = \sum_{kl} x_{n,\,ps+kd-t,\,qs+ld-t,\,c}\,W_{klc}$ with stride s,
    dilation d and t elements of padding before each axis.

    VJP: $\bar x_{nijc} = \sum_{kl} \bar y^\uparrow_{n,\,i+t-kd,\,j+t-ld,\,c}\,W_{klc}$,
    where $\bar y^\uparrow$ has s - 1 zeros between the elements of $\bar y$;
    $\bar W_{klc} = \sum_{npq} x_{n,\,ps+kd-t,\,qs+ld-t,\,c}\,\bar y_{npqc}$.

    Args:
        x: images, any leading axes `*n`, channels last.
        w: one filter a channel.
        stride: from one window to the next; one number for both axes, or two.
        padding: "SAME" (⌈h/s⌉ outputs, the odd element after the axis), "VALID" (none),
            or ((top, bottom), (left, right)) zeros.
        dilation: from one element of a window to the next.
    Returns:
        pre-activations, of sums in float32 at least. Residuals kept: `x`, `w`. No
        matrix product: each element of the filter is a shift of the image, times a row
        of channels. Both passes go by blocks of images, and beside their results need
        what a block does.
    Raises:
        ValueError: the channels do not fit; no window fits; an option is out of its
            range.
        TypeError: not floating, or of two dtypes.
    Source: Howard et al., "MobileNets" (2017), §3.1, eq. 3.
    """
    x, w = as_floats("depthwise_conv2d", x=x, w=w)
    check_shapes("depthwise_conv2d", "x (*n, h, w, c), w (k, l, c)", x=x, w=w)
    _axes(x, w, stride, padding, dilation)
    name = "depthwise_conv2d"
    stride = windows.pair(name, "stride", stride)
    dilation = windows.pair(name, "dilation", dilation)
    padding = windows.paddings(name, padding)
    return _depthwise_conv2d(*alike(x, w), stride, padding, dilation)


_options = ("stride", "padding", "dilation")


@functools.partial(jax.custom_vjp, nondiff_argnames=_options)
def _depthwise_conv2d(x, w, stride, padding, dilation):
    return _shifts(x, w, *_axes(x, w, stride, padding, dilation))


def depthwise_conv2d_fwd(x, w, stride, padding, dilation):
    return _depthwise_conv2d(x, w, stride, padding, dilation), (x, w)


def depthwise_conv2d_bwd(stride, padding, dilation, res, y_bar):
    x, w = res
    both = _axes(x, w, stride, padding, dilation)
    chex.assert_shape(y_bar, (*x.shape[:-3], *(a.outputs for a in both), w.shape[-1]))
    return _shifts_bar(x, w, y_bar, both)


_depthwise_conv2d.defvjp(depthwise_conv2d_fwd, depthwise_conv2d_bwd)


# One program where nobody has jitted: dozens of small ones take long to compile.
@functools.partial(jax.jit, static_argnames=("rows", "columns"))
def _shifts(x, w, rows, columns):
    wide = accumulator(x.dtype)
    filters = w.astype(wide)

    def block(x):
        padded = windows.padded(x, rows, columns, 0).astype(wide)
        cut = lambda k, l: windows.element(padded, k, l, rows, columns)
        terms = [cut(k, l) * filters[k, l] for k, l in _elements(w)]
        return functools.reduce(jnp.add, terms).astype(x.dtype), ()

    return windows.by_images(block, x, elements=math.prod(x.shape[-3:]))[0]


@functools.partial(jax.jit, static_argnames=("both",))
def _shifts_bar(x, w, y_bar, both):
    wide = accumulator(x.dtype)
    filters = w.astype(wide)

    def block(x, y_bar):
        x, y_bar = x.astype(wide), y_bar.astype(wide)
        x_bar = _of_inputs(y_bar, filters, both)
        return x_bar.astype(w.dtype), _of_filters(x, y_bar, w, both)

    x_bar, w_bar = windows.by_images(block, x, y_bar, elements=math.prod(x.shape[-3:]))
    return x_bar, w_bar.astype(w.dtype)


def _of_inputs(y_bar, w, both):
    """Every element of every window, times its weight, into the input it came from."""
    rows, columns = both
    around = [
        (a.reach - 1 - a.low, a.length + a.low - a.span, a.stride - 1) for a in both
    ]
    zero = jnp.zeros((), y_bar.dtype)
    apart = jax.lax.pad(y_bar, zero, [(0, 0, 0), *around, (0, 0, 0)])
    # Laid down: else every shift asks of every element whether it is of the padding.
    apart = jax.lax.optimization_barrier(apart)

    def shifted(k, l):
        i = rows.reach - 1 - k * rows.dilation
        j = columns.reach - 1 - l * columns.dilation
        return apart[:, i : i + rows.length, j : j + columns.length]

    terms = [shifted(k, l) * w[k, l] for k, l in _elements(w)]
    return functools.reduce(jnp.add, terms)


def _of_filters(x, y_bar, w, both):
    """Of each element of the filter the inputs that it met, times what came of them.

    Row after row: the products of a whole image are not in the cache when they are
    summed.
    """
    rows, columns = both
    padded = jax.lax.optimization_barrier(windows.padded(x, rows, columns, 0))
    cut = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=1, axis=1)
    one_row = rows._replace(length=rows.reach, low=0, high=0)

    def row(p):
        bar = cut(y_bar, p)
        met = [cut(padded, p * rows.stride + k * rows.dilation) for k in range(len(w))]
        products = [
            windows.element(met[k], 0, l, one_row, columns) * bar
            for k, l in _elements(w)
        ]
        return jnp.stack([x.sum(axis=(0, 1, 2)) for x in products]).reshape(w.shape)

    add = lambda p, total: total + row(p)
    return jax.lax.fori_loop(1, rows.outputs, add, row(0))


def _elements(w):
    return [(k, l) for k in range(w.shape[0]) for l in range(w.shape[1])]


def _axes(x, w, stride, padding, dilation):
    return windows.axes("depthwise_conv2d", x, w.shape[:2], stride, dilation, padding)


def _plain(x, w, stride=1, padding="SAME", dilation=1):
    """As many groups as channels."""
    y = jax.lax.conv_general_dilated(
        x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]),
        w[:, :, None],
        (stride, stride) if isinstance(stride, int) else stride,
        padding,
        rhs_dilation=(dilation, dilation) if isinstance(dilation, int) else dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=w.shape[-1],
    )
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def _case(inputs, residuals, cost=None, variant="", **options) -> Case:
    return Case(
        functools.partial(depthwise_conv2d, **options) if options else depthwise_conv2d,
        functools.partial(_plain, **options) if options else _plain,
        inputs,
        cost or {},
        "Howard et al. (2017), eq. 3",
        residuals,
        variant=variant,
    )


CASES = (
    _case(
        {
            "ordinary": normal((2, 5, 6, 3), (3, 2, 3)),
            "no leading axis": normal((4, 5, 2), (3, 3, 2)),
            "two leading axes": normal((2, 1, 3, 4, 2), (2, 3, 2)),
            "one by one": normal((2, 3, 3, 2), (1, 1, 2)),
            "larger than the image": normal((2, 2, 3, 2), (5, 5, 2)),
            "one pixel": normal((1, 1, 1, 1), (1, 1, 1)),
            "empty batch": normal((0, 4, 4, 2), (3, 3, 2)),
        },
        2 * 5 * 6 * 3 + 3 * 2 * 3,
        {"8×56×56×128, 3×3": normal((8, 56, 56, 128), (3, 3, 128))},
    ),
    _case(
        {
            "ordinary": normal((2, 7, 6, 2), (3, 2, 2)),
            "stride larger than window": normal((2, 9, 9, 2), (1, 2, 2)),
        },
        2 * 7 * 6 * 2 + 3 * 2 * 2,
        variant="strided and dilated",
        stride=(2, 3),
        dilation=(1, 2),
        padding=((2, 0), (1, 3)),
    ),
)
