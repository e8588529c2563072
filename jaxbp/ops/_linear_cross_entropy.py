"""Linear layer and softmax cross-entropy in one: the logits never exist at once."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxbp._errors import argument_error, as_floats, check_shapes, describe
from jaxbp.ops._case import Case, normal, points
from jaxbp.ops._chunks import over_chunks
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._labels import check_classes, class_loss, class_loss_gradient
from jaxbp.ops._sharding import alike

_AXES = {
    "x": "(*n, d)",
    "w": "(d, k)",
    "labels": "(*n)",
    "b": "(k)",
    "weights": "(*n)",
}


def linear_softmax_cross_entropy(
    x: Float[Array, "*n d"],
    w: Float[Array, "d k"],
    labels: Int[Array, "*n"],
    b: Float[Array, " k"] | None = None,
    weights: Float[Array, "*n"] | None = None,
    *,
    reduction: str = "mean",
    ignore_index: int | None = None,
    chunk: int = 256,
) -> Float[Array, ""]:
    r"""Cross-entropy of the softmax of $z = xW + b$, over all examples, as one number.

    $L = \sum_n s_n L_n / \sum_n s_n$ with $L_n = \ln\sum_j e^{z_{nj}} - z_{n,t_n}$,
    weights $s_n$ and classes $t_n$; without the division for `reduction="sum"`.

    VJP: with $y$ the softmax, $\delta_n = s_n(y_n - e_{t_n})$ and
    $c = \bar L/\sum_n s_n$ ($c = \bar L$ for the sum),
    $\bar x = c\,\delta W^\top$, $\bar W = c\,x^\top\delta$,
    $\bar b = c\sum_n\delta_n$, $\bar s_n = c(L_n - L)$ ($c L_n$ for the sum). One
    number goes out, so one comes back: $\delta$ is used up chunk by chunk in the
    forward sweep, while its logits are there, and the backward pass only multiplies by
    $c$. A call that is not differentiated computes no gradient.

    Args:
        x: inputs, any leading axes.
        w: weights, stored (in, out).
        labels: integer classes in [0, k). Any other but `ignore_index` gives NaN.
        b: bias, if there is one.
        weights: of the examples, 1 by default.
        reduction: "mean" or "sum".
        ignore_index: examples of this label do not count, whatever their x holds; where
            none counts (or the weights sum to 0) the mean is 0, and so its gradient.
        chunk: examples whose logits exist at a time. Temporary memory grows with
            chunk × k, and not with the number of examples.
    Returns:
        the loss. Residuals kept: the gradient of the sum by `x`, `w`, `b`, as large as
        they are, and with `weights` one loss an example; logits none.
    Raises:
        ValueError: shapes do not chain, k is 0, or an unknown reduction or chunk.
        TypeError: labels not integers, the others not floating or not of one dtype.
    Source: Bishop, *Pattern Recognition and Machine Learning*, eqs. 4.108–4.109; the
        gradient made in the forward sweep: Hsu et al., *Liger Kernel* (arXiv
        2410.10989), §3.2.
    """
    name = "linear_softmax_cross_entropy"
    given = {"x": x, "w": w, "b": b, "weights": weights}
    given = {key: value for key, value in given.items() if value is not None}
    arrays = dict(zip(given, as_floats(name, **given), strict=True))
    arrays["labels"] = check_classes(name, labels)
    expected = ", ".join(f"{key} {_AXES[key]}" for key in _AXES if key in arrays)
    check_shapes(name, expected, **arrays)
    x, w = arrays["x"], arrays["w"]
    if w.shape[1] == 0:
        raise argument_error(name, "w", "of one class at least", f"shape {w.shape}")
    if reduction not in ("mean", "sum"):
        mend = "for one loss an example use softmax_cross_entropy_with_integer_labels"
        raise argument_error(
            name, "reduction", "'mean' or 'sum'", repr(reduction), mend
        )
    if not isinstance(chunk, int) or chunk < 1:
        raise argument_error(name, "chunk", "an integer of 1 at least", describe(chunk))
    arguments = alike(x, w, arrays["labels"], arrays.get("b"), arrays.get("weights"))
    return _linear_softmax_cross_entropy(*arguments, reduction, ignore_index, chunk)


@functools.partial(
    jax.custom_vjp, nondiff_argnames=("reduction", "ignore_index", "chunk")
)
def _linear_softmax_cross_entropy(
    x, w, labels, b, weights, reduction, ignore_index, chunk
):
    def step(carry, rows):
        x, classes, _ = rows
        return carry, class_loss(_logits(x, w, b), classes).loss

    rows = _rows(x, labels, weights, ignore_index)
    _, losses = over_chunks(step, (), rows, chunk)
    return _reduced(losses, rows[-1], reduction)[0].astype(x.dtype)


def linear_softmax_cross_entropy_fwd(
    x, w, labels, b, weights, reduction, ignore_index, chunk
):
    def step(bars, rows):
        x, classes, s = rows
        logits = _logits(x, w, b)
        of = class_loss(logits, classes)
        delta = s[:, None] * class_loss_gradient(logits, classes, of)
        # Cast as the logits' own cotangent would be in the working precision.
        narrow = delta.astype(x.dtype)
        # A wide product of a transpose runs at full speed only where it is laid out.
        w_bar = _product(jax.lax.optimization_barrier(x.T), narrow)
        b_bar = None if b is None else bars[1] + delta.sum(axis=0)
        return (bars[0] + w_bar, b_bar), (
            of.loss,
            _product(narrow, w.T).astype(x.dtype),
        )

    rows = _rows(x, labels, weights, ignore_index)
    wide = accumulator(x.dtype)
    zeros = (jnp.zeros_like(w, wide), None if b is None else jnp.zeros_like(b, wide))
    (w_bar, b_bar), (losses, x_bar) = over_chunks(step, zeros, rows, chunk)
    y, scale = _reduced(losses, rows[-1], reduction)
    s_bar = None
    if weights is not None:
        counts = _counts(labels, ignore_index)
        s_bar = losses - y if reduction == "mean" else losses
        s_bar = jnp.where(counts, s_bar.reshape(labels.shape), 0).astype(x.dtype)
    bars = (x_bar.reshape(x.shape), w_bar.astype(w.dtype))
    bars = (*bars, None if b is None else b_bar.astype(w.dtype), s_bar)
    return y.astype(x.dtype), (bars, scale)


def linear_softmax_cross_entropy_bwd(reduction, ignore_index, chunk, res, y_bar):
    del reduction, ignore_index, chunk  # their part is in the residuals
    bars, scale = res
    chex.assert_shape(y_bar, ())
    c = y_bar.astype(scale.dtype) * scale
    x_bar, w_bar, b_bar, s_bar = jax.tree.map(
        lambda bar: (c * bar.astype(c.dtype)).astype(bar.dtype), bars
    )
    return x_bar, w_bar, None, b_bar, s_bar


_linear_softmax_cross_entropy.defvjp(
    linear_softmax_cross_entropy_fwd, linear_softmax_cross_entropy_bwd
)


def _product(a, b):
    return jnp.matmul(a, b, preferred_element_type=accumulator(a.dtype))


def _logits(x, w, b):
    logits = _product(x, w)
    return logits if b is None else logits + b.astype(logits.dtype)


def _counts(labels, ignore_index):
    return (
        jnp.ones_like(labels, bool) if ignore_index is None else labels != ignore_index
    )


def _rows(x, labels, weights, ignore_index):
    """Inputs, classes and weights as rows; one that does not count is all zeros."""
    counts = _counts(labels, ignore_index)
    s = jnp.ones_like(x[..., 0]) if weights is None else weights
    s = jnp.where(counts, s.astype(accumulator(x.dtype)), 0)
    if ignore_index is not None:
        x = jnp.where(counts[..., None], x, 0)
        labels = jnp.where(counts, labels, 0)
    return x.reshape(-1, x.shape[-1]), labels.ravel(), s.ravel()


def _reduced(losses, s, reduction):
    """The loss, and what the gradient of the sum is multiplied by."""
    total = jnp.vdot(s, losses)
    if reduction == "sum":
        return total, jnp.ones_like(total)
    weight = s.sum()
    nothing = weight == 0
    scale = jnp.where(nothing, 0, 1 / jnp.where(nothing, 1, weight))
    return total * scale, scale


def _plain(x, w, labels, b=None, weights=None, *, reduction="mean", ignore_index=None):
    z = x @ w if b is None else x @ w + b
    counts = jnp.full(labels.shape, True)
    if ignore_index is not None:
        counts = labels != ignore_index
    classes = jnp.where(counts, labels, 0)
    picked = jnp.take_along_axis(jax.nn.log_softmax(z), classes[..., None], axis=-1)
    s = counts.astype(x.dtype) if weights is None else jnp.where(counts, weights, 0)
    total = -(s * picked[..., 0]).sum()
    if reduction == "sum":
        return total
    return total / jnp.where(s.sum() == 0, 1, s.sum())


def _checkpointed(x, w, labels, chunk=256):
    """The strongest rival: autodiff of the same chunks, each recomputed."""

    def step(total, rows):
        x, classes = rows
        losses = optax.softmax_cross_entropy_with_integer_labels(x @ w, classes)
        return total + losses.sum(), None

    blocks = (x.reshape(-1, chunk, x.shape[-1]), labels.reshape(-1, chunk))
    return jax.lax.scan(jax.checkpoint(step), jnp.zeros((), x.dtype), blocks)[0] / len(
        x
    )


def _inputs(n, d, k, *, labels=None, bias=False, weighted=False):
    """Rows, a layer, classes drawn once where none are given, bias and weights."""
    shape = (*n, d) if isinstance(n, tuple) else (n, d)
    if labels is None:
        labels = np.random.default_rng(0).integers(0, k, shape[:-1])
    labels = np.asarray(labels, np.int32)

    def make(key, dtype):
        x, w, b, s = normal(shape, (d, k), (k,), shape[:-1])(key, dtype)
        s = jax.nn.sigmoid(s) if weighted else None
        return x, w / d**0.5, labels, b if bias else None, s

    return make


CASES = (
    Case(
        linear_softmax_cross_entropy,
        _plain,
        {
            "ordinary": _inputs(5, 3, 4),
            "one example": _inputs((), 3, 4),
            "two leading axes": _inputs((2, 3), 3, 4),
            "one class": _inputs(2, 3, 1),
            "empty batch": _inputs(0, 3, 4),
            "saturated": points(
                [[40.0, 0.0], [0.0, 40.0], [1e4, 0.0]],
                [[1.0, 0.0], [0.0, 1.0]],
                np.array([0, 0, 1], np.int32),
            ),
        },
        {"2048×256 → 16k": _inputs(2048, 256, 16384)},
        "Bishop, eqs. 4.108–4.109",
        28,
        rivals={
            "optax": lambda x, w, labels, *_: (
                optax.softmax_cross_entropy_with_integer_labels(x @ w, labels).mean()
            ),
            "jax.checkpoint of the chunks": lambda x, w, labels, *_: _checkpointed(
                x, w, labels
            ),
        },
    ),
    Case(
        functools.partial(linear_softmax_cross_entropy, ignore_index=-1, chunk=2),
        functools.partial(_plain, ignore_index=-1),
        {
            "ordinary": _inputs(
                5, 3, 4, labels=[2, -1, 0, 3, 3], bias=True, weighted=True
            ),
            "whole chunks": _inputs(4, 3, 4, labels=[2, -1, -1, -1], bias=True),
            "none counts": _inputs(3, 3, 4, labels=[-1, -1, -1], weighted=True),
        },
        {},
        "Bishop, eqs. 4.108–4.109",
        37,
        variant="bias, weights, ignored",
    ),
    Case(
        functools.partial(linear_softmax_cross_entropy, reduction="sum", chunk=2),
        functools.partial(_plain, reduction="sum"),
        {"ordinary": _inputs(5, 3, 4, weighted=True)},
        {},
        "Bishop, eqs. 4.108–4.109",
        33,
        variant="sum in chunks of 2",
    ),
)
