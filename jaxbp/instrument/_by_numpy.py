"""Equations run by NumPy: what is asked once or twice is not worth compiling.

JAX compiles every equation that it runs by itself, tens of milliseconds each. The ones
here are one line of NumPy, in the same IEEE arithmetic; any other is left to JAX.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import (
    Visit,
    as_rule,
    bodies,
    interpret,
    is_call,
    run_equation,
    scan_sizes,
)
from jaxbp.instrument._equations import KNOWN, LARGE

_MANY = 2000  # equations, loops unrolled: fewer take less time than one compilation
_UNKNOWN = 2  # equations that JAX has to compile one by one


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
    jaxpr: Any, inputs: Sequence[Any], visit: Visit = lambda eqn, ins, outs: outs
) -> list[Any]:
    """The outputs of a closed jaxpr, equation by equation, shown to `visit`."""
    # JAX would cast them too: a probe is float64 in every dtype.
    pairs = zip(map(_array, inputs), jaxpr.in_avals, strict=True)
    inputs = [
        x.astype(a.dtype, copy=False) if isinstance(x, np.ndarray) else x
        for x, a in pairs
    ]
    return interpret(jaxpr, inputs, visit, step=run)


def is_quick(jaxpr: Any) -> bool:
    """Whether `evaluate` takes less time than compiling it would."""
    equations, unknown, largest = _size(jaxpr)
    return equations <= _MANY and unknown <= _UNKNOWN and largest <= LARGE


def run_once(f: Callable[..., Any], *args: Any) -> Any:
    """`f(*args)`, compiled only where that takes less time than running it here."""
    jaxpr, shape = jax.make_jaxpr(f, return_shape=True)(*args)
    if not is_quick(jaxpr):
        return jax.jit(f)(*args)
    flat = evaluate(jaxpr, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(shape), flat)


def _size(jaxpr) -> tuple[float, float, int]:
    """Equations with loops unrolled, those that NumPy does not know, largest array."""
    equations, unknown, largest = 0.0, 0.0, 0
    for eqn in jaxpr.eqns:
        name, inner = eqn.primitive.name, [_size(body) for body in bodies(eqn)]
        sizes = [math.prod(getattr(v.aval, "shape", ())) for v in eqn.outvars]
        largest = max([largest, *sizes, *(size for *_, size in inner)])
        if name == "scan":
            moved = len(eqn.invars) - sum(scan_sizes(eqn))
            times, opaque = eqn.params["length"], 0
            equations += times * moved
        else:
            times, opaque = 1, name not in KNOWN and name != "cond"
        descended = is_call(eqn) or as_rule(eqn) is not None
        if name == "while" or (opaque and inner and not descended):
            return math.inf, math.inf, largest
        opaque = 0 if inner else opaque
        equations += 1 + times * sum(count for count, *_ in inner)
        unknown += opaque + sum(count for _, count, _ in inner)
    return equations, unknown, largest


def _array(x: Any) -> Any:
    """As NumPy, unless NumPy has no such dtype (keys)."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.extended):
        return x
    return np.asarray(x)


def _wide(x: np.ndarray) -> np.ndarray:
    # As XLA on a CPU: it computes in float32 what is narrower, and rounds the result.
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4
    return x.astype(np.float32) if narrow else x
