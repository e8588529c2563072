"""A gradient as the sum over all paths, and what it saves not to walk them."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxbp._arguments import whole
from jaxbp._errors import argument_error
from jaxbp.drawing._elements import Element, Link, element_of, elements, links_of
from jaxbp.drawing._graph import Graph
from jaxbp.drawing._nodes import Wire
from jaxbp.drawing._numbers import MISSING, number, operand
from jaxbp.instrument._comparison import jsonable


@dataclass(frozen=True)
class Path:
    """One way from a source to the end, and the local derivative of every link."""

    elements: tuple[Element, ...]
    factors: tuple[float, ...]

    @property
    def product(self) -> float:
        return math.prod(self.factors)

    def __str__(self) -> str:
        return " → ".join(map(str, self.elements))


@dataclass(frozen=True)
class Paths:
    """Every path from `src` to `dst`.

    `listed` are the paths, none where there are more than were to be listed. `sums` are
    the sums of their products, `gradients` what the graph has at the same elements:
    None where it has the derivative of another end than `dst`. `by_paths` and
    `by_backpropagation` are the multiplications of all sums, path by path, and from
    `dst` back with every link met once.
    """

    src: tuple[str, ...]
    dst: str
    count: int
    listed: tuple[Path, ...]
    sums: dict[Element, float]
    gradients: dict[Element, float | None]
    by_paths: int
    by_backpropagation: int

    @property
    def saved(self) -> int:
        """How many multiplications backpropagation saves."""
        return self.by_paths - self.by_backpropagation

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        keys = ("src", "dst", "count", "by_paths", "by_backpropagation", "saved")
        listed = [
            {"path": [str(e) for e in p.elements], "factors": p.factors}
            | {"product": p.product}
            for p in self.listed
        ]
        sums = {str(e): total for e, total in self.sums.items()}
        gradients = {str(e): found for e, found in self.gradients.items()}
        found: dict[str, Any] = {key: getattr(self, key) for key in keys}
        return jsonable(found | {"paths": listed, "sum": sums, "gradient": gradients})

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def paths(graph: Graph, src: str | Sequence[str], dst: str, limit: int) -> Paths:
    """See `Graph.paths`."""
    whole("Graph.paths", "limit", limit, 0)
    is_one = isinstance(src, str) or not isinstance(src, Iterable)
    names: tuple[Any, ...] = (src,) if is_one else tuple(src)
    sources = [e for name in names for e in element_of(graph, "src", name)]
    ends = element_of(graph, "dst", dst)
    if len(ends) != 1:
        expected = f"one element of {dst}, {ends[0]} or another" if ends else "no empty"
        raise argument_error("Graph.paths", "dst", expected, f"all {len(ends)} of them")
    links = _between(graph, {e.wire for e in sources}, ends[0].wire)
    ways, lengths = _ways(graph, links, sources, ends[0])
    adjoint, reached = _adjoints(graph, links, ends[0])
    at = _flat_index(graph, ends[0])
    count, walked = ways[ends[0].wire][at], lengths[ends[0].wire][at]
    listed = ()
    if count <= limit:
        listed = tuple(_walk(graph, links, sources, ends[0], reached))
    sums = {e: _sum(graph, e, listed, adjoint) for e in sources}
    gradients = {e: _gradient(graph, links, e, ends[0]) for e in sources}
    shared = _shared(links, ways, reached, ends[0].wire)
    # Of a path one fewer than it has links; of the end itself, which has none, none.
    walked -= count - (ends[0] in sources)
    return Paths(names, str(ends[0]), count, listed, sums, gradients, walked, shared)


def _between(graph: Graph, sources: set[str], end: str) -> list[Link]:
    """The links that lie on a way from a source to the end, in program order."""
    nodes, after, before = list(graph.flat()), {end}, set(sources)
    for node in reversed(nodes):
        if after.intersection(node.outputs):
            after.update(edge.wire for edge in node.edges)
    found: list[Link] = []
    for node in nodes:
        if not after.intersection(node.outputs):
            continue
        edges = [edge for edge in node.edges if edge.wire in before]
        links = [link for edge in edges for link in links_of(graph, node, edge)]
        links = [k for k in links if k.output in after and k.depends.any()]
        before.update(link.output for link in links)
        found += links
    return found


def _ways(graph: Graph, links: list[Link], sources: list[Element], end: Element):
    """To every element the number of ways from the sources, and their links in all.

    In Python's integers: they outgrow others.
    """
    ways = {wire: _zeros(graph, wire) for wire in _wires(links, [*sources, end])}
    lengths = {wire: _zeros(graph, wire) for wire in ways}
    for source in sources:
        ways[source.wire][_flat_index(graph, source)] = 1
    for link in links:
        rows, columns = np.nonzero(link.depends)
        here = ways[link.edge.wire]
        np.add.at(ways[link.output], rows, here[columns])
        far = here + lengths[link.edge.wire]
        np.add.at(lengths[link.output], rows, far[columns])
    return ways, lengths


def _adjoints(graph: Graph, links: list[Link], end: Element):
    """From the end back: the derivative at every element, and whether it is reached."""
    wires = _wires(links, [end])
    adjoint = {wire: np.zeros(graph.wires[wire].value.size) for wire in wires}
    reached = {wire: np.zeros(len(bar), bool) for wire, bar in adjoint.items()}
    at = _flat_index(graph, end)
    adjoint[end.wire][at], reached[end.wire][at] = 1.0, True
    for link in reversed(links):
        adjoint[link.edge.wire] += adjoint[link.output] @ link.local
        reached[link.edge.wire] |= reached[link.output] @ link.depends
    return adjoint, reached


def _shared(links: list[Link], ways, reached, end: str) -> int:
    """Every link once, but for those into the end, whose own derivative is 1."""
    met = (
        link.depends & np.outer(reached[link.output], ways[link.edge.wire] > 0)
        for link in links
        if link.output != end
    )
    return sum(int(where.sum()) for where in met)


def _walk(graph, links, sources, end, reached) -> Iterator[Path]:
    onward: dict[Element, list[tuple[Element, float]]] = {}
    for link in links:
        outs, ins = elements(graph, link.output), elements(graph, link.edge.wire)
        for row, column in np.argwhere(link.depends & reached[link.output][:, None]):
            step = outs[row], float(link.local[row, column])
            onward.setdefault(ins[column], []).append(step)

    def ways(here: Element) -> Iterator[tuple[tuple[Element, ...], tuple[float, ...]]]:
        if here == end:
            yield (here,), ()
            return
        for there, local in onward.get(here, ()):
            for passed, factors in ways(there):
                yield (here, *passed), (local, *factors)

    for source in sources:
        for passed, factors in ways(source):
            yield Path(passed, factors)


def _sum(graph: Graph, source: Element, listed: Sequence[Path], adjoint) -> float:
    if listed:
        return math.fsum(p.product for p in listed if p.elements[0] == source)
    bars = adjoint.get(source.wire)
    return 0.0 if bars is None else float(bars[_flat_index(graph, source)])


def _gradient(graph: Graph, links, source: Element, end: Element) -> float | None:
    """What the graph has, if it is the derivative of this end: else it is another's."""
    bar = _bar(graph.wires[end.wire])
    if bar is None or bar[end.at] != 1 or np.count_nonzero(bar) != 1:
        return None
    beyond = {source.wire}
    for node in graph.flat():
        if any(edge.wire in beyond for edge in node.edges):
            beyond.update(set(node.outputs) - {end.wire})
    past = beyond.intersection(graph.outputs) - {source.wire}
    found = _bar(graph.wires[source.wire])
    return None if past or found is None else float(found[source.at])


