"""Where everything stands: by Graphviz, which is told sizes and no names."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxbp._errors import argument_error
from jaxbp.drawing._picture import Box, Picture

_PX = 72  # to Graphviz's inch
_LARGE = 120  # boxes from which on straight lines and fewer rounds have to do


@dataclass(frozen=True)
class Place:
    """A rectangle, its corner at the top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Line:
    """A wire's way between a plate and a box: Bézier points, four and then three."""

    wire: str
    box: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Layout:
    width: float
    height: float
    boxes: dict[str, Place]
    plates: dict[str, Place]
    groups: dict[tuple[str, ...], Place]
    lines: tuple[Line, ...]


class _Way(NamedTuple):
    """Which way wires run, and by which port: out of a plate, into row {} of a box, out
    of the box, into a plate."""

    direction: str
    leaves: str
    read: str
    made: str
    enters: str


_ACROSS = _Way("LR", "wire:e", "r{}:w", "head:e", "wire:w")
_DOWN = _Way("TB", "below:s", "i{}:n", "foot:s", "above:n")
_WIDEST = 2600  # px


class Sizes:
    """What things measure: a box's width, the heights of its head and rows."""

    def __init__(self, head: float, row: float, label: float):
        self.head, self.row, self.label = head, row, label
        self.boxes: dict[str, tuple[float, float]] = {}  # width, height below the rows
        self.plates: dict[str, tuple[float, float, float]] = {}  # width, above, below
        self.labels: dict[str, float] = {}


def lay_out(picture: Picture, sizes: Sizes) -> Layout:
    """From left to right, wires entering a box at their own row; a long one downwards.

    Raises:
        ModuleNotFoundError: pygraphviz is not installed; says what to install.
    """
    if _least_width(picture, sizes) <= _WIDEST:  # laying out takes the most time
        across = _laid_out(picture, sizes, _ACROSS)
        if across.width <= _WIDEST:
            return across
    return _laid_out(picture, sizes, _DOWN)


def _least_width(picture: Picture, sizes: Sizes) -> float:
    """What stands one after the other on the longest way from left to right."""
    ends: dict[str, float] = {wire: sizes.plates[wire][0] for wire in picture.wires}
    for box in picture.boxes:
        starts = [ends[wire] for row in box.rows for wire in row.wires]
        end = max(starts, default=0.0) + sizes.boxes[box.id][0]
        ends |= {wire: end + sizes.plates[wire][0] for wire in box.outputs}
    return max(ends.values(), default=0.0)


def _laid_out(picture: Picture, sizes: Sizes, way: _Way) -> Layout:
    drawn = _drawn(picture, sizes, way)
    with warnings.catch_warnings():  # what Graphviz has to say is about its own labels
        warnings.simplefilter("ignore")
        drawn.layout("dot")
    return _read(picture, drawn)


def _drawn(picture: Picture, sizes: Sizes, way: _Way) -> Any:
    pgv = _pygraphviz()
    drawn = pgv.AGraph(directed=True, strict=False)
    drawn.graph_attr.update(nodesep="0.2", ranksep="0.35", margin="0")
    drawn.graph_attr["rankdir"] = way.direction
    if len(picture.boxes) > _LARGE:
        fast = {"splines": "line", "nslimit": "2", "nslimit1": "2", "mclimit": "0.3"}
        drawn.graph_attr.update(fast)
    numbers = {wire: k for k, wire in enumerate(picture.wires)}
    for wire, k in numbers.items():
        drawn.add_node(f"w{k}", shape="plain", label=_plate(wire, sizes))
    for b, box in enumerate(picture.boxes):
        drawn.add_node(f"b{b}", shape="plain", label=_box(box, sizes))
        for r, row in enumerate(box.rows):
            for wire in row.wires:
                ends = f"w{numbers[wire]}", f"b{b}"
                ports = {"tailport": way.leaves, "headport": way.read.format(r)}
                drawn.add_edge(*ends, key=f"in{b}.{r}.{numbers[wire]}", **ports)
        for wire in box.outputs:
            key = f"out{b}.{numbers[wire]}"
            ports = {"tailport": way.made, "headport": way.enters, "weight": "4"}
            drawn.add_edge(f"b{b}", f"w{numbers[wire]}", key=key, **ports)
    _add_groups(picture, drawn, sizes, numbers)
    return drawn


