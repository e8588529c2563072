"""Saturating activations: sigmoid, log-sigmoid, tanh, softplus.

Each keeps its input: what a saturated output has rounded away, no rule can bring back.
With s the logistic sigmoid, every derivative here is a product of s(x) and s(-x), both
accurate at any x, where 1 - s(x) is not.
"""

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp._errors import as_floats
from jaxbp.ops._case import Case, normal, points
from jaxbp.ops._logistic import sides


def sigmoid(x: ArrayLike) -> Float[Array, "*n"]:
    r"""Logistic sigmoid: $y = \sigma(x) = 1/(1 + e^{-x})$.

    VJP: $\bar x = \bar y\,\sigma(x)\,\sigma(-x)$, which is $\bar y\,y(1 - y)$ without
    the subtraction: in float32 $1 - y$ is 0 from x = 17 on, $\sigma(-x)$ is not.

    Args:
        x: any shape.
    Returns:
        values in [0, 1]. Residuals kept: `x`; y alone does not tell how far it is
        from 1.
    Raises:
        TypeError: not floating.
    Source: Nielsen, *Neural Networks and Deep Learning*, ch. 2.
    """
    return _sigmoid(*as_floats("sigmoid", x=x))


@jax.custom_vjp
def _sigmoid(x):
    return jax.lax.logistic(x)


def sigmoid_fwd(x):
    return _sigmoid(x), x


def sigmoid_bwd(x, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    y, rest = sides(x)
    return (y_bar * (y * rest),)


_sigmoid.defvjp(sigmoid_fwd, sigmoid_bwd)


def log_sigmoid(x: ArrayLike) -> Float[Array, "*n"]:
    r"""Logarithm of the sigmoid: $y = \ln\sigma(x) = -\ln(1 + e^{-x})$.

    VJP: $\bar x = \bar y\,\sigma(-x)$.

    Args:
        x: any shape.
    Returns:
        values up to 0: x itself far to the left, $-e^{-x}$ far to the right. Residuals
        kept: `x`.
    Raises:
        TypeError: not floating.
    Source: Bishop, *Pattern Recognition and Machine Learning*, eqs. 4.59–4.60.
    """
    return _log_sigmoid(*as_floats("log_sigmoid", x=x))


@jax.custom_vjp
def _log_sigmoid(x):
    return -_softplus_of(-x)


def log_sigmoid_fwd(x):
    return _log_sigmoid(x), x


def log_sigmoid_bwd(x, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    return (y_bar * jax.lax.logistic(-x),)


_log_sigmoid.defvjp(log_sigmoid_fwd, log_sigmoid_bwd)


def tanh(x: ArrayLike) -> Float[Array, "*n"]:
    r"""Hyperbolic tangent: $y = \tanh x = 2\sigma(2x) - 1$.

    VJP: $\bar x = 4\,\bar y\,\sigma(2x)\,\sigma(-2x)$, which is $\bar y(1 - y^2)$
    without the subtraction: in float32 that is 0 from x = 9 on.

    Args:
        x: any shape.
    Returns:
        values in [-1, 1]. Residuals kept: `x`; y alone does not tell how far it is
        from 1.
    Raises:
        TypeError: not floating.
    Source: LeCun et al., "Efficient BackProp" (1998), sec. 4.4.
    """
    return _tanh(*as_floats("tanh", x=x))


@jax.custom_vjp
def _tanh(x):
    return jnp.tanh(x)


def tanh_fwd(x):
    return _tanh(x), x


def tanh_bwd(x, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    y, rest = sides(2 * x)
    return (y_bar * (4 * y * rest),)


_tanh.defvjp(tanh_fwd, tanh_bwd)


def softplus(x: ArrayLike) -> Float[Array, "*n"]:
    r"""Softplus: $y = \ln(1 + e^x)$, the integral of the sigmoid.

    VJP: $\bar x = \bar y\,\sigma(x)$.

    Args:
        x: any shape.
    Returns:
        values from 0: $e^x$ far to the left, x itself far to the right. Residuals kept:
        `x`.
    Raises:
        TypeError: not floating.
    Source: Glorot, Bordes and Bengio, "Deep sparse rectifier neural networks" (2011),
        sec. 3.1.
    """
    return _softplus(*as_floats("softplus", x=x))


@jax.custom_vjp
def _softplus(x):
    return _softplus_of(x)


def softplus_fwd(x):
    return _softplus(x), x


def softplus_bwd(x, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    return (y_bar * jax.lax.logistic(x),)


_softplus.defvjp(softplus_fwd, softplus_bwd)


def _softplus_of(x):
    """Without overflow: the exponent is never positive."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def activation_case(function, plain, source, residuals=15, edge=(), **more) -> Case:
    """The regimes at which every elementwise activation is asked."""
    inputs = {
        "ordinary": normal((5, 3)),
        "scalar": normal(()),
        "empty": normal((0, 3)),
        "edge": points([0.0, -0.0, 15.0, -15.0, 30.0, -30.0, 80.0, -80.0, *edge]),
    }
    size = {"1024×1024": normal((1024, 1024))}
    return Case(function, plain, inputs, size, source, residuals, **more)


_WHY = "its gradient keeps its digits where the output is saturated"
CASES = (
    activation_case(sigmoid, jax.nn.sigmoid, "Nielsen, ch. 2", why=_WHY),
    activation_case(log_sigmoid, jax.nn.log_sigmoid, "Bishop, eqs. 4.59–4.60"),
    activation_case(tanh, jax.nn.tanh, "LeCun et al. (1998), sec. 4.4", why=_WHY),
    activation_case(softplus, jax.nn.softplus, "Glorot et al. (2011), sec. 3.1"),
)
