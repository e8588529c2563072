"""Cross-entropies of probabilities, and of a Bernoulli variable's logits."""

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import xlog1py, xlogy
from jaxtyping import Array, Float

from jaxbp.ops._case import points
from jaxbp.ops._labels import Labels, checked, loss_case, summed, summed_rows
from jaxbp.ops._logistic import sides


def binary_cross_entropy(
    probabilities: Float[Array, "*n k"], labels: Labels
) -> Float[Array, "*n"]:
    r"""Bernoulli negative log-likelihood: $L = -\sum_i t_i\ln p_i + (1-t_i)\ln(1-p_i)$.

    VJP: $\bar p = \bigl(\frac{1-t}{1-p} - \frac tp\bigr)\bar L$,
    $\bar t = \bigl(\ln(1-p) - \ln p\bigr)\bar L$. A term of weight 0 contributes 0, in
    value and gradient, also where its logarithm is infinite.

    Args:
        probabilities: in [0, 1], any leading axes. Far from 1/2 the logits form
            `binary_cross_entropy_with_logits` is the accurate one.
        labels: in [0, 1], the same shape.
    Returns:
        one loss an example. Residuals kept: both inputs.
    Raises:
        ValueError: the shapes differ.
        TypeError: probabilities not floating.
    Source: Bishop, *Pattern Recognition and Machine Learning*, eq. 4.90.
    """
    return _binary_cross_entropy(
        *checked("binary_cross_entropy", probabilities, labels)
    )


@jax.custom_vjp
def _binary_cross_entropy(probabilities, labels):
    p, t = probabilities, labels
    return -summed(xlogy(t, p) + xlog1py(1 - t, -p))


def binary_cross_entropy_fwd(probabilities, labels):
    return _binary_cross_entropy(probabilities, labels), (probabilities, labels)


def binary_cross_entropy_bwd(res, loss_bar):
    p, t = res
    chex.assert_shape(loss_bar, p.shape[:-1])
    p_bar = _weighted_ratio(1 - t, 1 - p) - _weighted_ratio(t, p)
    t_bar = jnp.log1p(-p) - jnp.log(p)
    return p_bar * loss_bar[..., None], t_bar * loss_bar[..., None]


_binary_cross_entropy.defvjp(binary_cross_entropy_fwd, binary_cross_entropy_bwd)


def binary_cross_entropy_with_logits(
    logits: Float[Array, "*n k"], labels: Labels
) -> Float[Array, "*n"]:
    r"""Binary cross-entropy of $\sigma(x)$: $L = \sum_i \ln(1 + e^{x_i}) - t_i x_i$.

    VJP: $\bar x = (\sigma(x) - t)\bar L$, $\bar t = -x\bar L$. Sigmoid and logarithm
    cancel: value and gradient are finite for every finite logit. Both are written from
    the two sides, $\sigma(x) - t = (1-t)\sigma(x) - t\,\sigma(-x)$ and likewise $L$,
    so that near a certain label they are small numbers, not differences of large ones.

    Args:
        logits: any leading axes.
        labels: in [0, 1], the same shape.
    Returns:
        one loss an example. Residuals kept: both inputs.
    Raises:
        ValueError: the shapes differ.
        TypeError: logits not floating.
    Source: Bishop, *Pattern Recognition and Machine Learning*, eqs. 4.90–4.91.
    """
    return _binary_cross_entropy_with_logits(
        *checked("binary_cross_entropy_with_logits", logits, labels)
    )


@jax.custom_vjp
def _binary_cross_entropy_with_logits(logits, labels):
    def elementwise(x, t):
        positive = x > 0
        # -|x|, written with a slope at 0: autodiff of this is right there too.
        near = jnp.log1p(jnp.exp(jnp.where(positive, -x, x)))
        return near + jnp.where(positive, 1 - t, -t) * x

    return summed_rows(elementwise, logits, labels)


def binary_cross_entropy_with_logits_fwd(logits, labels):
    return _binary_cross_entropy_with_logits(logits, labels), (logits, labels)


def binary_cross_entropy_with_logits_bwd(res, loss_bar):
    logits, labels = res
    chex.assert_shape(loss_bar, logits.shape[:-1])
    x, t = logits, labels
    y, rest = sides(x)
    x_bar = (1 - t) * y - t * rest
    return x_bar * loss_bar[..., None], -x * loss_bar[..., None]


_binary_cross_entropy_with_logits.defvjp(
    binary_cross_entropy_with_logits_fwd, binary_cross_entropy_with_logits_bwd
)


def cross_entropy(
    probabilities: Float[Array, "*n k"], labels: Labels
) -> Float[Array, "*n"]:
    r"""Categorical negative log-likelihood: $L = -\sum_i t_i \ln p_i$.

    VJP: $\bar p = -(t/p)\bar L$, $\bar t = -\ln p\,\bar L$. A label of 0 contributes 0,
    in value and gradient, also at $p = 0$.

    Args:
        probabilities: in [0, 1], any leading axes. Computed from logits, prefer
            `softmax_cross_entropy`: it cannot overflow.
        labels: weights of the classes, the same shape.
    Returns:
        one loss an example. Residuals kept: both inputs.
    Raises:
        ValueError: the shapes differ.
        TypeError: probabilities not floating.
    Source: Bishop, *Pattern Recognition and Machine Learning*, eq. 4.108.
    """
    return _cross_entropy(*checked("cross_entropy", probabilities, labels))


@jax.custom_vjp
def _cross_entropy(probabilities, labels):
    return -summed(xlogy(labels, probabilities))


def cross_entropy_fwd(probabilities, labels):
    return _cross_entropy(probabilities, labels), (probabilities, labels)


def cross_entropy_bwd(res, loss_bar):
    p, t = res
    chex.assert_shape(loss_bar, p.shape[:-1])
    p_bar = -_weighted_ratio(t, p)
    return p_bar * loss_bar[..., None], -jnp.log(p) * loss_bar[..., None]


_cross_entropy.defvjp(cross_entropy_fwd, cross_entropy_bwd)


def _weighted_ratio(weight, x):
    """weight / x, and 0 where the weight is 0, whatever x is."""
    nothing = weight == 0
    return jnp.where(nothing, 0, weight / jnp.where(nothing, 1, x))


def _log_loss(p, t):
    return -(t * jnp.log(p) + (1 - t) * jnp.log(1 - p)).sum(-1)


def _log_loss_of_logits(x, t):
    return (jax.nn.softplus(x) - t * x).sum(-1)


CASES = (
    loss_case(
        binary_cross_entropy,
        _log_loss,
        jax.nn.sigmoid,
        points([[0.5, 1e-6, 0.999]], [[1.0, 0.0, 1.0]]),
        "Bishop, eq. 4.90",
        30,
    ),
    loss_case(
        binary_cross_entropy_with_logits,
        _log_loss_of_logits,
        None,
        points([[0.0, 40.0, -40.0, 700.0]], [[1.0, 1.0, 0.0, 0.0]]),
        "Bishop, eqs. 4.90–4.91",
        30,
    ),
    loss_case(
        cross_entropy,
        lambda p, t: -(t * jnp.log(p)).sum(-1),
        jax.nn.sigmoid,
        points([[0.5, 1e-6, 1.0]], [[1.0, 0.0, 0.5]]),
        "Bishop, eq. 4.108",
        30,
    ),
)
