"""Equations run by NumPy: what is asked once or twice is not worth compiling.

JAX compiles every equation that it runs by itself, tens of milliseconds each. The ones
here are one line of NumPy, in the same IEEE arithmetic; any other is left to JAX.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import _jaxpr
from jaxbp._interpret import Visit, interpret, run_equation, unseen
from jaxbp._jaxpr import as_rule, bodies, is_call
from jaxbp.instrument._compiled import jitted
from jaxbp.instrument._equations import KNOWN, LARGE

_MANY = 2000  # equations that are run in the time of the shortest compilation
_RUNS = 8  # times that an equation is run in the time that compiling it takes, at least
_UNKNOWN = 2  # equations that JAX has to compile one by one
_KNOWN_TO_ONE = 16  # or one to so many that NumPy knows
_OPENED = ("cond", "scan", "while")
_SINGULAR = frozenset(
    ["atanh", "digamma", "div", "lgamma", "log", "log1p", "pow", "rsqrt"]
)
_COMBINES = ("scatter", "reduce")  # with a body that is one operation


def run(eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of one equation, by NumPy where it knows how."""
    known = KNOWN.get(eqn.primitive.name)
    arrays = [_array(x) for x in inputs]
    if known is None or not all(isinstance(x, np.ndarray) for x in arrays):
        return [_array(x) for x in run_equation(eqn, inputs)]
    with np.errstate(all="ignore"):
        outs = known(eqn.params, *map(_wide, arrays))
        if outs is None:
            return [_array(x) for x in run_equation(eqn, inputs)]
        outs = outs if eqn.primitive.multiple_results else [outs]
        pairs = zip(outs, eqn.outvars, strict=True)
        return [np.asarray(x).astype(v.aval.dtype, copy=False) for x, v in pairs]


def evaluate(
    jaxpr: Any,
    inputs: Sequence[Any],
    visit: Visit = unseen,
    step: Callable[[Any, list[Any]], list[Any]] = run,
) -> list[Any]:
    """The outputs of a closed jaxpr, equation by equation, shown to `visit`."""
    # JAX would cast them too: a probe is float64 in every dtype.
    pairs = zip(map(_array, inputs), jaxpr.in_avals, strict=True)
    inputs = [
        x.astype(a.dtype, copy=False) if isinstance(x, np.ndarray) else x
        for x, a in pairs
    ]
    return interpret(jaxpr, inputs, visit, step=step)


def quickly(jaxpr: Any, inputs: Sequence[Any]) -> list[Any] | None:
    """The outputs, or None where that takes longer than compiling it would."""
    written, unknown, largest = _size(jaxpr)
    few = max(_UNKNOWN, written / _KNOWN_TO_ONE)
    if len(unknown) > few or largest > LARGE:
        return None
    left = max(_MANY, _RUNS * written)

    def step(eqn, ins):
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooLong
        return run(eqn, ins)

    try:
        return evaluate(jaxpr, inputs, step=step)
    except _TooLong:
        return None


def overflows(jaxpr: Any, inputs: Sequence[Any]) -> bool:
    """Whether a sum, product or exponential of finite numbers in it is infinite."""
    found = False

    def look(eqn, ins, outs):
        nonlocal found
        if not found and eqn.primitive.name not in _SINGULAR:
            found = _bounded(ins) and not _bounded(outs)
        return outs

    evaluate(jaxpr, inputs, look)
    return found


def _bounded(values: Sequence[Any]) -> bool:
    floats = (x for x in map(_array, values) if jnp.issubdtype(x.dtype, jnp.inexact))
    return not any(np.isinf(x).any() for x in floats)


class _TooLong(Exception):
    """A loop goes round more often than it is worth."""


def run_once(f: Callable[..., Any], *args: Any) -> Any:
    """`f(*args)`, compiled only where that takes less time than running it here."""
    jaxpr, shape = jax.make_jaxpr(f, return_shape=True)(*args)
    flat = jax.tree.leaves(args)
    outs = quickly(jaxpr, flat)
    if outs is None:
        outs = jitted(functools.partial(_jaxpr.evaluate, jaxpr))(flat)
    return jax.tree.unflatten(jax.tree.structure(shape), outs)


def length(jaxpr: Any) -> int:
    """How many equations a jaxpr has, those inside others too, each as written."""
    return _size(jaxpr)[0]


def _size(jaxpr) -> tuple[int, set[Any], float]:
    """How many equations, which of them NumPy does not know, the largest array.

    Of the unknown those that read alike once: they are compiled once.
    """
    count, unknown, largest = 0, set(), 0.0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        sizes = [math.prod(getattr(v.aval, "shape", ())) for v in eqn.outvars]
        count, largest = count + 1, max([largest, *sizes])
        opened = name in _OPENED or is_call(eqn) or as_rule(eqn)
        if not opened and name not in KNOWN:
            if any(bodies(eqn)) and not name.startswith(_COMBINES):
                return count, unknown, math.inf  # a kernel, a solver: run whole
            unknown.add((name, *(str(v.aval) for v in eqn.invars)))
            continue
        for body in bodies(eqn):
            inner = _size(body)
            count, largest = count + inner[0], max(largest, inner[2])
            unknown |= inner[1]
    return count, unknown, largest


def _array(x: Any) -> Any:
    """As NumPy, unless NumPy has no such dtype (keys)."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.extended):
        return x
    return np.asarray(x)


def _wide(x: np.ndarray) -> np.ndarray:
    # As XLA on a CPU: it computes in float32 what is narrower, and rounds the result.
    narrow = x.dtype.itemsize < 4 and jnp.issubdtype(x.dtype, jnp.floating)
    return x.astype(np.float32) if narrow else x
