"""The compiled loop: steps until the next stop of the host, or a reason to stop."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxbp._errors import argument_error, describe, first_line
from jaxbp.train._blocks import Blocks, blocks_for, finite
from jaxbp.train._data import Batches
from jaxbp.train._gradient import Aux, firm
from jaxbp.train._mesh import Layout

_ENTRIES, _BYTES = 1 << 13, 1 << 18  # that a chunk writes down, at most


class Carry(NamedTuple):
    """What goes from step to step, all of it on the device.

    `loss` and `metrics` are those of the last step that was tried, whose number is
    `step` if it stopped there and `step` - 1 if not. `apart` is the largest difference
    seen of the two gradients, leaf by leaf, `limit` what is let pass.
    """

    step: jax.Array
    masters: Any
    opt_state: Any
    state: Any
    order: Any
    loss: jax.Array
    metrics: Any
    apart: jax.Array
    limit: jax.Array
    met: jax.Array  # the loss is low enough
    failed: jax.Array  # a loss or a gradient is not finite, or gradients differ


class Record(NamedTuple):
    """The first so many entries of a chunk, one beside the other."""

    entries: jax.Array
    step: jax.Array
    loss: jax.Array
    metrics: Any
    apart: jax.Array


def room_for(carry: Carry) -> int:
    """Entries that one chunk can write down."""
    one = jax.tree.leaves((carry.step, carry.loss, carry.metrics, carry.apart))
    return max(1, min(_ENTRIES, _BYTES // sum(x.nbytes for x in one)))


def chunk(
    slope: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    batches: Batches,
    loss_below: float | None,
    key: jax.Array,
    carry: Carry,
    log_every: int,
    layout: Layout,
) -> Callable[[Carry, Any, Any], tuple[Carry, Record]]:
    """`run(carry, arrays, until)`: one compiled program, its carry given up to it.

    The carry that it returns lies as the one given here. It writes down an entry after
    every `log_every` steps but the last, whose entry is in the carry.

    A step that stops the run changes nothing: parameters and states are those that it
    was tried at.
    """
    step = Step(slope, optimizer, batches.draw, loss_below, key)
    where = batches.arrays, carry, layout
    blocks = blocks_for(step.made, step.is_low, optimizer, log_every, *where)
    empty = functools.partial(_empty, room_for(carry))

    def on(arrays, carry: Carry, until) -> Carry:
        """A block further at most, each step looked at unless the block was calm."""
        if blocks:
            begun = carry.step
            carry = blocks.leap(arrays, carry, until)
            until = jnp.minimum(until, begun + (blocks.steps or log_every))
            one = functools.partial(step.glanced_at, blocks, arrays)
        else:
            one = functools.partial(step.tried, arrays)
        return jax.lax.while_loop(lambda c: _goes_on(c, until), one, carry)

    def round(arrays, until, both):
        carry, record = both
        entry = carry.step - carry.step % log_every + log_every
        carry = on(arrays, carry, jnp.minimum(entry, until))
        due = (carry.step == entry) & _goes_on(carry, until)
        return carry, _written(record, carry, due)

    lying = (
        layout.shardings(carry),
        layout.shardings(jax.eval_shape(empty, carry)),
    )

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=lying)
    def run(carry, arrays, until):
        def goes_on(both):
            return _goes_on(both[0], until)

        rounds = functools.partial(round, arrays, until)
        return jax.lax.while_loop(goes_on, rounds, (carry, empty(carry)))

    return run


class Step(NamedTuple):
    """A step, looked at or not."""

    slope: Callable[..., Any]
    optimizer: optax.GradientTransformation
    draw: Callable[..., Any]
    loss_below: float | None
    key: jax.Array

    def is_low(self, loss: jax.Array) -> jax.Array:
        below = self.loss_below
        return jnp.zeros((), bool) if below is None else loss < below

    def tried(self, arrays: Any, carry: Carry) -> Carry:
        """Undone where the loss was low enough already, or something is not finite."""
        new, grads = self.made(arrays, carry)
        whole = finite((new.loss, grads, new.masters))
        failed = ~whole | jnp.any(new.apart > carry.limit)
        return self._kept(new, carry, failed)

    def glanced_at(self, blocks: Blocks, arrays: Any, carry: Carry) -> Carry:
        """The same of a step in blocks; gradients asked if it is not calm."""
        new = blocks.move(arrays, carry)

        def failed():
            _, grads = self.made(arrays, carry)
            return ~finite((new.loss, grads, new.masters))

        calm = blocks.are_calm(new, new.loss)
        return self._kept(new, carry, jax.lax.cond(calm, lambda: ~calm, failed))

    def _kept(self, new: Carry, carry: Carry, failed: jax.Array) -> Carry:
        met = self.is_low(new.loss)
        undone = failed | met

        def kept(new, old):
            return jax.tree.map(functools.partial(_chosen, undone), new, old)

        return new._replace(
            step=carry.step + jnp.where(undone, 0, 1),
            masters=kept(new.masters, carry.masters),
            opt_state=kept(new.opt_state, carry.opt_state),
            state=kept(new.state, carry.state),
            apart=jnp.maximum(carry.apart, new.apart),
            met=met,
            failed=failed,
        )

    def made(self, arrays: Any, carry: Carry) -> tuple[Carry, Any]:
        """Whatever comes of it, and its gradients."""
        batch, order = self.draw(arrays, carry.order, carry.step)
        noise = jax.random.fold_in(self.key, carry.step)
        found = self.slope(carry.masters, batch, carry.state, noise)
        (loss, (state, metrics)), grads, apart = found
        masters, opt_state = updated(self.optimizer, grads, carry)
        made = (masters, opt_state, state, order, loss, metrics, apart)
        flags = carry.limit, carry.met, carry.failed
        return Carry(carry.step + 1, *made, *flags), grads


def updated(
    optimizer: optax.GradientTransformation, grads: Any, carry: Carry
) -> tuple[Any, Any]:
    """Parameters and the optimiser's state after a step along these gradients."""
    updates, opt_state = optimizer.update(grads, carry.opt_state, carry.masters)
    return optax.apply_updates(carry.masters, updates), opt_state