def _bar(wire: Wire) -> np.ndarray | None:
    found = wire.gradient if wire.gradient is not None else wire.autodiff
    return None if found is None else np.asarray(found)


def _wires(links: list[Link], ends: list[Element]) -> set[str]:
    met = {wire for link in links for wire in (link.edge.wire, link.output)}
    return met | {end.wire for end in ends}


def _zeros(graph: Graph, wire: str) -> np.ndarray:
    return np.zeros(graph.wires[wire].value.size, object)


def _flat_index(graph: Graph, element: Element) -> int:
    shape = np.shape(graph.wires[element.wire].value)
    return int(np.ravel_multi_index(element.at, shape)) if shape else 0


def _lines(found: Paths) -> Iterator[str]:
    ways = f"{found.count:,} path{'' if found.count == 1 else 's'}"
    yield f"from {', '.join(found.src)} to {found.dst}: {ways}"
    for source, group in itertools.groupby(found.listed, lambda p: p.elements[0]):
        group = list(group)
        for path in group:
            factors = " · ".join(map(operand, path.factors)) or "1"
            yield f"  {path}: {factors} = {number(path.product)}"
        yield f"  sum {_total(found, source)}"
    if not found.listed and len(found.sums) == 1:
        yield f"  sum {_total(found, next(iter(found.sums)))}"
    by_paths, shared = f"{found.by_paths:,}", f"{found.by_backpropagation:,}"
    yield (
        f"multiplications: {by_paths} path by path, {shared} by backpropagation, "
        f"which saves {found.saved:,}".replace("-", "−")
    )


def _total(found: Paths, source: Element) -> str:
    known = found.gradients[source]
    gradient = MISSING if known is None else number(known)
    return f"{number(found.sums[source])}, gradient at {source} {gradient}"
