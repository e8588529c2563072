"""The graph as data, and all that is read off it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jaxbp._errors import argument_error, describe
from jaxbp.drawing._nodes import Edge, Node, Section, every_node, opened_chains
from jaxbp.drawing._replay import Check

if TYPE_CHECKING:
    from jaxbp.drawing._marks import Mark
    from jaxbp.drawing._paths import Paths
    from jaxbp.drawing._symbols import Name

SCHEMA = 1


@dataclass(frozen=True)
class Wrong:
    """The first wrong link counted from the loss, as `audit` found it.

    `nodes` are the nodes at fault, by id: where the rule is a chain with its wires
    named on both sides, those inside it between the first wrong wire and the loss.
    """

    nodes: tuple[str, ...]
    wire: str
    rule: str
    verdict: str
    message: str


def is_called(group: str, names: Sequence[str]) -> bool:
    """Whether one of these names means the group: `layer` each call of it."""
    return group in names or group.rsplit(" #", 1)[0] in names


@dataclass(frozen=True, eq=False)
class Graph(Section):
    """The graph of a function at its arguments, with what was checked about it.

    `inputs` and `outputs` are names of wires. `wrong` is None where no link is.
    `closed` are the groups that pictures draw as one box: see `close`.
    """

    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    check: Check
    wrong: Wrong | None = None
    notes: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it is faithful, and no link is wrong."""
        return self.check.ok and self.wrong is None

    @property
    def groups(self) -> tuple[str, ...]:
        """The user's functions and scopes that nodes stand in, in program order."""
        return tuple(dict.fromkeys(name for n in self.flat() for name in n.where))

    def close(self, *groups: str) -> "Graph":
        """The same graph; its pictures and pages draw each of these groups as one box.

        Args:
            groups: names among `.groups`; `layer` is every call of it, `layer #2` the
                second. None of them opens all again.
        Raises:
            ValueError: there is no such group.
        """
        known = self.groups
        for name in groups:
            if not any(is_called(group, (name,)) for group in known):
                said = ", ".join(known) or "there are none"
                got = repr(name) if isinstance(name, str) else describe(name)
                expected = f"names of groups ({said})"
                raise argument_error("Graph.close", "groups", expected, got)
        return replace(self, closed=groups)

    def terms(self, wire: str, *, opened: bool = False) -> list[tuple[Node, Edge]]:
        """What adds up in a wire's gradient: the nodes that read it, and their edges.

        `opened`: of a rule the nodes inside, in its place.
        """
        nodes = self.flat() if opened else self.nodes
        return [(n, e) for n in nodes for e in n.edges if e.wire == wire]

    def flat(self) -> Iterator[Node]:
        """The nodes, in place of every chain those of its forward pass."""
        yield from opened_chains(self.nodes)

    def node(self, id: str) -> Node:
        """A node by its id, wherever it is; a KeyError where there is none."""
        return {n.id: n for n in every_node(self.nodes)}[id]

    def paths(
        self, src: str | Sequence[str], dst: str, *, limit: int = 1000
    ) -> "Paths":
        r"""Every path from `src` to `dst`, element by element.

        Along each, the product of the local derivatives; their sum is the gradient:
        $\partial y/\partial x = \sum_{p} \prod_{u \to v \in p} \partial v/\partial u$.

        Args:
            src: a wire, `w`, an element of it, `w[1, 0]`, or several of them.
            dst: one element, most often the loss.
            limit: more paths than that are counted, and not listed.
        Returns:
            Paths: `.listed`, `.count`, `.sums`, `.gradients`, the multiplications
            `.by_paths`, `.by_backpropagation`, `.saved`; `str()`, `.to_dict()`.
        Raises:
            ValueError: no such wire or element; `dst` is more than one; an edge has
                more than four million local derivatives; `limit` is no integer from 0.
            TypeError: a name is no str.
        """
        from jaxbp.drawing._paths import paths

        return paths(self, src, dst, limit)

    def worksheet(
        self, *, markdown: bool = False, name: "Name | None" = None, limit: int = 200
    ) -> str:
        r"""The derivation, one link a line, from the end back.

        What is given, every wire forward, then of every link its symbol, its local
        derivative, the number, and upstream × local = downstream:
        $\partial L/\partial u \mathrel{+}= \partial L/\partial v \cdot
        \partial v/\partial u$. Where the hand-written rules differ from autodiff, the
        numbers are autodiff's.

        Args:
            markdown: Markdown in place of text.
            name: what to call a wire and its elements, `name("w2", (1, 0))`, with `()`
                for the whole wire; left out, `w2[1, 0]`.
            limit: with more links between elements than that, arrays stand whole.
        Raises:
            ValueError: `limit` is no integer from 0 on.
            TypeError: `name` is no function.
        """
        from jaxbp.drawing._worksheet import worksheet

        return worksheet(self, markdown, name, limit)

    def svg(self, *, marks: "Sequence[Mark]" = ()) -> str:
        """The picture: from left to right, the value above every wire, the gradient
        below; on every node its difference from autodiff, the first wrong link marked.

        The groups that `close` names are one box each; with more than 150 nodes all
        are, from the innermost out until there are fewer, and the picture says so.

        Args:
            marks: remarks at wires' values, gradients and links, framed.
        Raises:
            ValueError: a mark is on no wire or link that is drawn.
            ModuleNotFoundError: pygraphviz is not installed: pip install
                'jaxbp[report]'.
        """
        from jaxbp.drawing._draw import scene
        from jaxbp.drawing._svg import svg

        return svg(scene(self, marks))

    def png(self, *, scale: float = 2.0) -> bytes:
        """The same picture, `scale` dots to the pixel.

        Raises:
            ValueError: `scale` is not above 0, or not finite; a TypeError, no number.
            ModuleNotFoundError: pygraphviz or matplotlib is not installed: pip install
                'jaxbp[report]'.
        """
        from jaxbp.drawing._draw import scene
        from jaxbp.drawing._png import png

        return png(scene(self), scale)

    def headline(self) -> str:
        """What it is of, whether it is faithful, and what is wrong: a line each."""
        from jaxbp.drawing._text import heading

        return "\n".join(heading(self))

    def text(self) -> str:
        """For a terminal: every wire with its value and its gradient."""
        from jaxbp.drawing._text import text

        return text(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: schema, nodes, wires; non-finite numbers as strings."""
        from jaxbp.drawing._json import to_dict

        return to_dict(self)

    def html(self) -> str:
        """One page, self-contained: the picture with zoom, each node's chain rule from
        the end back when it is chosen, the backward sweep link by link, the worksheet.

        Works with a keyboard and a screen reader, and asks nothing of the network.

        Raises:
            ModuleNotFoundError: pygraphviz or jinja2 is not installed: pip install
                'jaxbp[report]'.
        """
        from jaxbp.drawing._page import page

        return page(self)

    def _repr_svg_(self) -> str | None:
        with contextlib.suppress(ModuleNotFoundError):  # a notebook shows the text then
            return self.svg()

    def _repr_html_(self) -> str | None:
        from jaxbp.drawing._page import frame

        with contextlib.suppress(ModuleNotFoundError):
            return frame(self)

    def __str__(self) -> str:
        return self.text()
