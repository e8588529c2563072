"""Every op of the library, once: tests, benchmarks and tables read this list."""

from jaxbp.ops import _activations, _gates, _linear, _losses
from jaxbp.ops._case import Case

CASES: tuple[Case, ...] = (
    *_gates.CASES,
    *_activations.CASES,
    *_linear.CASES,
    *_losses.CASES,
)
