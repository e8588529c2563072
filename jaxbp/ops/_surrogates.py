"""Gradients that are different on purpose: straight through, clipped, reversed."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats
from jaxbp.ops._case import Case, normal, points
from jaxbp.ops._dtypes import accumulator


def straight_through_round(x: ArrayLike) -> Float[Array, "*n"]:
    r"""The nearest integer, ties to even, as if it were the identity to its gradient.

    Surrogate VJP: $\bar x = \bar y$; the derivative of rounding is 0 almost everywhere.

    Args:
        x: any shape.
    Returns:
        integers, in x's dtype. Residuals kept: none.
    Raises:
        TypeError: not floating.
    Source: Bengio, Léonard and Courville, "Estimating or propagating gradients through
        stochastic neurons" (2013), sec. 4.
    """
    return _straight_through_round(*as_floats("straight_through_round", x=x))


@jax.custom_vjp
def _straight_through_round(x):
    return jnp.round(x)


def straight_through_round_fwd(x):
    return _straight_through_round(x), ()


def straight_through_round_bwd(res, y_bar):
    del res
    return (y_bar,)


_straight_through_round.defvjp(straight_through_round_fwd, straight_through_round_bwd)


def straight_through_sign(x: ArrayLike) -> Float[Array, "*n"]:
    r"""The sign, 1 or -1 and 1 at 0, as if it were $x$ cut off at 1 and -1.

    Surrogate VJP: $\bar x = \bar y$ where $|x| \le 1$, else 0: what is far from its
    threshold is left there.

    Args:
        x: any shape.
    Returns:
        1 where x is at least 0, else -1. Residuals kept: `|x| <= 1`, one byte an
        element.
    Raises:
        TypeError: not floating.
    Source: Courbariaux et al., "Binarized neural networks" (2016), eqs. 1 and 4.
    """
    return _straight_through_sign(*as_floats("straight_through_sign", x=x))


@jax.custom_vjp
def _straight_through_sign(x):
    return jnp.where(x >= 0, jnp.ones_like(x), -jnp.ones_like(x))


def straight_through_sign_fwd(x):
    return _straight_through_sign(x), jnp.abs(x) <= 1


def straight_through_sign_bwd(near, y_bar):
    chex.assert_equal_shape([near, y_bar])
    return (jnp.where(near, y_bar, 0),)


_straight_through_sign.defvjp(straight_through_sign_fwd, straight_through_sign_bwd)


def clip_gradient(
    x: ArrayLike, *, limit: float | None = None, max_norm: float | None = None
) -> Float[Array, "*n"]:
    r"""The identity; what comes back through it is clipped.

    Surrogate VJP: with `limit` $c$, every element of $\bar y$ is cut off at $-c$ and
    $c$; with `max_norm` $c$, $\bar x = \bar y\,\min(1, c/\|\bar y\|)$. Not linear in
    $\bar y$.

    Args:
        x: any shape; the norm is that of its whole cotangent (of one example's under
            `vmap`, of one device's shard under `shard_map`).
        limit: c, from 0, for each element.
        max_norm: c, from 0, for all elements together. Give one of the two.
    Returns:
        x. Residuals kept: none.
    Raises:
        ValueError: neither or both of the bounds, a negative or infinite one.
        TypeError: not floating.
    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
        networks" (2013), algorithm 1; Graves (2013), sec. 4 (each element).
    """
    (x,) = as_floats("clip_gradient", x=x)
    if (limit is None) == (max_norm is None):
        got = "neither" if limit is None else "both"
        raise argument_error("clip_gradient", "one bound", "limit or max_norm", got)
    name, bound = ("limit", limit) if max_norm is None else ("max_norm", max_norm)
    if bound is None or not 0 <= bound < math.inf:
        raise argument_error("clip_gradient", name, "from 0, and finite", bound)
    return _clip_gradient(x, limit, max_norm)


@functools.partial(jax.custom_vjp, nondiff_argnames=("limit", "max_norm"))
def _clip_gradient(x, limit, max_norm):
    del limit, max_norm
    return +x


def clip_gradient_fwd(x, limit, max_norm):
    return _clip_gradient(x, limit, max_norm), ()


def clip_gradient_bwd(limit, max_norm, res, y_bar):
    del res
    if limit is not None:
        return (jnp.clip(y_bar, -limit, limit),)
    wide = y_bar.astype(accumulator(y_bar.dtype))
    # By the largest first: its square may overflow, the norm of what is left cannot.
    largest = jnp.max(jnp.abs(wide), initial=0.0)
    largest = jnp.where(largest == 0, 1, largest)
    unit = wide / largest
    norm = jnp.sqrt(jnp.square(unit).sum())
    short = unit * (max_norm / jnp.where(norm == 0, 1, norm))
    return (jnp.where(norm > max_norm / largest, short, wide).astype(y_bar.dtype),)


_clip_gradient.defvjp(clip_gradient_fwd, clip_gradient_bwd)


def reverse_gradient(x: ArrayLike, *, scale: float = 1.0) -> Float[Array, "*n"]:
    r"""The identity; what comes back through it changes its sign.

    Surrogate VJP: $\bar x = -\lambda\bar y$.

    Args:
        x: any shape.
        scale: $\lambda$, finite.
    Returns:
        x. Residuals kept: none.
    Raises:
        ValueError: a scale that is not finite.
        TypeError: not floating.
    Source: Ganin and Lempitsky, "Unsupervised domain adaptation by backpropagation"
        (2015), eqs. 7–8.
    """
    (x,) = as_floats("reverse_gradient", x=x)
    if not math.isfinite(scale):
        raise argument_error("reverse_gradient", "scale", "finite", scale)
    return _reverse_gradient(x, float(scale))


@functools.partial(jax.custom_vjp, nondiff_argnames=("scale",))
def _reverse_gradient(x, scale):
    del scale
    return +x


def reverse_gradient_fwd(x, scale):
    return _reverse_gradient(x, scale), ()


def reverse_gradient_bwd(scale, res, y_bar):
    del res
    return (-scale * y_bar,)


_reverse_gradient.defvjp(reverse_gradient_fwd, reverse_gradient_bwd)


def _case(function, plain, source, residuals=0, variant="") -> Case:
    inputs = {
        "ordinary": normal((5, 3)),
        "scalar": normal(()),
        "empty": normal((0, 3)),
        "edge": points([0.0, -0.0, 0.5, -1.5, 1.0, -1.0, 1e30]),
    }
    why = "another gradient than autodiff's is what it is for"
    size = {"1024×1024": normal((1024, 1024))}
    return Case(
        function,
        plain,
        inputs,
        size,
        source,
        residuals,
        variant,
        why=why,
        surrogate=True,
    )


CASES = (
    _case(straight_through_round, jnp.rint, "Bengio et al. (2013), sec. 4"),
    _case(
        straight_through_sign,
        lambda x: 2 * jnp.heaviside(x, jnp.ones_like(x)) - 1,
        "Courbariaux et al. (2016), eqs. 1 and 4",
        15,
    ),
    _case(
        functools.partial(clip_gradient, limit=0.5),
        lambda x: x,
        "Graves (2013), sec. 4",
        variant="limit",
    ),
    _case(
        functools.partial(clip_gradient, max_norm=1.5),
        lambda x: x,
        "Pascanu et al. (2013), algorithm 1",
        variant="norm",
    ),
    _case(reverse_gradient, lambda x: x, "Ganin and Lempitsky (2015), eqs. 7–8"),
)
