"""Cross-entropy of the softmax at integer classes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxbp._errors import argument_error, as_floats, check_shapes
from jaxbp.ops._case import Case, normal, points
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._labels import check_classes, class_loss, class_loss_gradient
from jaxbp.ops._sharding import alike

_NAME = "softmax_cross_entropy_with_integer_labels"


def softmax_cross_entropy_with_integer_labels(
    logits: Float[Array, "*n k"],
    labels: Int[Array, "*n"],
    weights: Float[Array, "*n"] | None = None,
    *,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, "*n"]:
    r"""Cross-entropy of the softmax at one class: $L = s\,(\ln\sum_j e^{x_j} - x_c)$.

    With smoothing $\alpha$ the label is $t = (1-\alpha)e_c + \alpha/k$, and
    $L = s\sum_i t_i(\ln\sum_j e^{x_j} - x_i)$.

    VJP: $\bar x = s\,(y - t)\bar L$ with $y$ the softmax, $\bar s = (L/s)\,\bar L$.

    Args:
        logits: any leading axes. -inf masks a class (not with smoothing, which asks
            every class for its share).
        labels: integer classes in [0, k). Any other but `ignore_index` gives NaN.
        weights: $s$, of the examples; 1 by default.
        ignore_index: examples of this label have loss and gradient 0, whatever their
            logits.
        label_smoothing: $\alpha$ in [0, 1].
    Returns:
        one loss an example, accurate also where it is nearly 0. Residuals kept: the
        arguments and three numbers an example: its unsmoothed loss, and the log-sum-exp
        in two parts; with `weights` its loss as well. Memory beside these: none that
        grows with k; no one-hot labels are made.
    Raises:
        ValueError: shapes do not fit, k is 0, or `label_smoothing` is outside [0, 1].
        TypeError: labels not integers, logits or weights not floating.
    Source: Bishop, *Pattern Recognition and Machine Learning*, eqs. 4.108–4.109;
        smoothing: Szegedy et al., "Rethinking the Inception Architecture" (2016), §7.
    """
    labels = check_classes(_NAME, labels)
    expected = "logits (*n, k), labels (*n)"
    if weights is None:
        (logits,) = as_floats(_NAME, logits=logits)
        check_shapes(_NAME, expected, logits=logits, labels=labels)
    else:
        logits, weights = as_floats(_NAME, logits=logits, weights=weights)
        arrays = {"logits": logits, "labels": labels, "weights": weights}
        check_shapes(_NAME, f"{expected}, weights (*n)", **arrays)
    if logits.shape[-1] == 0:
        expected, got = "of one class at least", f"shape {logits.shape}"
        raise argument_error(_NAME, "logits", expected, got)
    if not 0 <= label_smoothing <= 1:
        raise argument_error(_NAME, "label_smoothing", "in [0, 1]", label_smoothing)
    arguments = alike(logits, labels, weights)
    return _softmax_cross_entropy_with_integer_labels(
        *arguments, ignore_index, label_smoothing
    )


@functools.partial(jax.custom_vjp, nondiff_argnames=("ignore_index", "label_smoothing"))
def _softmax_cross_entropy_with_integer_labels(
    logits, labels, weights, ignore_index, label_smoothing
):
    arguments = (logits, labels, weights, ignore_index, label_smoothing)
    return softmax_cross_entropy_with_integer_labels_fwd(*arguments)[0]


def softmax_cross_entropy_with_integer_labels_fwd(
    logits, labels, weights, ignore_index, label_smoothing
):
    x, classes, counts = _counted(logits, labels, ignore_index)
    of = class_loss(x, classes)
    loss = of.loss
    if label_smoothing:
        other = of.largest - x.mean(axis=-1) + of.log_sum
        loss = (1 - label_smoothing) * loss + label_smoothing * other
    loss = jnp.where(counts, loss, 0)
    y = loss if weights is None else loss * weights.astype(loss.dtype)
    weighted = None if weights is None else (weights, loss)
    return y.astype(logits.dtype), (logits, labels, of, weighted)


def softmax_cross_entropy_with_integer_labels_bwd(
    ignore_index, label_smoothing, res, loss_bar
):
    logits, labels, of, weighted = res
    chex.assert_shape(loss_bar, labels.shape)
    x, classes, counts = _counted(logits, labels, ignore_index)
    y_less_t = class_loss_gradient(x, classes, of)
    if label_smoothing:
        k = logits.shape[-1]
        at = jax.nn.one_hot(classes, k, dtype=x.dtype)
        y_less_t += label_smoothing * (at - 1 / k)
    bar, weights_bar = loss_bar.astype(x.dtype), None
    if weighted:
        weights, loss = weighted
        weights_bar = (loss * bar).astype(weights.dtype)
        bar = bar * weights.astype(bar.dtype)
    logits_bar = y_less_t * jnp.where(counts, bar, 0)[..., None]
    return logits_bar.astype(logits.dtype), None, weights_bar


_softmax_cross_entropy_with_integer_labels.defvjp(
    softmax_cross_entropy_with_integer_labels_fwd,
    softmax_cross_entropy_with_integer_labels_bwd,
)


def _counted(logits, labels, ignore_index):
    """Logits and classes with those that do not count made harmless, and which do."""
    x = logits.astype(accumulator(logits.dtype))
    if ignore_index is None:
        return x, labels, jnp.ones_like(labels, bool)
    counts = labels != ignore_index
    return jnp.where(counts[..., None], x, 0), jnp.where(counts, labels, 0), counts


def _plain(x, labels, weights=None, *, ignore_index=None, label_smoothing=0.0):
    counts = jnp.full(labels.shape, True)
    if ignore_index is not None:
        counts = labels != ignore_index
    t = jax.nn.one_hot(jnp.where(counts, labels, 0), x.shape[-1], dtype=x.dtype)
    t = optax.smooth_labels(t, label_smoothing)
    losses = jnp.where(counts, -(t * jax.nn.log_softmax(x)).sum(-1), 0)
    return losses if weights is None else losses * weights


def _picked(x, labels, weights=None):
    """What a user writes without smoothing: no one-hot labels."""
    del weights
    logs = jax.nn.log_softmax(x)
    return -jnp.take_along_axis(logs, labels[..., None], axis=-1)[..., 0]


def _inputs(lead, k, labels=None, *, weighted=False):
    """Logits, classes drawn once where none are given, positive weights."""
    if labels is None:
        labels = np.random.default_rng(0).integers(0, k, lead)
    labels = np.asarray(labels, np.int32)

    def make(key, dtype):
        x, s = normal((*lead, k), lead)(key, dtype)
        return x, labels, jax.nn.sigmoid(s) if weighted else None

    return make


CASES = (
    Case(
        softmax_cross_entropy_with_integer_labels,
        _picked,
        {
            "ordinary": _inputs((5,), 3),
            "one example": _inputs((), 4),
            "two leading axes": _inputs((2, 3), 2),
            "one class": _inputs((3,), 1),
            "empty batch": _inputs((0,), 3),
            "ties and far": points(
                [[0.0, 0.0, 0.0], [1e4, 0.0, -1e4], [30.0, 0.0, 30.0]],
                np.array([1, 1, 2], np.int32),
            ),
        },
        {"8192×1000": _inputs((8192,), 1000)},
        "Bishop, eqs. 4.108–4.109",
        35,
        rivals={
            "optax": lambda x, labels, _: (
                optax.softmax_cross_entropy_with_integer_labels(x, labels)
            )
        },
    ),
    Case(
        functools.partial(
            softmax_cross_entropy_with_integer_labels,
            ignore_index=-1,
            label_smoothing=0.1,
        ),
        functools.partial(_plain, ignore_index=-1, label_smoothing=0.1),
        {
            "ordinary": _inputs((5,), 3, [2, -1, 0, 1, 1], weighted=True),
            "none counts": _inputs((2,), 3, [-1, -1], weighted=True),
            "two leading axes": _inputs((2, 2), 3, [[2, -1], [-1, 0]]),
        },
        {"8192×1000": _inputs((8192,), 1000)},
        "Szegedy et al. (2016), §7",
        45,
        variant="smoothed, weighted, ignored",
    ),
)
