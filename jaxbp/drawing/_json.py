"""The graph as JSON-ready data, non-finite numbers as strings."""

from typing import Any

import numpy as np

from jaxbp.drawing._graph import SCHEMA, Graph
from jaxbp.drawing._nodes import Node, Section, Wire
from jaxbp.drawing._numbers import is_numeric, rms, spread
from jaxbp.instrument._comparison import jsonable

_WHOLE = 64  # elements up to which an array is given whole


def to_dict(graph: Graph) -> dict[str, Any]:
    """Schema, check, wires and nodes; arrays whole where small, else summed up."""
    wrong = graph.wrong
    return jsonable(
        {
            "schema": SCHEMA,
            "function": graph.function,
            "ok": graph.ok,
            "check": vars(graph.check),
            "wrong": wrong and vars(wrong),
            "notes": graph.notes,
            "inputs": graph.inputs,
            "outputs": graph.outputs,
            **_section(graph),
        }
    )


def _section(section: Section) -> dict[str, Any]:
    return {
        "wires": [_wire(wire) for wire in section.wires.values()],
        "nodes": [_node(node) for node in section.nodes],
    }


def _wire(wire: Wire) -> dict[str, Any]:
    return {
        "name": wire.name,
        "kind": wire.kind,
        "value": array(wire.value),
        "gradient": array(wire.gradient),
        "autodiff": array(wire.autodiff),
        "units": wire.units,
    }


def _node(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "label": node.label,
        "kind": node.kind,
        "expression": node.expression,
        "outputs": node.outputs,
        "where": node.where,
        "site": node.site,
        "note": node.note,
        "units": node.units,
        "edges": [
            {
                "wire": edge.wire,
                "place": edge.place,
                "local": edge.local,
                "formula": edge.formula,
                "vjp": edge.vjp,
                "gradient": array(edge.gradient),
                "autodiff": array(edge.autodiff),
                "units": edge.units,
            }
            for edge in node.edges
        ],
        "forward": [_node(inner) for inner in node.forward],
        "is_chain": node.is_chain,
        "backward": node.backward and _section(node.backward),
    }


def array(value: Any) -> dict[str, Any] | None:
    """Shape and dtype, the elements of a small one, and what sums up a large one."""
    if value is None:
        return None
    found: dict[str, Any] = {"dtype": str(value.dtype), "shape": list(np.shape(value))}
    if not isinstance(value, np.ndarray) or not is_numeric(value) or not value.size:
        return found
    if value.size <= _WHOLE:
        plain = value.astype(np.float64) if value.dtype.kind == "V" else value
        return found | {"elements": plain.tolist()}
    low, high = spread(value)
    return found | {"rms": rms(value), "least": low, "largest": high}
