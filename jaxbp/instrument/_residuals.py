"""What a function keeps between its forward and its backward pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from jaxbp._jaxpr import (
    bodies,
    is_call,
    is_differentiable,
    is_from_jax,
    is_tracer,
    site_of,
)
from jaxbp.instrument._flops import nbytes


@dataclass(frozen=True)
class Residual:
    """One array kept; `source` is the line that computed it, `file:line`."""

    shape: tuple[int, ...]
    dtype: str
    bytes: int
    source: str


def residuals(
    f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Residual, ...]:
    """The leaves of the VJP of f, each array once.

    Arguments and closed-over constants are left out: they are alive anyway. Asked of f
    itself, since a jaxpr of it would hide the lines inside a rule.
    """
    values, tree = jax.tree.flatten((args, kwargs))
    chosen = [is_differentiable(v) for v in values]

    def forward(*leaves):
        rest = iter(leaves)
        merged = [next(rest) if c else v for c, v in zip(chosen, values, strict=True)]
        f_args, f_kwargs = jax.tree.unflatten(tree, merged)
        outs = filter(is_tracer, jax.tree.leaves(f(*f_args, **f_kwargs)))
        return [o for o in outs if jnp.issubdtype(o.dtype, jnp.inexact)]

    def kept(*leaves):
        return jax.tree.leaves(jax.vjp(forward, *leaves)[1])

    leaves = [v for c, v in zip(chosen, values, strict=True) if c]
    jaxpr = jax.make_jaxpr(kept)(*leaves)
    origin, found = _origins(jaxpr), []
    for var in dict.fromkeys(v for v in jaxpr.outvars if not isinstance(v, Literal)):
        source = origin(var)
        if isinstance(source, str):
            shape, dtype = var.aval.shape, str(var.aval.dtype)
            found.append(Residual(tuple(shape), dtype, nbytes(var.aval), source))
    return tuple(found)


def _origins(jaxpr: Any) -> Callable[[Any], Any]:
    """Of a variable, the line that computed it, or the input or constant that it is."""
    producers = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}

    def origin(var):
        if isinstance(var, Literal) or var not in producers:
            return var
        eqn = producers[var]
        here = site_of(eqn)
        for body in bodies(eqn):
            if len(body.outvars) != len(eqn.outvars):
                continue  # a predicate
            inner = _origins(body)(body.outvars[eqn.outvars.index(var)])
            if is_call(eqn) and inner in body.invars:
                return origin(eqn.invars[body.invars.index(inner)])
            # JAX traces its own functions once: their lines are of the first call.
            if isinstance(inner, str) and not (here and is_from_jax(body)):
                return inner or here
        return here

    return origin
