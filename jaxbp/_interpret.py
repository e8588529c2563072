"""Jaxprs run equation by equation: shown to a visitor, changed in one place, alone."""

import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxbp._jaxpr import (
    Eqn,
    Jaxpr,
    bodies,
    is_call,
    is_concrete,
    is_rule,
    mapped,
    primal,
)

Visit = Callable[[Eqn, list[Any], list[Any]], Sequence[Any]]


def unseen(eqn: Eqn, ins: list[Any], outs: list[Any]) -> list[Any]:
    """A visitor that changes nothing."""
    return outs


def interpret(
    jaxpr: Jaxpr,
    inputs: Sequence[Any],
    visit: Visit,
    *,
    descend_rules: bool = True,
    step: Callable[[Eqn, list[Any]], list[Any]] | None = None,
) -> list[Any]:
    """Evaluate a jaxpr equation by equation, showing each one to `visit`.

    `visit(eqn, in_values, out_values)` returns the outputs to go on with. It sees the
    equations that are run, those inside jit and remat in place of the call; of a cond
    the branch that is taken, of a scan and a while loop the body once per iteration,
    but not the loop's predicate. A cond or while loop that is decided by a traced value
    is run whole, as are shard_map, kernels and solvers, and seen as one equation. So is
    a rule, unless `descend_rules`: then its primal is run in its place.

    `step` runs one equation, in the place of `run_equation`. A value is let go of after
    its last use. Works on concrete values, and on traced ones under grad, vmap and jit.
    """
    step = step or run_equation
    env = dict(zip(jaxpr.invars, inputs, strict=True))
    env.update(zip(jaxpr.constvars, getattr(jaxpr, "consts", ()), strict=True))
    run = functools.partial(
        interpret, visit=visit, descend_rules=descend_rules, step=step
    )

    def read(atom):
        return atom.val if isinstance(atom, Literal) else env[atom]

    for eqn, last in zip(jaxpr.eqns, _last_uses(jaxpr), strict=True):
        ins = [read(v) for v in eqn.invars]
        for var in last:
            env.pop(var, None)
        outs = _descend(eqn, ins, run, descend_rules)
        if outs is None:
            outs = visit(eqn, ins, step(eqn, ins))
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


_last: weakref.WeakKeyDictionary[Jaxpr, list[set[Any]]] = weakref.WeakKeyDictionary()


def _last_uses(jaxpr: Jaxpr) -> list[set[Any]]:
    """For every equation the variables that no later one reads."""
    if jaxpr not in _last:
        used = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
        found = []
        for eqn in reversed(jaxpr.eqns):
            ins = {v for v in eqn.invars if not isinstance(v, Literal)}
            found.append(ins - used)
            used |= ins
        _last[jaxpr] = found[::-1]
    return _last[jaxpr]


