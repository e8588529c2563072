"""One graph as a page: nodes explain themselves, the backward sweep is stepped."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxbp._page import render
from jaxbp.drawing._draw import scene_of
from jaxbp.drawing._graph import Graph
from jaxbp.drawing._nodes import Node, Section
from jaxbp.drawing._numbers import summary
from jaxbp.drawing._picture import Box, Picture, picture, short
from jaxbp.drawing._svg import svg
from jaxbp.drawing._text import added, heading, is_wrong, one_line

_MOST = 40  # links that a chosen node lists on the way from the end to it
_INNER = 60  # equations of a rule's passes, or of a closed box


class Step(NamedTuple):
    """One link of the backward sweep: the box it leaves, the wire it adds to."""

    box: str
    wire: str
    text: str


class List(NamedTuple):
    title: str
    lines: list[str]


class Detail(NamedTuple):
    """What is said of a box or a wire that is chosen."""

    key: str
    title: str
    lists: list[List]


def page(graph: Graph) -> str:
    """See `Graph.html`."""
    drawn = picture(graph)
    steps = list(_steps(graph, drawn))
    first, *rest = (one_line(line) for line in heading(graph))
    return _rendered(
        "graph.html",
        title=short(f"graph of {graph.function}", 80),
        heading=first,
        lines=[*rest, *filter(None, [drawn.note])],
        ok=graph.ok,
        svg=svg(scene_of(graph, drawn), buttons=True),
        steps=steps,
        details=list(_details(graph, drawn, steps)),
        worksheet=graph.worksheet(),
    )


def frame(graph: Graph) -> str:
    """The page in a frame of its own, as a notebook shows it."""
    title = f"graph of {graph.function}"
    return _rendered("frame.html", page=page(graph), title=title)


def _rendered(template: str, **values: Any) -> str:
    return render("Graph.html", template, otherwise=", or take .svg()", **values)


def _steps(graph: Graph, drawn: Picture) -> Iterator[Step]:
    """The links between what is seen, from the end back."""
    for box in reversed(drawn.boxes):
        for node in reversed(box.nodes):
            for edge in node.edges:
                is_met = edge.gradient is not None or edge.autodiff is not None
                if is_met and edge.wire in drawn.wires:
                    mark = " ← the first wrong link" if is_wrong(graph, node) else ""
                    yield Step(box.id, edge.wire, one_line(added(node, edge)) + mark)


def _details(graph: Graph, drawn: Picture, steps: list[Step]) -> Iterator[Detail]:
    for box in drawn.boxes:
        lists = [
            List("Forward", _equations(graph, box.nodes)),
            List("Backward", [s.text for s in steps if s.box == box.id]),
            List("The chain rule, from the end to here", _chain(drawn, steps, box)),
            *_opened(graph, box),
        ]
        yield Detail(
            f"node {box.id}", one_line(box.full), [k for k in lists if k.lines]
        )
    for name in drawn.wires:
        wire = graph.wires[name]
        lines = [f"value {summary(wire.value)}", f"gradient {summary(wire.gradient)}"]
        if wire.autodiff is not None:
            lines.append(f"gradient by autodiff {summary(wire.autodiff)}")
        terms = [s.text for s in steps if s.wire == name]
        title = "Adds up in its gradient" if len(terms) > 1 else "Its gradient"
        lists = [List("On the wire", lines), List(title, terms)]
        yield Detail(f"wire {name}", one_line(name), [k for k in lists if k.lines])


def _chain(drawn: Picture, steps: list[Step], box: Box) -> list[str]:
    """Every link between the end and what the box makes, from the end back."""
    after, boxes = set(box.outputs), set()
    for later in drawn.boxes:
        if any(wire in after for row in later.rows for wire in row.wires):
            boxes.add(later.id)
            after.update(later.outputs)
    found = [s.text for s in steps if s.box in boxes and s.wire in after]
    return _at_most(found, _MOST)


def _opened(graph: Graph, box: Box) -> Iterator[List]:
    """A rule's own two passes."""
    for node in box.nodes:
        if node.forward and not node.is_chain:
            yield List("The rule's forward pass", _equations(graph, node.forward))
        if node.backward:
            lines = _equations(node.backward, node.backward.nodes)
            yield List("The rule's backward pass", lines)


def _equations(section: Section, nodes: tuple[Node, ...]) -> list[str]:
    lines = [
        one_line(
            f"{', '.join(node.outputs)} = {node.expression}"
            f" = {', '.join(summary(section.wires[n].value) for n in node.outputs)}"
        )
        for node in nodes
    ]
    return _at_most(lines, _INNER)


def _at_most(lines: list[str], most: int) -> list[str]:
    more = len(lines) - most
    return lines if more <= 0 else [*lines[:most], f"… and {more} more"]
