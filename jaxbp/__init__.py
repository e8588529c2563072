"""Write the backward pass yourself; know that it is right; know what it buys."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxbp import nets, ops, train
    from jaxbp._autodiff import autodiff
    from jaxbp.drawing import Graph, graph
    from jaxbp.instrument import (
        Audit,
        Comparison,
        Cost,
        Finding,
        assert_gradients,
        audit,
        compare,
        cost,
    )

# Where each name lives. Imported when it is first asked for: the command line's --help
# and pytest, which imports our plugin in every run, do not wait for JAX.
_HOMES = {
    "autodiff": "jaxbp._autodiff",
    "Audit": "jaxbp.instrument",
    "Comparison": "jaxbp.instrument",
    "Cost": "jaxbp.instrument",
    "Finding": "jaxbp.instrument",
    "Graph": "jaxbp.drawing",
    "assert_gradients": "jaxbp.instrument",
    "audit": "jaxbp.instrument",
    "compare": "jaxbp.instrument",
    "cost": "jaxbp.instrument",
    "graph": "jaxbp.drawing",
}
_MODULES = ("nets", "ops", "train")

__all__ = [
    "Audit",
    "Comparison",
    "Cost",
    "Finding",
    "Graph",
    "assert_gradients",
    "audit",
    "autodiff",
    "compare",
    "cost",
    "graph",
    "nets",
    "ops",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"jaxbp.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxbp' has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
