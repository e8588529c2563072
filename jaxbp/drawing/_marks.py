"""What a caller writes on a picture: beside a link, a wire's value or its gradient."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from jaxbp._errors import argument_error, describe
from jaxbp.drawing._picture import Picture, short
from jaxbp.drawing._shapes import WRONG, Rect, Text, width_of

_LINE, _SIZE, _LETTERS = 15.0, 10.0, 60


Place = Literal["value", "gradient", "link"]


class Mark(NamedTuple):
    """Lines at a place on the graph, which is framed.

    `place` is a wire's "value", its "gradient", or the "link" from the wire `source`
    into the node that makes `wire`.
    """

    lines: tuple[str, ...]
    wire: str
    place: Place = "value"
    source: str = ""


@dataclass(frozen=True)
class Written:
    """The lines of all marks, by box and by wire."""

    boxes: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    gradients: dict[str, list[str]] = field(default_factory=dict)


def written(drawn: Picture, marks: Sequence[Mark]) -> Written:
    """Where on the picture the marks stand.

    Raises:
        ValueError: a mark is on no wire and no link of it, or at no such place.
        TypeError: one is no `Mark`.
    """
    found = Written()
    for mark in marks:
        _check(mark)
        if mark.place == "link":
            key, into = _box(drawn, mark), found.boxes
        else:
            key = mark.wire if mark.wire in drawn.wires else None
            into = found.values if mark.place == "value" else found.gradients
        if key is None:
            got = f"{mark.source} → {mark.wire}" if mark.source else mark.wire
            expected = "on wires and links that are drawn"
            raise argument_error("Graph.svg", "marks", expected, f"one on {got}")
        into.setdefault(key, []).extend(short(line, _LETTERS) for line in mark.lines)
    return found


def _check(mark: object) -> None:
    if not isinstance(mark, Mark):
        expected, kind = "jaxbp.drawing.Mark's, in a list", TypeError
        raise argument_error("Graph.svg", "marks", expected, describe(mark), kind=kind)
    if mark.place not in get_args(Place):
        expected = f"at one of {', '.join(get_args(Place))}"
        raise argument_error("Graph.svg", "marks", expected, f"one at {mark.place}")


def size(lines: Sequence[str]) -> tuple[float, float]:
    """The width and height that lines take."""
    widest = max((width_of(line, _SIZE) for line in lines), default=0.0)
    return widest, len(lines) * _LINE + (4 if lines else 0)


def shapes(lines: Sequence[str], x: float, y: float) -> Iterator[Rect | Text]:
    """The lines, one below the other, from `y` down."""
    for k, line in enumerate(lines, 1):
        yield Text(x, y + k * _LINE - 3, line, _SIZE, WRONG, bold=True)


def _box(drawn: Picture, mark: Mark) -> str | None:
    """The box of the link: that which makes the wire and reads its source."""
    for box in drawn.boxes:
        read = {wire for row in box.rows for wire in row.wires}
        if mark.wire in box.outputs and mark.source in read:
            return box.id
    return None
