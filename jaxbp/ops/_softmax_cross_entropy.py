"""Cross-entropy of the softmax, of dense labels."""

import chex
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, describe
from jaxbp.ops._case import points
from jaxbp.ops._chunks import over_rows
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._labels import Labels, checked, loss_case


def softmax_cross_entropy(
    logits: Float[Array, "*n k"], labels: Labels
) -> Float[Array, "*n"]:
    r"""Cross-entropy of the softmax: $L = \sum_i t_i (\ln\sum_j e^{x_j} - x_i)$.

    VJP: $\bar x_i = (y_i \sum_j t_j - t_i)\bar L$ with $y$ the softmax,
    $\bar t_i = (\ln\sum_j e^{x_j} - x_i)\bar L$. A class of weight 0 whose logit is
    -inf is absent: it contributes 0, to the value and to both cotangents.

    Args:
        logits: any leading axes; -inf where the label is 0 masks a class.
        labels: weights of the classes, the same shape; they need not sum to 1 (a
            weighted example has its row multiplied, an ignored one a row of 0).
    Returns:
        one loss an example, accurate also where it is nearly 0. Residuals kept: both
        inputs and the log-sum-exp, from which the softmax is one exponential away, in
        two numbers an example: the largest logit and the rest, whose sum would round
        off what their difference to a logit still holds. Memory beside these: none
        that grows with k.
    Raises:
        ValueError: the shapes differ; classes instead of weights are told what to use.
        TypeError: logits not floating.
    Source: Bishop, *Pattern Recognition and Machine Learning*, eqs. 4.108–4.109.
    """
    k = jnp.shape(logits)
    if k and jnp.shape(labels) == k[:-1]:
        raise argument_error(
            "softmax_cross_entropy",
            "labels",
            f"weights of the classes, of the logits' shape {k}",
            describe(labels),
            "for integer classes use softmax_cross_entropy_with_integer_labels",
        )
    return _softmax_cross_entropy(*checked("softmax_cross_entropy", logits, labels))


@jax.custom_vjp
def _softmax_cross_entropy(logits, labels):
    return softmax_cross_entropy_fwd(logits, labels)[0]


def softmax_cross_entropy_fwd(logits, labels):
    wide = accumulator(logits.dtype)

    def step(carry, rows):
        x, t = (a.astype(wide) for a in rows)
        largest = x.max(axis=-1, keepdims=True)
        largest = jax.lax.stop_gradient(jnp.where(jnp.isneginf(largest), 0, largest))
        top, rest = _powers(x, largest)
        # The largest is 1 of the sum, the rest may be far below: log1p sees it.
        ties = jnp.maximum(top.astype(wide).sum(axis=-1, keepdims=True), 1) - 1
        log_sum = jnp.log1p(rest.sum(axis=-1, keepdims=True) + ties)
        loss = (t * _surprise(x, t, largest, log_sum)).sum(axis=-1)
        return carry, (loss, t.sum(axis=-1, keepdims=True), largest, log_sum)

    _, (loss, *kept) = over_rows(step, (), (logits, labels))
    return loss.astype(logits.dtype), (logits, labels, *kept)


def softmax_cross_entropy_bwd(res, loss_bar):
    logits, labels, total, largest, log_sum = res
    chex.assert_shape(loss_bar, logits.shape[:-1])
    wide = total.dtype
    x, t, bar = (a.astype(wide) for a in (logits, labels, loss_bar[..., None]))
    top, e = _powers(x, largest)
    # Where y is nearly 1, y - t is taken from y - 1, which log_sum knows exactly.
    less_one = jnp.expm1(-log_sum) * (e + 1) + e
    less_t = jnp.where(
        top, total * less_one + (total - t), total * (jnp.exp(-log_sum) * e) - t
    )
    labels_bar = _surprise(x, t, largest, log_sum) * bar
    return (less_t * bar).astype(logits.dtype), labels_bar.astype(labels.dtype)


_softmax_cross_entropy.defvjp(softmax_cross_entropy_fwd, softmax_cross_entropy_bwd)


def _powers(x, largest):
    """Which are the largest, and e^(x - largest), of those less the 1 that it is."""
    top = x == largest
    return top, jnp.exp(x - largest) - top.astype(x.dtype)


def _surprise(x, t, largest, log_sum):
    """-ln y of each class, and 0 of an absent one."""
    absent = (t == 0) & jnp.isneginf(x)
    minus_log_y = largest - jnp.where(absent, 0, x) + log_sum
    return jnp.where(absent, 0, minus_log_y)


CASES = (
    loss_case(
        softmax_cross_entropy,
        lambda x, t: -(t * jax.nn.log_softmax(x)).sum(-1),
        None,
        points([[0.0, 0.0, 0.0], [1e4, 0.0, -1e4]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        "Bishop, eqs. 4.108–4.109",
        45,
    )._replace(rivals={"optax": optax.softmax_cross_entropy}),
)
