"""The first wrong link counted from the loss: found by `audit`, placed on the graph."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxbp import _jaxpr
from jaxbp._steps import Step
from jaxbp.drawing._graph import Wrong
from jaxbp.drawing._nodes import Node, every_node
from jaxbp.drawing._section import Run
from jaxbp.drawing._units import BEYOND_ROUNDING
from jaxbp.instrument._audit import audit
from jaxbp.instrument._findings import LinkFinding
from jaxbp.instrument._pair import beyond


def first_wrong(
    f: Any, args: Any, kwargs: Any, nodes: Sequence[Node], run: Run, twin: Run
) -> Wrong | None:
    """Ask `audit` where the gradients differ beyond the cheap bound; else all is right.

    A difference may be rounding alone: that is for `audit` to say.
    """
    if not any(map(_differs, run[2], twin[2])):
        return None
    first = audit(f, *args, kwargs=kwargs).first
    if first is None or first.verdict == "unproven":
        return None
    found = [node for node in every_node(tuple(nodes)) if _is_asked(node, first)]
    # Of several calls the last in the program is the first from the loss.
    wrong = [n for n in found if (n.units or 0) > BEYOND_ROUNDING] or found
    at, wire = _inside(wrong[-1], first) if wrong else ([], "")
    message = "; ".join(part for part in (first.kind, first.message) if part)
    ids = tuple(node.id for node in at)
    return Wrong(ids, wire, first.rule, first.verdict, message)


def _differs(step: Step, other: Step) -> bool:
    if step.rule is None:
        return False
    if step.note != other.note:
        return True
    pairs = [(a.value, b.value) for a, b in zip(step.outs, other.outs, strict=True)]
    pairs += list(zip(step.bars, other.bars, strict=False))
    if any((a is None) != (b is None) for a, b in pairs):
        return True
    return any(_beyond(a, b) for a, b in pairs if a is not None)


def _beyond(manual: Any, auto: Any) -> bool:
    manual, auto = np.asarray(manual), np.asarray(auto)
    if auto.dtype.kind in "biu":
        return not np.array_equal(manual, auto)
    return bool(beyond([manual], [auto])[0].any())


def _is_asked(node: Node, first: LinkFinding) -> bool:
    rule = node.step.rule if node.step else None
    return rule is not None and (rule.name, rule.source, node.site) == (
        first.rule,
        first.source,
        first.site,
    )


def _inside(node: Node, first: LinkFinding) -> tuple[list[Node], str]:
    """The nodes at fault, and the wire whose gradient is the first wrong one."""
    if not node.is_chain:
        return [node], ""
    base = re.sub(r"\[\d+\]$", "", first.wire)
    called = {re.sub(r"_\d+$", "", n): n for n in _wires_of(node)} | {
        n: n for n in _wires_of(node)
    }
    wire = called.get(base, "")
    if wire in node.outputs or not wire:
        wire = _argument(node, first.argument)
    at = [n for n in node.forward if any(e.wire == wire for e in n.edges)]
    return (at, wire) if at else ([node], "")


def _wires_of(node: Node) -> Iterator[str]:
    for inner in node.forward:
        yield from inner.outputs


def _argument(node: Node, argument: str) -> str:
    """The wire that a rule's argument stands on, "" where none is known."""
    assert node.step is not None, "it was recorded"
    names = _jaxpr.argument_names(node.step.eqn)
    return next((e.wire for e in node.edges if names[e.place] == argument), "")
