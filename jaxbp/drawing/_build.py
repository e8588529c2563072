"""From sweeps to a graph: what is drawn, what it is called, what it adds to whom."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import _jaxpr
from jaxbp._steps import Step, Value, is_users_rule
from jaxbp._sweep import sweep
from jaxbp.drawing import _nodes
from jaxbp.drawing._bars import Written, backward_of
from jaxbp.drawing._formulas import formula
from jaxbp.drawing._local import local_derivative
from jaxbp.drawing._names import Names
from jaxbp.drawing._nodes import Edge, Node, Wire
from jaxbp.drawing._numbers import operand
from jaxbp.drawing._section import Run, Section
from jaxbp.drawing._units import units_between


class Builder:
    """Makes wires, by name, and the nodes between them.

    `backward`: they are cotangents themselves, and nothing is pulled back.
    """

    def __init__(self, iteration: int, *, backward: bool = False):
        self.wires: dict[str, Wire] = {}
        self.names, self._groups = Names(), Names(" #")
        self._iteration, self._backward = iteration, backward

    def wire(
        self, name: str, kind: Any, value: Any, gradient: Any = None, auto: Any = None
    ) -> str:
        """A new wire, from a value and what is known of its gradient."""
        gradient, auto = frozen(gradient), frozen(auto)
        units = units_between(gradient, auto)
        self.wires[name] = Wire(name, kind, frozen(value), gradient, auto, units)
        return name

    def nodes(
        self,
        section: Section,
        prefix: str = "",
        twin: Run | None = None,
        inside: "_Opened | None" = None,
    ) -> tuple[Node, ...]:
        """The nodes of a sweep, and wires for all that they make.

        `twin` is the same sweep without rules. `inside`: of this rule, swept without
        rules.
        """
        found: list[Node] = []
        for step, other in section.drawn(twin[2] if twin else None):
            id_ = f"{prefix}{len(found) + 1}"
            opened = None
            if step.eqn is not None and is_users_rule(step.eqn):
                opened = self._opened(step, other, section, inside)
            for k, out in enumerate(step.outs):
                if id(out) not in section.called:
                    section.called[id(out)] = self._made(
                        section, out, other and other.outs[k], opened, k, inside
                    )
            found.append(self._node(step, other, section, id_, opened, inside))
        return tuple(found)

    def _made(self, section, out, other, opened, k, inside) -> str:
        """The wire of an output, called as the program calls it, or v1, v2, …"""
        named = section.named(out)
        name = named[0] if named else opened and opened.called[k]
        name = name or section.fallback.get(id(out))
        prefix = inside.prefix if inside else ""
        if name:
            name = self.names.named(prefix + name)
        else:
            name = self.names.numbered(f"{prefix}v")
        if inside:
            bars = named and inside.written.bar(*named), out.cotangent
        else:
            bars = out.cotangent, other and other.cotangent
        return self.wire(name, "wire", out.value, *bars)

    def _node(self, step: Step, other, section, id_, opened, inside) -> Node:
        names = [self.operand(section, v) for v in step.ins]
        outputs = tuple(section.called[id(out)] for out in step.outs)
        shown = formula(step.eqn, names, outputs[0], step.name)
        edges = []
        for k, value in enumerate(step.ins):
            if (wire := section.name(value)) is None:
                continue
            bars = [s.bars[k] if s and s.bars else None for s in (step, other)]
            bars = [None, bars[0]] if inside else bars
            local = local_derivative(step, k, rules=not inside)
            formulas = ("", "") if self._backward else (shown.local[k], shown.vjp[k])
            gradient, auto = map(frozen, bars)
            units = units_between(gradient, auto)
            edges.append(Edge(wire, k, local, *formulas, gradient, auto, units))
        forward, backward = (), None
        if opened:
            forward = opened.nodes(self, section, step, f"{id_}.")
        if opened and not inside:
            backward = self._way_back(step, section, outputs, f"{id_}.back.")
        return Node(
            id_,
            step.name.removeprefix("_") if step.rule else step.name,
            "rule" if step.rule else "equation",
            shown.value,
            tuple(edges),
            outputs,
            (*inside.where, *step.where) if inside else step.where,
            step.site,
            step.note,
            forward,
            backward,
            opened is not None and opened.is_chain,
            step,
        )

    def operand(self, section: Section, value: Value) -> str:
        """What an input is called: its wire, or the constant that it is."""
        if (name := section.name(value)) is not None:
            return name
        array = frozen(value.value)
        real = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
        if real and array.size and (array == array.flat[0]).all():
            return operand(array.flat[0].item())
        name = self.wire(self.names.numbered("c"), "constant", array)
        section.called[id(section.root(value))] = name
        return name

    def _opened(self, step, other, section, inside) -> "_Opened":
        """The inside of a rule: its primal, swept with the cotangent that arrives."""
        body, taken = _jaxpr.primal(step.eqn, list(step.ins))
        bars = [out.cotangent for out in (other or step).outs]
        run = sweep(
            body,
            [v.value for v in taken],
            bars,
            wires=False,
            rules=False,
            iteration=self._iteration,
        )
        called = {
            id(inner): name
            for inner, outer in zip(run[0], taken, strict=True)
            if (name := section.name(outer)) is not None
        }
        written = Written(() if inside else step.wires)
        around = (*inside.where, *step.where) if inside else step.where
        label = self._groups.named(step.name.removeprefix("_"))
        return _Opened(Section(run, called, {}), written, (*around, label))

    def _way_back(self, step, section, outputs, prefix) -> _nodes.Section | None:
        given = [section.name(v) or "" for v in step.ins]
        inner = backward_of(step, given, outputs, self._iteration)
        if inner is None:
            return None
        builder = Builder(self._iteration, backward=True)
        for value in inner.inputs:
            name = builder.names.named(inner.called[id(value)])
            inner.called[id(value)] = builder.wire(name, "argument", value.value)
        return _nodes.Section(builder.nodes(inner, prefix), builder.wires)


class _Opened:
    """A rule that was opened: what its outputs are called inside, and its nodes.

    A chain is a rule that names wires on both sides: those are wires like any other.
    Inside another rule they are called after its output.
    """

    def __init__(self, section: Section, written: Written, where: tuple[str, ...]):
        self.written, self.where, self._section = written, where, section
        self.is_chain = bool(written)
        self.prefix = ""
        named = [section.named(v) for v in section.outputs]
        self.called = [found and found[0] for found in named]

    def nodes(self, builder: Builder, around: Section, step: Step, prefix: str):
        section = self._section
        for inner, outer in zip(section.outputs, step.outs, strict=True):
            name = around.called[id(outer)]
            section.called.setdefault(id(section.root(inner)), name)
        if not self.is_chain:
            self.prefix = f"{around.called[id(step.outs[0])]}."
        return builder.nodes(section, prefix, inside=self)


def frozen(value: Any) -> Any:
    """A value as a NumPy array, where NumPy has such; keys stay what they are."""
    if value is None or is_key(value):
        return value
    return np.asarray(value)


def is_key(value: Any) -> bool:
    dtype = getattr(value, "dtype", np.dtype(object))
    return jnp.issubdtype(dtype, jax.dtypes.extended)
