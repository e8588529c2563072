"""The arithmetic of single equations: one formula a primitive."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np


def arithmetic(eqn: Any) -> tuple[int, int] | None:
    """FLOPs and transcendentals of an equation; None where no formula is known."""
    name = eqn.primitive.name
    floating = [a for a in _avals(eqn.invars) if _is(a, jnp.inexact)]
    if not floating or name in _MOVES:
        return 0, 0
    size = max(map(_size, _avals(eqn.outvars)), default=0)
    if name in _TRANSCENDENTAL:
        return 0, size
    if name in _FORMULAS:
        flops = _FORMULAS[name](eqn)
    elif name in _ARITHMETIC:
        flops = size * _ARITHMETIC[name]
    else:
        return None
    is_complex = any(_is(a, jnp.complexfloating) for a in floating)
    return flops * (_COMPLEX.get(name, 2) if is_complex else 1), 0


def nbytes(aval: Any) -> int:
    return _size(aval) * aval.dtype.itemsize if hasattr(aval, "dtype") else 0


def _avals(atoms: Iterable[Any]) -> list[Any]:
    return [v.aval for v in atoms]


def _is(aval: Any, kind: Any) -> bool:
    return hasattr(aval, "dtype") and jnp.issubdtype(aval.dtype, kind)


def _size(aval: Any) -> int:
    return math.prod(getattr(aval, "shape", ()))


def _dot(eqn: Any) -> int:
    params = eqn.params
    if "ragged_dot_dimension_numbers" in params:  # each row meets one of the groups
        dims = params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    else:
        dims = params["dimension_numbers"]
    (contracted, _), _ = dims
    shape = eqn.invars[0].aval.shape
    return 2 * _size(eqn.outvars[0].aval) * math.prod(shape[k] for k in contracted)


def _convolution(eqn: Any) -> int:
    """Multiply-adds with real elements: those with padding or dilation are none."""
    lhs, rhs, out = (v.aval.shape for v in (*eqn.invars[:2], *eqn.outvars))
    params, spec = eqn.params, eqn.params["dimension_numbers"]
    pairs = 1
    for k, (i, o, w) in enumerate(
        zip(spec.lhs_spec[2:], spec.out_spec[2:], spec.rhs_spec[2:], strict=True)
    ):
        spread = params["lhs_dilation"][k]
        start = np.arange(out[o]) * params["window_strides"][k]
        at = start[:, None] - params["padding"][k][0]
        at = at + np.arange(rhs[w]) * params["rhs_dilation"][k]
        inside = (at >= 0) & (at <= (lhs[i] - 1) * spread) & (at % spread == 0)
        pairs *= int(np.count_nonzero(inside))
    batch, features = (out[k] for k in spec.out_spec[:2])
    return 2 * batch * features * rhs[spec.rhs_spec[1]] * pairs


def combinations(eqn: Any) -> int:
    """How often a reduction combines two elements."""
    return max(_size(eqn.invars[0].aval) - _size(eqn.outvars[0].aval), 0)


def _running(eqn: Any) -> int:
    shape = eqn.invars[0].aval.shape
    return math.prod(shape) - math.prod(shape) // max(shape[eqn.params["axis"]], 1)


def _windows(eqn: Any) -> int:
    window = math.prod(eqn.params["window_dimensions"])
    return _size(eqn.outvars[0].aval) * (window - 1)


def _window_scatter(eqn: Any) -> int:
    return _size(eqn.invars[0].aval) * math.prod(eqn.params["window_dimensions"])


def _updates(eqn: Any) -> int:
    return _size(eqn.invars[2].aval)


def _sort(eqn: Any) -> int:
    shape = eqn.invars[0].aval.shape
    n = shape[eqn.params["dimension"]]
    return math.prod(shape) * math.ceil(math.log2(max(n, 1)))


def _power(eqn: Any) -> int:
    """Products of repeated squaring, and a division for a negative power."""
    y = abs(eqn.params["y"])
    products = y.bit_length() + y.bit_count() - 2 if y else 0
    return _size(eqn.outvars[0].aval) * (products + (eqn.params["y"] < 0))


def _fft(eqn: Any) -> int:
    """5 n log n, the field's convention; half for a transform from or to reals."""
    n = math.prod(eqn.params["fft_lengths"])
    shapes = [a for a in _avals((*eqn.invars, *eqn.outvars)) if a.size]
    if not shapes:
        return 0
    last = len(eqn.params["fft_lengths"])
    batch = math.prod(shapes[0].shape[:-last])
    real = any(_is(a, jnp.floating) for a in shapes)
    return round(5 * n * math.log2(n) * batch / (2 if real else 1))


def _cholesky(eqn: Any) -> int:
    shape = eqn.invars[0].aval.shape
    return math.prod(shape) * shape[-1] // 3


def _triangular_solve(eqn: Any) -> int:
    a, b = eqn.invars[0].aval, eqn.invars[1].aval
    return _size(b) * a.shape[-1]


def _names(names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), 1)


_COMBINERS = ("add", "sub", "mul", "min", "max")
_FORMULAS: dict[str, Callable[[Any], int]] = {
    "dot_general": _dot,
    "ragged_dot_general": _dot,
    "conv_general_dilated": _convolution,
    "fft": _fft,
    "sort": _sort,
    "integer_pow": _power,
    "cholesky": _cholesky,
    "triangular_solve": _triangular_solve,
    "select_and_scatter_add": _window_scatter,
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), _running),
    **dict.fromkeys(("argmax", "argmin", "reduce_sum", "reduce_prod"), combinations),
    **dict.fromkeys(("reduce_max", "reduce_min"), combinations),
    **dict.fromkeys((f"reduce_window_{k}" for k in ("sum", "max", "min")), _windows),
    "select_and_gather_add": _windows,
    **dict.fromkeys((f"scatter-{k}" for k in _COMBINERS), _updates),
}
_ARITHMETIC = _names("""
    add add_any sub mul div rem neg abs sign floor ceil round max min square select_n
    eq ne ge gt le lt eq_to le_to lt_to is_finite nextafter conj
    psum psum_invariant pmax pmin
""") | {"one_minus_square": 2, "clamp": 2}
_TRANSCENDENTAL = _names("""
    exp exp2 log log2 expm1 log1p tanh logistic sin cos tan asin acos atan atan2 sinh
    cosh asinh acosh atanh sqrt rsqrt cbrt pow erf erfc erf_inv lgamma digamma polygamma
    igamma igammac igamma_grad_a zeta bessel_i0e bessel_i1e regularized_incomplete_beta
""")
_MOVES = _names("""
    broadcast_in_dim transpose slice dynamic_slice dynamic_update_slice gather scatter
    concatenate stack unstack split tile pad rev convert_element_type real imag complex
    bitcast_convert_type reduce_precision all_gather all_gather_invariant all_to_all
    ppermute
""")
FREE = _names("""
    reshape squeeze expand_dims stop_gradient name copy copy_p optimization_barrier tie
    pvary pbroadcast sharding_constraint device_put axis_index dce_sink empty empty2
""")
_COMPLEX = {"dot_general": 4, "conv_general_dilated": 4, "fft": 1, "mul": 6}
LEAVES = {*_FORMULAS, *_ARITHMETIC, *_TRANSCENDENTAL, *_MOVES, "reduce"}
