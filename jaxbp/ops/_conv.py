"""Convolution of images: the cotangents are convolutions too."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats, check_shapes
from jaxbp.ops import _windows as windows
from jaxbp.ops._case import Case, beside, normal, points
from jaxbp.ops._columns import of_weights, on_cpu
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike

_PLAIN = "NHWC", "HWIO", "NHWC"
# Images are summed over and their channels are the result's rows: both turned round.
_OF_WEIGHTS = "CHWN", "IHWO", "HWNC"


def conv2d(
    x: Float[Array, "*n h w i"],
    w: Float[Array, "k l g o"],
    b: Float[Array, " o"] | None = None,
    *,
    stride: windows.Pair = 1,
    padding: windows.Padding = "SAME",
    dilation: windows.Pair = 1,
    groups: int = 1,
) -> Float[Array, "*n p q o"]:
    r"""Convolution (cross-correlation) of images with weights.

    $y_{npqo} = b_o + \sum_{kli} x_{n,\,ps+kd-t,\,qs+ld-t,\,i}\,W_{klio}$ with stride s,
    dilation d and t elements of padding before each axis.

    VJP, each a convolution: $\bar x$ of $\bar y$, s - 1 zeros between its elements,
    with W turned by 180° and its channels exchanged; $\bar W$ of x with $\bar y$ for
    weights, s apart, the images summed over; $\bar b = \sum_{npq}\bar y_{npq}$.

    Args:
        x: images, any leading axes `*n`, channels last.
        w: weights, stored (rows, columns, in / groups, out).
        b: bias, if any.
        stride: from one window to the next; one number for both axes, or two.
        padding: "SAME" (⌈h/s⌉ outputs, the odd element after the axis), "VALID" (none),
            or ((top, bottom), (left, right)) zeros.
        dilation: from one element of a window to the next.
        groups: output channels of group j see input channels of group j.
    Returns:
        pre-activations. Residuals kept: `x`, `w` (b enters affinely). On a CPU, and
        without groups, the convolution that is $\bar W$ is made of matrix products, in
        blocks of images.
    Raises:
        ValueError: the channels do not chain, or do not divide into groups; no window
            fits; an option is out of its range.
        TypeError: not floating, or of more than one dtype.
    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning"
        (2016), §2.4, §4.5–4.6, §5.1.
    """
    given = {"x": x, "w": w} | ({} if b is None else {"b": b})
    x, w, *bias = as_floats("conv2d", **given)
    stride, dilation = _checked(x, w, bias, stride, padding, dilation, groups)
    padding = windows.paddings("conv2d", padding)
    x, w, b = alike(x, w, bias[0] if bias else None)
    return _conv2d(x, w, b, stride, padding, dilation, groups)


_options = ("stride", "padding", "dilation", "groups")


@functools.partial(jax.custom_vjp, nondiff_argnames=_options)
def _conv2d(x, w, b, stride, padding, dilation, groups):
    rows, columns = _axes(x, w, stride, padding, dilation)
    y = jax.lax.conv_general_dilated(
        windows.flat(x),
        w,
        (rows.stride, columns.stride),
        [(a.low, a.high) for a in (rows, columns)],
        rhs_dilation=(rows.dilation, columns.dilation),
        dimension_numbers=_PLAIN,
        feature_group_count=groups,
    )
    y = y if b is None else y + b
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def conv2d_fwd(x, w, b, stride, padding, dilation, groups):
    y = _conv2d(x, w, b, stride, padding, dilation, groups)
    return y, (x, w, None if b is None else b[:0])


def conv2d_bwd(stride, padding, dilation, groups, res, y_bar):
    x, w, b = res
    both = _axes(x, w, stride, padding, dilation)
    chex.assert_shape(y_bar, (*x.shape[:-3], *(a.outputs for a in both), w.shape[-1]))
    images, bar = windows.flat(x), windows.flat(y_bar)
    if not bar.size:  # what sums over no image is no convolution
        b_bar = None if b is None else bar.sum(axis=(0, 1, 2))
        return jnp.zeros_like(x), jnp.zeros_like(w), b_bar
    x_bar = _of_inputs(bar, w, both, groups).reshape(x.shape)
    w_bar = (
        of_weights(images, bar, *both)
        if groups == 1 and on_cpu()
        else _of_weights(images, bar, both, groups)
    )
    if b is None:
        return x_bar, w_bar, None
    b_bar = bar.sum(axis=(0, 1, 2), dtype=accumulator(w.dtype))
    return x_bar, w_bar, b_bar.astype(w.dtype)


_conv2d.defvjp(conv2d_fwd, conv2d_bwd)


# One program where nobody has jitted: many small ones take long to compile.
@functools.partial(jax.jit, static_argnames=("both", "groups"))
def _of_inputs(y_bar, w, both, groups):
    """Every element of every window, times its weight, into the input it came from."""
    *size, i, o = w.shape
    turned = w[::-1, ::-1].reshape(*size, i, groups, o // groups)
    turned = jnp.moveaxis(turned, -1, 2).swapaxes(3, 4)
    # A window's reach before the first input, and what brings as many out as there are.
    padding = [(a.reach - 1 - a.low, a.length + a.low - a.span) for a in both]
    return jax.lax.conv_general_dilated(
        y_bar,
        turned.reshape(*size, o // groups, groups * i),
        (1, 1),
        padding,
        lhs_dilation=[a.stride for a in both],
        rhs_dilation=[a.dilation for a in both],
        dimension_numbers=_PLAIN,
        feature_group_count=groups,
    )


@functools.partial(jax.jit, static_argnames=("both", "groups"))
def _of_weights(x, y_bar, both, groups):
    """Of each element of the window the inputs that it met, times what came of them."""
    # As many positions of y_bar on x as a window has elements.
    padding = [(a.low, a.reach - 1 + a.span - a.length - a.low) for a in both]
    return jax.lax.conv_general_dilated(
        x,
        y_bar,
        [a.dilation for a in both],
        padding,
        rhs_dilation=[a.stride for a in both],
        dimension_numbers=_OF_WEIGHTS,
        batch_group_count=groups,
    )


def _axes(x, w, stride, padding, dilation):
    return windows.axes("conv2d", x, w.shape[:2], stride, dilation, padding)


def _checked(x, w, bias, stride, padding, dilation, groups):
    expected = "x (*n, h, w, i), w (k, l, i / groups, o)"
    given = {"x": x, "w": w}
    if bias:
        expected, given = f"{expected}, b (o,)", given | {"b": bias[0]}
    check_shapes("conv2d", expected, **given)
    i, o = x.shape[-1], w.shape[-1]
    if not isinstance(groups, int) or groups < 1 or i % groups or o % groups:
        expected = f"an integer that divides {i} and {o} channels"
        raise argument_error("conv2d", "groups", expected, groups)
    if w.shape[2] * groups != i:
        expected = f"of shape (k, l, {i // groups}, o): {i} channels in {groups} groups"
        raise argument_error("conv2d", "w", expected, f"shape {w.shape}")
    _axes(x, w, stride, padding, dilation)
    return windows.pair("conv2d", "stride", stride), windows.pair(
        "conv2d", "dilation", dilation
    )


def _plain(x, w, b, stride=1, padding="SAME", dilation=1, groups=1):
    """One image, or a batch of any shape, by `jax.lax`."""
    y = jax.lax.conv_general_dilated(
        x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]),
        w,
        (stride, stride) if isinstance(stride, int) else stride,
        padding,
        rhs_dilation=(dilation, dilation) if isinstance(dilation, int) else dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    y = y.reshape(*x.shape[:-3], *y.shape[1:])
    return y if b is None else y + b


def _case(inputs, cost, residuals, variant="", **options) -> Case:
    function = functools.partial(conv2d, **options) if options else conv2d
    plain = functools.partial(_plain, **options) if options else _plain
    source = "Dumoulin and Visin (2016), §4.5–4.6"
    return Case(
        function,
        plain,
        inputs,
        cost,
        source,
        residuals,
        variant=variant,
        why="the clearest statement: either cotangent is a convolution itself",
    )


def _no_bias(*shapes):
    return beside(normal(*shapes), None)


_channels = ((3, 3, 64, 64), (64,))
CASES = (
    _case(
        {
            "ordinary": normal((2, 5, 6, 3), (3, 2, 3, 4), (4,)),
            "no bias": _no_bias((2, 5, 4, 2), (3, 3, 2, 3)),
            "no leading axis": normal((4, 5, 2), (3, 3, 2, 3), (3,)),
            "two leading axes": normal((2, 1, 3, 4, 2), (2, 3, 2, 1), (1,)),
            "one by one": normal((2, 3, 3, 2), (1, 1, 2, 3), (3,)),
            "larger than the image": normal((2, 2, 3, 2), (5, 5, 2, 2), (2,)),
            "one pixel": normal((1, 1, 1, 1), (1, 1, 1, 1), (1,)),
            "empty batch": normal((0, 4, 4, 2), (3, 3, 2, 3), (3,)),
            "zeros": points(np.zeros((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), [0.0]),
        },
        {"8×56×56, 3×3, 64 → 64": normal((8, 56, 56, 64), *_channels)},
        2 * 5 * 6 * 3 + 3 * 2 * 3 * 4,
    ),
    _case(
        {
            "ordinary": normal((2, 7, 8, 2), (3, 3, 2, 3), (3,)),
            "stride larger than window": normal((2, 9, 9, 2), (1, 2, 2, 2), (2,)),
            "one window": normal((1, 3, 3, 2), (3, 3, 2, 2), (2,)),
        },
        {
            "8×56×56, 3×3/(3, 2), 64 → 128": normal(
                (8, 56, 56, 64), (3, 3, 64, 128), (128,)
            )
        },
        2 * 7 * 8 * 2 + 3 * 3 * 2 * 3,
        "strided",
        stride=(3, 2),
        padding="VALID",
    ),
    _case(
        {
            "ordinary": _no_bias((2, 7, 6, 4), (3, 2, 2, 6)),
            "channel by channel": _no_bias((1, 5, 5, 2), (2, 2, 1, 4)),
        },
        {},
        2 * 7 * 6 * 4 + 3 * 2 * 2 * 6,
        "in groups",
        groups=2,
        stride=2,
        dilation=(1, 2),
        padding=((2, 0), (1, 3)),
    ),
)
