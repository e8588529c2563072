"""Every op of the library, once: tests, benchmarks and tables read this list."""

from jaxbp.ops import (
    _activations,
    _cross_entropy,
    _gates,
    _linear,
    _rectifiers,
    _softmax,
    _squared_error,
)
from jaxbp.ops._case import Case

CASES: tuple[Case, ...] = (
    *_gates.CASES,
    *_activations.CASES,
    *_rectifiers.CASES,
    *_softmax.CASES,
    *_linear.CASES,
    *_squared_error.CASES,
    *_cross_entropy.CASES,
)
