"""Write the backward pass yourself; know that it is right; know what it buys."""

from jaxbp import nets, ops
from jaxbp._autodiff import autodiff
from jaxbp.instrument import Comparison, Finding, assert_gradients, compare

__all__ = [
    "Comparison",
    "Finding",
    "assert_gradients",
    "autodiff",
    "compare",
    "nets",
    "ops",
]
