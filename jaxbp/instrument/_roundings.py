"""What rounding may do to the outputs of one equation."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbp.instrument import _by_numpy

# fmt: off
# Equations whose floating results are exact: they move, choose or negate values.
_EXACT = frozenset((
    "abs", "argmax", "argmin", "broadcast_in_dim", "ceil", "clamp", "complex",
    "concatenate", "conj", "copy", "copy_p", "cummax", "cummin", "device_put",
    "dynamic_slice", "dynamic_update_slice", "expand_dims", "floor", "gather",
    "imag", "iota", "max", "min", "name", "neg", "optimization_barrier", "pad",
    "pvary", "real", "reduce_max", "reduce_min", "reduce_precision", "reshape",
    "rev", "round", "scatter", "select_n", "sharding_constraint",
    "sign", "slice", "sort", "split", "squeeze", "stop_gradient", "transpose",
))
# fmt: on
# Equations that round many times before they answer: their error grows with the number
# of terms and the sum of the terms' magnitudes, not with the result.
_SUMS = frozenset(
    ("dot_general", "reduce_sum", "cumsum", "conv_general_dilated", "scatter-add")
)

# Equations that jump: what they answer is a decision, whatever its dtype.
JUMPS = frozenset(("ceil", "floor", "round", "sign"))

# Equations that solve, and functions that scale or square their argument first, or have
# a zero beside 0: backward stable, they answer exactly for inputs a unit away.
_SOLVES = frozenset(
    """cholesky cosh custom_linear_solve digamma eig eigh erfc exp2 geqrf
    householder_product lgamma lu qr schur sinh svd triangular_solve""".split()  # noqa: SIM905 - names read best as words
)

# Units that XLA's own functions are off by in float64, over the 16 that a comparison
# lets pass of one: log1p by 121 between -0.4142 and -0.38, and with it atanh by 73.
_UNITS = {"log1p": 8, "atanh": 8}
# Equations that hide how they compute: in a dtype that holds what they answer, at best.
OPAQUE = frozenset(("ffi_call", "io_callback", "pure_callback"))
_NARROW = ("bfloat16", "float16", "float32")

# Functions that cross 0 in the midst of what they are computed from: off by units of 1.
_CROSSES = frozenset(("digamma", "lgamma"))


def real_parts(x: Any) -> list[np.ndarray]:
    x = np.asarray(x)
    if np.iscomplexobj(x):
        return [np.real(x), np.imag(x)]
    return [x.astype(np.float64, copy=False)]


def rounded(rng, same, eqn, ins, outs):
    """The equation's outputs, each moved as rounding may have moved it."""
    outs = same(eqn, outs)
    if eqn.primitive.name in _EXACT or _widens(eqn, ins, outs):
        return outs
    name = eqn.primitive.name
    hidden = _hidden_unit(outs) if name in OPAQUE else 0.0
    if name in _SOLVES or hidden:
        outs = _by_numpy.run(eqn, moved_by_rounding(rng, ins, ins, hidden))
    return moved_by_rounding(rng, outs, _amounts(eqn, ins, outs), hidden)


def _hidden_unit(outs) -> float:
    """That of the narrowest dtype that holds all outputs, 0 where none does."""
    floats = [np.asarray(x) for x in outs if is_inexact(dtype_of(x))]
    for dtype in map(jnp.dtype, _NARROW):
        with np.errstate(all="ignore"):
            if all(_holds(dtype, x) for x in floats):
                return _unit(dtype)
    return 0.0


def _holds(dtype, x) -> bool:
    return all(
        np.array_equal(p.astype(dtype).astype(np.float64), p, equal_nan=True)
        for p in real_parts(x)
    )


def _amounts(eqn, ins, outs):
    """Of what the outputs are off by a unit."""
    name = eqn.primitive.name
    if name in _SUMS:
        return _magnitudes(eqn, ins)
    if name in _CROSSES:
        return [np.maximum(np.abs(outs[0]), 1).astype(dtype_of(outs[0]))]
    if name in _UNITS and dtype_of(outs[0]).itemsize >= 8:
        return [_UNITS[name] * np.asarray(outs[0])]
    return outs


def moved_by_rounding(rng, values, amounts, unit: float = 0.0):
    """Floating values moved by up to one unit in the last place of the amounts.

    By `unit` of them, if that is larger.
    """
    moved = []
    for value, amount in zip(values, amounts, strict=True):
        dtype = dtype_of(value)
        if not is_inexact(dtype):
            moved.append(value)
            continue
        value = np.asarray(value)
        # Of random size, since moves of one size would cancel one another in some
        # element; of half a unit at least, since less may be rounded away.
        by = np.frombuffer(rng.bytes(value.size), np.int8).reshape(value.shape)
        by = (by >> 1) + np.where(by < 0, np.int8(-64), np.int8(64))
        with np.errstate(all="ignore"):
            shift = np.empty(value.shape, dtype)
            np.multiply(
                amount, max(unit, _unit(dtype)) / 128, out=shift, casting="unsafe"
            )
            np.multiply(shift, by, out=shift, casting="unsafe")
            # An exact 0 is exact: a product with 0, an empty sum, a masked entry. So is
            # an infinity.
            np.copyto(shift, 0, where=(value == 0) | ~np.isfinite(value))
            moved.append(np.add(value, shift, out=shift))
    return moved


def _magnitudes(eqn, ins):
    """sqrt(n) times the sum of the magnitudes of what a sum adds up."""
    (total,) = _by_numpy.run(eqn, [_absolute(x) for x in ins])
    terms = max(1, _size(ins) // max(1, np.size(total)))
    by = np.sqrt(terms) * (1 + 1j if np.iscomplexobj(total) else 1)
    with np.errstate(over="ignore"):
        return [total * np.asarray(by).astype(total.dtype)]


def _size(ins):
    return max((np.size(x) for x in ins), default=1)


def _absolute(x):
    """The magnitudes, in the dtype that the equation is written for."""
    return np.abs(x).astype(x.dtype) if is_inexact(dtype_of(x)) else x


def _widens(eqn, ins, outs):
    """A conversion into a type that holds every value of the old one is exact."""
    if eqn.primitive.name != "convert_element_type":
        return False
    return np.can_cast(dtype_of(ins[0]), outs[0].dtype, "safe")


def dtype_of(x):
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(x)


@functools.cache  # NumPy does not know JAX's narrow dtypes, and JAX takes its time
def is_inexact(dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)


@functools.cache
def _unit(dtype) -> float:
    return float(jnp.finfo(dtype).eps)