def _box(box: Box, sizes: Sizes) -> str:
    """Its head and every row have a port; above are those of wires that come down."""
    width, foot = sizes.boxes[box.id]
    above = max(len(box.rows), 1)
    ports = [_cell(f"i{r}", width / above, 1) for r in range(above)]
    heights = {"head": sizes.head - 1}
    heights |= {f"r{r}": sizes.row for r in range(len(box.rows))}
    heights |= {"foot": foot}
    rows = [_cell(port, width, height, above) for port, height in heights.items()]
    return _table(["".join(ports), *rows])


def _plate(wire: str, sizes: Sizes) -> str:
    width, above, below = sizes.plates[wire]
    heights = {"above": above - 1, "wire": 2, "below": below - 1}
    return _table([_cell(port, width, height) for port, height in heights.items()])


def _table(rows: list[str]) -> str:
    """A box as Graphviz sees it: empty cells."""
    cells = "".join(f"<TR>{row}</TR>" for row in rows)
    table = '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">'
    return f"<{table}{cells}</TABLE>>"


def _cell(port: str, width: float, height: float, span: int = 1) -> str:
    size = f'FIXEDSIZE="TRUE" WIDTH="{width:.0f}" HEIGHT="{height:.0f}"'
    return f'<TD PORT="{port}" COLSPAN="{span}" {size}></TD>'


def _add_groups(picture: Picture, drawn: Any, sizes: Sizes, numbers) -> None:
    made: dict[tuple[str, ...], Any] = {(): drawn}
    for where in _groups(picture):
        width = sizes.labels[where[-1]]
        label = _table([_cell("label", width, sizes.label)])
        settings = {"label": label, "labeljust": "l", "margin": "10"}
        name = f"cluster{len(made)}"
        made[where] = made[where[:-1]].add_subgraph([], name=name, **settings)
    for b, box in enumerate(picture.boxes):
        made[box.where].add_node(f"b{b}")
    for wire, where in picture.wires.items():
        made[where].add_node(f"w{numbers[wire]}")


def _groups(picture: Picture) -> list[tuple[str, ...]]:
    """All groups, the outer ones first."""
    places = [box.where for box in picture.boxes]
    every = {place[:k] for place in places for k in range(1, len(place) + 1)}
    return sorted(every, key=lambda where: (len(where), where))


def _read(picture: Picture, drawn: Any) -> Layout:
    left, bottom, right, top = _numbers(drawn.graph_attr["bb"])

    def at(x: float, y: float) -> tuple[float, float]:
        return x - left, top - y

    def place(name: str) -> Place:
        node = drawn.get_node(name)
        x, y = at(*_numbers(node.attr["pos"]))
        width, height = (float(node.attr[k]) * _PX for k in ("width", "height"))
        return Place(x - width / 2, y - height / 2, width, height)

    boxes = {box.id: place(f"b{b}") for b, box in enumerate(picture.boxes)}
    plates = {wire: place(f"w{k}") for k, wire in enumerate(picture.wires)}
    groups = {}
    for k, where in enumerate(_groups(picture), 1):
        found = _cluster(drawn, f"cluster{k}")
        x0, y0, x1, y1 = _numbers(found.graph_attr["bb"])
        groups[where] = Place(*at(x0, y1), x1 - x0, y1 - y0)
    lines = tuple(_lines(picture, drawn, at))
    return Layout(right - left, top - bottom, boxes, plates, groups, lines)


def _cluster(drawn: Any, name: str) -> Any:
    for inner in drawn.subgraphs_iter():
        if inner.name == name:
            return inner
        if (found := _cluster(inner, name)) is not None:
            return found
    return None


def _lines(picture: Picture, drawn: Any, at) -> Iterator[Line]:
    wires = list(picture.wires)
    for edge in drawn.edges_iter(keys=True):
        source, target, key = edge
        plate, box = (source, target) if key.startswith("in") else (target, source)
        spline = drawn.get_edge(source, target, key).attr["pos"]
        end, points = None, []
        for part in spline.split():
            if part.startswith("e,"):
                end = at(*_numbers(part[2:]))
            else:
                points.append(at(*_numbers(part)))
        *most, last = points
        points = (*most, end or last)
        id_ = picture.boxes[int(box[1:])].id
        yield Line(wires[int(plate[1:])], id_, points)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.replace("!", "").split(",")]


def _pygraphviz() -> Any:
    try:
        import pygraphviz
    except ImportError as error:
        mend = (
            "pip install 'jaxbp[report]'; .text(), .worksheet(), .paths() and "
            ".to_dict() do without it"
        )
        expected, got = "installed, which lays pictures out", str(error)
        kind = ModuleNotFoundError
        raise argument_error(
            "Graph", "pygraphviz", expected, got, mend, kind=kind
        ) from error
    return pygraphviz
