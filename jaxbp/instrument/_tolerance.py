"""Loops that approach a limit: how near to it they leave what they compute.

Where a loop ends at a tolerance, a neighbour may take a round more or less: the value
then jumps by what a round changes, and no secant tells derivatives that are nearer.
Where it makes a fixed number of rounds, its own derivative is not yet that of the
limit, which a rule by the implicit function theorem gives.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._interpret import (
    equations,
    evaluate_changed,
    interpret,
    run_equation,
    scan_sizes,
)
from jaxbp._jaxpr import evaluate, live
from jaxbp._steps import holds, is_floating
from jaxbp.instrument import _by_numpy
from jaxbp.instrument._compiled import jitted

_SETTLED = 2.0**-16  # of an array; what more rounds change by more is near no limit
_ORDERS = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))
_LOOPS = 4  # of a program that are made longer


def iterates(eqn: Any) -> bool:
    """A scan that repeats one step: it reads and keeps nothing round by round."""
    if eqn.primitive.name != "scan" or not eqn.params["length"]:
        return False
    consts, carry = scan_sizes(eqn)
    return len(eqn.invars) == consts + carry and len(eqn.outvars) == carry


def ends_at_a_float(eqn: Any) -> bool:
    """A while loop but one that counts, which makes as many rounds beside."""
    if eqn.primitive.name != "while":
        return False
    test, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]
    carried = test.jaxpr.invars[eqn.params["cond_nconsts"] :]
    read = live(test).invars
    # What the body finds of floats may be what the test reads: "it still moves".
    flags = [k for k, v in enumerate(carried) if v in read and v.aval.dtype == bool]
    return holds(test, _reads_floats) or holds(live(body, flags), _reads_floats)


def is_without_bound(eqn: Any) -> bool:
    """One that counts no rounds: in a dtype that never comes so near it has no end."""
    if not ends_at_a_float(eqn):
        return False
    return not holds(eqn.params["cond_jaxpr"], _counts)


def _counts(eqn: Any) -> bool:
    return eqn.primitive.name in _ORDERS and not any(
        is_floating(v.aval) for v in eqn.invars
    )


def _reads_floats(eqn: Any) -> bool:
    return any(is_floating(v.aval) for v in eqn.invars)


def approaches(eqn: Any) -> bool:
    """A loop that may be on its way to a limit."""
    return iterates(eqn) or ends_at_a_float(eqn)


def longer(jaxpr: Any, is_meant: Callable[[Any], bool]) -> list[Any]:
    """The closed jaxpr with more rounds of a loop, once for each that is meant.

    Of a while loop one, and then another, since an element may be the same by chance;
    of a scan over twice as many: those bring it to its limit.
    """
    found = [(path, eqn) for path, eqn, _ in equations(jaxpr) if is_meant(eqn)]

    def changed(path, change, *inputs):
        return evaluate_changed(jaxpr, inputs, path, change)

    return [
        jax.make_jaxpr(functools.partial(changed, path, change))(*jaxpr.in_avals)
        for path, eqn in found[:_LOOPS]
        for change in _MORE[eqn.primitive.name]
    ]


def at_tolerance(jaxpr: Any, inputs: Sequence[Any]) -> list[bool]:
    """Of each loop that ends at a tolerance, whether it did, or ran out of rounds.

    Where its test holds no longer, though everything in it that counts were true. Loops
    inside other loops are taken to be at theirs.
    """
    return [
        _is_over(jaxpr, inputs, path)
        for path, eqn, _ in equations(jaxpr)
        if ends_at_a_float(eqn)
    ]


def _is_over(jaxpr, inputs, path) -> bool:
    def goes_on(inputs):
        seen = []

        def look(eqn, ins, scope):
            del scope
            outs = run_equation(eqn, ins)
            test = [*ins[: eqn.params["cond_nconsts"]], *outs]
            seen.extend(interpret(eqn.params["cond_jaxpr"], test, _uncounted))
            return outs

        evaluate_changed(jaxpr, inputs, path, look)
        return jnp.any(seen[0])

    try:
        return not jax.jit(goes_on)(list(inputs))
    except jax.errors.UnexpectedTracerError:
        return True


def _uncounted(eqn: Any, ins: list[Any], outs: list[Any]) -> list[Any]:
    del ins
    return [jnp.ones_like(outs[0])] if _counts(eqn) else outs


class Rounds:
    """A closed jaxpr beside others, with more rounds of its loops."""

    def __init__(self, jaxpr: Any, others: Sequence[Any]):
        self._avals = jaxpr.out_avals
        self._runs = [_Run(one) for one in (jaxpr, *others)] if others else []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def left_open(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        """What more rounds change in the outputs, together.

        Nothing where they lead to no limit: a number that is doubled until it is large.
        """
        found = [np.zeros(aval.shape) for aval in self._avals]
        for pairs in self._changes(inputs):
            for k, (change, little) in enumerate(pairs):
                found[k] += change if little else 0
        return found

    def settled(self, inputs: Sequence[Any]) -> list[bool]:
        """Of each of the others, whether its further rounds hardly change a thing."""
        return [all(little for _, little in pairs) for pairs in self._changes(inputs)]

    def _changes(self, inputs):
        outs = [run(list(inputs)) for run in self._runs]
        return [list(map(_change, outs[0], other)) for other in outs[1:]]


class _Run:
    """A jaxpr run by NumPy, or compiled where that takes less time."""

    def __init__(self, jaxpr: Any):
        self._jaxpr, self._compiled = jaxpr, None

    def __call__(self, inputs: list[Any]) -> Sequence[Any]:
        outs = None if self._compiled else _by_numpy.quickly(self._jaxpr, inputs)
        if outs is None:
            run = functools.partial(evaluate, self._jaxpr)
            self._compiled = self._compiled or jitted(run)
            outs = self._compiled(inputs)
        return outs


def _twice(eqn: Any, ins: list[Any], scope: list[Any]) -> list[Any]:
    del scope
    # Not just twice as many: what swings between two values is at no limit.
    params = {**eqn.params, "length": 2 * eqn.params["length"] + 1}
    return run_equation(eqn.replace(params=params), ins)


def _once_more(eqn: Any, ins: list[Any], scope: list[Any]) -> list[Any]:
    del scope
    return _round(eqn, ins, run_equation(eqn, ins))


def _twice_more(eqn: Any, ins: list[Any], scope: list[Any]) -> list[Any]:
    return _round(eqn, ins, _once_more(eqn, ins, scope))


_MORE = {"scan": [_twice], "while": [_once_more, _twice_more]}


def _round(eqn, ins, carry):
    consts = eqn.params["cond_nconsts"]
    consts = ins[consts : consts + eqn.params["body_nconsts"]]
    return evaluate(eqn.params["body_jaxpr"], [*consts, *carry])


def _change(one: Any, other: Any) -> tuple[np.ndarray, bool]:
    """How much one array differs from the other, and whether that is little."""
    if not is_floating(one):
        return np.zeros(np.shape(one)), True
    one, other = np.asarray(one), np.asarray(other)
    with np.errstate(all="ignore"):
        change = np.abs(one - other).astype(np.float64)
        little = change.max(initial=0) <= _SETTLED * np.abs(one).max(initial=0)
    return change, bool(little)
