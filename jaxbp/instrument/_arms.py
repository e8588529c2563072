"""The arms of a program's branches: enumerated, and which of them a run takes."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import _interpret, _jaxpr
from jaxbp._steps import is_floating
from jaxbp.instrument._branch import Branch

_CHOICES = {"select_n": "where", "max": "max", "min": "min", "clamp": "clip"}


class Arms:
    """Enumerates the arms in a jaxpr, and runs it telling which of them it takes."""

    def __init__(self):
        self._backward: dict[int, Any] = {}
        self._inside: list[str] = []  # rules whose backward passes are being walked

    def branches(
        self, jaxpr: Any, site: str = "", within: bool = False
    ) -> Iterator[Branch]:
        """Every branch in the order in which `run` lays out their arms.

        `within` a rule's primal no arm's rule is differentiated: the outer one's is.
        """
        for eqn in jaxpr.eqns:
            here, kind = _site(jaxpr, eqn, site), eqn.primitive.name
            if kind == "cond":
                arms = eqn.params["branches"]
                rules = [
                    k for k, a in enumerate(arms) if _users_rules(a) and not within
                ]
                name = "cond" if len(arms) == 2 else "switch"
                yield Branch(here, name, (False,) * len(arms), tuple(rules))
            elif count := _arms(eqn):
                yield Branch(here, _CHOICES[kind], (False,) * count)
            rule = _jaxpr.as_rule(eqn)
            for body in _opened(eqn):
                yield from self.branches(body, here, within or rule is not None)
            backward = self._backward_of(eqn, rule)
            if rule and backward:
                with self._going_back(rule):
                    inner = list(self.branches(backward[1], rule.source, True))
                for b in inner:
                    yield replace(b, kind=f"{b.kind} in bwd")

    def _backward_of(self, eqn, rule):
        """What a user's rule does with a cotangent: to its residuals, and from them.

        Two jaxprs; None where there is none, or it does not trace alone, or it is what
        is being walked: a rule may call itself in its backward pass, without end.
        """
        if rule is None or rule.from_jax or rule.source in self._inside:
            return None
        if _jaxpr.asks_what_varies(eqn):
            return None
        if id(eqn) not in self._backward:
            try:
                self._backward[id(eqn)] = _backward(eqn)
            except Exception:  # then its arms are not counted
                self._backward[id(eqn)] = None
        return self._backward[id(eqn)]

    @contextlib.contextmanager
    def _going_back(self, rule):
        self._inside.append(rule.source)
        try:
            yield
        finally:
            self._inside.pop()

    def _count(self, jaxpr) -> int:
        return sum(len(branch.taken) for branch in self.branches(jaxpr))

    def run(self, jaxpr: Any, inputs: Sequence[Any]) -> tuple[list[Any], jax.Array]:
        """The outputs, and of each arm whether it was taken; traceable."""
        env = dict(zip(jaxpr.invars, inputs, strict=True))
        env.update(zip(jaxpr.constvars, getattr(jaxpr, "consts", ()), strict=True))

        def read(atom):
            return atom.val if hasattr(atom, "val") else env[atom]

        seen = [jnp.zeros(0, bool)]
        for eqn in jaxpr.eqns:
            ins, rule = list(map(read, eqn.invars)), _jaxpr.as_rule(eqn)
            if _arms(eqn):
                seen.append(_chosen(eqn.primitive.name, ins))
            if any(map(self._count, _opened(eqn))) or eqn.primitive.name == "cond":
                outs, inner = self._descend(eqn, ins)
                seen.append(inner)
            else:
                outs = _interpret.run_equation(eqn, ins)
            if backward := self._backward_of(eqn, rule):
                to_residuals, from_them, bars = backward
                residuals = _jaxpr.evaluate(to_residuals, ins)
                with self._going_back(rule):
                    seen.append(self.run(from_them, [*residuals, *bars])[1])
            env.update(zip(eqn.outvars, outs, strict=True))
        return list(map(read, jaxpr.outvars)), jnp.concatenate(seen)

    def _descend(self, eqn, ins):
        name, params = eqn.primitive.name, eqn.params
        if name == "cond":
            return self._through_cond(params["branches"], ins)
        if name == "scan":
            return self._through_scan(eqn, ins)
        if name == "while":
            return self._through_while(params, ins)
        if _jaxpr.as_rule(eqn):
            return self.run(*_jaxpr.primal(eqn, ins))
        (body,) = _jaxpr.bodies(eqn)
        return self.run(body, ins)

    def _through_cond(self, arms, ins):
        counts = [self._count(arm) for arm in arms]

        def through(k):
            def arm(ins):
                outs, inner = self.run(arms[k], ins)
                seen = [jnp.zeros(n, bool) for n in counts]
                seen[k] = inner
                return outs, jnp.concatenate([jnp.arange(len(arms)) == k, *seen])

            return arm

        which = jnp.asarray(ins[0]).astype(np.int32)
        return jax.lax.switch(which, [through(k) for k in range(len(arms))], ins[1:])

    def _through_scan(self, eqn, ins):
        n_consts, n_carry = _interpret.scan_sizes(eqn)
        consts, carry = ins[:n_consts], ins[n_consts : n_consts + n_carry]

        def step(carry, xs):
            outs, seen = self.run(eqn.params["jaxpr"], [*consts, *carry, *xs])
            return outs[:n_carry], (outs[n_carry:], seen)

        xs, length = ins[n_consts + n_carry :], eqn.params["length"]
        reverse = eqn.params["reverse"]
        carry, (ys, seen) = jax.lax.scan(step, carry, xs, length, reverse)
        return [*carry, *ys], seen.any(axis=0)

    def _through_while(self, params, ins):
        n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
        of_cond, of_body = ins[:n_cond], ins[n_cond : n_cond + n_body]
        body = params["body_jaxpr"]

        def step(state):
            outs, seen = self.run(body, [*of_body, *state[0]])
            return outs, state[1] | seen

        def go_on(state):
            return _jaxpr.evaluate(params["cond_jaxpr"], [*of_cond, *state[0]])[0]

        first = (ins[n_cond + n_body :], jnp.zeros(self._count(body), bool))
        return jax.lax.while_loop(go_on, step, first)


def _backward(eqn):
    avals = [v.aval for v in eqn.invars]
    live = [k for k, aval in enumerate(avals) if is_floating(aval)]
    trees: list[Any] = []

    def to_residuals(*ins):
        def call(*chosen):
            moved = list(ins)
            for k, x in zip(live, chosen, strict=True):
                moved[k] = x
            outs = _interpret.run_equation(eqn, moved)
            return [out for out in outs if is_floating(out)]

        outs, back = jax.vjp(call, *(ins[k] for k in live))
        leaves, tree = jax.tree.flatten(back)
        trees[:] = [tree, [jax.typeof(o) for o in outs], list(map(jax.typeof, leaves))]
        return leaves

    first = jax.make_jaxpr(to_residuals)(*avals)
    tree, outs, residuals = trees
    rng = np.random.default_rng(0)
    bars = [jnp.asarray(rng.standard_normal(o.shape), o.dtype) for o in outs]
    count = len(residuals)

    def from_residuals(*values):
        return jax.tree.unflatten(tree, values[:count])(list(values[count:]))

    return first, jax.make_jaxpr(from_residuals)(*residuals, *bars), bars


def _users_rules(jaxpr) -> bool:
    return any(not rule.from_jax for rule in _jaxpr.find_rules(jaxpr))


def _opened(eqn) -> list[Any]:
    """The bodies of an equation into which `_run` looks."""
    if eqn.primitive.name == "while":
        return [eqn.params["body_jaxpr"]]
    looked_into = eqn.primitive.name in ("cond", "scan") or _jaxpr.is_call(eqn)
    return list(_jaxpr.bodies(eqn)) if looked_into or _jaxpr.as_rule(eqn) else []


def _arms(eqn) -> int:
    kind = eqn.primitive.name
    if kind not in _CHOICES or not is_floating(eqn.outvars[0].aval):
        return 0
    return len(eqn.invars) - 1 if kind == "select_n" else len(eqn.invars)


def _site(jaxpr, eqn, site) -> str:
    # JAX traces its own jitted functions once: their lines are those of another call.
    return (site if _jaxpr.is_from_jax(jaxpr) else _jaxpr.site_of(eqn)) or site


def _chosen(kind, ins):
    if kind == "select_n":
        which = ins[0].astype(np.int32)
        return jnp.stack([jnp.any(which == k) for k in range(len(ins) - 1)])
    if kind == "clamp":
        low, x, high = ins
        inside = (low <= x) & (x <= high)
        return jnp.stack([jnp.any(x < low), jnp.any(inside), jnp.any(x > high)])
    first, second = ins if kind == "max" else ins[::-1]
    return jnp.stack([jnp.any(first > second), jnp.any(second > first)])
