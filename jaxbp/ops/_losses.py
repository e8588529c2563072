"""Losses: each maps (*n, k) predictions and labels to (*n,), summing the last axis.

A label is a number in the prediction's dtype (integer and boolean labels are cast) and
has a cotangent like any other input.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlog1py, xlogy
from jaxtyping import Array, Bool, Float, Int

from jaxbp._errors import as_floats, check_shapes
from jaxbp.ops._case import Case, normal, points, then
from jaxbp.ops._dtypes import accumulator

Labels = Float[Array, "*n k"] | Int[Array, "*n k"] | Bool[Array, "*n k"]


def squared_error(
    prediction: Float[Array, "*n k"], labels: Labels
) -> Float[Array, "*n"]:
    r"""Squared error: $L = \sum_i (p_i - t_i)^2$.

    VJP: $\bar p = 2(p - t)\bar L$, $\bar t = -\bar p$.

    Args:
        prediction: any leading axes.
        labels: the same shape.
    Returns:
        one loss an example. Residuals kept: `p - t`.
    Raises:
        ValueError: the shapes differ.
        TypeError: predictions not floating.
    Source: Gauss, *Theoria motus* (1809); $L = \sum(y-\hat y)^2$ in the PadhAI notes.
    """
    return _squared_error(*_checked("squared_error", prediction, labels))


@jax.custom_vjp
def _squared_error(prediction, labels):
    difference = prediction - labels
    return _sum(difference * difference)


def squared_error_fwd(prediction, labels):
    return _squared_error(prediction, labels), prediction - labels


def squared_error_bwd(difference, loss_bar):
    chex.assert_shape(loss_bar, difference.shape[:-1])
    prediction_bar = 2 * difference * loss_bar[..., None]
    return prediction_bar, -prediction_bar


_squared_error.defvjp(squared_error_fwd, squared_error_bwd)


def half_squared_error(
    prediction: Float[Array, "*n k"], labels: Labels
) -> Float[Array, "*n"]:
    r"""Half the squared error: $L = \tfrac12\sum_i (p_i - t_i)^2$.

    VJP: $\bar p = (p - t)\bar L$, $\bar t = -\bar p$: the half cancels the 2.

    Args:
        prediction: any leading axes.
        labels: the same shape.
    Returns:
        one loss an example. Residuals kept: `p - t`.
    Raises:
        ValueError: the shapes differ.
        TypeError: predictions not floating.
    Source: Nielsen, *Neural Networks and Deep Learning*, ch. 2, eq. 26.
    """
    return _half_squared_error(*_checked("half_squared_error", prediction, labels))


@jax.custom_vjp
def _half_squared_error(prediction, labels):
    difference = prediction - labels
    return _sum(difference * difference) / 2


def half_squared_error_fwd(prediction, labels):
    return _half_squared_error(prediction, labels), prediction - labels


def half_squared_error_bwd(difference, loss_bar):
    chex.assert_shape(loss_bar, difference.shape[:-1])
    prediction_bar = difference * loss_bar[..., None]
    return prediction_bar, -prediction_bar


_half_squared_error.defvjp(half_squared_error_fwd, half_squared_error_bwd)


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
        *_checked("binary_cross_entropy", probabilities, labels)
    )


@jax.custom_vjp
def _binary_cross_entropy(probabilities, labels):
    p, t = probabilities, labels
    return -_sum(xlogy(t, p) + xlog1py(1 - t, -p))


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
    cancel: value and gradient are finite for every finite logit.

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
        *_checked("binary_cross_entropy_with_logits", logits, labels)
    )


@jax.custom_vjp
def _binary_cross_entropy_with_logits(logits, labels):
    return _sum(jnp.logaddexp(logits, jnp.zeros_like(logits)) - labels * logits)


def binary_cross_entropy_with_logits_fwd(logits, labels):
    return _binary_cross_entropy_with_logits(logits, labels), (logits, labels)


def binary_cross_entropy_with_logits_bwd(res, loss_bar):
    logits, labels = res
    chex.assert_shape(loss_bar, logits.shape[:-1])
    logits_bar = jax.lax.logistic(logits) - labels
    return logits_bar * loss_bar[..., None], -logits * loss_bar[..., None]


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
    return _cross_entropy(*_checked("cross_entropy", probabilities, labels))


@jax.custom_vjp
def _cross_entropy(probabilities, labels):
    return -_sum(xlogy(labels, probabilities))


def cross_entropy_fwd(probabilities, labels):
    return _cross_entropy(probabilities, labels), (probabilities, labels)


def cross_entropy_bwd(res, loss_bar):
    p, t = res
    chex.assert_shape(loss_bar, p.shape[:-1])
    p_bar = -_weighted_ratio(t, p)
    return p_bar * loss_bar[..., None], -jnp.log(p) * loss_bar[..., None]


_cross_entropy.defvjp(cross_entropy_fwd, cross_entropy_bwd)


def softmax_cross_entropy(
    logits: Float[Array, "*n k"], labels: Labels
) -> Float[Array, "*n"]:
    r"""Cross-entropy of the softmax: $L = \sum_i t_i (\ln\sum_j e^{x_j} - x_i)$.

    VJP: $\bar x_i = (y_i \sum_j t_j - t_i)\bar L$ with $y$ the softmax,
    $\bar t_i = (\ln\sum_j e^{x_j} - x_i)\bar L$.

    Args:
        logits: any leading axes.
        labels: weights of the classes, the same shape; they need not sum to 1.
    Returns:
        one loss an example. Residuals kept: both inputs and the log-sum-exp, one number
        an example, from which the softmax is one exponential away.
    Raises:
        ValueError: the shapes differ.
        TypeError: logits not floating.
    Source: Bishop, *Pattern Recognition and Machine Learning*, eqs. 4.108–4.109.
    """
    return _softmax_cross_entropy(*_checked("softmax_cross_entropy", logits, labels))


@jax.custom_vjp
def _softmax_cross_entropy(logits, labels):
    return _sum(labels * (jax.nn.logsumexp(logits, axis=-1, keepdims=True) - logits))


def softmax_cross_entropy_fwd(logits, labels):
    lse = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return _sum(labels * (lse - logits)), (logits, labels, lse)


def softmax_cross_entropy_bwd(res, loss_bar):
    logits, labels, lse = res
    chex.assert_shape(loss_bar, logits.shape[:-1])
    y = jnp.exp(logits - lse)
    logits_bar = y * _sum(labels)[..., None] - labels
    labels_bar = lse - logits
    return logits_bar * loss_bar[..., None], labels_bar * loss_bar[..., None]


_softmax_cross_entropy.defvjp(softmax_cross_entropy_fwd, softmax_cross_entropy_bwd)


def _sum(x):
    wide = accumulator(x.dtype)
    return x.sum(axis=-1, dtype=wide).astype(x.dtype)


def _weighted_ratio(weight, x):
    """weight / x, and 0 where the weight is 0, whatever x is."""
    nothing = weight == 0
    return jnp.where(nothing, 0, weight / jnp.where(nothing, 1, x))


def _checked(function, prediction, labels):
    if jnp.issubdtype(jnp.result_type(labels), jnp.integer) or (
        jnp.result_type(labels) == np.bool_
    ):
        labels = jnp.asarray(labels).astype(jnp.result_type(prediction))
    prediction, labels = as_floats(function, prediction=prediction, labels=labels)
    expected = "prediction (*n, k), labels (*n, k)"
    check_shapes(function, expected, prediction=prediction, labels=labels)
    return prediction, labels


def _log_loss(p, t):
    return -(t * jnp.log(p) + (1 - t) * jnp.log(1 - p)).sum(-1)


def _log_loss_of_logits(x, t):
    return (jax.nn.softplus(x) - t * x).sum(-1)


def _case(function, plain, domain, edge, source):
    """The shapes and regimes that every loss is asked at."""
    shapes = {
        "ordinary": ((5, 3), (5, 3)),
        "one example": ((4,), (4,)),
        "two leading axes": ((2, 3, 2), (2, 3, 2)),
        "one class": ((3, 1), (3, 1)),
        "empty batch": ((0, 3), (0, 3)),
    }
    inputs = {k: then(normal(*s), domain, jax.nn.sigmoid) for k, s in shapes.items()}
    cost = then(normal((8192, 1000), (8192, 1000)), domain, jax.nn.sigmoid)
    return Case(function, plain, inputs | {"edge": edge}, cost, source)


CASES = (
    _case(
        squared_error,
        lambda p, t: jnp.square(p - t).sum(-1),
        None,
        points([[1.0, 0.0, -0.0]], [[1.0, 1e10, 0.0]]),
        "Gauss (1809)",
    ),
    _case(
        half_squared_error,
        lambda p, t: 0.5 * jnp.linalg.vector_norm(p - t, axis=-1) ** 2,
        None,
        points([[1.0, 0.0, -2.0]], [[0.0, 1e10, 0.0]]),
        "Nielsen, ch. 2, eq. 26",
    ),
    _case(
        binary_cross_entropy,
        _log_loss,
        jax.nn.sigmoid,
        points([[0.5, 1e-6, 0.999]], [[1.0, 0.0, 1.0]]),
        "Bishop, eq. 4.90",
    ),
    _case(
        binary_cross_entropy_with_logits,
        _log_loss_of_logits,
        None,
        points([[0.0, 40.0, -40.0, 700.0]], [[1.0, 1.0, 0.0, 0.0]]),
        "Bishop, eqs. 4.90–4.91",
    ),
    _case(
        cross_entropy,
        lambda p, t: -(t * jnp.log(p)).sum(-1),
        jax.nn.sigmoid,
        points([[0.5, 1e-6, 1.0]], [[1.0, 0.0, 0.5]]),
        "Bishop, eq. 4.108",
    ),
    _case(
        softmax_cross_entropy,
        lambda x, t: -(t * jax.nn.log_softmax(x)).sum(-1),
        None,
        points([[0.0, 0.0, 0.0], [1e4, 0.0, -1e4]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        "Bishop, eqs. 4.108–4.109",
    ),
)
