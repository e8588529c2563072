"""Sums of exponentials by their logarithms, where -inf is an ordinary number."""

import jax
import jax.numpy as jnp


def finite_max(x, axis=None):
    """The maximum as a constant, for shifting; 0 where all are -inf."""
    highest = jax.lax.stop_gradient(x.max(axis=axis, keepdims=axis is not None))
    return jnp.where(jnp.isneginf(highest), 0, highest)


def log(x):
    """The logarithm; at 0 -inf with derivative 0."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)


def log_sum_exp(x, axis):
    """Over one axis; -inf with derivative 0 where all are -inf."""
    shift = finite_max(x, axis)
    return log(jnp.exp(x - shift).sum(axis=axis)) + shift.squeeze(axis)
