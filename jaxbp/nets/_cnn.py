"""A convolutional network of LeNet's size, hand-written from the loss to the image."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name as wire
from jaxtyping import Array, Float

from jaxbp import ops
from jaxbp._errors import argument_error, as_floats, check_shapes, describe
from jaxbp.nets._net import (
    Net,
    bound,
    checked_batch,
    checked_integers,
    checked_params,
    checked_size,
)
from jaxbp.ops._sharding import alike

_CONV = ((1, 1), "SAME", (1, 1), 1)  # stride, padding, dilation, groups
_POOL = ((2, 2), None, "VALID")  # window, stride, padding
_LOSS = (None, 0.0)  # ignore_index, label_smoothing


class _Spec(NamedTuple):
    image: tuple[int, ...]
    channels: tuple[int, ...]
    hidden: tuple[int, ...]
    classes: int
    window: int


def cnn(
    image: Sequence[int] = (28, 28, 1),
    classes: int = 10,
    *,
    channels: Sequence[int] = (6, 16),
    hidden: Sequence[int] = (120, 84),
    window: int = 5,
) -> Net:
    r"""Convolutional network: $c_k = p_{k-1} * W_k + b_k$, $r_k = \max(c_k, 0)$,
    $p_k$ the largest of every 2 × 2 of it, $p_0 = x$; then dense layers with a
    rectifier each, $a_j = h_{j-1}W_j + b_j$, $h_j = \max(a_j, 0)$, the last without:
    the logits. The loss is the mean cross-entropy of their softmax at the labels.

    VJP, from the loss down: $\bar z = (y - e_c)/N$ with y the softmax; for the dense
    layers $\bar W_j = h_{j-1}^\top\bar a_j$, $\bar b_j = \sum_n\bar a_j$,
    $\bar h_{j-1} = \bar a_j W_j^\top$, $\bar a_j = \bar h_j[h_j > 0]$; for the others
    $\bar r_k$ is $\bar p_k$ where the largest stood, $\bar c_k = \bar r_k[r_k > 0]$,
    and $\bar W_k$, $\bar b_k$, $\bar p_{k-1}$ by the convolution's rule; $\bar x =
    \bar p_0$.

    Wires: `c1`, `r1`, `p1`, `c2`, …, `flat`, `a1`, `h1`, `a2`, …, `logits`, `losses`;
    each with its `_bar` in the chain, and `x_bar`.

    Args:
        image: height, width and channels of an image.
        classes: how many.
        channels: of every convolution, which keeps height and width; each is followed
            by pooling, which halves them, an odd last row or column left out.
        hidden: lengths of the dense layers before the last.
        window: rows and columns of a convolution's weights.
    Returns:
        Net. `params` holds `conv1`, …, `dense1`, …, each `w` and `b`: w (window,
        window, in, out) and (in, out). `init` draws weights from N(0, 2/n), n the
        inputs of a unit, the last layer's from N(0, 1/n); biases 0. `loss` takes
        `batch = (x, y)`, images (*n, h, w, c) and integer classes (*n,); one outside
        [0, classes) gives NaN. `forward(params, x)` are logits (*n, classes). Residuals
        kept: x, every $r_k$ and $p_k$, of every window which element was the largest,
        every $h_j$, the logits, the weights, and three numbers an example.
    Raises:
        ValueError: a size below 1, an image too small to be halved so often; in `loss`
            and `forward`, parameters or arrays of other shapes, an empty batch.
        TypeError: a size that is no integer; parameters or images that are not
            floating, or of two dtypes; labels that are not integers.
    Source: LeCun et al., "Gradient-based learning applied to document recognition"
        (1998), §II-B, with rectifiers and maxima in place of tanh and means; weights:
        He et al. (2015), eq. 10.
    """
    image = _checked_sizes("image", image)
    if len(image) != 3:
        expected = "height, width and channels"
        raise argument_error("cnn", "image", expected, image)
    channels = _checked_sizes("channels", channels)
    if min(image[:2]) >> len(channels) < 1:
        expected = f"at least {2 ** len(channels)} high and wide"
        raise argument_error("cnn", "image", expected, image)
    hidden = _checked_sizes("hidden", hidden)
    classes = checked_size("cnn", "classes", classes)
    window = checked_size("cnn", "window", window)
    spec = _Spec(image, channels, hidden, classes, window)
    return bound("cnn", spec, _init, _forward, _public_loss, _loss_fwd, _loss_bwd)


def _checked_sizes(name: str, sizes) -> tuple[int, ...]:
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        expected, got = "a sequence of lengths", describe(sizes)
        raise argument_error("cnn", name, expected, got, kind=TypeError)
    found = [checked_size("cnn", f"{name}[{k}]", n) for k, n in enumerate(sizes)]
    return tuple(found)


def _shapes(spec: _Spec) -> dict[str, Any]:
    h, w, i = spec.image
    shapes = {}
    for k, o in enumerate(spec.channels, 1):
        shapes[f"conv{k}"] = {"w": (spec.window, spec.window, i, o), "b": (o,)}
        h, w, i = h // 2, w // 2, o
    sizes = (h * w * i, *spec.hidden, spec.classes)
    for j, (i, o) in enumerate(itertools.pairwise(sizes), 1):
        shapes[f"dense{j}"] = {"w": (i, o), "b": (o,)}
    return shapes


def _init(spec: _Spec, key: jax.Array):
    shapes = _shapes(spec)
    params = {}
    for k, (name, layer) in zip(
        jax.random.split(key, len(shapes)), shapes.items(), strict=True
    ):
        gain = 1 if name == f"dense{len(spec.hidden) + 1}" else 2
        scale = (gain / math.prod(layer["w"][:-1])) ** 0.5
        w = scale * jax.random.normal(k, layer["w"])
        params[name] = {"w": w, "b": jnp.zeros(layer["b"], w.dtype)}
    return params


def _forward(
    spec: _Spec, params, x: Float[Array, "*n h w c"], *, key=None, train: bool = False
) -> Float[Array, "*n k"]:
    del key, train  # no layer is random, none behaves otherwise in training
    return _links(spec, *_checked(spec, "cnn.forward", params, x))[0]


def _public_loss(spec: _Spec, params, batch, *, key=None) -> Float[Array, ""]:
    del key
    name = "cnn.loss"
    x, y = checked_batch(name, batch)
    params, x = _checked(spec, name, params, x)
    height, width, i = spec.image
    (y,) = checked_integers(name, "y (*n)", y=y)
    check_shapes(name, f"x (*n, {height}, {width}, {i}), y (*n)", x=x, y=y)
    return _loss(spec, *alike(params, x, y))


def _checked(spec: _Spec, function, params, x):
    params = checked_params(function, params, _shapes(spec))
    x, _ = as_floats(function, x=x, params=params["dense1"]["b"])  # of one dtype
    height, width, i = spec.image
    check_shapes(function, f"x (*n, {height}, {width}, {i})", x=x)
    return alike(params, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(spec, params, x, y):
    return _loss_fwd(spec, params, x, y)[0]


def _loss_fwd(spec, params, x, y):
    logits, res = _links(spec, params, x)
    losses, loss_res = ops.softmax_cross_entropy_with_integer_labels_fwd(
        logits, y, None, *_LOSS
    )
    losses = wire(losses, "losses")
    return losses.mean(), (res, loss_res, losses)


def _loss_bwd(spec, res, loss_bar):
    (last_res, dense, image, local), loss_res, losses = res
    losses_bar = wire(jnp.full_like(losses, loss_bar / losses.size), "losses_bar")
    logits_bar, *_ = ops.softmax_cross_entropy_with_integer_labels_bwd(
        *_LOSS, loss_res, losses_bar
    )
    bars, last = {}, f"dense{len(dense) + 1}"
    bar, bars[last] = _dense_bwd(last_res, wire(logits_bar, "logits_bar"))
    for j, (dense_res, relu_res) in reversed(list(enumerate(dense, 1))):
        (bar,) = ops.relu_bwd(relu_res, wire(bar, f"h{j}_bar"))
        bar, bars[f"dense{j}"] = _dense_bwd(dense_res, wire(bar, f"a{j}_bar"))
    bar = wire(bar, "flat_bar").reshape(*image.shape[:-1], -1)
    for k, (conv_res, relu_res, pool_res) in reversed(list(enumerate(local, 1))):
        (bar,) = ops.max_pool2d_bwd(*_POOL, pool_res, wire(bar, f"p{k}_bar"))
        (bar,) = ops.relu_bwd(relu_res, wire(bar, f"r{k}_bar"))
        bar = wire(bar, f"c{k}_bar")
        bar, w_bar, b_bar = ops.conv2d_bwd(*_CONV, conv_res, bar)
        bars[f"conv{k}"] = {"w": w_bar, "b": b_bar}
    return bars, wire(bar, "x_bar"), None


_loss.defvjp(_loss_fwd, _loss_bwd)


def _dense_bwd(res, y_bar):
    x_bar, w_bar, b_bar = ops.dense_bwd(res, y_bar)
    return x_bar, {"w": w_bar, "b": b_bar}


def _links(spec: _Spec, params, x):
    """Logits, and of every layer what its links need on the way back."""
    p, local, dense = x, [], []
    for k in range(1, len(spec.channels) + 1):
        layer = params[f"conv{k}"]
        c, conv_res = ops.conv2d_fwd(p, layer["w"], layer["b"], *_CONV)
        r, relu_res = ops.relu_fwd(wire(c, f"c{k}"))
        p, pool_res = ops.max_pool2d_fwd(wire(r, f"r{k}"), *_POOL)
        p = wire(p, f"p{k}")
        local.append((conv_res, relu_res, pool_res))
    h = wire(p.reshape(*p.shape[:-3], -1), "flat")
    for j in range(1, len(spec.hidden) + 1):
        a, dense_res = ops.dense_fwd(h, **params[f"dense{j}"])
        h, relu_res = ops.relu_fwd(wire(a, f"a{j}"))
        h = wire(h, f"h{j}")
        chex.assert_equal_shape([a, h])
        dense.append((dense_res, relu_res))
    logits, last_res = ops.dense_fwd(h, **params[f"dense{len(dense) + 1}"])
    return wire(logits, "logits"), (last_res, dense, p[..., :0], local)
