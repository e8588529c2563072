"""The graph for a terminal: every wire with its value and its gradient, and why."""

import io
from collections.abc import Iterable, Iterator

from jaxbp.drawing._formulas import bar
from jaxbp.drawing._graph import Graph
from jaxbp.drawing._nodes import Edge, Node
from jaxbp.drawing._numbers import MISSING, number, summary


def text(graph: Graph) -> str:
    """Title and check, a table of the wires, and the nodes with their edges."""
    two = any(w.autodiff is not None for w in graph.wires.values())
    nodes = list(graph.flat())
    lines = [*heading(graph), "", *table(_rows(graph, two)), ""]
    lines += _links(graph, nodes)
    return "\n".join(one_line(line.rstrip()) for line in lines)


def heading(graph: Graph) -> Iterator[str]:
    """What the graph is of, whether it is faithful, and what is wrong."""
    made = sum(1 for _ in graph.flat())
    yield f"graph({graph.function}): {made} node{'' if made == 1 else 's'}"
    yield str(graph.check)
    if units := largest_difference(graph):
        yield f"hand-written and autodiff differ by at most {units} units of rounding"
    if graph.wrong:
        wrong = graph.wrong
        wire = f", at the gradient of {wrong.wire}" if wrong.wire else ""
        rule = wrong.rule.removeprefix("_")
        yield f"first wrong link from the loss: {rule}{wire}: {wrong.message}"
    yield from graph.notes


def largest_difference(graph: Graph) -> str:
    """Of all wires, "" where nothing was compared."""
    found = [w.units for w in graph.wires.values() if w.units is not None]
    return units_text(max(found)) if found else ""


def units_text(units: float | None) -> str:
    """A difference in units of rounding."""
    return MISSING if units is None else f"{units:.3g}"


def _rows(graph: Graph, two: bool) -> Iterator[list[str]]:
    yield ["wire", "value", "gradient", *(["autodiff", "units"] if two else [])]
    for name in ordered(graph):
        wire = graph.wires[name]
        cells = [name, summary(wire.value), summary(wire.gradient)]
        more = [summary(wire.autodiff), units_text(wire.units)]
        yield [*cells, *(more if two else [])]


def ordered(graph: Graph) -> list[str]:
    """The wires that the opened graph shows, the arguments first."""
    made = [name for node in graph.flat() for name in node.outputs]
    read = [edge.wire for node in graph.flat() for edge in node.edges]
    constant = [n for n in read if graph.wires[n].kind == "constant"]
    return list(dict.fromkeys([*graph.inputs, *constant, *made, *graph.outputs]))


def _links(graph: Graph, nodes: Iterable[Node]) -> Iterator[str]:
    """From the loss back: a node, and for each of its inputs what it adds there."""
    for node in reversed(list(nodes)):
        mark = "  ← the first wrong link" if is_wrong(graph, node) else ""
        place = "".join(f"{name} / " for name in node.where)
        yield f"{place}{', '.join(node.outputs)} = {node.expression}{mark}"
        for edge in node.edges:
            if edge.gradient is not None or edge.autodiff is not None:
                yield "  " + added(node, edge)


def added(node: Node, edge: Edge) -> str:
    """The local derivative of an edge, and what it adds to the gradient of its wire."""
    found = edge.gradient if edge.gradient is not None else edge.autodiff
    local = ""
    if edge.local is not None:
        of = f"∂{node.outputs[0]}/∂{edge.wire}"
        value = number(edge.local)
        named = f" = {edge.formula}" if edge.formula not in ("", value) else ""
        local = f"{of}{named} = {value}; "
    return f"{local}{bar(edge.wire)} += {edge.vjp} = {summary(found)}"


def is_wrong(graph: Graph, node: Node) -> bool:
    return graph.wrong is not None and node.id in graph.wrong.nodes


def one_line(text: str) -> str:
    """On one line, whatever letters a name has: controls as they are written."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def table(rows: Iterable[list[str]]) -> list[str]:
    """Aligned lines, the first row the head."""
    from rich.console import Console
    from rich.table import Table

    head, *body = rows
    found = Table(box=None, pad_edge=False)
    for name in head:
        found.add_column(name, no_wrap=True)
    for row in body:
        found.add_row(*map(one_line, row))
    out = io.StringIO()
    Console(file=out, width=400, markup=False, highlight=False).print(found)
    return [line.rstrip() for line in out.getvalue().splitlines()]
