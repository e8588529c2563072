"""The picture is faithful: what was recorded, held against the function itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._errors import first_line
from jaxbp._jaxpr import Program, is_differentiable
from jaxbp._steps import Value, is_floating, or_zeros
from jaxbp.drawing._units import units_between
from jaxbp.instrument._pair import beyond
from jaxbp.instrument._witnesses import Witness


@dataclass(frozen=True)
class Check:
    """How far the recorded value is from `f(*args)`, the gradient from `jax.grad`.

    In units of rounding, 0 for the same bits; None where JAX has no answer, `note` says
    why. `ok`: neither differs beyond rounding, by the tolerance of `compare`.
    """

    value: float | None
    gradient: float | None
    ok: bool
    note: str = ""

    def __str__(self) -> str:
        value = _said(self.value, "f(*args)")
        gradient = _said(self.gradient, "jax.grad")
        verdict = "faithful" if self.ok else "NOT FAITHFUL"
        note = f"; {self.note}" if self.note else ""
        return f"{verdict}: value {value}, gradient {gradient}{note}"


def replay(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    program: Program,
    cotangents: Sequence[Any],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
) -> Check:
    """Run `f` and its `jax.vjp` at the arguments, and compare."""
    floating = [k for k, v in enumerate(outputs) if is_floating(v.value)]
    leaves, tree = jax.tree.flatten((args, dict(kwargs)))
    chosen = [is_differentiable(leaf) for leaf in leaves]
    marks = [Mark(k) for k in range(len(outputs))]
    places = jax.tree.leaves(program.merge(marks))

    def call(*floats):
        given = iter(floats)
        merged = [next(given) if c else x for c, x in zip(chosen, leaves, strict=True)]
        f_args, f_kwargs = jax.tree.unflatten(tree, merged)
        outs = jax.tree.leaves(f(*f_args, **f_kwargs))
        found = {
            p.k: o for p, o in zip(places, outs, strict=True) if isinstance(p, Mark)
        }
        return [jnp.asarray(found[k]) for k in floating]

    recorded = [outputs[k].value for k in floating]
    try:
        values, pull = jax.vjp(call, *program.inputs)
        bars = [
            or_zeros(cotangents[k], o) for k, o in zip(floating, values, strict=True)
        ]
        gradient, note = list(pull(bars)), ""
    except Exception as error:  # whatever JAX raises of what it cannot differentiate
        values, gradient = call(*program.inputs), None
        note = f"jax.grad has no answer: {first_line(error)}"
    pairs = [(recorded, values)]
    if gradient is not None:
        ours = [or_zeros(v.cotangent, g) for v, g in zip(inputs, gradient, strict=True)]
        pairs.append((ours, gradient))
    units = [_largest(*pair) for pair in pairs] + [None]
    ok = not _differ(pairs) or not _differ(pairs, _noise(program, floating, cotangents))
    return Check(units[0], units[1], ok, note)


@dataclass(frozen=True)
class Mark:
    """A traced output's place among the others, in the tree that f returns."""

    k: int


def _noise(program: Program, floating: Sequence[int], cotangents: Sequence[Any]):
    """What rounding alone can do to values and gradients, element by element."""
    wrt = range(len(program.inputs))
    inputs = list(map(jnp.asarray, program.inputs))
    witness = Witness(program.jaxpr, list(wrt), list(floating))
    outs = jax.eval_shape(witness.primal, inputs)
    bars = [or_zeros(cotangents[k], o) for k, o in zip(floating, outs, strict=True)]
    return witness.noise(inputs, bars, 0)


def _differ(pairs, noise=None) -> bool:
    for k, pair in enumerate(pairs):
        ours, theirs = (list(map(np.asarray, side)) for side in pair)
        found = beyond(ours, theirs, None if noise is None else noise[k])
        if any(multiple.any() for multiple in found):
            return True
    return False


def _largest(ours, theirs) -> float:
    found = [units_between(a, b) for a, b in zip(ours, theirs, strict=True)]
    return max((units for units in found if units is not None), default=0.0)


def _said(units: float | None, whose: str) -> str:
    if units is None:
        return "not checked"
    if units == 0:
        return f"equal to {whose} bit for bit"
    return f"{units:.2g} units of rounding from {whose}"
