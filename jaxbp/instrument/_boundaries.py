"""The constants at which a program changes its mind, and the lengths it goes to."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jax.lax import GatherScatterMode

from jaxbp._jaxpr import bodies, is_batched, is_call
from jaxbp._steps import holds, is_floating

_CHOOSES = frozenset(("lt", "le", "gt", "ge", "eq", "ne", "max", "min", "clamp"))
_MARKS = frozenset(("eq", "ne"))
_ORDERS = frozenset(("lt", "le", "gt", "ge"))
_SAME = frozenset(("broadcast_in_dim", "convert_element_type", "reshape", "squeeze"))
_PARTS = frozenset(("gather", "slice", "dynamic_slice", "rev", "transpose"))
_MAGNITUDES = frozenset(("abs", "square", "sqrt"))
_KEEPS = _PARTS | {"reduce_sum", "reduce_max", "add", "max"}
_SHIFTS = frozenset(("add", "sub"))
# What has a value at an infinity, as a mask's scores are.
_BOUNDED = frozenset(
    """argmax argmin atan cumlogsumexp cummax cummin erf erfc exp exp2 is_finite
    logistic reduce_max reduce_min sort tanh""".split()  # noqa: SIM905 - names read best as words
)
_STEPS = (0.0, 1e-3, -1e-3)
_BEYOND = 2**30  # an index beyond every array


def boundaries(*jaxprs: Any) -> list[float]:
    """Constants that programs compare or clamp with, and a step to either side.

    Either sign of each: it is a magnitude that is often compared.
    """
    found = set().union(*(_constants(jaxpr, _CHOOSES) for jaxpr in jaxprs))
    signed = {sign * c for c in found for sign in (1, -1)}
    return sorted({c + step * max(1.0, abs(c)) for c in signed for step in _STEPS})


def takes_infinities(jaxpr: Any) -> bool:
    """Whether it names one, or asks of its numbers what has an answer there."""

    def takes(eqn):
        return eqn.primitive.name in _BOUNDED or names_infinity(eqn)

    return holds(jaxpr, takes)


def names_infinity(eqn: Any) -> bool:
    """Whether a constant in it is infinite."""
    values = (v.val for v in eqn.invars if isinstance(v, Literal))
    return any(np.isinf(np.asarray(v, np.float64)).any() for v in values if _is_real(v))


def _is_real(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)


class Sentinel(NamedTuple):
    """A whole number to ask for among the data: of all of them, or of one input."""

    mark: int
    place: int | None = None


def sentinels(primal: Any, *others: Any) -> list[Sentinel]:
    """Whole numbers that programs look for: the label of what is to be ignored.

    Where one tells negative ones apart, -1; where the primal says what an index out of
    range means, an index that is. And of an input the number that it is held against in
    order: the label that is one too many, or the last of all.
    """
    jaxprs = primal, *others
    found = set().union(*(_constants(jaxpr, _MARKS) for jaxpr in jaxprs))
    marks = {Sentinel(int(c)) for c in found if c == int(c)}
    if any(holds(jaxpr, _is_not_negative) for jaxpr in jaxprs):
        marks.add(Sentinel(-1))
    if _goes_beyond(primal):
        marks.add(Sentinel(_BEYOND))
    marks |= set().union(*map(_ends, jaxprs))
    return sorted(marks, key=lambda s: (s.mark, -1 if s.place is None else s.place))


def _ends(jaxpr: Any) -> set[Sentinel]:
    found: set[Sentinel] = set()
    for eqn, values in _met(jaxpr, _inputs(jaxpr, _is_whole)):
        if eqn.primitive.name in _ORDERS:
            # Against 0 JAX itself holds them, to make sense of negative indices.
            limits = [int(v) for v in _finite(values) if v > 0]
            places = [v.place for v in values if isinstance(v, _Input)]
            found |= {Sentinel(n, place) for n in limits for place in places}
    return found


def _is_not_negative(eqn: Any) -> bool:
    # Not `lt`: with that JAX itself makes sense of negative indices.
    if eqn.primitive.name != "ge" or eqn.invars[0].aval.dtype.kind != "i":
        return False
    return _scalar(eqn.invars[1], {}) == 0


def _goes_beyond(jaxpr: Any, batched: bool = False) -> bool:
    """Whether a gather is told what to do there, by its author and not by vmap."""
    for eqn in jaxpr.eqns:
        by_vmap = batched or is_batched(eqn)
        if eqn.primitive.name == "gather":
            value, mode = eqn.params["fill_value"], eqn.params["mode"]
            fills_in = value is not None and value == value  # NaN is JAX's own choice
            if fills_in or (mode == GatherScatterMode.CLIP and not by_vmap):
                return True
        if any(_goes_beyond(body, by_vmap) for body in bodies(eqn)):
            return True
    return False


def lengths(jaxpr: Any) -> set[int]:
    """The inputs that are held against a position: how far to go, not which to take.

    Whole numbers, or those less a constant, that are compared with what is no constant.
    """
    found: set[int] = set()
    for eqn, values in _met(jaxpr, _inputs(jaxpr, _is_whole)):
        if eqn.primitive.name in _ORDERS and None in values:
            found |= {v.place for v in values if isinstance(v, _Input)}
    return found


def numbers(jaxpr: Any) -> set[int]:
    """The inputs whose whole numbers f reckons with: made floats, as they are."""
    found: set[int] = set()
    for eqn, values in _met(jaxpr, _inputs(jaxpr, _is_whole)):
        if eqn.primitive.name == "convert_element_type":
            floating = eqn.outvars[0].aval.dtype.kind not in "iub"
            found |= {v.place for v in values if isinstance(v, _Input) and floating}
    return found


def magnitudes(jaxpr: Any) -> set[int]:
    """The inputs that magnitudes are held against: a width, a radius, a threshold."""
    found: set[int] = set()
    for eqn, values in _met(jaxpr, _inputs(jaxpr, is_floating)):
        if eqn.primitive.name in _CHOOSES and _MAGNITUDE in values:
            found |= {v.place for v in values if isinstance(v, _Input)}
    return found


class _Input(NamedTuple):
    place: int


class _Magnitude(NamedTuple):
    """A float that is not negative, whatever the inputs are."""


_MAGNITUDE = _Magnitude()
_Known = float | _Input | _Magnitude


def _inputs(jaxpr: Any, are_meant: Callable[[Any], bool]) -> dict[Any, _Input]:
    inputs = getattr(jaxpr, "jaxpr", jaxpr).invars
    return {v: _Input(k) for k, v in enumerate(inputs) if are_meant(v.aval)}


def _is_whole(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.integer)


def _constants(jaxpr, names) -> set[float]:
    chosen = (v for eqn, v in _met(jaxpr, {}) if eqn.primitive.name in names)
    return set().union(*map(_finite, chosen))


def _met(jaxpr, known) -> Iterator[tuple[Any, list[_Known | None]]]:
    """Every equation, with the constants and inputs among what it is given.

    Also such as were broadcast or cast; of an input, parts too, and a constant more or
    less. And which floats are magnitudes. What is found is added to `known`.
    """
    opened = getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in opened.eqns:
        values = [_scalar(v, known) for v in eqn.invars]
        name = eqn.primitive.name
        of_input = name in _SHIFTS | _PARTS and isinstance(values[0], _Input)
        if name in _SAME or of_input:
            known[eqn.outvars[0]] = values[0]
        elif _is_magnitude(eqn, values):
            known[eqn.outvars[0]] = _MAGNITUDE
        yield eqn, values
        if name == "while":  # what it begins with it need not go on with
            consts = eqn.params["cond_nconsts"] + eqn.params["body_nconsts"]
            carry = (v if isinstance(v, _Input) else None for v in values[consts:])
            values = [*values[:consts], *carry]
        for body in bodies(eqn):
            inner = getattr(body, "jaxpr", body).invars
            inside = dict(zip(reversed(inner), reversed(values), strict=False))
            yield from _met(body, inside)
            if is_call(eqn):
                outs = getattr(body, "jaxpr", body).outvars
                pairs = zip(eqn.outvars, outs, strict=True)
                known.update((v, _scalar(out, inside)) for v, out in pairs)


def _is_magnitude(eqn: Any, values: list[_Known | None]) -> bool:
    if not eqn.outvars or not is_floating(eqn.outvars[0].aval):
        return False
    name, ins = eqn.primitive.name, eqn.invars
    even = name == "integer_pow" and eqn.params["y"] % 2 == 0
    squared = name == "mul" and ins[0] is ins[1]
    kept = name in _KEEPS and set(values) == {_MAGNITUDE}
    return name in _MAGNITUDES or even or squared or kept


def _finite(values: Iterable[_Known | None]) -> set[float]:
    return {v for v in values if isinstance(v, float) and abs(v) < 1e30}


def _scalar(atom, known) -> _Known | None:
    """The value of a constant, also of one that was broadcast or cast."""
    if not isinstance(atom, Literal):
        return known.get(atom)
    value = np.asarray(atom.val)
    return float(value) if value.ndim == 0 and value.dtype.kind in "fiu" else None
