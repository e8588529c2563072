"""A wire's plate: its name, the value above the wire, the gradient below."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxbp.drawing._layout import Place
from jaxbp.drawing._marks import shapes as marked
from jaxbp.drawing._marks import size
from jaxbp.drawing._nodes import Wire
from jaxbp.drawing._numbers import MISSING, is_numeric, number, rms, spread, widened
from jaxbp.drawing._picture import short
from jaxbp.drawing._shapes import (
    GRADIENT,
    GROUND,
    MUTED,
    PAPER,
    RULE,
    VALUE,
    WRONG,
    Curve,
    Part,
    Rect,
    Text,
    width_of,
)
from jaxbp.drawing._units import BEYOND_ROUNDING

LINE, SMALL = 15.0, 10.0  # height of a line of text, size of a small one
_HEAD = 19.0  # above the value: the name
_PAD, _MAP = 7.0, 44.0  # margin; side of a heat map or histogram
_CELLS, _BARS = 10, 11  # rows and columns of the largest heat map; bars
_MOST = 24  # letters of a name
NEGATIVE, POSITIVE = (84, 39, 136), (179, 88, 6)


class Half(NamedTuple):
    """Value or gradient: lines of text, and the array, if it is shown as one."""

    lines: tuple[str, ...]
    array: np.ndarray | None

    @property
    def width(self) -> float:
        text = max(width_of(line, SMALL) for line in self.lines)
        return text + 14 + (_MAP + 8 if self.array is not None else 0)

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + 3


def half(value: Any) -> Half:
    """A scalar as its number, an array by root mean square, range and a drawing."""
    if value is None or not isinstance(value, np.ndarray):
        return Half((MISSING if value is None else str(value.dtype),), None)
    if value.size == 1 and is_numeric(value):
        return Half((number(value.item(), 6),), None)
    if not value.size or not is_numeric(value):
        return Half(("empty" if not value.size else str(value.dtype),), None)
    if value.size <= 3 and value.ndim == 1:
        listed = ", ".join(number(x, 3) for x in value.tolist())
        return Half((f"[{listed}]",), None)
    low, high = (number(x, 3) for x in spread(value))
    return Half((f"rms {number(rms(value), 3)}", f"{low} … {high}"), value)


def below(wire: Wire) -> Half:
    """The gradient; and autodiff's, where rounding does not explain the difference."""
    found = half(wire.gradient)
    alone = wire.gradient is None and wire.autodiff is not None  # a chain named no more
    if not alone and (wire.units is None or wire.units <= BEYOND_ROUNDING):
        return found
    auto = half(wire.autodiff).lines[0]
    return Half((*found.lines, f"autodiff {auto}"), found.array)


def name_of(wire: Wire) -> str:
    return short(wire.name, _MOST)


def shape_of(wire: Wire) -> str:
    return "×".join(map(str, np.shape(wire.value)))


def size_of(
    wire: Wire, of_value: Sequence[str] = (), of_gradient: Sequence[str] = ()
) -> tuple[float, float, float]:
    """A plate's width, and its height above and below the wire, with what is marked."""
    upper, lower = half(wire.value), below(wire)
    head = width_of(name_of(wire)) + 8 + width_of(shape_of(wire), SMALL)
    (wide, above), (broad, under) = size(of_value), size(of_gradient)
    width = max(head, upper.width, lower.width, wide, broad) + 2 * _PAD
    return math.ceil(width), _HEAD + upper.height + above, lower.height + under + 4


