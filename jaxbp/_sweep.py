"""One sweep forward and one back over a jaxpr, equation by equation."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxbp import _interpret, _jaxpr
from jaxbp._errors import first_line
from jaxbp._loops import shown_while, unrolled_scan
from jaxbp._steps import (
    Step,
    Value,
    holds,
    is_floating,
    is_users_rule,
    or_zeros,
    wire_name,
)

# Equations through which, by definition, no cotangent goes.
FLAT = frozenset(("stop_gradient", "sign", "floor", "ceil", "round", "while"))


def sweep(
    jaxpr: Any,
    inputs: Sequence[Any],
    cotangents: Sequence[Any],
    *,
    whole: Callable[[Any], bool] = lambda eqn: False,
    wires: bool = True,
    rules: bool = True,
    iteration: int | None = None,
) -> tuple[tuple[Value, ...], tuple[Value, ...], list[Step]]:
    """Run a closed jaxpr forward, and pull cotangents of its outputs back, None: none.

    Equations for which `whole` holds are one step, whatever is inside them. Wires named
    inside rules are looked for only with `wires`. Without `rules` every equation is
    pulled back by autodiff alone: the steps are the same, hand-written rules whole, but
    not used. Of a scan with an `iteration` only that one is shown, those before it
    and those after it as one step each; a negative one counts from the end.
    """
    recorder = _Recorder(whole, _interpret.run_equation if rules else plain, iteration)
    ins = [Value(x, is_floating(x)) for x in inputs]
    outs = recorder.run(jaxpr, ins, (), "")
    for out, bar in zip(outs, cotangents, strict=True):
        if out.active:
            _add(out, bar)
    recorder.pull_back(wires)
    return tuple(ins), tuple(outs), recorder.steps


class _Recorder:
    """Evaluates jaxprs on Values, and keeps every equation as a Step."""

    def __init__(self, whole, run_equation, iteration):
        self.steps: list[Step] = []
        self.iteration = iteration
        self._whole, self._run_equation = whole, run_equation
        self._called: Counter[tuple[str, ...]] = Counter()

    def run(self, jaxpr, ins, where, site) -> list[Value]:
        env = dict(zip(jaxpr.invars, ins, strict=True))
        for var, const in zip(
            jaxpr.constvars, getattr(jaxpr, "consts", ()), strict=True
        ):
            env[var] = Value(const)

        def read(atom):
            return Value(atom.val) if hasattr(atom, "val") else env[atom]

        for eqn in jaxpr.eqns:
            args = [read(v) for v in eqn.invars]
            here = _jaxpr.site_of(eqn) or site
            around = (*where, *_jaxpr.scopes_of(eqn))
            outs = None if self._whole(eqn) else self._descend(eqn, args, around, here)
            if outs is None:
                outs = self.step(eqn, args, around, here)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _descend(self, eqn, ins, where, site):
        """The outputs by way of the equation's body, None where it is run whole."""
        name, params = eqn.primitive.name, eqn.params
        if _jaxpr.is_call(eqn):
            (body,) = _jaxpr.bodies(eqn)
            named = "name" in params and not _jaxpr.is_from_jax(body)
            label = self._label(where, params["name"]) if named else ()
            return self.run(body, ins, (*where, *label), site)
        if name == "cond":
            k = int(ins[0].value)
            return self.run(
                params["branches"][k], ins[1:], (*where, f"cond[{k}]"), site
            )
        if name == "scan" and params["length"]:
            return unrolled_scan(self, eqn, ins, where, site)
        if name == "while":
            return shown_while(self, eqn, ins, where, site)
        return None

    def _label(self, where, name):
        """A jitted function by its name, from its second call there with a number."""
        self._called[*where, name] += 1
        count = self._called[*where, name]
        return (name if count == 1 else f"{name} #{count}",)

    def step(self, eqn, ins, where, site):
        """Run one equation whole, and keep the way back through it."""
        rule = _jaxpr.as_rule(eqn)
        values = [v.value for v in ins]
        live = [k for k, v in enumerate(ins) if v.active]
        step = Step(eqn.primitive.name, tuple(ins), (), site, where, eqn, rule)
        outs = None
        if live and eqn.primitive.name not in FLAT:
            try:
                run = self._run_equation
                outs, step.pull = with_pullback(eqn, values, live, run)
            except Exception as error:  # whatever JAX or the rule's fwd raises
                step.note = first_line(error)
        if outs is None:
            outs = self._run_equation(eqn, values)
        if rule:
            step.name = rule.name
        step.outs = tuple(Value(o, bool(live) and is_floating(o)) for o in outs)
        self.steps.append(step)
        return step.outs

    def pull_back(self, wires):
        for step in reversed(self.steps):
            bars = [out.cotangent for out in step.outs]
            if step.pull is None or all(bar is None for bar in bars):
                continue
            try:
                found = list(step.pull(bars))
                step.wires = _wires_in(step, bars) if wires and step.rule else ()
            except Exception as error:  # whatever a rule's bwd raises
                step.note = first_line(error)
                continue
            finally:
                if step.eqn is not None:  # it can be had again
                    step.pull = None  # and the residuals with it
            step.bars = tuple(found)
            # The last first, as JAX adds them up: rounding is then the same.
            for value, bar in reversed(list(zip(step.ins, found, strict=True))):
                if value.active:
                    _add(value, bar)


