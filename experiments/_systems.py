"""The systems as graphs: what is drawn, and where on it a claim of a page stands."""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from experiments._rows import Row
from experiments._told import number, published
from jaxbp import Graph, graph
from jaxbp.drawing import Mark

_SHOWN = 2  # remarks at one place of a picture
_DIGITS = 5


class System(NamedTuple):
    """A function to be drawn at its arguments.

    `name` is what the page calls an element of a wire, as `Graph.worksheet` takes it.
    `called` says what the page's other symbols are, `{"delta": "−∂y/∂a1"}`, and
    `faults` in which links an erratum is made, where its claims are of what it spoils:
    `{"E1": ("∂yhat/∂a1",)}`.
    """

    title: str
    function: Callable
    arguments: tuple
    name: Callable[[str, tuple[int, ...]], str] | None = None
    called: Mapping[str, str] = {}
    faults: Mapping[str, tuple[str, ...]] = {}


class Drawn(NamedTuple):
    """A system's graph, and for each wrong row what the graph shows of it, if anything:
    the place in words, by quantity."""

    title: str
    graph: Graph
    svg: str
    worksheet: str
    shown: dict[str, str]

    @property
    def size(self) -> tuple[float, float]:
        """The picture's width and height in pixels."""
        found = re.search(r'viewBox="0 0 (\d+) (\d+)"', self.svg)
        assert found is not None, "a picture says its size"
        return float(found[1]), float(found[2])


def draw(system: System, rows: Iterable[Row]) -> Drawn:
    """The graph of a system, in float64, marked where a wrong row is about it."""
    with jax.enable_x64(True):
        drawn = graph(system.function, *system.arguments)
    marks = {row.quantity: (row, _place(system, drawn, row.about)) for row in rows}
    found = [(row, mark) for row, mark in marks.values() if mark is not None]
    faults = _faults(system, drawn, {row.erratum for row, _ in found})
    svg = drawn.svg(marks=[*faults, *_gathered(found)])
    sheet = drawn.worksheet(name=system.name)
    shown = {row.quantity: _in_words(system, row, mark) for row, mark in found}
    return Drawn(system.title, drawn, svg, sheet, shown)


def _faults(system: System, drawn: Graph, errata: Collection[str]) -> list[Mark]:
    """The links in which these errata are made."""
    return [
        mark._replace(lines=(f"✗ {erratum} is made here",))
        for erratum, links in system.faults.items()
        for link in links
        if erratum in errata and (mark := _place(system, drawn, link))
    ]


def _gathered(found: Iterable[tuple[Row, Mark]]) -> Iterable[Mark]:
    """One mark a place, the first remarks of each."""
    key = lambda pair: pair[1][1:]
    for (wire, place, source), pairs in itertools.groupby(sorted(found, key=key), key):
        rows = [row for row, _ in pairs]
        lines = [line for row in rows[:_SHOWN] for line in _remark(row)]
        more = len(rows) - _SHOWN
        lines += [f"… and {more} more"] if more > 0 else []
        yield Mark(tuple(lines), wire, place, source)


def _remark(row: Row) -> tuple[str, str]:
    name = f"✗ {row.erratum} {row.quantity}".replace("  ", " ")
    values = published(row, _DIGITS).removeprefix("="), number(row.manual, _DIGITS)
    says = f"published {values[0]}, right {values[1]}"
    return name, says.replace("-", "−")


def _place(system: System, drawn: Graph, about: str) -> Mark | None:
    """Where a quantity stands: a wire's value, a link's derivative, a gradient.

    None of what is no part of the graph: a step of descent, a product of links.
    """
    said, wires = _said(system, about), _wires(system, drawn)
    pair = re.fullmatch(r"−?∂(.+)/∂(.+)", said)
    if pair is None:
        return Mark((), wires[said]) if said in wires else None
    output, source = (wires.get(symbol, "") for symbol in pair.groups())
    if not output or not source:
        return None
    for node in drawn.flat():
        if output in node.outputs and any(e.wire == source for e in node.edges):
            return Mark((), output, "link", source)
    whole = drawn.wires[output].gradient
    is_end = whole is not None and bool(np.all(np.asarray(whole) == 1))
    return Mark((), source, "gradient") if is_end else None


def _said(system: System, about: str) -> str:
    """In symbols of the graph; "delta[0]" and "σ′ at 2" by their names alone."""
    base = re.split(r"\[| at ", about)[0]
    return system.called.get(base, about)


def _wires(system: System, drawn: Graph) -> dict[str, str]:
    """Every wire by its own name, and by the page's of each of its elements."""
    found = {name: name for name in drawn.wires}
    if system.name is not None:
        for wire in drawn.wires:
            for index in np.ndindex(np.shape(drawn.wires[wire].value)):
                found.setdefault(system.name(wire, index), wire)
    return found


def _in_words(system: System, row: Row, mark: Mark) -> str:
    said = _said(system, row.about)
    alias = f" ({said})" if said != row.about else ""
    if mark.place == "link":
        return f"the link {mark.source} → {mark.wire}{alias}"
    return f"the {mark.place} of {mark.wire}{alias}"
