"""A rule that is right up to a point that a run comes to."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def bent(x):
    return jnp.sin(x)


# Right up to 1.02, off by a thousandth beyond.
bent.defvjp(
    lambda x: (jnp.sin(x), x),
    lambda x, g: (g * jnp.cos(x) * jnp.where(x > 1.02, 1.001, 1),),
)
