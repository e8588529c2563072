"""What can be done to one equation: each operator is a mistake that people make.

An operator looks at an equation and yields changes, each with a few words of what it
does. A change is told the equation that it is run on, which at other shapes and dtypes
is another one, and reads axes and lengths from that.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal

from jaxbp._interpret import run_equation
from scripts.mutation.parameters import alternatives

Eqn = Any
Change = Callable[[Eqn, list[Any], list[Any]], Sequence[Any]]
Described = tuple[str, Change]

_SWAPS = {
    "abs": ("sign",),
    "add": ("sub", "mul"),
    "add_any": ("sub", "mul"),
    "and": ("or",),
    "ceil": ("floor",),
    "cos": ("sin",),
    "cosh": ("sinh",),
    "cumsum": ("cumprod",),
    "div": ("mul",),
    "erf": ("erfc", "tanh"),
    "exp": ("expm1", "log1p"),
    "expm1": ("exp", "log1p"),
    "floor": ("ceil",),
    "log": ("log1p",),
    "log1p": ("log", "expm1"),
    "logistic": ("tanh",),
    "max": ("min",),
    "min": ("max",),
    "mul": ("div", "add"),
    "or": ("and",),
    "rsqrt": ("sqrt",),
    "sign": ("abs",),
    "sin": ("cos",),
    "sinh": ("cosh",),
    "sqrt": ("rsqrt", "cbrt"),
    "sub": ("add",),
    "tanh": ("logistic", "sin"),
    "tan": ("sin",),
    # The boundary moved, the answer turned round.
    "lt": ("le", "ge"),
    "le": ("lt", "gt"),
    "gt": ("ge", "le"),
    "ge": ("gt", "lt"),
    "eq": ("ne", "le"),
    "ne": ("eq", "lt"),
}
_LAX = {"and": lax.bitwise_and, "or": lax.bitwise_or}
# The element that an operand is dropped by: a term by 0, a factor by 1.
_NEUTRAL = {"add": 0, "add_any": 0, "sub": 0, "mul": 1, "div": 1}
_CONSTANTS = {
    "c + 1": lambda c: c + 1,
    "2c": lambda c: 2 * c,
    "0": np.zeros_like,
    "1.01c": lambda c: c * 1.01,
}
_INDEXED = {"dynamic_slice": 1, "dynamic_update_slice": 2, "gather": 1, "scatter": 1}
_INDEXED |= {"scatter-add": 1}
_SHAPING = {"broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze"}
_SHAPING |= {"transpose", "slice", "concatenate", "rev", "pad", "copy_p", "name"}


def changes(eqn: Eqn) -> Iterator[Described]:
    """Everything that can be done to an equation, in a fixed order."""
    for operator in _OPERATORS:
        yield from operator(eqn)


def is_float(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.floating)


def square(aval: Any) -> bool:
    """A matrix, or a stack of them, that transposing leaves of the same shape."""
    return aval.ndim >= 2 and aval.shape[-1] == aval.shape[-2] > 1


def transposed(x: Any) -> Any:
    return jnp.swapaxes(x, -1, -2)


def with_operand(k: int, new: Callable[[Any], Any]) -> Change:
    """The equation run with another value in place of operand k."""

    def change(eqn, ins, scope):
        return run_equation(eqn, [*ins[:k], new(ins[k]), *ins[k + 1 :]])

    return change


def _with_result(new: Callable[[Any], Any]) -> Change:
    return lambda eqn, ins, scope: [new(run_equation(eqn, ins)[0])]


def _with_function(f: Callable[..., Any]) -> Change:
    return lambda eqn, ins, scope: [f(*ins)]


def _swap(eqn):
    name = eqn.primitive.name
    for other in _SWAPS.get(name, ()):
        f = _LAX.get(other) or getattr(lax, other)
        yield f"{name} → {other}", _with_function(f)


def _drop(eqn):
    name, neutral = eqn.primitive.name, _NEUTRAL.get(eqn.primitive.name)
    for k, operand in enumerate(eqn.invars):
        if neutral is not None and is_float(operand.aval):
            fill = functools.partial(jnp.full_like, fill_value=neutral)
            yield f"operand {k} dropped", with_operand(k, fill)
    if name in ("max", "min", "select_n"):
        for k in range(len(eqn.invars))[-2:]:
            yield f"always operand {k}", lambda eqn, ins, scope, k=k: [ins[k]]


def _skip(eqn):
    """A function of one value left out: its argument goes on as it is."""
    one = len(eqn.invars) == len(eqn.outvars) == 1
    if one and eqn.primitive.name not in _SHAPING and _alike(eqn.invars[0], eqn):
        yield "left out", _with_function(lambda x: x)


def _negate(eqn):
    name = eqn.primitive.name
    one = len(eqn.outvars) == 1 and name not in _SHAPING and name != "neg"
    if one and is_float(eqn.outvars[0].aval):
        yield "negated", _with_result(lax.neg)


def _constant(eqn):
    for k, operand in enumerate(eqn.invars):
        if not isinstance(operand, Literal) or np.ndim(operand.val) or _idle(eqn, k):
            continue
        dtype = jnp.result_type(operand.val)
        if jnp.issubdtype(dtype, jnp.bool_):
            yield f"constant {k}: turned", with_operand(k, np.logical_not)
            continue
        for what, f in _CONSTANTS.items():

            def new(c, f=f, dtype=dtype):
                return np.asarray(f(np.asarray(c)), dtype)

            yield f"constant {np.asarray(operand.val)}: {what}", with_operand(k, new)


def _index(eqn):
    start = _INDEXED.get(eqn.primitive.name)
    for k, operand in enumerate(eqn.invars if start else ()):
        whole = jnp.issubdtype(operand.aval.dtype, jnp.integer)
        if k >= (start or 0) and whole and not _idle(eqn, k):
            yield f"index {k} + 1", with_operand(k, lambda i: i + 1)
            yield f"index {k} - 1", with_operand(k, lambda i: i - 1)


def _idle(eqn, k) -> bool:
    """Whether operand k is the start of a slice as long as its axis, and so is 0."""
    if eqn.primitive.name not in ("dynamic_slice", "dynamic_update_slice"):
        return False
    axis = k - _INDEXED[eqn.primitive.name]
    part = eqn.outvars[0] if eqn.primitive.name == "dynamic_slice" else eqn.invars[1]
    return axis >= 0 and part.aval.shape[axis] == eqn.invars[0].aval.shape[axis]


def _exchange(eqn):
    name = eqn.primitive.name
    if name == "select_n" and len(eqn.invars) == 3:
        yield (
            "branches swapped",
            _with_function(lambda p, x, y: lax.select_n(p, y, x)),
        )
    if name in ("dot_general", "sub", "div", "concatenate") and len(eqn.invars) == 2:
        swapped = lambda eqn, ins, scope: run_equation(eqn, ins[::-1])
        yield "operands swapped", swapped
    if name == "dot_general":
        for k, operand in enumerate(eqn.invars):
            if square(operand.aval):
                yield f"operand {k} transposed", with_operand(k, transposed)
    if name == "scatter-add":
        # Overwritten instead of accumulated: repeated indices lose.
        yield "overwritten", _overwritten


def _overwritten(eqn, ins, scope):
    operand, indices, updates = ins
    names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    options = {name: eqn.params[name] for name in names}
    return [lax.scatter(operand, indices, updates, **options)]


def _reduction(eqn):
    name = eqn.primitive.name
    if name.startswith("reduce_") and "axes" in eqn.params:
        yield "first element for the reduction", _first
        if name == "reduce_sum":
            yield "mean for the sum", _mean(lambda eqn: eqn.params["axes"])
    if name == "dot_general" and eqn.params["dimension_numbers"][0][0]:
        yield "first product for the sum", _first_product
        yield "mean for the sum", _mean(lambda e: e.params["dimension_numbers"][0][0])


def _first(eqn, ins, scope):
    x = ins[0]
    for axis in sorted(eqn.params["axes"], reverse=True):
        x = lax.index_in_dim(x, 0, axis, keepdims=False)
    return [x]


def _first_product(eqn, ins, scope):
    contracted, cut = eqn.params["dimension_numbers"][0], list(ins)
    for k, axes in enumerate(contracted):
        for axis in axes:
            cut[k] = lax.slice_in_dim(cut[k], 0, 1, axis=axis)
    return run_equation(eqn, cut)


def _mean(axes):
    def change(eqn, ins, scope):
        n = max(1, int(np.prod([ins[0].shape[axis] for axis in axes(eqn)])))
        return [out / n for out in run_equation(eqn, ins)]

    return change


def _parameter(eqn):
    """Other axes, permutations, starts, directions, powers: by their number."""

    def change(eqn, ins, scope, k):
        params = eqn.params | list(alternatives(eqn))[k]
        return run_equation(eqn.replace(params=params), ins)

    for k, new in enumerate(alternatives(eqn)):
        what = ", ".join(f"{n}={eqn.params[n]} → {v}" for n, v in new.items())
        yield what, functools.partial(change, k=k)


def _alike(operand, eqn) -> bool:
    a, b = operand.aval, eqn.outvars[0].aval
    return is_float(b) and (a.shape, a.dtype) == (b.shape, b.dtype)


_OPERATORS = (
    _swap,
    _drop,
    _skip,
    _negate,
    _constant,
    _index,
    _exchange,
    _reduction,
    _parameter,
)
