"""Squared errors, whole and half, summed over the last axis."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxbp.ops._case import points
from jaxbp.ops._labels import Labels, checked, loss_case, summed


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
    return _squared_error(*checked("squared_error", prediction, labels))


@jax.custom_vjp
def _squared_error(prediction, labels):
    difference = prediction - labels
    return summed(difference * difference)


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
    return _half_squared_error(*checked("half_squared_error", prediction, labels))


@jax.custom_vjp
def _half_squared_error(prediction, labels):
    difference = prediction - labels
    return summed(difference * difference) / 2


def half_squared_error_fwd(prediction, labels):
    return _half_squared_error(prediction, labels), prediction - labels


def half_squared_error_bwd(difference, loss_bar):
    chex.assert_shape(loss_bar, difference.shape[:-1])
    prediction_bar = difference * loss_bar[..., None]
    return prediction_bar, -prediction_bar


_half_squared_error.defvjp(half_squared_error_fwd, half_squared_error_bwd)


CASES = (
    loss_case(
        squared_error,
        lambda p, t: jnp.square(p - t).sum(-1),
        None,
        points([[1.0, 0.0, -0.0]], [[1.0, 1e10, 0.0]]),
        "Gauss (1809)",
        15,
    ),
    loss_case(
        half_squared_error,
        lambda p, t: 0.5 * ((p - t) ** 2).sum(axis=-1),
        None,
        points([[1.0, 0.0, -2.0]], [[0.0, 1e10, 0.0]]),
        "Nielsen, ch. 2, eq. 26",
        15,
    ),
)
