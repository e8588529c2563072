"""The derivation as a person would write it, one link a line."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jaxbp._arguments import check_function, whole
from jaxbp.drawing._elements import Element, Link, elements, links_of
from jaxbp.drawing._formulas import bar
from jaxbp.drawing._graph import Graph
from jaxbp.drawing._nodes import Edge, Node
from jaxbp.drawing._numbers import number, operand, summary
from jaxbp.drawing._symbols import Name, plain_name, said, symbol, written
from jaxbp.drawing._text import heading, is_wrong, one_line, table

_LISTED = 20000  # pairs of elements, up to which it is asked which of them are links
_MARK = "← the first wrong link"


class Table(NamedTuple):
    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def worksheet(graph: Graph, markdown: bool, name: Name | None, limit: int) -> str:
    """See `Graph.worksheet`."""
    whole("Graph.worksheet", "limit", limit, 0)
    if name is not None:
        check_function("Graph.worksheet", "name", name)
    writer = _Writer(graph, name or plain_name)
    links = writer.links(limit)
    back = writer.backward(links) if links else writer.arrays()
    head = ("link", "local derivative", "number", "upstream × local = downstream")
    title = f"Backward, from {writer.start()}"
    tables = [
        Table("Given", ("wire", "value"), list(writer.given())),
        Table("Forward", ("wire", "formula", "value"), list(writer.forward())),
        Table(title, head, list(back)),
        Table("Gradients", writer.gradient_head(), list(writer.gradients())),
    ]
    render = _markdown if markdown else _text
    return render([one_line(line) for line in heading(graph)], tables)


class _Writer:
    """Writes what stands in the tables, the wires called by `name`."""

    def __init__(self, graph: Graph, name: Name):
        self.graph, self.name = graph, name
        self.nodes = list(graph.flat())
        ends = [n for n in graph.outputs if graph.wires[n].gradient is not None]
        is_one = len(ends) == 1 and np.ndim(graph.wires[ends[0]].value) == 0
        self.end = ends[0] if is_one else None

    def links(self, limit: int) -> list[Link] | None:
        """All local derivatives, None where they are no numbers or too many."""
        sizes = {name: np.size(wire.value) for name, wire in self.graph.wires.items()}
        pairs = [
            sizes[out] * sizes[edge.wire]
            for node in self.nodes
            for edge in self._edges(node)
            for out in node.outputs
        ]
        complex_ = any(np.iscomplexobj(w.value) for w in self.graph.wires.values())
        if complex_ or sum(pairs) > _LISTED:
            return None
        found = [
            link
            for node in reversed(self.nodes)
            for edge in self._edges(node)
            for link in links_of(self.graph, node, edge, rules=False)
        ]
        return found if sum(int(k.depends.sum()) for k in found) <= limit else None

    def _edges(self, node: Node) -> list[Edge]:
        """But for constants, after which nobody asks."""
        kinds = ((edge, self.graph.wires[edge.wire].kind) for edge in node.edges)
        return [edge for edge, kind in kinds if kind != "constant"]

    def start(self) -> str:
        ends = [self.end] if self.end else self.graph.outputs
        return ", ".join(f"{self.bar(Element(n))} = {self._bars(n)}" for n in ends)

    def given(self) -> Iterator[tuple[str, ...]]:
        for wire in self.graph.inputs:
            yield self.name(wire, ()), summary(self.graph.wires[wire].value)

    def forward(self) -> Iterator[tuple[str, ...]]:
        for node in self.nodes:
            for k, wire in enumerate(node.outputs):
                value = written(self.graph, node, self.name).value if k == 0 else ""
                yield self.name(wire, ()), value, summary(self.graph.wires[wire].value)

    def backward(self, links: list[Link]) -> Iterator[tuple[str, ...]]:
        """Element by element; what adds up, after the last of its terms."""
        terms: dict[Element, list[float]] = {}
        last = {link.edge.wire: k for k, link in enumerate(links)}
        for k, link in enumerate(links):
            outs = elements(self.graph, link.output)
            ins = elements(self.graph, link.edge.wire)
            for row, column in np.argwhere(link.depends):
                yield self._line(
                    link, outs[row], ins[column], link.local[row, column], terms
                )
            if last[link.edge.wire] == k:
                for element in ins:
                    if len(terms.get(element, ())) > 1:
                        yield self._sum(element, terms[element])

    def _line(self, link: Link, out: Element, into: Element, local, terms):
        up, local = self._number(out), float(local)
        down = up * local
        terms.setdefault(into, []).append(down)
        of = f"∂{self.name(*out)}/∂{self.name(*into)}"
        derivative = said(symbol(self.graph, link, out, into, self.name), local)
        product = f"{operand(up)} × {operand(local)} = {number(down)}"
        told, by_hand = self._mark(link.node), link.edge.gradient
        if told and by_hand is not None and len(link.local) == 1:
            said_by_hand = number(by_hand[into.at])
            told += "" if said_by_hand == number(down) else f", by hand {said_by_hand}"
        return of, derivative, number(local), product, told

    def _sum(self, element: Element, terms: list[float]) -> tuple[str, ...]:
        added = " + ".join(map(operand, terms))
        return self.bar(element), "", "", f"{added} = {number(sum(terms))}", ""

    def arrays(self) -> Iterator[tuple[str, ...]]:
        """Wire by wire, where the elements are too many."""
        for node in reversed(self.nodes):
            found = written(self.graph, node, self.name)
            for edge in self._edges(node):
                added = edge.autodiff if edge.autodiff is not None else edge.gradient
                if added is None:
                    continue
                out, into = self.name(node.outputs[0], ()), self.name(edge.wire, ())
                local = "" if edge.local is None else number(self._local(node, edge))
                product = f"{bar(into)} += {found.vjp[edge.place]} = {summary(added)}"
                formula = found.local[edge.place]
                formula = "" if formula == local else formula
                yield f"∂{out}/∂{into}", formula, local, product, self._mark(node)

    def _local(self, node: Node, edge: Edge) -> float:
        """Between two numbers, and like all that stands here by autodiff."""
        return next(links_of(self.graph, node, edge, rules=False)).local.item()

    def gradient_head(self) -> tuple[str, ...]:
        return ("of", "by hand", "by autodiff") if self._two() else ("of", "gradient")

    def gradients(self) -> Iterator[tuple[str, ...]]:
        for name in self.graph.inputs:
            wire = self.graph.wires[name]
            if wire.kind == "argument":
                cells = summary(wire.gradient), summary(wire.autodiff)
                of = self.bar(Element(name))
                yield (of, *cells) if self._two() else (of, cells[0])

    def bar(self, element: Element) -> str:
        """∂L/∂w of one scalar L, w_bar else."""
        name = self.name(*element)
        return f"∂{self.name(self.end, ())}/∂{name}" if self.end else bar(name)

    def _two(self) -> bool:
        return any(w.autodiff is not None for w in self.graph.wires.values())

    def _mark(self, node: Node) -> str:
        return _MARK if is_wrong(self.graph, node) else ""

    def _bars(self, name: str) -> str:
        wire = self.graph.wires[name]
        return summary(wire.autodiff if wire.autodiff is not None else wire.gradient)

    def _number(self, element: Element) -> float:
        wire = self.graph.wires[element.wire]
        found = wire.autodiff if wire.autodiff is not None else wire.gradient
        return float("nan") if found is None else float(found[element.at])


def _text(heading: Iterable[str], tables: Iterable[Table]) -> str:
    lines = list(heading)
    for title, head, rows in tables:
        wide = [row + ("",) * (len(head) + 1 - len(row)) for row in rows]
        lines += ["", one_line(title), *table([[*head, ""], *map(list, wide)])]
    return "\n".join(line.rstrip() for line in lines)


def _markdown(heading: Iterable[str], tables: Iterable[Table]) -> str:
    first, *rest = heading
    lines = [f"## {_escaped(first)}", "", *(f"{_escaped(line)}  " for line in rest)]
    for title, head, rows in tables:
        lines += ["", f"### {_escaped(title)}", ""]
        lines += [_row(head), _row(["---"] * len(head), escape=str)]
        for cells in rows:
            *most, final = cells[: len(head)]
            marked = f"{final} {cells[-1]}".strip() if len(cells) > len(head) else final
            lines.append(_row([*most, marked]))
    return "\n".join(line if line.endswith("  ") else line.rstrip() for line in lines)


def _escaped(text: str) -> str:
    """As it is, whatever Markdown would make of its letters."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", one_line(text))


def _row(cells: Iterable[str], escape=_escaped) -> str:
    return f"| {' | '.join(escape(c) or ' ' for c in cells)} |"
