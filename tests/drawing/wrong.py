"""Rules that are wrong on purpose."""

import jax


@jax.custom_vjp
def tripled(x):
    """2x, whose backward pass says 3."""
    return 2 * x


tripled.defvjp(lambda x: (2 * x, None), lambda res, y_bar: (3 * y_bar,))
