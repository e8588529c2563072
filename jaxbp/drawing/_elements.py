"""A graph element by element: the local derivatives of its nodes as matrices."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import _interpret
from jaxbp._errors import argument_error, describe
from jaxbp._steps import Step, is_floating
from jaxbp._sweep import plain, with_pullback
from jaxbp.drawing._graph import Graph
from jaxbp.drawing._nodes import Edge, Node

LARGEST = 2**22  # local derivatives of one edge
_WIDE = {"float64", "complex128", "int64", "uint64"}
# Of which JAX has no derivative in one input alone: they hold one matrix twice.
_TOGETHER = frozenset(("custom_linear_solve",))


class Element(NamedTuple):
    """One number on a wire."""

    wire: str
    at: tuple[int, ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(map(str, self.at))
        return f"{self.wire}[{inside}]" if self.at else self.wire


class Link(NamedTuple):
    """The local derivatives of an output in an input, a row an output's element.

    `depends`: where the output depends on the input at all, at these values or others:
    a weight that is 0 here is a link nevertheless.
    """

    node: Node
    edge: Edge
    output: str
    local: np.ndarray
    depends: np.ndarray


def links_of(
    graph: Graph, node: Node, edge: Edge, *, rules: bool = True
) -> Iterator[Link]:
    """Of each output of a node in one input, by the hand-written rule if it has one.

    Of the nodes inside a chain by autodiff: what the chain should say; without `rules`
    of all nodes. By whichever of the two there is where the other has no answer.
    """
    step, sizes = node.step, [graph.wires[name].value.size for name in node.outputs]
    if step is None or (edge.gradient is None and edge.autodiff is None):
        return
    most = max(sizes) * graph.wires[edge.wire].value.size
    if most > LARGEST:
        raise argument_error(
            "Graph.paths",
            "the arrays",
            f"small enough to be taken element by element ({LARGEST:,} derivatives)",
            f"{most:,} of {node.outputs[0]} in {edge.wire}",
            "draw the graph of one example, or of a smaller network",
        )
    for name in (edge.wire, *node.outputs):
        if np.iscomplexobj(graph.wires[name].value):
            got = describe(graph.wires[name].value)
            raise argument_error("Graph.paths", name, "real, as paths are", got)
    is_whole = any(node is whole for whole in graph.nodes)
    by_rule = edge.gradient is not None if rules else edge.autodiff is None
    by_rule = by_rule and is_whole
    if edge.local and (by_rule or not is_whole or node.kind == "equation"):  # is known
        known = np.array([[edge.local]]), np.array([[True]])
        yield Link(node, edge, node.outputs[0], *known)
        return
    values = [v.value for v in step.ins]
    local = _matrices(step, edge.place, values, by_rule)
    depends = [np.isfinite(m) & (m != 0) for m in local]
    for sign in (1, -1):
        if all(where.all() for where in depends):
            break
        others = _matrices(step, edge.place, _elsewhere(values, sign), by_rule)
        pairs = zip(depends, others, strict=True)
        depends = [d | (np.isfinite(m) & (m != 0)) for d, m in pairs]
    for name, matrix, where in zip(node.outputs, local, depends, strict=True):
        yield Link(node, edge, name, np.where(where, matrix, 0.0), where)


def element_of(graph: Graph, argument: str, name: str) -> list[Element]:
    """The elements that `w` or `w[1, 0]` means: all of a wire's, or the one.

    Raises:
        ValueError: no such wire, or no such element.
        TypeError: it is no name at all.
    """
    if not isinstance(name, str):
        expected, got = "the name of a wire or of an element", describe(name)
        raise argument_error("Graph.paths", argument, expected, got, kind=TypeError)
    if name in graph.wires:
        return elements(graph, name)
    found = re.fullmatch(r"(.+)\[([\d, ]+)\]", name, re.DOTALL)
    if not found or found[1] not in graph.wires:
        known = [*list(graph.wires)[:8], *["…"] * (len(graph.wires) > 8)]
        expected = f"a wire ({', '.join(known)}) or an element of one"
        raise argument_error("Graph.paths", argument, expected, name)
    wire, index = found[1], tuple(int(i) for i in found[2].split(",") if i.strip())
    if index not in (e.at for e in elements(graph, wire)):
        shape = np.shape(graph.wires[wire].value)
        raise argument_error(
            "Graph.paths", argument, f"in {wire}, of shape {shape}", name
        )
    return [Element(wire, index)]


def elements(graph: Graph, wire: str) -> list[Element]:
    """All of a wire's, in order."""
    return [Element(wire, i) for i in np.ndindex(np.shape(graph.wires[wire].value))]


def _matrices(step: Step, k: int, values: list[Any], by_rule: bool) -> list[np.ndarray]:
    """Of every output in input k; of one that is no floating array, zeros.

    In the precision that was recorded, whatever the caller's is by now.
    """
    dtypes = {str(getattr(v.value, "dtype", "")) for v in (*step.ins, *step.outs)}
    if step.eqn is not None:  # a Python number has no dtype of its own
        avals = (v.aval for v in (*step.eqn.invars, *step.eqn.outvars))
        dtypes |= {str(getattr(aval, "dtype", "")) for aval in avals}
    with jax.enable_x64(not dtypes.isdisjoint(_WIDE)):
        return _pulled(step, k, values, by_rule)


def _pulled(step: Step, k: int, values: list[Any], by_rule: bool) -> list[np.ndarray]:
    outs, pull = [out.value for out in step.outs], step.pull
    if step.eqn is not None:
        run = _interpret.run_equation if by_rule else plain
        is_whole = step.eqn.primitive.name in _TOGETHER
        live = [i for i, v in enumerate(step.ins) if v.active] if is_whole else [k]
        outs, pull = with_pullback(step.eqn, values, live, run)
    assert pull is not None, "a way back was recorded"
    size = np.size(values[k])
    found = []
    for place, out in enumerate(outs):
        count = np.size(out)
        if not is_floating(out) or not count:
            found.append(np.zeros((count, size)))
            continue
        bars: list[Any] = [None] * len(outs)
        bars[place] = jnp.eye(count, dtype=out.dtype).reshape(count, *np.shape(out))
        axes = [None if bar is None else 0 for bar in bars]
        rows = jax.vmap(lambda *bars: pull(list(bars))[k], axes)(*bars)
        found.append(np.asarray(rows).reshape(count, size).astype(np.float64))
    return found


def _elsewhere(values: list[Any], sign: int) -> list[Any]:
    """Values of the same shapes, none of them 0; integers as they are."""
    rng = np.random.default_rng(0)

    def moved(x):
        if not is_floating(x) or jnp.iscomplexobj(x):
            return x
        found = sign * rng.uniform(0.2, 0.9, np.shape(x))
        return found.astype(x.dtype) if hasattr(x, "dtype") else float(found)

    return [moved(x) for x in values]
