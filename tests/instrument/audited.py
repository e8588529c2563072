"""A right rule and a wrong one, for audit to find where they are called."""

import jax
import jax.numpy as jnp
import numpy as np

X = np.random.default_rng(3).standard_normal(4)


def rule(primal, bwd):
    """A hand-written rule whose residuals are its arguments."""
    f = jax.custom_vjp(primal)
    f.defvjp(lambda *args: (primal(*args), args), bwd)
    return f


def sine(x):
    return jnp.sin(x)


def faulty(x):
    return jnp.sin(x)


right = rule(sine, lambda res, y_bar: (y_bar * jnp.cos(res[0]),))
wrong = rule(faulty, lambda res, y_bar: (2 * y_bar * jnp.cos(res[0]),))
WRITTEN_AT = f"{__file__}:{faulty.__code__.co_firstlineno}"  # the wrong one
