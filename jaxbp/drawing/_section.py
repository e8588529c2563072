"""What of a sweep is drawn, and which of its values stand on one wire."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxbp._steps import Step, Value, wire_name

Run = tuple[Sequence[Value], Sequence[Value], Sequence[Step]]
_ARRAYS = (jax.Array, np.ndarray)
# Equations whose output is their input by another name.
_SAME = frozenset(("name", "copy", "copy_p", "optimization_barrier", "pvary"))


class Section:
    """One sweep: `called` holds the names of its values, by identity.

    To begin with the names of its inputs; an input without one is a constant. `data`
    names arrays that are arguments, but not differentiated.
    """

    def __init__(self, run: Run, called: dict[int, str], data: Mapping[int, str]):
        self.inputs, self.outputs, self.steps = run
        self.called, self._data = called, data
        self.fallback: dict[int, str] = {}  # for what has no name otherwise
        self._roots: dict[int, Value] = {}
        self._named: dict[int, tuple[str, Step]] = {}
        self._depends = {id(v) for v in self.inputs if id(v) in called}
        for step in self.steps:
            if any(self._varies(v) for v in step.ins):
                self._depends.update(map(id, step.outs))
            if _passes_on(step):
                root = self.root(step.ins[0])
                self._roots[id(step.outs[0])] = root
                if name := wire_name(step.eqn):
                    self._named.setdefault(id(root), (name, step))
        self._needed = _needed(self.outputs, self.steps)

    def root(self, value: Value) -> Value:
        """The value of which this one is but another name."""
        return self._roots.get(id(value), value)

    def name(self, value: Value) -> str | None:
        """The wire that a value stands on, None of a constant."""
        root = self.root(value)
        return self.called.get(id(root)) or self._data.get(id(root.value))

    def named(self, value: Value) -> tuple[str, Step] | None:
        """What the program itself calls a value, and the step that does."""
        return self._named.get(id(self.root(value)))

    def drawn(self, others: Sequence[Step] | None) -> Iterable[tuple[Step, Any]]:
        """Steps that an output needs, and that are no constants: each with its twin."""
        twins = others or [None] * len(self.steps)
        for step, other in zip(self.steps, twins, strict=True):
            needed, depends = id(step) in self._needed, map(self._varies, step.ins)
            if needed and any(depends) and not _passes_on(step):
                yield step, other

    def _varies(self, value: Value) -> bool:
        return id(value) in self._depends or id(value.value) in self._data


def names_of_data(leaves: Iterable[tuple[str, Any]], run: Run) -> dict[int, str]:
    """Names of arrays by identity: JAX's are constants of a trace as they are.

    NumPy's are copied into it, most often as another dtype: they are known by what they
    hold, if no other argument holds the same.
    """
    arrays = [(name, leaf) for name, leaf in leaves if isinstance(leaf, _ARRAYS)]
    copied = [
        (name, leaf)
        for name, leaf in arrays
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biu"
    ]
    found = {id(leaf): name for name, leaf in arrays}
    for value in _constants(run) if copied else ():
        same = [name for name, leaf in copied if _holds(value, leaf)]
        if len(same) == 1:
            found.setdefault(id(value), same[0])
    return found


def _constants(run: Run) -> list[Any]:
    inputs, _, steps = run
    made = {id(v) for v in (*inputs, *(out for step in steps for out in step.outs))}
    return [v.value for step in steps for v in step.ins if id(v) not in made]


def _holds(value: Any, leaf: np.ndarray) -> bool:
    """But for single numbers, which any other constant may be."""
    is_array = isinstance(value, _ARRAYS) and isinstance(value.dtype, np.dtype)
    if not is_array or not leaf.ndim or value.shape != leaf.shape:
        return False
    return np.array_equal(value, leaf)


def _needed(outputs: Iterable[Value], steps: Sequence[Step]) -> set[int]:
    values, needed = {id(v) for v in outputs}, set()
    for step in reversed(steps):
        if any(id(out) in values for out in step.outs):
            needed.add(id(step))
            values.update(map(id, step.ins))
    return needed


def _passes_on(step: Step) -> bool:
    """Whether the output is the input: the same bits of the same shape and dtype."""
    if step.eqn is None or len(step.ins) != 1 or len(step.outs) != 1:
        return False
    if step.eqn.primitive.name in _SAME:
        return True
    source, out = step.eqn.invars[0].aval, step.eqn.outvars[0].aval
    if step.eqn.primitive.name == "convert_element_type":
        return source.dtype == out.dtype
    # What jnp writes of a sum over no axes.
    return step.eqn.primitive.name == "reduce_sum" and not step.eqn.params["axes"]
