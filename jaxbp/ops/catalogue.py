"""Every op of the library, once: tests, benchmarks and tables read this list."""

from jaxbp.ops import (
    _activations,
    _attention,
    _cross_entropy,
    _cumulative,
    _gates,
    _gru,
    _hmm,
    _linear,
    _lstm,
    _rnn,
    _squared_error,
)
from jaxbp.ops._case import Case

CASES: tuple[Case, ...] = (
    *_gates.CASES,
    *_activations.CASES,
    *_linear.CASES,
    *_squared_error.CASES,
    *_cross_entropy.CASES,
    *_attention.CASES,
    *_rnn.CASES,
    *_gru.CASES,
    *_lstm.CASES,
    *_hmm.CASES,
    *_cumulative.CASES,
)