def run_equation(eqn: Eqn, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of one equation, run whole in the context it was traced in."""
    bind_params = eqn.primitive.get_bind_params(eqn.params)
    with eqn.ctx.manager:
        outs = eqn.primitive.bind(*inputs, **bind_params)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def evaluate_changed(
    jaxpr: Jaxpr, inputs: Sequence[Any], path: Sequence[int], change: Visit
) -> list[Any]:
    """`evaluate`, but one equation's outputs are what `change` makes of its inputs.

    `path` is the equation's number; of one inside another that one's number, the number
    of the body in it, and so on. `change(eqn, in_values, scope)` returns the outputs;
    `scope` holds the values of the body's inputs and constants and of the equations so
    far, in program order. A TypeError where the outputs have other types: calls and
    loops take what they are given unseen.
    """
    env = dict(zip(jaxpr.invars, inputs, strict=True))
    env.update(zip(jaxpr.constvars, getattr(jaxpr, "consts", ()), strict=True))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else env[atom]

    for k, eqn in enumerate(jaxpr.eqns):
        ins = [read(v) for v in eqn.invars]
        if k != path[0]:
            outs = run_equation(eqn, ins)
        elif len(path) == 1:
            outs = change(eqn, ins, list(env.values()))
            _check_types(eqn, outs)
        else:
            outs = _run_changed(eqn, ins, path[1:], change)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def equations(jaxpr: Jaxpr) -> Iterator[tuple[tuple[int, ...], Eqn, list[Any]]]:
    """Every equation, with its path and the variables in scope; rules are left whole.

    The path is that of `evaluate_changed`.
    """
    scope = [*jaxpr.invars, *jaxpr.constvars]
    for k, eqn in enumerate(jaxpr.eqns):
        yield (k,), eqn, list(scope)
        if not is_rule(eqn):
            for number, body in enumerate(bodies(eqn)):
                for path, inner, inside in equations(body):
                    yield (k, number, *path), inner, inside
        scope += eqn.outvars


def _check_types(eqn: Eqn, outs: Sequence[Any]) -> None:
    for v, out in zip(eqn.outvars, outs, strict=True):
        if (v.aval.shape, v.aval.dtype) != (jnp.shape(out), jnp.result_type(out)):
            got = f"{jnp.result_type(out)} {jnp.shape(out)}"
            raise TypeError(f"{eqn.primitive} gives {v.aval}, changed {got}")


def _run_changed(eqn: Eqn, ins: list[Any], path: Sequence[int], change: Visit):
    body, inner = list(bodies(eqn))[path[0]], path[1:]
    if is_call(eqn):
        return evaluate_changed(body, ins, inner, change)

    def changed(*values):
        return evaluate_changed(body, values, inner, change)

    new = jax.make_jaxpr(changed)(*body.in_avals)
    params = {
        name: mapped(param, lambda old: new if old is body else old)
        for name, param in eqn.params.items()
    }
    return run_equation(eqn.replace(params=params), ins)


def alone(eqn: Eqn) -> Jaxpr:
    """A closed jaxpr from an equation's inputs to its outputs, of nothing else."""
    avals = [v.aval for v in eqn.invars]
    return jax.make_jaxpr(lambda *inputs: run_equation(eqn, inputs))(*avals)


Run = Callable[..., list[Any]]  # of a jaxpr and its inputs


def _descend(eqn: Eqn, ins: list[Any], run: Run, rules: bool) -> list[Any] | None:
    """The equation's outputs by way of its body; None where it has to be run whole."""
    name, params = eqn.primitive.name, eqn.params
    if is_call(eqn):
        return run(params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"], ins)
    if name == "cond" and is_concrete(ins[0]):
        return run(params["branches"][int(ins[0])], ins[1:])
    if name == "scan" and params["length"]:
        return _unrolled_scan(eqn, ins, run)
    if name == "while":
        return _unrolled_while(eqn, ins, run)
    if rules and is_rule(eqn):
        return run(*primal(eqn, ins))
    return None


def scan_sizes(eqn: Eqn) -> tuple[int, int]:
    """How many of a scan's inputs are constants, how many are carried."""
    if "ft_in" in eqn.params:  # since jax 0.12
        consts, carry, _ = (len(t) for t in eqn.params["ft_in"].unpack())
        return consts, carry
    return eqn.params["num_consts"], eqn.params["num_carry"]


def _unrolled_scan(eqn: Eqn, ins: list[Any], run: Run) -> list[Any]:
    n_consts, n_carry = scan_sizes(eqn)
    consts, carry = ins[:n_consts], ins[n_consts : n_consts + n_carry]
    xs, length = ins[n_consts + n_carry :], eqn.params["length"]
    steps = range(length)[::-1] if eqn.params["reverse"] else range(length)
    rows: list[Any] = [None] * length
    for k in steps:
        x = [_row(a, k) for a in xs]
        outs = run(eqn.params["jaxpr"], [*consts, *carry, *x])
        carry, rows[k] = outs[:n_carry], outs[n_carry:]
    return [*carry, *(_stacked(ys) for ys in zip(*rows, strict=True))]


def _row(array: Any, k: int) -> Any:
    if isinstance(array, np.ndarray):
        return array[k]
    # An index that is an array: a static slice would compile once per step.
    return jax.lax.dynamic_index_in_dim(array, np.int32(k), keepdims=False)


def _stacked(rows: Sequence[Any]) -> Any:
    concrete = all(isinstance(y, (np.ndarray, np.generic)) for y in rows)
    return np.stack(rows) if concrete else jnp.stack(rows)


def _unrolled_while(eqn: Eqn, ins: list[Any], run: Run) -> list[Any]:
    params = eqn.params
    n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
    cond_consts, carry = ins[:n_cond], ins[n_cond + n_body :]
    while True:
        (go,) = run(params["cond_jaxpr"], [*cond_consts, *carry], visit=unseen)
        if not is_concrete(go):
            return run_equation(eqn, [*ins[: n_cond + n_body], *carry])
        if not go.any():
            return carry
        new = run(params["body_jaxpr"], [*ins[n_cond : n_cond + n_body], *carry])
        carry = moved_on(go, new, carry)


def moved_on(going: Any, new: Sequence[Any], old: Sequence[Any]) -> list[Any]:
    """A while loop's next carry: under vmap, of the examples that still go on alone."""
    if not going.ndim:
        return list(new)

    def chosen(a, b):
        return jnp.where(going.reshape(going.shape + (1,) * (a.ndim - 1)), a, b)

    return [chosen(jnp.asarray(a), b) for a, b in zip(new, old, strict=True)]
