"""The shapes that a picture is made of, whatever then writes them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

_ADVANCE = 0.602  # of a letter of a monospaced font, in its size

# Safe for the colour-blind, and 4.5 to 1 or more against the grounds they stand on.
INK, MUTED, RULE = "#1b1f24", "#57606a", "#8c959f"
VALUE, GRADIENT, WRONG = "#0b4f8a", "#9a3412", "#86114f"
PAPER, GROUND, GROUP, RULE_GROUND, WRONG_GROUND = (
    "#ffffff",
    "#f6f8fa",
    "#fbfaf5",
    "#e9f1fb",
    "#fdeaf3",
)


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    fill: str = "none"
    stroke: str = "none"
    thick: float = 1.0
    radius: float = 0.0
    kind: str = ""  # "box", "plate", "group": what its labels have to stay inside
    dashed: bool = False


@dataclass(frozen=True)
class Text:
    """A line of text, by the left end of its baseline."""

    x: float
    y: float
    text: str
    size: float = 12.0
    fill: str = INK
    bold: bool = False


@dataclass(frozen=True)
class Curve:
    """Bézier pieces: a point, and three for every piece. With an arrow at the end."""

    points: tuple[tuple[float, float], ...]
    stroke: str = RULE
    thick: float = 1.4
    arrow: bool = False

    def head(self) -> tuple[tuple[float, float], ...]:
        """The arrow's three corners, its point at the end."""
        x, y = self.points[-1]
        back = next(p for p in reversed(self.points) if p != (x, y))
        long = math.dist(back, (x, y))
        u, v = (x - back[0]) / long, (y - back[1]) / long
        wing = 3.0
        return (
            (x, y),
            (x - 7 * u - wing * v, y - 7 * v + wing * u),
            (x - 7 * u + wing * v, y - 7 * v - wing * u),
        )


@dataclass(frozen=True)
class Part:
    """Shapes that belong together: of which node or wire, by a name and in words."""

    kind: str  # "node", "wire", "line", "group", "head", "value", "gradient"
    key: str = ""
    words: str = ""
    shapes: list[Rect | Text | Curve | Part] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    width: float
    height: float
    title: str
    words: str
    shapes: list[Rect | Text | Curve | Part]

    def flat(self) -> Iterator[Rect | Text | Curve]:
        """Every shape, in the order of drawing."""
        yield from _flat(self.shapes)


def width_of(text: str, size: float = 12.0) -> float:
    """No less than what a monospaced font takes; letters of East Asia are two."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return (len(text) + wide) * _ADVANCE * size


def _flat(shapes: list[Rect | Text | Curve | Part]) -> Iterator[Rect | Text | Curve]:
    for shape in shapes:
        if isinstance(shape, Part):
            yield from _flat(shape.shapes)
        else:
            yield shape
