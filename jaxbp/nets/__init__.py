"""Networks whose gradient is written out, link by link."""

from jaxbp.nets._character_model import character_model
from jaxbp.nets._circuits import (
    gate_circuit,
    gate_circuit_bwd,
    gate_circuit_fwd,
    sigmoid_unit,
    sigmoid_unit_bwd,
    sigmoid_unit_fwd,
    three_gates,
    three_gates_bwd,
    three_gates_fwd,
)
from jaxbp.nets._cnn import cnn
from jaxbp.nets._compositions import (
    exp_exp_square,
    exp_exp_square_bwd,
    exp_exp_square_fwd,
    exp_square,
    exp_square_bwd,
    exp_square_fwd,
    reciprocal_exp_square,
    reciprocal_exp_square_bwd,
    reciprocal_exp_square_fwd,
)
from jaxbp.nets._gpt import gpt
from jaxbp.nets._lstm_language_model import lstm_language_model
from jaxbp.nets._mlp import mlp
from jaxbp.nets._net import Net
from jaxbp.nets._staged_rational import (
    staged_rational,
    staged_rational_bwd,
    staged_rational_fwd,
)

__all__ = [
    "Net",
    "character_model",
    "cnn",
    "exp_exp_square",
    "exp_exp_square_bwd",
    "exp_exp_square_fwd",
    "exp_square",
    "exp_square_bwd",
    "exp_square_fwd",
    "gate_circuit",
    "gate_circuit_bwd",
    "gate_circuit_fwd",
    "gpt",
    "lstm_language_model",
    "mlp",
    "reciprocal_exp_square",
    "reciprocal_exp_square_bwd",
    "reciprocal_exp_square_fwd",
    "sigmoid_unit",
    "sigmoid_unit_bwd",
    "sigmoid_unit_fwd",
    "staged_rational",
    "staged_rational_bwd",
    "staged_rational_fwd",
    "three_gates",
    "three_gates_bwd",
    "three_gates_fwd",
]
