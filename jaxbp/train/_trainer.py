"""A loss and an optimiser as one compiled program, with who judges it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbp.train import _gradient, _verdict
from jaxbp.train._data import Batches
from jaxbp.train._loop import Carry, chunk, room_for, start
from jaxbp.train._mesh import Layout, key_data

Entry = dict[str, Any]


class Trainer:
    """`first` is the carry before the first step, `route` whose gradient trains."""

    def __init__(
        self,
        loss: Callable[..., Any],
        params: Any,
        state: Any,
        optimizer: optax.GradientTransformation,
        drawn: Batches,
        layout: Layout,
        key: jax.Array,
        *,
        gradient: str | None,
        has_state: bool,
        loss_below: float | None,
        log_every: int,
    ):
        self._drawn, self._leaves = drawn, _gradient.split(params, layout)
        masters, state = self._leaves.masters, layout.placed(state)
        of = _gradient.called(loss, self._leaves.merge, has_state)
        order = layout.placed(drawn.first())
        batch, _ = jax.jit(drawn.draw)(drawn.arrays, order, jnp.int32(0))
        self.route = _gradient.route_of(gradient, loss, of, masters, batch, state, key)
        both = self.route == "both"
        self._watched = len(self._leaves.paths) if both else 0
        slope = _gradient.slope(of, self.route)
        carry = start(of, masters, optimizer, drawn, state, key, self._watched, layout)
        paths = self._leaves.paths
        asked = drawn, key, paths, both, layout
        self.judge = _verdict.Judge(of, slope, optimizer, *asked)
        self.first = self.judge.allowing(carry)
        self.room = room_for(self.first)
        how = loss_below, key, self.first, log_every, layout
        self._run = chunk(slope, optimizer, drawn, *how)

    def advance(self, carry: Carry, until: int) -> tuple[Carry, list[Entry]]:
        """Steps up to that one, or one that stops the run; `carry` is given up.

        With the entries on the way, `room` of them at most.
        """
        carry, record = self._run(carry, self._drawn.arrays, until)
        count = int(record.entries)
        leaves, tree = jax.tree.flatten(tuple(record[1:]))
        columns = (
            [_column(np.asarray(key_data(x))[:count]) for x in leaves] if count else []
        )
        rows = zip(*columns, strict=True)
        return carry, [self._entry(*jax.tree.unflatten(tree, row)) for row in rows]

    def params(self, carry: Carry) -> Any:
        """The parameters, in a tree like the one given.

        Copies: whoever keeps them has them after the next chunk, too.
        """
        return self._leaves.merge(jax.tree.map(jnp.copy, carry.masters))

    def entry(self, carry: Carry) -> Entry:
        """Of the history: step, loss and metrics, and how far gradients were apart."""
        step, loss = int(carry.step), float(carry.loss)
        # Copies: the next chunk is given the carry's own arrays.
        metrics = jax.tree.map(lambda x: np.array(key_data(x)), carry.metrics)
        return self._entry(step, loss, metrics, carry.apart)

    def _entry(self, step: int, loss: float, metrics: Any, apart: Any) -> Entry:
        entry: Entry = {"step": step, "loss": loss}
        if self._watched:
            pairs = zip(self._leaves.paths, apart.tolist(), strict=True)
            entry["apart"] = dict(pairs)
        return entry | figures("metrics", metrics, entry)


_OWN = "step", "loss", "apart", "seconds", "steps_per_second"


def figures(what: str, found: Any, entry: Entry) -> dict[str, Any]:
    """Figures by name: of a dict its own, of anything else `what` and key paths.

    Where an entry has one of that name, `what.name`.
    """
    if not isinstance(found, Mapping):
        pairs = jax.tree_util.tree_leaves_with_path(found)
        found = {f"{what}{jax.tree_util.keystr(p)}": x for p, x in pairs}
    taken = {*_OWN, *entry}
    named = {f"{what}.{k}" if k in taken else str(k): v for k, v in found.items()}
    return {name: _plain(value) for name, value in named.items()}


def _column(x: np.ndarray) -> list[Any]:
    return x.tolist() if x.ndim == 1 else list(x)


def _plain(value: Any) -> Any:
    if hasattr(value, "ndim") and value.ndim == 0:
        return value.item()
    return value
