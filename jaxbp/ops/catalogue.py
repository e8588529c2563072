"""Every op of the library, once: tests, benchmarks and tables read this list."""

from jaxbp.ops import (
    _activations,
    _batch_norm,
    _class_cross_entropy,
    _contrastive,
    _cross_entropy,
    _dropout,
    _embedding,
    _gates,
    _huber,
    _linear,
    _linear_cross_entropy,
    _norms,
    _rectifiers,
    _softmax,
    _softmax_cross_entropy,
    _squared_error,
    _surrogates,
)
from jaxbp.ops._case import Case

CASES: tuple[Case, ...] = (
    *_gates.CASES,
    *_activations.CASES,
    *_rectifiers.CASES,
    *_softmax.CASES,
    *_linear.CASES,
    *_embedding.CASES,
    *_squared_error.CASES,
    *_huber.CASES,
    *_cross_entropy.CASES,
    *_softmax_cross_entropy.CASES,
    *_class_cross_entropy.CASES,
    *_linear_cross_entropy.CASES,
    *_contrastive.CASES,
    *_norms.CASES,
    *_batch_norm.CASES,
    *_dropout.CASES,
    *_surrogates.CASES,
)
