"""The multilayer network, hand-written from the loss to the input."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name as wire
from jaxtyping import Array, Float

from jaxbp import ops
from jaxbp._errors import argument_error, as_floats, check_shapes, describe
from jaxbp.nets._net import Net, bound, checked_batch, checked_size
from jaxbp.ops._sharding import alike

_ACTIVATIONS = ("identity", "sigmoid", "softmax")
_LOSSES = (
    "squared_error",
    "half_squared_error",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "softmax_cross_entropy",
)
_REDUCTIONS = ("mean", "sum")


class _Spec(NamedTuple):
    sizes: tuple[int, ...]
    activation: str
    output: str
    loss: str
    bias: bool
    reduction: str


def mlp(
    sizes: Sequence[int],
    *,
    activation: str = "sigmoid",
    output: str = "identity",
    loss: str = "squared_error",
    bias: bool = True,
    reduction: str = "mean",
) -> Net:
    r"""Multilayer network: $a_k = h_{k-1}W_k + b_k$, $h_k = \sigma(a_k)$, $h_0 = x$.

    The last layer has `output` in the activation's place and gives $\hat y$; the loss
    of the batch is the mean (or sum) of the losses of its examples.

    VJP, from the loss down: $\bar{\hat y}$ by the loss's rule, $\bar a_L$ by the
    output's, then for $k = L \dots 1$: $\bar W_k = h_{k-1}^\top\bar a_k$,
    $\bar b_k = \sum_n\bar a_k$, $\bar h_{k-1} = \bar a_k W_k^\top$,
    $\bar a_{k-1} = \bar h_{k-1}\sigma'(a_{k-1})$, and $\bar x = \bar h_0$.

    Wires: `a1`, `h1`, `a2`, …, `yhat`, `losses`; each with its `_bar` in the chain.

    Args:
        sizes: lengths of input, hidden layers and output.
        activation: of hidden layers: "identity", "sigmoid" or "softmax".
        output: of the last layer, from the same list.
        loss: the name of a loss in `jaxbp.ops`, asked of $\hat y$ and the labels.
        bias: False leaves `b` out of the parameters.
        reduction: "mean" or "sum" over the examples.
    Returns:
        Net. `params` is a tuple, one dict a layer: `w` (in, out), `b` (out,). `init`
        draws Glorot-uniform weights and zero biases. `loss` takes `batch = (x, y)` with
        x (*n, in), y (*n, out); integer and boolean y are cast. Residuals kept: those
        of each op: x, the weights, every $a_k$ and $h_k$.
    Raises:
        ValueError: fewer than two sizes, a size below 1, an unknown name; in `loss` and
            `forward`, parameters or arrays of other shapes, an empty batch.
        TypeError: a size that is no integer; arrays that are not floating.
    Source: Nielsen, *Neural Networks and Deep Learning*, ch. 2, BP1–BP4; Glorot and
        Bengio (2010), eq. 16.
    """
    sizes = _checked_sizes(sizes)
    for argument, value, known in (
        ("activation", activation, _ACTIVATIONS),
        ("output", output, _ACTIVATIONS),
        ("loss", loss, _LOSSES),
        ("reduction", reduction, _REDUCTIONS),
    ):
        if value not in known:
            raise argument_error("mlp", argument, f"one of {', '.join(known)}", value)
    spec = _Spec(sizes, activation, output, loss, bool(bias), reduction)
    return bound("mlp", spec, _init, _forward, _public_loss, _loss_fwd, _loss_bwd)


def _checked_sizes(sizes) -> tuple[int, ...]:
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        expected, got = "a sequence of lengths", describe(sizes)
        raise argument_error("mlp", "sizes", expected, got, kind=TypeError)
    lengths = [checked_size("mlp", f"sizes[{k}]", n) for k, n in enumerate(sizes)]
    if len(sizes) < 2:
        expected = "an input and an output length at least"
        raise argument_error("mlp", "sizes", expected, tuple(sizes))
    return tuple(lengths)


def _init(spec: _Spec, key: jax.Array):
    glorot = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, len(spec.sizes) - 1)
    layers = []
    for k, i, o in zip(keys, spec.sizes, spec.sizes[1:], strict=False):
        w = glorot(k, (i, o))
        layers.append({"w": w, "b": jnp.zeros_like(w[0])} if spec.bias else {"w": w})
    return tuple(layers)


def _forward(
    spec: _Spec, params, x: Float[Array, "*n i"], *, key=None, train: bool = False
) -> Float[Array, "*n o"]:
    del key, train  # no layer is random, none behaves otherwise in training
    x = _checked_params(spec, "mlp.forward", params, x)
    check_shapes("mlp.forward", f"x (*n, {spec.sizes[0]})", x=x)
    return _links(spec, params, x)[0]


def _public_loss(spec: _Spec, params, batch, *, key=None) -> Float[Array, ""]:
    del key
    x, y = checked_batch("mlp.loss", batch)
    x = _checked_params(spec, "mlp.loss", params, x)
    i, o = spec.sizes[0], spec.sizes[-1]
    check_shapes("mlp.loss", f"x (*n, {i}), y (*n, {o})", x=x, y=y)
    if 0 in jnp.shape(x):
        expected, got = "a batch of at least one example", f"shape {jnp.shape(x)}"
        raise argument_error("mlp.loss", "x", expected, got)
    if not jnp.issubdtype(jnp.result_type(y), jnp.floating):
        y = jnp.asarray(y).astype(jnp.result_type(x))
    return _loss(spec, *alike(params, x, y))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(spec, params, x, y):
    return _loss_fwd(spec, params, x, y)[0]


def _loss_fwd(spec, params, x, y):
    yhat, res = _links(spec, params, x)
    losses, loss_res = _rule(spec.loss, "fwd")(yhat, y)
    losses = wire(losses, "losses")
    total = losses.mean() if spec.reduction == "mean" else losses.sum()
    return total, (res, loss_res, losses)


def _loss_bwd(spec, res, loss_bar):
    links, loss_res, losses = res
    count = losses.size if spec.reduction == "mean" else 1
    losses_bar = wire(jnp.full_like(losses, loss_bar / count), "losses_bar")
    yhat_bar, y_bar = _rule(spec.loss, "bwd")(loss_res, losses_bar)
    params_bar = []
    h_bar = wire(yhat_bar, "yhat_bar")
    for k, (dense_res, activation_res) in reversed(list(enumerate(links, 1))):
        a_bar = _activation(spec, k, "bwd")(activation_res, h_bar)[0]
        a_bar = wire(a_bar, f"a{k}_bar")
        h_bar, w_bar, b_bar = ops.dense_bwd(dense_res, a_bar)
        params_bar.append({"w": w_bar, "b": b_bar} if spec.bias else {"w": w_bar})
        h_bar = wire(h_bar, f"h{k - 1}_bar" if k > 1 else "x_bar")
    return tuple(reversed(params_bar)), h_bar, y_bar


_loss.defvjp(_loss_fwd, _loss_bwd)


def _links(spec, params, x):
    """Predictions, and of every layer what its two links need on the way back."""
    h, res = x, []
    for k, layer in enumerate(params, 1):
        # A layer without a bias is one whose bias is 0 and has no cotangent.
        b = layer.get("b", jnp.zeros_like(layer["w"][0]))
        a, dense_res = ops.dense_fwd(h, layer["w"], b)
        a = wire(a, f"a{k}")
        h, activation_res = _activation(spec, k, "fwd")(a)
        h = wire(h, "yhat" if k == len(params) else f"h{k}")
        chex.assert_equal_shape([a, h])
        res.append((dense_res, activation_res))
    return h, res


def _activation(spec: _Spec, k: int, side: str) -> Callable[..., Any]:
    last = k == len(spec.sizes) - 1
    return _rule(spec.output if last else spec.activation, side)


def _rule(name: str, side: str) -> Callable[..., Any]:
    if name == "identity":
        return (lambda a: (a, ())) if side == "fwd" else (lambda res, y_bar: (y_bar,))
    return getattr(ops, f"{name}_{side}")


def _checked_params(spec, function, params, x) -> jax.Array:
    """x as an array, after a look at the parameters: structure, shapes, one dtype."""
    layers = list(zip(spec.sizes, spec.sizes[1:], strict=False))
    names = ["w", "b"] if spec.bias else ["w"]
    if not isinstance(params, (tuple, list)) or len(params) != len(layers):
        expected = f"a tuple of {len(layers)} layers"
        held = isinstance(params, (tuple, list))
        got = f"a tuple of {len(params)}" if held else f"a {type(params).__name__}"
        raise argument_error(function, "params", expected, got)
    for k, (layer, (i, o)) in enumerate(zip(params, layers, strict=True)):
        if not isinstance(layer, Mapping) or sorted(layer) != sorted(names):
            expected = f"a dict with {' and '.join(names)}"
            got = sorted(layer) if isinstance(layer, Mapping) else describe(layer)
            raise argument_error(function, f"params[{k}]", expected, got)
        expected = f"w ({i}, {o}), b ({o},)" if spec.bias else f"w ({i}, {o})"
        check_shapes(f"{function}: params[{k}]", expected, **layer)
        x = as_floats(f"{function}: params[{k}]", **layer, x=x)[-1]
    return x
