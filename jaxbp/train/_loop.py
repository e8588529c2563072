"""The compiled loop: steps until the next stop of the host, or a reason to stop."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxbp.train._data import Batches
from jaxbp.train._gradient import Aux
from jaxbp.train._mesh import Layout


class Carry(NamedTuple):
    """What goes from step to step, all of it on the device.

    `loss` and `metrics` are those of the last step that was tried, whose number is
    `step` if it stopped there and `step` - 1 if not. `apart` is the largest difference
    seen of the two gradients, leaf by leaf, `limit` what is let pass.
    """

    step: jax.Array
    masters: list[jax.Array]
    opt_state: Any
    state: Any
    order: Any
    loss: jax.Array
    metrics: Any
    apart: jax.Array
    limit: jax.Array
    met: jax.Array  # the loss is low enough
    failed: jax.Array  # a loss or a gradient is not finite, or gradients differ


def chunk(
    slope: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    batches: Batches,
    loss_below: float | None,
    key: jax.Array,
    shardings: Any,
) -> Callable[[Carry, Any, Any], Carry]:
    """`run(carry, arrays, until)`: one compiled program, its carry given up to it.

    The carry that it returns lies as `shardings` say, None where JAX decides.

    A step that stops the run changes nothing: parameters and states are those that it
    was tried at.
    """

    def step(arrays, carry: Carry) -> Carry:
        batch, order = batches.draw(arrays, carry.order, carry.step)
        noise = jax.random.fold_in(key, carry.step)
        tried = slope(carry.masters, batch, carry.state, noise)
        (loss, (state, metrics)), grads, apart = tried
        failed = ~finite((loss, grads)) | jnp.any(apart > carry.limit)
        met = jnp.zeros((), bool) if loss_below is None else loss < loss_below
        updates, opt_state = optimizer.update(grads, carry.opt_state, carry.masters)
        masters = optax.apply_updates(carry.masters, updates)
        stays = failed | met

        def kept(new, old):
            return jax.tree.map(functools.partial(_chosen, stays), new, old)

        return Carry(
            carry.step + jnp.where(stays, 0, 1),
            kept(masters, carry.masters),
            kept(opt_state, carry.opt_state),
            kept(state, carry.state),
            order,
            loss,
            metrics,
            jnp.maximum(carry.apart, apart),
            carry.limit,
            met,
            failed,
        )

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=shardings)
    def run(carry, arrays, until):
        def goes_on(carry: Carry):
            return (carry.step < until) & ~carry.met & ~carry.failed

        return jax.lax.while_loop(goes_on, functools.partial(step, arrays), carry)

    return run


def start(
    of: Callable[..., Any],
    masters: list[jax.Array],
    optimizer: optax.GradientTransformation,
    batches: Batches,
    state: Any,
    key: jax.Array,
    leaves: int,
    layout: Layout,
) -> Carry:
    """Before the first step. `leaves`: how many differences are watched."""
    order = batches.first()
    batch, _ = jax.eval_shape(batches.draw, batches.arrays, order, jnp.int32(0))
    loss, aux = jax.eval_shape(of, masters, batch, state, key)
    zeros = functools.partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype))
    assert isinstance(aux, Aux)
    carry = Carry(
        jnp.int32(0),
        [jnp.array(x) for x in masters],  # copies: a run gives its own up
        jax.tree.map(jnp.array, optimizer.init(masters)),  # pyright: ignore
        jax.tree.map(jnp.array, state),
        order,
        zeros(loss),
        zeros(aux.metrics),
        jnp.zeros(leaves, jnp.float32),
        jnp.full(leaves, jnp.inf, jnp.float32),
        jnp.zeros((), bool),
        jnp.zeros((), bool),
    )
    return layout.placed(carry)


def finite(tree: Any) -> jax.Array:
    """Whether every element is."""
    checks = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, checks)


def _chosen(stays, new, old):
    if jnp.issubdtype(jnp.result_type(new), jax.dtypes.prng_key):
        return jax.lax.select(stays, old, new)
    return jnp.where(stays, old, new)
