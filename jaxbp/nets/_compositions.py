"""Compositions of elementary functions: exponentials over a square."""

import jax
from jax.ad_checkpoint import checkpoint_name as wire
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp import ops
from jaxbp._errors import as_floats


def exp_square(x: ArrayLike) -> Float[Array, "*n"]:
    r"""$y = e^{x^2}$, through $h_1 = x^2$.

    VJP: $\bar h_1 = y\bar y$, $\bar x = 2x\bar h_1$. Wires: `h1`, `y`.

    Args:
        x: any shape; overflows beyond |x| = 9.4 in float32, 26.6 in float64.
    Returns:
        the value. Residuals kept: `x`, `y`.
    Raises:
        TypeError: not floating.
    Source: chain rule; manveetdn, "Back Propagation" (PadhAI notes).
    """
    return _exp_square(*as_floats("exp_square", x=x))


@jax.custom_vjp
def _exp_square(x):
    return exp_square_fwd(x)[0]


def exp_square_fwd(x):
    h1, h1_res = ops.square_fwd(x)
    y, y_res = ops.exp_fwd(wire(h1, "h1"))
    return wire(y, "y"), (h1_res, y_res)


def exp_square_bwd(res, y_bar):
    h1_res, y_res = res
    y_bar = wire(y_bar, "y_bar")
    (h1_bar,) = ops.exp_bwd(y_res, y_bar)
    h1_bar = wire(h1_bar, "h1_bar")
    (x_bar,) = ops.square_bwd(h1_res, h1_bar)
    return (x_bar,)


_exp_square.defvjp(exp_square_fwd, exp_square_bwd)


def exp_exp_square(x: ArrayLike) -> Float[Array, "*n"]:
    r"""$y = e^{e^{x^2}}$, through $h_1 = x^2$, $h_2 = e^{h_1}$.

    VJP: $\bar h_2 = y\bar y$, $\bar h_1 = h_2\bar h_2$, $\bar x = 2x\bar h_1$.
    Wires: `h1`, `h2`, `y`.

    Args:
        x: any shape; overflows beyond |x| = 2.12 in float32, 2.56 in float64.
    Returns:
        the value. Residuals kept: `x`, `h2`, `y`.
    Raises:
        TypeError: not floating.
    Source: chain rule; manveetdn, "Back Propagation" (PadhAI notes).
    """
    return _exp_exp_square(*as_floats("exp_exp_square", x=x))


@jax.custom_vjp
def _exp_exp_square(x):
    return exp_exp_square_fwd(x)[0]


def exp_exp_square_fwd(x):
    return _outer_fwd(ops.exp_fwd, x)


def exp_exp_square_bwd(res, y_bar):
    return _outer_bwd(ops.exp_bwd, res, y_bar)


_exp_exp_square.defvjp(exp_exp_square_fwd, exp_exp_square_bwd)


def reciprocal_exp_square(x: ArrayLike) -> Float[Array, "*n"]:
    r"""$y = 1/e^{x^2}$, through $h_1 = x^2$, $h_2 = e^{h_1}$.

    VJP: $\bar h_2 = -y^2\bar y$, $\bar h_1 = h_2\bar h_2$, $\bar x = 2x\bar h_1$.
    Wires: `h1`, `h2`, `y`.

    Args:
        x: any shape; h2 overflows, and y is 0, beyond |x| = 9.4 in float32, 26.6 in
            float64, where the chain meets 0 times infinity.
    Returns:
        the value. Residuals kept: `x`, `h2`, `y`.
    Raises:
        TypeError: not floating.
    Source: chain rule; manveetdn, "Back Propagation" (PadhAI notes).
    """
    return _reciprocal_exp_square(*as_floats("reciprocal_exp_square", x=x))


@jax.custom_vjp
def _reciprocal_exp_square(x):
    return reciprocal_exp_square_fwd(x)[0]


def reciprocal_exp_square_fwd(x):
    return _outer_fwd(ops.reciprocal_fwd, x)


def reciprocal_exp_square_bwd(res, y_bar):
    return _outer_bwd(ops.reciprocal_bwd, res, y_bar)


_reciprocal_exp_square.defvjp(reciprocal_exp_square_fwd, reciprocal_exp_square_bwd)


def _outer_fwd(outer_fwd, x):
    """A function of h2, the last link left open."""
    h1, h1_res = ops.square_fwd(x)
    h2, h2_res = ops.exp_fwd(wire(h1, "h1"))
    y, y_res = outer_fwd(wire(h2, "h2"))
    return wire(y, "y"), (h1_res, h2_res, y_res)


def _outer_bwd(outer_bwd, res, y_bar):
    h1_res, h2_res, y_res = res
    y_bar = wire(y_bar, "y_bar")
    (h2_bar,) = outer_bwd(y_res, y_bar)
    h2_bar = wire(h2_bar, "h2_bar")
    (h1_bar,) = ops.exp_bwd(h2_res, h2_bar)
    h1_bar = wire(h1_bar, "h1_bar")
    (x_bar,) = ops.square_bwd(h1_res, h1_bar)
    return (x_bar,)
