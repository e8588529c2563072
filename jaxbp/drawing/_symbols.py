"""Local derivatives between elements, as a person would write them."""

from collections.abc import Callable

import numpy as np

from jaxbp.drawing._elements import Element, Link
from jaxbp.drawing._formulas import Formula, formula
from jaxbp.drawing._graph import Graph
from jaxbp.drawing._nodes import Node
from jaxbp.drawing._numbers import number, operand

Name = Callable[[str, tuple[int, ...]], str]  # of a wire, or of its element

# Of an op's output in its first input and in its second: {0} and {1} are their elements
# that belong together.
_PAIRS = {
    "squared_error": ("2({0} − {1})", "2({1} − {0})"),
    "half_squared_error": ("{0} − {1}", "{1} − {0}"),
    "cross_entropy": ("−{1}/{0}", "−ln {0}"),
    "binary_cross_entropy": ("({0} − {1})/({0}(1 − {0}))", "ln((1 − {0})/{0})"),
}


def plain_name(wire: str, index: tuple[int, ...]) -> str:
    return str(Element(wire, index))


def written(graph: Graph, node: Node, name: Name) -> Formula:
    """A node's formula, its wires called by these names."""
    return _formula(graph, node, lambda wire: name(wire, ()), name(node.outputs[0], ()))


def symbol(graph: Graph, link: Link, out: Element, into: Element, name: Name) -> str:
    """The local derivative of one element in another, "" where it is but a number."""
    node, place = link.node, link.edge.place
    if link.edge.formula:  # element by element
        shapes = {w: np.shape(graph.wires[w].value) for w in (out.wire, into.wire)}

        def at(wire: str) -> str:
            alike = np.shape(graph.wires[wire].value) == shapes[out.wire]
            return name(wire, out.at if alike else ())

        return _formula(graph, node, at, name(*out)).local[place]
    if node.label == "dense" or _is_matrix_product(link):
        return _of_product(graph, link, out, into, name)
    if node.label == "softmax":
        return _of_softmax(out, into, name)
    if node.label in _PAIRS and len(node.step.ins) == 2:  # pyright: ignore
        pair = [_at(graph, node, k, into.at, name) for k in (0, 1)]
        return _PAIRS[node.label][place].format(*pair)
    return ""


def _formula(graph: Graph, node: Node, at: Callable[[str], str], output: str):
    assert node.step is not None, "it was recorded"
    wires = {edge.place: edge.wire for edge in node.edges}
    names = [
        at(wires[k]) if k in wires else _constant(v.value)
        for k, v in enumerate(node.step.ins)
    ]
    return formula(node.step.eqn, names, output, node.step.name)


def _constant(value) -> str:
    """An operand that is no wire holds one number throughout."""
    array = np.asarray(value)
    return operand(array.flat[0].item()) if array.size else ""


def _at(graph: Graph, node: Node, place: int, index, name: Name) -> str:
    """The element of an input, or the number that it is throughout."""
    for edge in node.edges:
        if edge.place == place:
            return name(edge.wire, index)
    return _constant(node.step.ins[place].value)  # pyright: ignore


def _is_matrix_product(link: Link) -> bool:
    eqn = link.node.step.eqn if link.node.step else None
    if eqn is None or eqn.primitive.name != "dot_general":
        return False
    contracting, batch = eqn.params["dimension_numbers"]
    ranks = [len(v.aval.shape) for v in eqn.invars]
    return contracting == ((ranks[0] - 1,), (0,)) and not batch[0] and ranks[1] <= 2


def _of_product(graph: Graph, link: Link, out: Element, into: Element, name: Name):
    """Of x w (+ b): in an element of x the weight, in a weight the element of x."""
    if link.edge.place > 1:
        return "1"
    if link.edge.place == 0:
        unit = out.at[len(into.at) - 1 :]
        return _at(graph, link.node, 1, (into.at[-1], *unit), name)
    rows = out.at[: len(out.at) - len(into.at) + 1]
    return _at(graph, link.node, 0, (*rows, into.at[0]), name)


def _of_softmax(out: Element, into: Element, name: Name) -> str:
    y = name(*out)
    if out.at == into.at:
        return f"{y}(1 − {y})"
    return f"−{y} · {name(out.wire, into.at)}"


def said(symbol: str, value: float) -> str:
    """A symbol, "" where it is the number itself."""
    return "" if symbol == number(value) else symbol
