"""Bytes that a step of a network takes: figures of the compiled program."""

import jax
import jax.numpy as jnp


def shapes_of(net, *data):
    """Parameters and integer data as shapes, in float32."""
    params = jax.eval_shape(net.init, jax.random.key(0))
    params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, "float32"), params)
    return params, tuple(jax.ShapeDtypeStruct(shape, "int32") for shape in data)


def temp_bytes(loss, params, batch) -> int:
    """Of the loss and its gradient in the parameters."""
    step = jax.jit(jax.value_and_grad(loss))
    compiled = step.lower(params, batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def residual_bytes(loss, params, batch) -> int:
    """What is kept between the passes, where they are two programs."""

    def kept(params, batch):
        return jax.vjp(lambda params: loss(params, batch), params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(kept, params, batch))
    return sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in leaves)
