"""Rectifiers: relu and leaky relu, with a kink; gelu, silu and swiglu, smooth."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats, check_shapes
from jaxbp.ops._activations import activation_case
from jaxbp.ops._case import Case, normal, points
from jaxbp.ops._sharding import alike

_BEND = 0.044715
_SCALE = math.sqrt(2 / math.pi)


def relu(x: ArrayLike) -> Float[Array, "*n"]:
    r"""Rectified linear unit: $y = \max(x, 0)$.

    VJP: $\bar x = \bar y$ where $x > 0$, else 0; at the kink, x = 0, it is 0.

    Args:
        x: any shape.
    Returns:
        values from 0. Residuals kept: `y`, positive where x is, and kept by a
        following layer anyway.
    Raises:
        TypeError: not floating.
    Source: Nair and Hinton, "Rectified linear units improve restricted Boltzmann
        machines" (2010), sec. 2.
    """
    return _relu(*as_floats("relu", x=x))


@jax.custom_vjp
def _relu(x):
    return jnp.where(x <= 0, 0, x)  # of NaN it is NaN


def relu_fwd(x):
    y = _relu(x)
    return y, y


def relu_bwd(y, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(y, y_bar)
    return (jnp.where(y > 0, y_bar, 0),)


_relu.defvjp(relu_fwd, relu_bwd)


def leaky_relu(x: ArrayLike, *, negative_slope: float = 0.01) -> Float[Array, "*n"]:
    r"""Leaky rectified linear unit: $y = x$ where $x \ge 0$, else $ax$.

    VJP: $\bar x = \bar y$ where $x \ge 0$, else $a\bar y$; at the kink it is $\bar y$.

    Args:
        x: any shape.
        negative_slope: a, finite.
    Returns:
        the values. Residuals kept: `x >= 0`, one byte an element; the sign of y tells
        it only where a is positive and ax does not underflow.
    Raises:
        ValueError: a slope that is not finite.
        TypeError: not floating.
    Source: Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network
        acoustic models" (2013), eq. 2.
    """
    (x,) = as_floats("leaky_relu", x=x)
    if not math.isfinite(negative_slope):
        raise argument_error("leaky_relu", "negative_slope", "finite", negative_slope)
    return _leaky_relu(x, float(negative_slope))


@functools.partial(jax.custom_vjp, nondiff_argnames=("negative_slope",))
def _leaky_relu(x, negative_slope):
    return jnp.where(x >= 0, x, negative_slope * x)


def leaky_relu_fwd(x, negative_slope):
    return _leaky_relu(x, negative_slope), x >= 0


def leaky_relu_bwd(negative_slope, right, y_bar):
    chex.assert_equal_shape([right, y_bar])
    return (jnp.where(right, y_bar, negative_slope * y_bar),)


_leaky_relu.defvjp(leaky_relu_fwd, leaky_relu_bwd)


def gelu(x: ArrayLike, *, approximate: bool = False) -> Float[Array, "*n"]:
    r"""Gaussian error linear unit: $y = x\,\Phi(x)$, $\Phi$ the normal distribution's.

    VJP: $\bar x = \bar y\,(\Phi(x) + x\,\varphi(x))$ with $\varphi = \Phi'$.
    Approximate: $\Phi(x) \approx \sigma(2u) = \frac12(1 + \tanh u)$ with
    $u = \sqrt{2/\pi}\,(x + 0.044715x^3)$, and
    $\varphi(x) \approx 2u'\,\sigma(2u)\,\sigma(-2u)$.

    Args:
        x: any shape.
        approximate: the tanh form, up to 5e-4 away from the exact one.
    Returns:
        the values. On the left they are those of a tail that falls as $e^{-x^2/2}$: a
        unit in the last place of x is $x^2$ units there. Residuals kept: `x`.
    Raises:
        TypeError: not floating.
    Source: Hendrycks and Gimpel, "Gaussian error linear units" (2016), sec. 2.
    """
    return _gelu(*as_floats("gelu", x=x), bool(approximate))


@functools.partial(jax.custom_vjp, nondiff_argnames=("approximate",))
def _gelu(x, approximate):
    return x * (jax.lax.logistic(_bent(x)) if approximate else _normal_cdf(x))


def gelu_fwd(x, approximate):
    return _gelu(x, approximate), x


def gelu_bwd(approximate, x, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    if approximate:
        x = jnp.clip(x, -50, 50)  # flat beyond in any dtype, and its square is finite
        cdf = jax.lax.logistic(_bent(x))
        # What 1 - cdf loses on the right is small beside the cdf that pdf is added to.
        pdf = 2 * _SCALE * (1 + 3 * _BEND * x * x) * (cdf * (1 - cdf))
    else:
        cdf = _normal_cdf(x)
        pdf = jnp.exp(-x * x / 2) * (1 / math.sqrt(2 * math.pi))
    return (y_bar * (cdf + x * pdf),)


_gelu.defvjp(gelu_fwd, gelu_bwd)


def _normal_cdf(x):
    return jax.lax.erfc(-x * math.sqrt(0.5)) / 2


def _bent(x):
    return 2 * _SCALE * (x + _BEND * x * x * x)


def silu(x: ArrayLike) -> Float[Array, "*n"]:
    r"""Sigmoid linear unit (swish): $y = x\,\sigma(x)$.

    VJP: $\bar x = \bar y\,\sigma(x)\,(1 + x\,\sigma(-x))$.

    Args:
        x: any shape.
    Returns:
        the values. Residuals kept: `x`.
    Raises:
        TypeError: not floating.
    Source: Ramachandran, Zoph and Le, "Searching for activation functions" (2017),
        sec. 4 (beta = 1).
    """
    return _silu(*as_floats("silu", x=x))


@jax.custom_vjp
def _silu(x):
    return x * jax.lax.logistic(x)


def silu_fwd(x):
    return _silu(x), x


def silu_bwd(x, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    return (y_bar * _silu_slope(x),)


_silu.defvjp(silu_fwd, silu_bwd)


def swiglu(x: ArrayLike, v: ArrayLike) -> Float[Array, "*n"]:
    r"""Gated linear unit with a swish: $y = x\,\sigma(x)\,v$.

    VJP: $\bar x = \bar y\,v\,\sigma(x)\,(1 + x\,\sigma(-x))$,
    $\bar v = \bar y\,x\,\sigma(x)$.

    Args:
        x: what opens the gate, any shape `*n`; in a layer the product with W.
        v: what passes it, the same shape and dtype; the product with V.
    Returns:
        the values. Residuals kept: `x`, `v`: the swish is one exponential away.
    Raises:
        ValueError: the shapes differ.
        TypeError: not floating, or of two dtypes.
    Source: Shazeer, "GLU variants improve Transformer" (2020), eq. 5.
    """
    x, v = as_floats("swiglu", x=x, v=v)
    check_shapes("swiglu", "x (*n), v (*n)", x=x, v=v)
    return _swiglu(*alike(x, v))


@jax.custom_vjp
def _swiglu(x, v):
    return x * jax.lax.logistic(x) * v


def swiglu_fwd(x, v):
    return _swiglu(x, v), (x, v)


def swiglu_bwd(res, y_bar):
    x, v = res
    chex.assert_trees_all_equal_shapes_and_dtypes(x, v, y_bar)
    return y_bar * v * _silu_slope(x), y_bar * (x * jax.lax.logistic(x))


_swiglu.defvjp(swiglu_fwd, swiglu_bwd)


def _silu_slope(x):
    return jax.lax.logistic(x) * (1 + x * jax.lax.logistic(-x))


_two = {
    "ordinary": normal((5, 3), (5, 3)),
    "scalar": normal((), ()),
    "empty": normal((0, 3), (0, 3)),
    "edge": points([0.0, -0.0, 40.0, -40.0, 1e4], [1.0, 0.0, -2.0, 3.0, 1e4]),
}
_large = {"1024×1024": normal((1024, 1024), (1024, 1024))}
_PARITY = "the elementwise sweep itself is the cost: autodiff's is as short"
CASES = (
    activation_case(relu, jax.nn.relu, "Nair and Hinton (2010), sec. 2", why=_PARITY),
    activation_case(
        leaky_relu, jax.nn.leaky_relu, "Maas et al. (2013), eq. 2", why=_PARITY
    ),
    activation_case(
        gelu,
        lambda x: jax.nn.gelu(x, approximate=False),
        "Hendrycks and Gimpel (2016), sec. 2",
        why=_PARITY,
    ),
    activation_case(
        functools.partial(gelu, approximate=True),
        jax.nn.gelu,
        "Hendrycks and Gimpel (2016), sec. 2",
        variant="tanh",
        why=_PARITY,
    ),
    activation_case(
        silu, jax.nn.silu, "Ramachandran et al. (2017), sec. 4", why=_PARITY
    ),
    Case(
        swiglu,
        lambda x, v: jax.nn.silu(x) * v,
        _two,
        _large,
        "Shazeer (2020), eq. 5",
        30,
        why=_PARITY,
    ),
)
