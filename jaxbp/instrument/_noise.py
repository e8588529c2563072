"""Rounding noise of a program, element by element: Monte Carlo arithmetic.

Every intermediate result is moved by one unit in its last place, up or down at random,
and the spread of the outputs over some draws is what rounding alone can do to them
(Parker, "Monte Carlo Arithmetic", 1997). A dtype that a program casts down to brings
its own, larger unit along.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import interpret, run_equation

DRAWS = 8

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


# Equations that solve: backward stable, they answer exactly for inputs a unit away.
_SOLVES = frozenset(
    """cholesky custom_linear_solve eig eigh geqrf householder_product lu qr schur svd
    triangular_solve""".split()  # noqa: SIM905 - names read best as words
)


def rounding_noise(jaxpr: Any, inputs: Sequence[Any], seed: int) -> list[np.ndarray]:
    """Largest minus smallest of each output of a closed jaxpr, over the draws.

    The undisturbed run is one of them: of 8 signs all may be the same.
    """
    draws = [interpret(jaxpr, inputs, lambda eqn, ins, outs: outs)]
    for k in range(DRAWS):
        rng = np.random.default_rng((seed, k))
        visit = functools.partial(_rounded, rng)
        draws.append(interpret(jaxpr, inputs, visit))
    columns = zip(*draws, strict=True)
    return [_spread(np.stack([np.asarray(x) for x in column])) for column in columns]


def _spread(draws: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(draws):
        return np.hypot(np.ptp(np.real(draws), axis=0), np.ptp(np.imag(draws), axis=0))
    return np.ptp(draws.astype(np.float64), axis=0)


def _rounded(rng, eqn, ins, outs):
    """The equation's outputs, each rounded the other way or not, at random."""
    if eqn.primitive.name in _EXACT or _widens(eqn, ins, outs):
        return outs
    if eqn.primitive.name in _SOLVES:
        outs = run_equation(eqn, _moved(rng, ins, ins))
    amounts = _magnitudes(eqn, ins) if eqn.primitive.name in _SUMS else outs
    return _moved(rng, outs, amounts)


def _moved(rng, values, amounts):
    """Floating values with one unit in the last place of the amounts put on or off."""
    moved = []
    for value, amount in zip(values, amounts, strict=True):
        dtype = jnp.result_type(value)
        if not jnp.issubdtype(dtype, jnp.inexact):
            moved.append(value)
            continue
        unit = float(jnp.finfo(dtype).eps)
        signs = rng.choice((-unit, unit), size=np.shape(value))
        # An exact 0 is exact: a product with 0, an empty sum, a masked entry. So is an
        # infinity, of which a unit up or down would make NaN.
        exact = (value == 0) | jnp.isinf(value)
        shift = jnp.where(exact, 0, amount * signs.astype(dtype))
        moved.append((value + shift).astype(dtype))
    return moved


def _magnitudes(eqn, ins):
    """sqrt(n) times the sum of the magnitudes of what a sum adds up."""
    (total,) = run_equation(eqn, [_absolute(x) for x in ins])
    terms = max(1, _size(ins) // max(1, np.size(total)))
    return [total * np.sqrt(terms).astype(total.dtype)]


def _size(ins):
    return max((np.size(x) for x in ins), default=1)


def _absolute(x):
    return jnp.abs(x) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x


def _widens(eqn, ins, outs):
    """A conversion into a type that holds every value of the old one is exact."""
    if eqn.primitive.name != "convert_element_type":
        return False
    old, new = jnp.result_type(ins[0]), outs[0].dtype
    return np.can_cast(np.dtype(old), np.dtype(new), "safe")
