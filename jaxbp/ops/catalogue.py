"""Every op of the library, once: tests, benchmarks and tables read this list."""

from jaxbp.ops import (
    _activations,
    _batch_norm,
    _cross_entropy,
    _dropout,
    _gates,
    _linear,
    _norms,
    _rectifiers,
    _softmax,
    _squared_error,
    _surrogates,
)
from jaxbp.ops._case import Case

CASES: tuple[Case, ...] = (
    *_gates.CASES,
    *_activations.CASES,
    *_rectifiers.CASES,
    *_softmax.CASES,
    *_norms.CASES,
    *_batch_norm.CASES,
    *_surrogates.CASES,
    *_dropout.CASES,
    *_linear.CASES,
    *_squared_error.CASES,
    *_cross_entropy.CASES,
)
