"""Both sides of the logistic sigmoid, for rules that need the two."""

import jax
import jax.numpy as jnp


@jax.custom_jvp
def sides(x):
    """s(x) and s(-x), both to the last digits, of one exponential.

    The one that a forward pass in the same program has taken: XLA's logistic is
    1 / (1 + exp(-x)). Its derivative, s(x) s(-x), is not JAX's to find: behind a choice
    that is not taken exp(-x) may be infinite.
    """
    y, e = jax.lax.logistic(x), jnp.exp(-x)
    return y, jnp.where(e < 1, jnp.minimum(e, 1) * y, 1 - y)


@sides.defjvp
def _sides_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    y, rest = sides(x)
    y_dot = x_dot * (y * rest)
    return (y, rest), (y_dot, -y_dot)
