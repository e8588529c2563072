"""The instrument: is a hand-written gradient right, where not, and who says so."""

from jaxbp.instrument._compare import assert_gradients, compare
from jaxbp.instrument._comparison import Comparison, Finding
from jaxbp.instrument._numeric import numeric_gradient

__all__ = ["Comparison", "Finding", "assert_gradients", "compare", "numeric_gradient"]
