"""The gates of a circuit: sum, product, square, reciprocal, exponential.

Elementwise; the arguments of a gate have one shape. Rules of a gate are what the
tutorials write on its edges.
"""

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp._errors import as_floats, check_shapes
from jaxbp.ops._case import Case, normal, points, then
from jaxbp.ops._sharding import alike


def add(x: ArrayLike, y: ArrayLike) -> Float[Array, "*n"]:
    r"""Sum gate: $z = x + y$.

    VJP: $\bar x = \bar y = \bar z$: the gate hands its cotangent on, unchanged.

    Args:
        x: any shape `*n`.
        y: the same shape and dtype.
    Returns:
        the sum. Residuals kept: none, the local derivatives are 1.
    Raises:
        ValueError: the shapes differ.
        TypeError: not floating, or of two dtypes.
    Source: CS231n notes, "Backpropagation, Intuitions", add gate.
    """
    x, y = as_floats("add", x=x, y=y)
    check_shapes("add", "x (*n), y (*n)", x=x, y=y)
    return _add(*alike(x, y))


@jax.custom_vjp
def _add(x, y):
    return x + y


def add_fwd(x, y):
    return _add(x, y), ()


def add_bwd(res, z_bar):
    del res
    return z_bar, z_bar


_add.defvjp(add_fwd, add_bwd)


def multiply(x: ArrayLike, y: ArrayLike) -> Float[Array, "*n"]:
    r"""Product gate: $z = xy$.

    VJP: $\bar x = y\bar z$, $\bar y = x\bar z$: each input takes the other's value.

    Args:
        x: any shape `*n`.
        y: the same shape and dtype.
    Returns:
        the product. Residuals kept: `x`, `y`, each the other's local derivative.
    Raises:
        ValueError: the shapes differ.
        TypeError: not floating, or of two dtypes.
    Source: CS231n notes, "Backpropagation, Intuitions", multiply gate.
    """
    x, y = as_floats("multiply", x=x, y=y)
    check_shapes("multiply", "x (*n), y (*n)", x=x, y=y)
    return _multiply(*alike(x, y))


@jax.custom_vjp
def _multiply(x, y):
    return x * y


def multiply_fwd(x, y):
    return _multiply(x, y), (x, y)


def multiply_bwd(res, z_bar):
    x, y = res
    chex.assert_trees_all_equal_shapes_and_dtypes(x, z_bar)
    return y * z_bar, x * z_bar


_multiply.defvjp(multiply_fwd, multiply_bwd)


def square(x: ArrayLike) -> Float[Array, "*n"]:
    r"""Square: $y = x^2$.

    VJP: $\bar x = 2x\bar y$.

    Args:
        x: any shape.
    Returns:
        the square. Residuals kept: `x`.
    Raises:
        TypeError: not floating.
    Source: power rule.
    """
    return _square(*as_floats("square", x=x))


@jax.custom_vjp
def _square(x):
    return x * x


def square_fwd(x):
    return _square(x), x


def square_bwd(x, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    return (2 * x * y_bar,)


_square.defvjp(square_fwd, square_bwd)


def reciprocal(x: ArrayLike) -> Float[Array, "*n"]:
    r"""Reciprocal: $y = 1/x$.

    VJP: $\bar x = -y^2\bar y$.

    Args:
        x: any shape; at 0 value and gradient are infinite.
    Returns:
        the reciprocal. Residuals kept: `y`; with it no division is left to do.
    Raises:
        TypeError: not floating.
    Source: reciprocal rule, $d(1/x) = -dx/x^2$.
    """
    return _reciprocal(*as_floats("reciprocal", x=x))


@jax.custom_vjp
def _reciprocal(x):
    return 1 / x


def reciprocal_fwd(x):
    y = _reciprocal(x)
    return y, y


def reciprocal_bwd(y, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(y, y_bar)
    return (-y * (y * y_bar),)


_reciprocal.defvjp(reciprocal_fwd, reciprocal_bwd)


def exp(x: ArrayLike) -> Float[Array, "*n"]:
    r"""Exponential: $y = e^x$.

    VJP: $\bar x = y\bar y$.

    Args:
        x: any shape; overflows above 88.7 in float32, 709.8 in float64.
    Returns:
        the exponential. Residuals kept: `y`, its own derivative.
    Raises:
        TypeError: not floating.
    Source: $de^x = e^x dx$.
    """
    return _exp(*as_floats("exp", x=x))


@jax.custom_vjp
def _exp(x):
    return jnp.exp(x)


def exp_fwd(x):
    y = _exp(x)
    return y, y


def exp_bwd(y, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(y, y_bar)
    return (y * y_bar,)


_exp.defvjp(exp_fwd, exp_bwd)


def _two(make):
    return {
        "ordinary": make((5, 3), (5, 3)),
        "scalar": make((), ()),
        "empty": make((0, 3), (0, 3)),
        "zeros and signs": points([0.0, -0.0, 1.0, -2.0], [0.0, 3.0, -1.0, -4.0]),
    }


def _one(*edge):
    return {
        "ordinary": normal((5, 3)),
        "scalar": normal(()),
        "empty": normal((0, 3)),
        "edge": points(list(edge)),
    }


def _away_from_zero(x):
    return jnp.where(x < 0, x - 0.5, x + 0.5)


_reciprocal_inputs = {
    "ordinary": then(normal((5, 3)), _away_from_zero),
    "scalar": then(normal(()), _away_from_zero),
    "edge": points([1.0, -1.0, 1e-30, -1e30]),
}
_one_large = {"1024×1024": normal((1024, 1024))}
_two_large = {"1024×1024": normal((1024, 1024), (1024, 1024))}
CASES = (
    Case(add, jnp.add, _two(normal), _two_large, "sum rule", 0),
    Case(
        multiply,
        jnp.multiply,
        _two(normal),
        _two_large,
        "product rule",
        30,
    ),
    Case(
        square, jnp.square, _one(0.0, -0.0, 1e-30, 1e10), _one_large, "power rule", 15
    ),
    Case(
        reciprocal,
        jnp.reciprocal,
        _reciprocal_inputs,
        {"1024×1024": then(normal((1024, 1024)), _away_from_zero)},
        "reciprocal rule",
        15,
    ),
    Case(
        exp, jnp.exp, _one(0.0, -0.0, 80.0, -100.0), _one_large, "exponential rule", 15
    ),
)
