"""Huber's loss: squared near 0, absolute far from it."""

import functools

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxbp._errors import argument_error
from jaxbp.ops._case import points
from jaxbp.ops._labels import Labels, checked, loss_case, summed_rows


def huber_loss(
    prediction: Float[Array, "*n k"], labels: Labels, *, delta: float = 1.0
) -> Float[Array, "*n"]:
    r"""Huber's loss, summed over the last axis, of $d = p - t$.

    $L = \sum_i h(d_i)$, $h(d) = \tfrac12 d^2$ where $|d| \le \delta$, and
    $\delta(|d| - \tfrac12\delta)$ beyond.

    VJP: $\bar p = \operatorname{clip}(d, -\delta, \delta)\,\bar L$, $\bar t = -\bar p$.
    The two branches meet with one slope: at $|d| = \delta$ there is no kink.

    Args:
        prediction: any leading axes.
        labels: the same shape.
        delta: where the square ends; positive.
    Returns:
        one loss an example. Residuals kept: `p - t`.
    Raises:
        ValueError: the shapes differ, or `delta` is not positive.
        TypeError: predictions not floating.
    Source: Huber, "Robust estimation of a location parameter" (1964), §3.
    """
    if not delta > 0:
        raise argument_error("huber_loss", "delta", "positive", delta)
    return _huber_loss(*checked("huber_loss", prediction, labels), delta)


@functools.partial(jax.custom_vjp, nondiff_argnames=("delta",))
def _huber_loss(prediction, labels, delta):
    def elementwise(p, t):
        distance = jnp.abs(p - t)
        near = jnp.minimum(distance, delta)
        return near * (distance - near / 2)  # the square of a far one may overflow

    return summed_rows(elementwise, prediction, labels)


def huber_loss_fwd(prediction, labels, delta):
    return _huber_loss(prediction, labels, delta), prediction - labels


def huber_loss_bwd(delta, difference, loss_bar):
    chex.assert_shape(loss_bar, difference.shape[:-1])
    prediction_bar = jnp.clip(difference, -delta, delta) * loss_bar[..., None]
    return prediction_bar, -prediction_bar


_huber_loss.defvjp(huber_loss_fwd, huber_loss_bwd)


def _plain(p, t, *, delta):
    d = p - t
    far = delta * (jnp.abs(d) - delta / 2)
    return jnp.where(jnp.abs(d) <= delta, d**2 / 2, far).sum(-1)


def _case(delta, variant):
    return loss_case(
        functools.partial(huber_loss, delta=delta),
        functools.partial(_plain, delta=delta),
        None,
        points(
            [[0.0, delta, -delta, 3 * delta, -1e4]], [[0.0, 0.0, 0.0, delta / 2, 1e4]]
        ),
        "Huber (1964), §3",
        15,
    )._replace(variant=variant)


CASES = (_case(1.0, ""), _case(0.25, "delta 1/4"))
