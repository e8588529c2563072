"""What a graph is made of: wires with value and gradient, and nodes between them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxbp._steps import Step


@dataclass(frozen=True, eq=False)
class Wire:
    """A value of the program, by a name of its own.

    `gradient` is what `jax.grad` gives there, through the hand-written rules; inside an
    opened rule it is what the rule's own bwd names on the wire. `autodiff` is what
    autodiff alone gives, where the function has hand-written rules. Either is None
    where it was not computed. `units` is their difference in units of rounding.
    """

    name: str
    kind: Literal["argument", "data", "constant", "wire"]
    value: Any
    gradient: Any = None
    autodiff: Any = None
    units: float | None = None


@dataclass(frozen=True, eq=False)
class Edge:
    """One input of a node: the wire, and what the node adds to the wire's gradient.

    `place` is the input's number, constants counted too. `local` is the derivative of
    the node's output in it, where both are scalars; `formula` that derivative as a
    formula, "" where it is none; `vjp` what is added to the wire's gradient, as a
    formula; `gradient` and `autodiff` are that as arrays.
    """

    wire: str
    place: int
    local: float | None
    formula: str
    vjp: str
    gradient: Any = None
    autodiff: Any = None
    units: float | None = None


@dataclass(frozen=True, eq=False)
class Node:
    """One equation, or one hand-written rule.

    `expression` is its value as a formula; `outputs` are the wires that it makes;
    `where` are the groups around it, outermost first: jitted functions, named scopes,
    branches, and of a scan the iteration. A rule opens into the nodes of its `forward`
    pass, which hang on the graph's own wires, and into its `backward` pass, a graph of
    cotangents; `is_chain`: it names wires on both sides, and is shown opened. `note`
    says why no gradient goes through.
    """

    id: str
    label: str
    kind: Literal["equation", "rule"]
    expression: str
    edges: tuple[Edge, ...]
    outputs: tuple[str, ...]
    where: tuple[str, ...] = ()
    site: str = ""
    note: str = ""
    forward: tuple["Node", ...] = ()
    backward: "Section | None" = None
    is_chain: bool = False
    step: Step | None = field(default=None, repr=False)

    @property
    def units(self) -> float | None:
        """The largest difference of what it adds from autodiff's, in rounding units."""
        found = [e.units for e in self.edges if e.units is not None]
        return max(found, default=None)


@dataclass(frozen=True, eq=False)
class Section:
    """Nodes in program order, and the wires between them."""

    nodes: tuple[Node, ...]
    wires: Mapping[str, Wire]


def opened_chains(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """The nodes, in place of every chain those of its forward pass."""
    for node in nodes:
        if node.is_chain:
            yield from opened_chains(node.forward)
        else:
            yield node


def every_node(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """Every node, those inside rules after the rule."""
    for node in nodes:
        yield node
        yield from every_node(node.forward)
        if node.backward:
            yield from every_node(node.backward.nodes)
