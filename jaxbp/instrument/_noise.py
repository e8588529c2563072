"""Rounding noise of a program, element by element: Monte Carlo arithmetic.

Every intermediate result is moved by up to one unit in its last place, at random, and
the spread of the outputs over some draws is what rounding alone can do to them (Parker,
"Monte Carlo Arithmetic", 1997). A dtype that a program casts down to brings its own,
larger unit along. What the program decides (comparisons, indices, whole numbers) it
decides as it does undisturbed: rounding is no excuse for another branch.
"""

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbp.instrument import _by_numpy

DRAWS = 8
_FIRST = 2  # of them, after three the width is no more than some times larger
_FAR = 2.0**10

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
_JUMPS = frozenset(("ceil", "floor", "round", "sign"))

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


def rounding_noise(
    jaxpr: Any,
    inputs: Sequence[Any],
    seed: int,
    places: Mapping[int, np.ndarray] | None = None,
    needed: Mapping[int, np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Largest minus smallest of each output of a closed jaxpr, over the draws.

    The undisturbed run is one of them. With `places`, only at these flat elements of
    some outputs; nothing of the others. Where the noise at `places` is as large as
    `needed` after fewer draws, or far from it, no more are made.
    """

    def kept(outs):
        return outs if places is None else at_places(outs, places)

    decided = _Decisions()
    outs = _by_numpy.evaluate(jaxpr, inputs, decided.note)
    spreads = [_Spread(x) for x in kept(outs)]
    for k in range(DRAWS):
        rng = np.random.default_rng((seed, k))
        visit = functools.partial(_rounded, rng, decided.again())
        outs = _by_numpy.evaluate(jaxpr, inputs, visit)
        for spread, out in zip(spreads, kept(outs), strict=True):
            spread.add(out)
        if needed and all(
            _told(spreads[j].width(), needed[j], k).all() for j in needed
        ):
            break
    return [spread.width() for spread in spreads]


def _told(width: np.ndarray, needed: np.ndarray, draw: int) -> np.ndarray:
    """Where further draws change nothing: the width only grows, and by little.

    Where it is needed without end, all of them are.
    """
    never = (width * _FAR < needed) & np.isfinite(needed) & (draw >= _FIRST)
    return (width >= needed) | never


def noise_of_inputs(
    run: Callable[[list[Any]], Sequence[Any]], inputs: Sequence[Any], seed: int
) -> list[np.ndarray]:
    """The same of a program that cannot be opened: its inputs and outputs are moved."""
    spreads = [_Spread(x) for x in run(list(inputs))]
    for k in range(DRAWS):
        rng = np.random.default_rng((seed, k))
        outs = run(_moved(rng, inputs, inputs))
        for spread, out in zip(spreads, _moved(rng, outs, outs), strict=True):
            spread.add(out)
    return [spread.width() for spread in spreads]


def at_places(outs: Sequence[Any], places: Mapping[int, np.ndarray]) -> list[Any]:
    """The flat elements at `places` of some arrays, none of the others."""
    nowhere = np.zeros(0, int)
    return [np.ravel(x)[places.get(k, nowhere)] for k, x in enumerate(outs)]


class _Decisions:
    """What a run decided, equation by equation and time by time."""

    def __init__(self):
        self._made: dict[int, list[list[Any]]] = defaultdict(list)

    def note(self, eqn, ins, outs):
        if _decides(eqn, outs):
            self._made[id(eqn)].append(outs)
        return outs

    def again(self) -> Callable[[Any, list[Any]], list[Any]]:
        """Of another run, the outputs of each equation, or what was decided there."""
        times: Counter[int] = Counter()

        def same(eqn, outs):
            if not _decides(eqn, outs):
                return outs
            made, k = self._made[id(eqn)], times[id(eqn)]
            times[id(eqn)] += 1
            if k >= len(made):  # a loop that goes round more often
                return outs
            pairs = zip(made[k], outs, strict=True)
            return [old if _is_decision(eqn, old) else new for old, new in pairs]

        return same


def _decides(eqn, outs) -> bool:
    return any(_is_decision(eqn, x) for x in outs)


def _is_decision(eqn, x) -> bool:
    return eqn.primitive.name in _JUMPS or not _is_inexact(_dtype(x))


@functools.cache  # NumPy does not know JAX's narrow dtypes, and JAX takes its time
def _is_inexact(dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)


@functools.cache
def _unit(dtype) -> float:
    return float(jnp.finfo(dtype).eps)


class _Spread:
    """Smallest and largest of the draws so far: none of them is kept."""

    def __init__(self, first: Any):
        # Real and imaginary parts apart; copied, since what is added changes them.
        self._low = [np.array(part) for part in _parts(first)]
        self._high = [part.copy() for part in self._low]

    def add(self, draw: Any) -> None:
        for low, high, part in zip(self._low, self._high, _parts(draw), strict=True):
            np.minimum(low, part, out=low)
            np.maximum(high, part, out=high)

    def width(self) -> np.ndarray:
        widths = []
        for high, low in zip(self._high, self._low, strict=True):
            agreed = high == low  # also on an infinity, whose width is 0
            with np.errstate(all="ignore"):  # inf - inf
                width = np.subtract(high, low)
            width = np.where(agreed, 0, width)
            widths.append(width)
        return np.hypot(*widths) if len(widths) == 2 else widths[0]


def _parts(x: Any) -> list[np.ndarray]:
    x = np.asarray(x)
    if np.iscomplexobj(x):
        return [np.real(x), np.imag(x)]
    return [x.astype(np.float64, copy=False)]


def _rounded(rng, same, eqn, ins, outs):
    """The equation's outputs, each moved as rounding may have moved it."""
    outs = same(eqn, outs)
    if eqn.primitive.name in _EXACT or _widens(eqn, ins, outs):
        return outs
    name = eqn.primitive.name
    hidden = _hidden_unit(outs) if name in OPAQUE else 0.0
    if name in _SOLVES or hidden:
        outs = _by_numpy.run(eqn, _moved(rng, ins, ins, hidden))
    return _moved(rng, outs, _amounts(eqn, ins, outs), hidden)


def _hidden_unit(outs) -> float:
    """That of the narrowest dtype that holds all outputs, 0 where none does."""
    floats = [np.asarray(x) for x in outs if _is_inexact(_dtype(x))]
    for dtype in map(jnp.dtype, _NARROW):
        with np.errstate(all="ignore"):
            if all(_holds(dtype, x) for x in floats):
                return _unit(dtype)
    return 0.0


def _holds(dtype, x) -> bool:
    return all(
        np.array_equal(p.astype(dtype).astype(np.float64), p, equal_nan=True)
        for p in _parts(x)
    )


def _amounts(eqn, ins, outs):
    """Of what the outputs are off by a unit."""
    name = eqn.primitive.name
    if name in _SUMS:
        return _magnitudes(eqn, ins)
    if name in _CROSSES:
        return [np.maximum(np.abs(outs[0]), 1).astype(_dtype(outs[0]))]
    if name in _UNITS and _dtype(outs[0]).itemsize >= 8:
        return [_UNITS[name] * np.asarray(outs[0])]
    return outs


def _moved(rng, values, amounts, unit: float = 0.0):
    """Floating values moved by up to one unit in the last place of the amounts.

    By `unit` of them, if that is larger.
    """
    moved = []
    for value, amount in zip(values, amounts, strict=True):
        dtype = _dtype(value)
        if not _is_inexact(dtype):
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
    return np.abs(x).astype(x.dtype) if _is_inexact(_dtype(x)) else x


def _widens(eqn, ins, outs):
    """A conversion into a type that holds every value of the old one is exact."""
    if eqn.primitive.name != "convert_element_type":
        return False
    return np.can_cast(_dtype(ins[0]), outs[0].dtype, "safe")


def _dtype(x):
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(x)
