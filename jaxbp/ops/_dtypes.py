"""A rule never changes dtype; it accumulates in float32 at least."""

import jax.numpy as jnp


def accumulator(dtype) -> jnp.dtype:
    """The dtype in which sums of `dtype` are taken: float32 for the 16-bit ones."""
    # Not jnp.promote_types: under strict promotion it refuses any pair of floats.
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)
