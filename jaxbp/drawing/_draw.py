"""From a picture and its layout to shapes."""

import itertools
import math
import textwrap
from collections.abc import Sequence

from jaxbp.drawing._graph import Graph
from jaxbp.drawing._layout import Layout, Place, Sizes, lay_out
from jaxbp.drawing._marks import Mark, Written, size, written
from jaxbp.drawing._marks import shapes as marked
from jaxbp.drawing._picture import Box, Picture, picture, short
from jaxbp.drawing._plates import SMALL, plate, size_of
from jaxbp.drawing._shapes import (
    GROUND,
    GROUP,
    INK,
    MUTED,
    PAPER,
    RULE,
    RULE_GROUND,
    WRONG,
    WRONG_GROUND,
    Curve,
    Part,
    Rect,
    Scene,
    Text,
    width_of,
)
from jaxbp.drawing._text import heading, one_line, units_text

_MARGIN, _PAD = 16.0, 8.0
_HEAD, _ROW, _FOOT, _LABEL = 24.0, 17.0, 20.0, 16.0
_GAUGE, _DECADES = 48.0, 16  # how long the scale of rounding units is, in px and in 10s
_FLAG = "✗ first wrong link"
_LEGEND = "▶ value, above the wire   ◀ gradient, below it   ◆ hand-written rule"
_COLUMNS = 100  # letters of a line of the heading


def scene(graph: Graph, marks: Sequence[Mark] = ()) -> Scene:
    """Everything that is drawn of a graph."""
    return scene_of(graph, picture(graph), marks)


def scene_of(graph: Graph, drawn: Picture, marks: Sequence[Mark] = ()) -> Scene:
    """The picture of a graph, laid out."""
    said = written(drawn, marks)
    layout = lay_out(drawn, _sizes(graph, drawn, said))
    head = _heading(graph, drawn)
    top = head[-1].y + 12
    wide = max(shape.x + width_of(shape.text, shape.size) for shape in head)
    width = max(layout.width + 2 * _MARGIN, wide + _MARGIN)
    shapes = [
        Rect(0, 0, width, top + layout.height + _MARGIN, PAPER),
        Part("head", shapes=list(head)),
        *_body(graph, drawn, said, layout, top),
    ]
    words = " ".join(one_line(line) for line in heading(graph))
    title = f"graph of {short(graph.function, 80)}"
    return Scene(width, top + layout.height + _MARGIN, title, words, shapes)


def _sizes(graph: Graph, drawn: Picture, said: Written) -> Sizes:
    sizes = Sizes(_HEAD, _ROW, _LABEL)
    sizes.boxes = {b.id: _size(b, said.boxes.get(b.id, ())) for b in drawn.boxes}
    sizes.plates = {
        wire: size_of(graph.wires[wire], *_on(said, wire)) for wire in drawn.wires
    }
    names = {name for box in drawn.boxes for name in box.where}
    sizes.labels = {name: width_of(short(name, 40), 11) + 4 for name in names}
    return sizes


def _on(said: Written, wire: str) -> tuple[Sequence[str], Sequence[str]]:
    """What is written beside a wire's value, and beside its gradient."""
    return said.values.get(wire, ()), said.gradients.get(wire, ())


def _size(box: Box, lines: Sequence[str]) -> tuple[float, float]:
    rows = [width_of(row.text, SMALL) for row in box.rows]
    widths = [width_of(_title(box)), *rows]
    foot = 0.0
    if box.units is not None:
        foot += _FOOT
        widths.append(width_of(_units(box), SMALL) + 8 + _GAUGE)
    if box.is_wrong:
        foot += _FOOT
        widths.append(width_of(_FLAG, SMALL) + 8)
    width, height = size(lines)
    return math.ceil(max(*widths, width) + 2 * _PAD), foot + height + 4


def _title(box: Box) -> str:
    return f"◆ {box.title}" if box.is_rule else box.title


def _units(box: Box) -> str:
    return f"Δ {units_text(box.units)} units"


def _heading(graph: Graph, drawn: Picture) -> list[Text]:
    first, *rest = (one_line(line) for line in heading(graph))
    found = [Text(_MARGIN, 26, short(first, _COLUMNS), 14, bold=True)]
    for said in [*rest, *filter(None, [drawn.note]), _LEGEND]:
        is_wrong = graph.wrong is not None and said.startswith("first wrong link")
        colour = WRONG if is_wrong else MUTED
        lines = [said] if said == _LEGEND else textwrap.wrap(said, _COLUMNS)
        for line in lines:
            y = 44 + 15 * (len(found) - 1)
            found.append(Text(_MARGIN, y, line, 11, colour, is_wrong))
    return found