def plain(eqn, values):
    """The outputs of an equation, a user's rules in it replaced by their primals."""
    inside = any(holds(body, is_users_rule) for body in _jaxpr.bodies(eqn))
    if not inside and not is_users_rule(eqn):
        return _interpret.run_equation(eqn, values)
    return _jaxpr.evaluate(_jaxpr.without_rules(_interpret.alone(eqn)), values)


def with_pullback(
    eqn: Any,
    values: Sequence[Any],
    live: Sequence[int],
    run: Callable[[Any, list[Any]], list[Any]] = _interpret.run_equation,
) -> tuple[list[Any], Callable[[Sequence[Any]], list[Any]]]:
    """The outputs, and a function from their cotangents to those of every input."""
    floating: list[int] = []

    def call(*chosen):
        ins = list(values)
        for k, x in zip(live, chosen, strict=True):
            ins[k] = x
        outs = run(eqn, ins)
        floating[:] = [k for k, o in enumerate(outs) if is_floating(o)]
        return [outs[k] for k in floating], outs

    chosen, back, outs = jax.vjp(call, *(values[k] for k in live), has_aux=True)
    for k, out in zip(floating, chosen, strict=True):
        outs[k] = out  # fwd's value, where the equation is a rule

    def pull(bars):
        full = [or_zeros(bars[k], outs[k]) for k in floating]
        found: list[Any] = [None] * len(values)
        for k, bar in zip(live, back(full), strict=True):
            found[k] = bar
        return found

    return outs, pull


def forward_pass(step: Step) -> tuple[list[Any], Callable[..., Any]]:
    """The inputs of a step that are active, and its forward pass as their function.

    Which gives the backward pass: from the outputs' cotangents to those there are.
    """
    values = [v.value for v in step.ins]
    live = [k for k, v in enumerate(step.ins) if v.active]

    def forward(chosen):
        ins = list(values)
        for k, x in zip(live, chosen, strict=True):
            ins[k] = x
        _, pull = with_pullback(step.eqn, ins, live)
        return lambda bars: [bar for bar in pull(bars) if bar is not None]

    return [values[k] for k in live], forward


def _wires_in(step: Step, bars: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
    """The names that a rule's own fwd and bwd give, with their values, in order."""
    chosen, forward = forward_pass(step)
    args = chosen, list(bars)
    jaxpr = jax.make_jaxpr(lambda chosen, bars: forward(chosen)(bars))(*args)
    if not holds(jaxpr, wire_name):
        return ()
    found: list[tuple[str, Any]] = []

    def visit(eqn, ins, outs):
        if name := wire_name(eqn):
            found.append((name, outs[0]))
        return outs

    _interpret.interpret(jaxpr, jax.tree.leaves(args), visit)
    return tuple(found)


def _add(value: Value, bar: Any) -> None:
    if bar is not None and value.cotangent is not None:
        # A rule may answer in a dtype of its own: no promotion is asked for it.
        bar = value.cotangent + bar.astype(value.cotangent.dtype)
    value.cotangent = value.cotangent if bar is None else bar
