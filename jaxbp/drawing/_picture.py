"""What is drawn of a graph: boxes and wires, groups closed where they are too many."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from jaxbp.drawing._formulas import bar
from jaxbp.drawing._graph import Graph, is_called
from jaxbp.drawing._nodes import Edge, Node
from jaxbp.drawing._numbers import MISSING, number
from jaxbp.drawing._text import one_line

MOST = 150  # boxes; with more equations groups are drawn closed
_ROWS = 8  # inputs that a closed box lists
_LETTERS = 42  # of a line in a box


@dataclass(frozen=True)
class Row:
    """One input of a box, as a line in it: the wires that end there, what it says."""

    wires: tuple[str, ...]
    text: str
    full: str


@dataclass(frozen=True)
class Box:
    """An equation, a rule, or a closed run of them: `nodes` are what is inside."""

    id: str
    title: str
    full: str
    rows: tuple[Row, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    where: tuple[str, ...]
    units: float | None
    is_wrong: bool

    @property
    def is_rule(self) -> bool:
        return len(self.nodes) == 1 and self.nodes[0].kind == "rule"

    @property
    def is_closed(self) -> bool:
        return len(self.nodes) > 1


@dataclass(frozen=True)
class Picture:
    """Boxes in program order, and the wires between them with the group of each."""

    boxes: tuple[Box, ...]
    wires: dict[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""


def picture(graph: Graph, most: int = MOST) -> Picture:
    """The boxes and wires of a graph, closed until there are no more than `most`."""
    nodes = list(graph.flat())
    runs, note = _by_name(nodes, graph.closed)
    if len(runs) > most:
        runs, note = _closed(nodes, most)
    boxes = tuple(_box(graph, run) for run in runs)
    return Picture(boxes, _wires(graph, boxes), note)


def cut(text: str, most: int = _LETTERS) -> str:
    """A formula on one line, its end left out where it is long."""
    text = one_line(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def short(text: str, most: int = _LETTERS) -> str:
    """A name on one line, its middle left out where it is long."""
    text = one_line(text)
    if len(text) <= most:
        return text
    end = (most - 1) // 3
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"


def _by_name(nodes: Sequence[Node], closed: Sequence[str]):
    """As `_closed`, of the groups that are asked for."""

    def group(node: Node) -> tuple[str, ...]:
        inside = [k for k, name in enumerate(node.where) if is_called(name, closed)]
        return node.where[: inside[0] + 1] if inside else ()

    runs = _runs(nodes, group, 1)
    said = f"{len(nodes)} nodes drawn as {len(runs)} boxes: closed are "
    return runs, said + ", ".join(closed) if closed else ""


def _closed(nodes: Sequence[Node], most: int) -> tuple[list[list[Node]], str]:
    """Runs of nodes that are one box each. Of a run every node is in one group, so
    that no wire leads out of it and back."""
    deepest = max(len(node.where) for node in nodes)
    for depth in range(deepest, 0, -1):
        runs = _runs(nodes, lambda node, d=depth: node.where[:d], depth)
        if len(runs) <= most:
            break
    else:
        runs = _runs(nodes, lambda node: node.where[:1], 1)
    if len(runs) > most:  # without groups: as they come
        size = -(-len(nodes) // most)
        runs = [list(nodes[k : k + size]) for k in range(0, len(nodes), size)]
    said = f"{len(nodes)} nodes drawn as {len(runs)} boxes: more than {most} are closed"
    return runs, said


def _runs(nodes: Iterable[Node], group: Callable[[Node], tuple[str, ...]], depth: int):
    """Neighbours of one group as one run; what lies outside that depth stays open."""
    runs: list[list[Node]] = []
    for key, found in itertools.groupby(nodes, group):
        run = list(found)
        runs += [run] if len(key) >= depth else [[node] for node in run]
    return runs


def _box(graph: Graph, run: Sequence[Node]) -> Box:
    if len(run) == 1:
        (node,) = run
        rows = tuple(_row(node, edge) for edge in node.edges)
        title, full, where = cut(node.expression), node.expression, node.where
        outputs = node.outputs
    else:
        made = {name for node in run for name in node.outputs}
        read = [e.wire for node in run for e in node.edges if e.wire not in made]
        rows = _listed(list(dict.fromkeys(read)))
        where = _shared([node.where for node in run])
        inside, *where = (where[-1], *where[:-1]) if where else ("",)
        title = full = f"{inside}: {len(run)} equations".removeprefix(": ")
        title, where = short(title), tuple(where)
        outputs = tuple(n for n in _left(graph, run, made))
    return Box(
        run[0].id,
        title,
        full,
        rows,
        tuple(run),
        outputs,
        where,
        _units(graph, run),
        any(_is_wrong(graph, node) for node in run),
    )


def _row(node: Node, edge: Edge) -> Row:
    """Its local derivative if that is a number, else what it adds to the gradient."""
    if edge.gradient is None and edge.autodiff is None:
        return Row((edge.wire,), f"{short(edge.wire)}: {MISSING}", edge.wire)
    if edge.local is None:
        full = f"{bar(edge.wire)} += {edge.vjp}"
        return Row((edge.wire,), cut(full), full)
    of, value = f"∂{node.outputs[0]}/∂{edge.wire}", number(edge.local)
    named = f" = {edge.formula}" if edge.formula not in ("", value) else ""
    full = one_line(f"{of}{named} = {number(edge.local, 5)}")
    brief = full if len(full) <= _LETTERS else f"{short(of, 20)} = {value}"
    return Row((edge.wire,), short(brief), full)


def _listed(wires: list[str]) -> tuple[Row, ...]:
    rows = [Row((wire,), short(wire), wire) for wire in wires]
    if len(rows) <= _ROWS:
        return tuple(rows)
    rest = wires[_ROWS - 1 :]
    return (*rows[: _ROWS - 1], Row(tuple(rest), f"{len(rest)} more", ", ".join(rest)))


def _left(graph: Graph, run: Sequence[Node], made: set[str]) -> list[str]:
    """What of the wires made inside is read outside, or is an output."""
    inside = {id(node) for node in run}
    nodes = (node for node in graph.flat() if id(node) not in inside)
    read = {edge.wire for node in nodes for edge in node.edges} | set(graph.outputs)
    return [n for node in run for n in node.outputs if n in made & read]


def _wires(graph: Graph, boxes: Sequence[Box]) -> dict[str, tuple[str, ...]]:
    """The wires that are seen, each with the innermost group around its ends."""
    ends: dict[str, list[tuple[str, ...]]] = {}
    made = {name for box in boxes for name in box.outputs}
    for box in boxes:
        for wire in itertools.chain(box.outputs, *(row.wires for row in box.rows)):
            ends.setdefault(wire, []).append(box.where)
    for wire in (*graph.inputs, *graph.outputs):
        ends.setdefault(wire, []).append(())
    alone = {w for w in ends if w not in made and graph.wires[w].kind != "constant"}
    alone |= set(graph.outputs)
    return {w: () if w in alone else _shared(where) for w, where in ends.items()}


def _shared(places: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The groups that are around all of them."""
    levels = itertools.takewhile(lambda p: len(set(p)) == 1, zip(*places, strict=False))
    return tuple(level[0] for level in levels)


def _units(graph: Graph, run: Sequence[Node]) -> float | None:
    """The largest difference of two gradients that leave the box, in rounding units."""
    found = [node.units for node in run]
    if all(units is None for units in found):  # in a chain the wires know
        found = [graph.wires[e.wire].units for node in run for e in node.edges]
    return max((u for u in found if u is not None), default=None)


def _is_wrong(graph: Graph, node: Node) -> bool:
    wrong = graph.wrong.nodes if graph.wrong else ()
    return any(node.id == at or node.id.startswith(f"{at}.") for at in wrong)