def _goes_on(carry: Carry, until) -> jax.Array:
    return (carry.step < until) & ~carry.met & ~carry.failed


def _empty(room: int, carry: Carry) -> Record:
    # One row more: what is no entry is written behind the last, and over.
    rows = jax.tree.map(
        lambda x: jnp.zeros((room + 1, *x.shape), x.dtype),
        (carry.step, carry.loss, carry.metrics, carry.apart),
    )
    return Record(jnp.int32(0), *rows)


def _written(record: Record, carry: Carry, due: jax.Array) -> Record:
    entry = carry.step, carry.loss, carry.metrics, carry.apart
    put = functools.partial(
        jax.lax.dynamic_update_index_in_dim, index=record.entries, axis=0
    )
    return Record(
        record.entries + due.astype(jnp.int32),
        *jax.tree.map(put, tuple(record[1:]), entry),
    )


def start(
    of: Callable[..., Any],
    masters: Any,
    optimizer: optax.GradientTransformation,
    batches: Batches,
    state: Any,
    key: jax.Array,
    leaves: int,
    layout: Layout,
) -> Carry:
    """Before the first step. `leaves`: how many differences are watched.

    Raises:
        ValueError: the loss returns another state than it is given; the optimiser
            does not take these parameters.
    """
    order = batches.first()
    batch, _ = jax.eval_shape(batches.draw, batches.arrays, order, jnp.int32(0))
    loss, aux = jax.eval_shape(of, masters, batch, state, key)
    zeros = functools.partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype))
    assert isinstance(aux, Aux)
    _check_alike(state, aux.state)
    own = lambda tree: firm(jax.tree.map(jnp.array, tree))  # a run gives its own up
    carry = Carry(
        jnp.int32(0),
        own(masters),
        own(_first_of(optimizer, masters)),
        own(state),
        order,
        zeros(loss),
        zeros(aux.metrics),
        jnp.zeros(leaves, jnp.float32),
        jnp.full(leaves, jnp.inf, jnp.float32),
        jnp.zeros((), bool),
        jnp.zeros((), bool),
    )
    return layout.placed(carry)


def _check_alike(given: Any, returned: Any) -> None:
    """ValueError where a loss's state does not stay what it is."""
    first, then = (jax.tree_util.tree_flatten_with_path(t) for t in (given, returned))
    if first[1] != then[1]:
        got = f"a tree {then[1]} where {first[1]} was given"
        raise argument_error("fit", "state", "the tree that the loss returns", got)
    for (path, x), (_, y) in zip(first[0], then[0], strict=True):
        if (jnp.shape(x), jnp.result_type(x)) != (y.shape, y.dtype):
            name = f"state{jax.tree_util.keystr(path)}"
            expected = f"{describe(y)}, which the loss returns for it"
            raise argument_error("fit", name, expected, describe(x))


def _first_of(optimizer: optax.GradientTransformation, masters: Any) -> Any:
    """The state of an optimiser that takes gradients of these parameters."""

    def once():
        opt_state = optimizer.init(masters)
        return optimizer.update(masters, opt_state, masters)

    try:
        jax.eval_shape(once)
    except Exception as error:
        expected = "one that takes the gradients of params, and nothing else"
        got = f"{type(error).__name__}: {first_line(error)}"
        raise argument_error("fit", "optimizer", expected, got) from error
    return optimizer.init(masters)


def _chosen(stays, new, old):
    if jnp.issubdtype(jnp.result_type(new), jax.dtypes.prng_key):
        return jax.lax.select(stays, old, new)
    return jnp.where(stays, old, new)