def _body(
    graph: Graph, drawn: Picture, said: Written, layout: Layout, top: float
) -> list[Part]:
    def moved(place: Place) -> Place:
        return Place(place.x + _MARGIN, place.y + top, place.width, place.height)

    places = {where: moved(place) for where, place in layout.groups.items()}
    groups = [_group(where, place) for where, place in places.items()]
    labels = [_label(where, place) for where, place in places.items()]
    lines = [
        Part("line", f"{line.wire} {line.box}", shapes=[Curve(points, arrow=True)])
        for line in layout.lines
        for points in [tuple((x + _MARGIN, y + top) for x, y in line.points)]
    ]
    boxes = [
        _box(box, moved(layout.boxes[box.id]), said.boxes.get(box.id, ()))
        for box in drawn.boxes
    ]
    plates = [
        plate(graph.wires[wire], wire, moved(place), *_on(said, wire))
        for wire, place in layout.plates.items()
    ]
    return list(itertools.chain(groups, lines, labels, plates, boxes))


def _group(where: tuple[str, ...], at: Place) -> Part:
    place = at.x, at.y, at.width, at.height
    frame = Rect(*place, _ground(where), RULE, 1, 8, "group", True)
    return Part("group", shapes=[frame])


def _label(where: tuple[str, ...], at: Place) -> Part:
    """A group's name, which no line runs through."""
    name = Text(at.x + 10, at.y + _LABEL + 1, short(where[-1], 40), 11, MUTED)
    width = width_of(name.text, name.size) + 6
    ground = Rect(at.x + 7, at.y + 5, width, _LABEL, _ground(where))
    return Part("group", shapes=[ground, name])


def _ground(where: tuple[str, ...]) -> str:
    return GROUP if len(where) % 2 else PAPER


def _box(box: Box, at: Place, lines: Sequence[str]) -> Part:
    ground = RULE_GROUND if box.is_rule else GROUND
    is_framed = box.is_wrong or lines
    ground, edge, thick = (
        (WRONG_GROUND, WRONG, 3.0) if is_framed else (ground, INK, 1.2)
    )
    x, y = at.x + _PAD, at.y + _HEAD
    radius = 0 if box.is_closed else 6
    frame = Rect(at.x, at.y, at.width, at.height, ground, edge, thick, radius, "box")
    shapes: list[Rect | Text | Curve | Part] = [frame]
    if box.is_closed:  # one behind the other
        shapes.append(
            Rect(at.x + 2, at.y + 2, at.width - 4, at.height - 4, "none", RULE)
        )
    shapes.append(Text(x, y - 8, _title(box), bold=True))
    for row in box.rows:
        shapes.append(Text(x, y + _ROW - 5, row.text, SMALL, INK))
        y += _ROW
    if box.units is not None:
        shapes += _gauge(box, x, y)
        y += _FOOT
    if box.is_wrong:
        width = width_of(_FLAG, SMALL) + 8
        shapes.append(Rect(x - 4, y + 2, width, _FOOT - 5, WRONG, radius=3))
        shapes.append(Text(x, y + _FOOT - 8, _FLAG, SMALL, PAPER, bold=True))
        y += _FOOT
    shapes += marked(lines, x, y)
    return Part("node", box.id, "; ".join([_words(box), *lines]), shapes)


def _gauge(box: Box, x: float, y: float) -> list[Rect | Text | Curve | Part]:
    """The difference of the two gradients in rounding units, a mark every four 10s."""
    assert box.units is not None, "it was compared"
    shapes: list[Rect | Text | Curve | Part] = [
        Text(x, y + _FOOT - 7, _units(box), SMALL, WRONG if box.is_wrong else MUTED)
    ]
    left, base = x + width_of(_units(box), SMALL) + 8, y + _FOOT - 8
    decades = min(math.log10(max(box.units, 1.0)), _DECADES)
    filled = _GAUGE * decades / _DECADES
    shapes.append(Rect(left, base - 5, _GAUGE, 5, PAPER, RULE, 0.6))
    if filled:
        colour = WRONG if box.is_wrong else MUTED
        shapes.append(Rect(left, base - 5, filled, 5, colour))
    for k in range(0, _DECADES + 1, 4):
        mark = left + _GAUGE * k / _DECADES
        shapes.append(
            Curve(
                ((mark, base), (mark, base), (mark, base + 3), (mark, base + 3)),
                RULE,
                0.8,
            )
        )
    return shapes


def _words(box: Box) -> str:
    parts = [one_line(box.full), *(one_line(row.full) for row in box.rows)]
    if box.is_rule:
        parts.insert(0, "hand-written rule")
    if box.units is not None:
        parts.append(f"{units_text(box.units)} units of rounding from autodiff")
    if box.is_wrong:
        parts.append("the first wrong link")
    return "; ".join(parts)
