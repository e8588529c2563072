"""The instrument: is a hand-written gradient right, where not, and what does it buy."""

from jaxbp.instrument._audit import Audit, audit
from jaxbp.instrument._compare import assert_gradients, compare
from jaxbp.instrument._comparison import Comparison, Finding
from jaxbp.instrument._cost import Cost, cost
from jaxbp.instrument._numeric import numeric_gradient

__all__ = [
    "Audit",
    "Comparison",
    "Cost",
    "Finding",
    "assert_gradients",
    "audit",
    "compare",
    "cost",
    "numeric_gradient",
]
