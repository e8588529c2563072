"""Mutants of a backward pass: its jaxpr with one thing changed.

A mutant is a program, not an array of numbers: at other shapes and dtypes the true rule
is traced anew and the same thing is changed in it.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxbp._interpret import equations, evaluate_changed, run_equation
from jaxbp._jaxpr import bodies, evaluate, live, site_of, trace
from scripts.mutation.operators import (
    changes,
    is_float,
    square,
    transposed,
    with_operand,
)

Jaxpr = Any
_OTHERS = 2  # other variables tried in an operand's place


class Mutant(NamedTuple):
    """`where` is the equation as JAX prints it, or an input or output of the rule.

    `run(jaxpr, inputs)` evaluates the rule's jaxpr, changed.
    """

    where: str
    what: str
    run: Callable[[Jaxpr, Sequence[Any]], list[Any]]

    def of(self, bwd: Callable[..., Any]) -> Callable[..., Any]:
        """The mutated backward pass. Raises where it has other types than the true."""

        def mutated(*args):
            program = trace(bwd, args, dynamic=_is_array)
            outs = self.run(program.jaxpr, program.inputs)
            for out, aval in zip(outs, program.jaxpr.out_avals, strict=True):
                if (jnp.shape(out), jnp.result_type(out)) != (aval.shape, aval.dtype):
                    raise TypeError(f"{jnp.shape(out)} in place of {aval}")
            return program.merge(outs)

        return mutated


def mutants(bwd: Callable[..., Any], args: tuple[Any, ...], seed: int = 0):
    """Every mutant of `bwd` that evaluates at `args` (residuals, cotangent).

    One of several that read alike; none that reads like the true rule. `seed` chooses
    the other variables that stand in an operand's place.
    """
    program = trace(bwd, args, dynamic=_is_array)
    seen, found = {_text(bwd, args)}, []
    for mutant in _all(program.jaxpr, random.Random(seed)):
        try:
            text = _text(mutant.of(bwd), args)
        except Exception:  # it does not evaluate: no mutant
            continue
        if text not in seen:
            seen.add(text)
            found.append(mutant)
    return found


def _all(jaxpr: Jaxpr, rng: random.Random) -> Iterator[Mutant]:
    for path, eqn, scope in equations(jaxpr):
        where = _shown(eqn, jaxpr.eqns[path[0]])
        for what, change in [*changes(eqn), *_rewired(eqn, scope, rng)]:
            yield Mutant(where, what, _at(path, eqn.primitive.name, change))
    yield from _of_inputs(jaxpr)
    yield from _of_outputs(jaxpr, rng)


def _at(path, primitive, change):
    def changed(eqn, ins, scope):
        if eqn.primitive.name != primitive:
            raise LookupError(f"at these shapes it is {eqn.primitive.name}")
        return change(eqn, ins, scope)

    return lambda jaxpr, inputs: evaluate_changed(jaxpr, inputs, path, changed)


def _rewired(eqn, scope, rng):
    """Another variable of the same type in an operand's place."""
    for k, operand in enumerate(eqn.invars):
        for number in _like(operand, scope, rng):

            def change(eqn, ins, scope, k=k, number=number):
                return with_operand(k, lambda _: scope[number])(eqn, ins, scope)

            yield f"operand {k} is value {number} in scope", change


def _of_inputs(jaxpr):
    for k, var in enumerate(jaxpr.invars):
        if not is_float(var.aval):
            continue
        # Of the neighbouring example; and as if nobody had passed it on.
        if var.aval.shape and var.aval.shape[0] > 1:
            yield _of_input(k, "stale: a row late", lambda x: jnp.roll(x, 1, axis=0))
        yield _of_input(k, "ignored", jnp.ones_like)
        if square(var.aval):
            yield _of_input(k, "transposed", transposed)


def _of_input(k, what, new):
    def run(jaxpr, inputs):
        return evaluate(jaxpr, [*inputs[:k], new(inputs[k]), *inputs[k + 1 :]])

    return Mutant(f"input {k} of the rule", what, run)


def _of_outputs(jaxpr, rng):
    avals = jaxpr.out_avals
    scope = [*jaxpr.invars, *jaxpr.constvars]
    scope += [v for eqn in jaxpr.eqns for v in eqn.outvars]
    for k, aval in enumerate(avals):
        if not is_float(aval):
            continue
        for what, new in _OUTPUT.items():
            if square(aval) or new is not transposed:
                yield _of_output(k, what, new)
        for j in range(k + 1, len(avals)):
            if (avals[j].shape, avals[j].dtype) == (aval.shape, aval.dtype):
                order = list(range(len(avals)))
                order[k], order[j] = j, k
                yield Mutant(f"outputs {k} and {j}", "swapped", _reordered(order))
        for number in _like(jaxpr.outvars[k], scope, rng):
            what = f"is value {number} in scope"
            yield Mutant(f"output {k}", what, _replaced(k, number))


_OUTPUT = {
    "0": jnp.zeros_like,
    "negated": lambda x: -x,
    "twice": lambda x: 2 * x,
    "1 % too large": lambda x: 1.01 * x,
    "1 % too large in the last element": lambda x: (
        x * jnp.ones(x.size).at[-1:].set(1.01).reshape(x.shape).astype(x.dtype)
    ),
    "transposed": transposed,
}


def _of_output(k, what, new):
    def run(jaxpr, inputs):
        outs = evaluate(jaxpr, inputs)
        return [*outs[:k], new(outs[k]), *outs[k + 1 :]]

    return Mutant(f"output {k}", what, run)


def _reordered(order):
    def run(jaxpr, inputs):
        outs = evaluate(jaxpr, inputs)
        return [outs[k] for k in order]

    return run


def _replaced(k, number):
    def run(jaxpr, inputs):
        scope = [*inputs, *jaxpr.consts]
        env = dict(zip([*jaxpr.invars, *jaxpr.constvars], scope, strict=True))
        for eqn in jaxpr.eqns:
            values = [v.val if isinstance(v, Literal) else env[v] for v in eqn.invars]
            outs = run_equation(eqn, values)
            env.update(zip(eqn.outvars, outs, strict=True))
            scope += outs
        outs = evaluate(jaxpr, inputs)
        return [*outs[:k], scope[number], *outs[k + 1 :]]

    return run


def _like(operand, scope, rng) -> list[int]:
    """Numbers of some variables in scope of an operand's type, in order."""

    def type_of(v):
        return v.aval.shape, v.aval.dtype

    same = [
        k
        for k, v in enumerate(scope)
        if v is not operand and type_of(v) == type_of(operand)
    ]
    return sorted(rng.sample(same, min(_OTHERS, len(same))))


def _shown(eqn, outermost) -> str:
    """As JAX prints it, of a call or a loop its name alone, and its line."""
    text = " ".join(str(eqn).split())
    if any(True for _ in bodies(eqn)):
        text = f"{eqn.primitive.name} {eqn.params.get('name', '')}".rstrip()
    site = site_of(outermost)
    return f"{text} at {os.path.relpath(site)}" if site else text


def _text(bwd, args) -> str:
    """The mutant as it reads, without what no output needs."""
    jaxpr = trace(bwd, args, dynamic=_is_array).jaxpr
    values = [np.asarray(c).tobytes() for c in jaxpr.consts if not _is_key(c)]
    return f"{live(jaxpr)} {values}"


def _is_key(leaf) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray))
