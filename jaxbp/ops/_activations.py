"""Activations: sigmoid and softmax."""

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats
from jaxbp.ops._case import Case, normal, points
from jaxbp.ops._dtypes import accumulator


def sigmoid(x: ArrayLike) -> Float[Array, "*n"]:
    r"""Logistic sigmoid: $y = 1/(1 + e^{-x})$.

    VJP: $\bar x = \bar y\,y(1 - y)$.

    Args:
        x: any shape.
    Returns:
        values in [0, 1]. Residuals kept: `y`, which a following layer keeps anyway.
        The gradient is rounded to multiples of y's last place: it is 0 from x = 17 on
        in float32, from 37 on in float64.
    Raises:
        TypeError: not floating.
    Source: Nielsen, *Neural Networks and Deep Learning*, ch. 2.
    """
    return _sigmoid(*as_floats("sigmoid", x=x))


@jax.custom_vjp
def _sigmoid(x):
    return jax.lax.logistic(x)


def sigmoid_fwd(x):
    y = _sigmoid(x)
    return y, y


def sigmoid_bwd(y, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(y, y_bar)
    return (y_bar * (y * (1 - y)),)


_sigmoid.defvjp(sigmoid_fwd, sigmoid_bwd)


def softmax(x: ArrayLike) -> Float[Array, "*n k"]:
    r"""Softmax of the last axis: $y_i = e^{x_i} / \sum_j e^{x_j}$.

    VJP: $\bar x_i = y_i(\bar y_i - \sum_j \bar y_j y_j)$. The Jacobian
    $y_i(\delta_{ij} - y_j)$ is full: every output depends on every input.

    Args:
        x: logits, any leading axes; shifted by their maximum, so that none overflows.
    Returns:
        probabilities. Residuals kept: `y`.
    Raises:
        ValueError: no axis to normalise over.
        TypeError: not floating.
    Source: Bridle, "Probabilistic interpretation of feedforward classification network
        outputs" (1990), eq. 4.
    """
    (x,) = as_floats("softmax", x=x)
    if x.ndim == 0 or x.shape[-1] == 0:
        expected = "of shape (*n, k) with k at least 1"
        raise argument_error("softmax", "x", expected, f"shape {x.shape}")
    return _softmax(x)


@jax.custom_vjp
def _softmax(x):
    shift = jax.lax.stop_gradient(x.max(axis=-1, keepdims=True))
    e = jnp.exp(x - shift)
    return e / e.sum(axis=-1, keepdims=True)


def softmax_fwd(x):
    y = _softmax(x)
    return y, y


def softmax_bwd(y, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(y, y_bar)
    wide = accumulator(y.dtype)
    mean = (y_bar * y).sum(axis=-1, keepdims=True, dtype=wide).astype(y.dtype)
    return (y * (y_bar - mean),)


_softmax.defvjp(softmax_fwd, softmax_bwd)


CASES = (
    Case(
        sigmoid,
        jax.nn.sigmoid,
        {
            "ordinary": normal((5, 3)),
            "scalar": normal(()),
            "empty": normal((0, 3)),
            "saturated": points([0.0, -0.0, 15.0, -15.0, 30.0, -30.0, 80.0, -80.0]),
        },
        {"1024×1024": normal((1024, 1024))},
        "Nielsen, ch. 2",
        15,
    ),
    Case(
        softmax,
        jax.nn.softmax,
        {
            "ordinary": normal((5, 3)),
            "one row": normal((4,)),
            "one class": normal((3, 1)),
            "empty batch": normal((0, 3)),
            "ties and far": points(
                [[0.0, 0.0, 0.0], [1e4, 0.0, -1e4], [7.0, 7.0, 1.0]]
            ),
        },
        {"8192×1000": normal((8192, 1000))},
        "Bridle (1990), eq. 4",
        15,
    ),
)