def plate(
    wire: Wire,
    key: str,
    at: Place,
    of_value: Sequence[str] = (),
    of_gradient: Sequence[str] = (),
) -> Part:
    """The plate at a place: name and value above the wire, the gradient below it."""
    x, y, width, height = at.x, at.y, at.width, at.height
    upper, lower = half(wire.value), below(wire)
    end = y + _HEAD + upper.height  # of the value
    middle = end + size(of_value)[1]
    edge, thick = (WRONG, 3.0) if of_value or of_gradient else (RULE, 1.0)
    head = [
        Rect(x, y, width, height, PAPER, edge, thick, 4, "plate"),
        Text(x + _PAD, y + LINE - 2, name_of(wire), bold=True),
    ]
    if shape := shape_of(wire):
        right = x + width - _PAD - width_of(shape, SMALL)
        head.append(Text(right, y + LINE - 2, shape, SMALL, MUTED))
    ends = ((x, middle), (x, middle), (x + width, middle), (x + width, middle))
    head.append(Curve(ends, RULE, 1.6))
    inner = x + _PAD, width - 2 * _PAD
    parts = [
        Part("value", shapes=list(_half("▶", VALUE, upper, *inner, y + _HEAD - 1))),
        Part("gradient", shapes=list(_half("◀", GRADIENT, lower, *inner, middle + 2))),
    ]
    marks = marked(of_value, x + _PAD, end - 1)
    marks = [*marks, *marked(of_gradient, x + _PAD, middle + lower.height + 1)]
    words = "; ".join([_words(wire), *of_value, *of_gradient])
    return Part("wire", key, words, [*head, *parts, *marks])


def _words(wire: Wire) -> str:
    shape = f" of shape {shape_of(wire)}" if shape_of(wire) else ""
    value, gradient = half(wire.value).lines, below(wire).lines
    said = ", ".join(gradient) if wire.gradient is not None else "not computed"
    return f"{short(wire.name, 80)}{shape}: value {', '.join(value)}; gradient {said}"


def _half(sign: str, colour: str, half: Half, x: float, width: float, y: float):
    yield Text(x, y + LINE - 4, sign, SMALL, colour)
    for k, line in enumerate(half.lines):
        yield Text(x + 14, y + LINE * (k + 1) - 4, line, SMALL, colour)
    if half.array is not None:
        left = x + width - _MAP
        yield from _drawing(half.array, left, y + 1, _MAP, half.height - 4)


def _drawing(array: np.ndarray, x, y, width, height) -> Iterator[Rect]:
    """A few rows of a few elements as a heat map, anything else as a histogram."""
    values = widened(array)
    if array.ndim <= 2 and max(array.shape) <= _CELLS:
        yield from _heat_map(np.atleast_2d(values), x, y, width, height)
    else:
        yield from _histogram(values[np.isfinite(values)], x, y, width, height)


def _heat_map(values: np.ndarray, x, y, width, height) -> Iterator[Rect]:
    rows, columns = values.shape
    across, down = width / columns, min(height / rows, width / columns)
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max(initial=0)) or 1.0
    across = min(across, 2 * down)
    left, top = x + width - across * columns, y + (height - down * rows) / 2
    for (i, j), value in np.ndenumerate(values):
        place = left + j * across, top + i * down, across, down
        yield Rect(*place, _shade(float(value) / largest))
    yield Rect(left, top, across * columns, down * rows, "none", RULE, 0.6)


def _shade(value: float) -> str:
    """White at 0, purple below and brown above; grey for what is not finite."""
    if not math.isfinite(value):
        return RULE
    end = POSITIVE if value > 0 else NEGATIVE
    mixed = (round(255 + (c - 255) * min(abs(value), 1)) for c in end)
    return "#" + "".join(f"{c:02x}" for c in mixed)


def _histogram(values: np.ndarray, x, y, width, height) -> Iterator[Rect]:
    yield Rect(x, y, width, height, GROUND, RULE, 0.6)
    if not values.size:
        return
    counts = np.bincount(_bars(values), minlength=_BARS)
    for k, count in enumerate(counts):
        tall = (height - 2) * float(count) / float(counts.max())
        step = width / _BARS
        yield Rect(x + k * step + 0.5, y + height - tall, step - 1, tall, MUTED)


def _bars(values: np.ndarray) -> np.ndarray:
    """The bar that each is in; all in the middle one where they are the same.

    NumPy has no histogram of a range that overflows, or is narrower than its bars.
    """
    parts = values / (np.abs(values).max() or 1.0)
    low, high = parts.min(), parts.max()
    if low == high:
        return np.full(parts.shape, _BARS // 2)
    return np.minimum((parts - low) / (high - low) * _BARS, _BARS - 1).astype(int)
