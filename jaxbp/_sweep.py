"""One sweep forward and one back over a jaxpr, equation by equation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import _jaxpr
from jaxbp._jaxpr import Rule

# A scan whose unrolled body has at most so many equations is unrolled whole.
_UNROLLED = 2000
_ITERATIONS = 6  # that are shown of a longer one
# Equations through which, by definition, no cotangent goes.
_FLAT = frozenset(("stop_gradient", "sign", "floor", "ceil", "round", "while"))


@dataclass(eq=False)
class Value:
    """A value of the program, and the cotangent that arrives at it.

    Steps that share a value share this object. `cotangent` is None where none arrives:
    what the outputs do not depend on, data, and what lies before a while loop.
    `active`: it is floating, and depends on an argument that is differentiated.
    """

    value: Any
    active: bool = False
    cotangent: Any = None


@dataclass(eq=False)
class Step:
    """One equation as it was run: `ins` to `outs`, and cotangents the other way.

    `name` is the primitive's or the rule's; `where` the loops, branches and jitted
    functions around it, outermost first; `wires` the names that a rule's own fwd and
    bwd give, in the order met; `note` why no cotangent goes through, where one should.
    """

    name: str
    ins: tuple[Value, ...]
    outs: tuple[Value, ...]
    site: str = ""
    where: tuple[str, ...] = ()
    eqn: Any = None
    rule: Rule | None = None
    wires: tuple[tuple[str, Any], ...] = ()
    note: str = ""
    pull: Callable[[list[Any]], Sequence[Any]] | None = field(default=None, repr=False)


def sweep(
    jaxpr: Any,
    inputs: Sequence[Any],
    cotangents: Sequence[Any],
    *,
    whole: Callable[[Any], bool] = lambda eqn: False,
    wires: bool = True,
) -> tuple[tuple[Value, ...], tuple[Value, ...], list[Step]]:
    """Run a closed jaxpr forward, and pull cotangents of its outputs back, None: none.

    Equations for which `whole` holds are one step, whatever is inside them. Wires named
    inside rules are looked for only with `wires`.
    """
    recorder = _Recorder(whole)
    ins = [Value(x, is_floating(x)) for x in inputs]
    outs = recorder.run(jaxpr, ins, (), "")
    for out, bar in zip(outs, cotangents, strict=True):
        if out.active:
            _add(out, bar)
    recorder.pull_back(wires)
    return tuple(ins), tuple(outs), recorder.steps


class _Recorder:
    """Evaluates jaxprs on Values, and keeps every equation as a Step."""

    def __init__(self, whole):
        self.steps: list[Step] = []
        self._whole = whole

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
            outs = None if self._whole(eqn) else self._descend(eqn, args, where, here)
            if outs is None:
                outs = self._step(eqn, args, where, here)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _descend(self, eqn, ins, where, site):
        """The outputs by way of the equation's body, None where it is run whole."""
        name, params = eqn.primitive.name, eqn.params
        if _jaxpr.is_call(eqn):
            (body,) = _jaxpr.bodies(eqn)
            label = (params["name"],) if "name" in params else ()
            return self.run(body, ins, (*where, *label), site)
        if name == "cond":
            k = int(ins[0].value)
            return self.run(
                params["branches"][k], ins[1:], (*where, f"cond[{k}]"), site
            )
        if name == "scan" and params["length"]:
            return self._scan(eqn, ins, where, site)
        if name == "while":
            return self._while(eqn, ins, where, site)
        return None

    def _step(self, eqn, ins, where, site, rule=None):
        """Run one equation whole, and keep the way back through it."""
        rule = _jaxpr.as_rule(eqn)
        values = [v.value for v in ins]
        live = [k for k, v in enumerate(ins) if v.active]
        step = Step(eqn.primitive.name, tuple(ins), (), site, where, eqn, rule)
        outs = None
        if live and eqn.primitive.name not in _FLAT:
            try:
                outs, step.pull = _with_pullback(eqn, values, live)
            except Exception as error:  # whatever JAX or the rule's fwd raises
                step.note = _first_line(error)
        if outs is None:
            outs = _jaxpr.run_equation(eqn, values)
        if rule:
            step.name = rule.name
        step.outs = tuple(Value(o, bool(live) and is_floating(o)) for o in outs)
        self.steps.append(step)
        return step.outs

    def _scan(self, eqn, ins, where, site):
        n_consts, n_carry = _jaxpr.scan_sizes(eqn)
        consts, carry = ins[:n_consts], ins[n_consts : n_consts + n_carry]
        body, length = eqn.params["jaxpr"], eqn.params["length"]
        pieces = _pieces(length, unrolled_size(body))
        # By index along the leading axis, which a reverse scan walks downwards.
        turn = eqn.params["reverse"]
        spans = [(length - b, length - a) if turn else (a, b) for a, b in pieces]
        xs = [self._unstack(x, spans, where, site) for x in ins[n_consts + n_carry :]]
        rows = []
        for k, (start, stop) in enumerate(spans):
            inside = [*consts, *carry, *(x[k] for x in xs)]
            if stop - start == 1:
                outs = self.run(body, inside, (*where, f"scan[{start}]"), site)
            else:
                params = {**eqn.params, "length": stop - start, "unroll": 1}
                span = (*where, f"scan[{start}:{stop}]")
                outs = self._step(eqn.replace(params=params), inside, span, site)
            carry = outs[:n_carry]
            rows.append(outs[n_carry:])
        ys = zip(*rows, strict=True)
        return [*carry, *(self._stack(y, spans, where, site) for y in ys)]

    def _unstack(self, x, spans, where, site):
        outs = tuple(Value(piece, x.active) for piece in _cut(x.value, spans))

        def pull(bars):
            pairs = zip(bars, outs, strict=True)
            return [_join([_or_zeros(b, o.value) for b, o in pairs], spans)]

        self.steps.append(Step("unstack", (x,), outs, site, where, pull=pull))
        return outs

    def _stack(self, rows, spans, where, site):
        joined = _join([row.value for row in rows], spans)
        out = Value(joined, any(row.active for row in rows))

        def pull(bars):
            return _cut(bars[0], spans)

        self.steps.append(Step("stack", tuple(rows), (out,), site, where, pull=pull))
        return out

    def _while(self, eqn, ins, where, site):
        params = eqn.params
        n_cond, n = (
            params["cond_nconsts"],
            params["body_nconsts"] + params["cond_nconsts"],
        )
        values = [v.value for v in ins]
        go_on = jax.jit(lambda c: _jaxpr.evaluate(params["cond_jaxpr"], c)[0])
        body = params["body_jaxpr"]
        advance = jax.jit(lambda c: _jaxpr.evaluate(body, c))

        def show(k, carry):
            inside = [Value(x) for x in [*values[n_cond:n], *carry]]
            outs = self.run(body, inside, (*where, f"while[{k}]"), site)
            return [v.value for v in outs]

        carry, before, k, shown = values[n:], None, 0, True
        while go_on([*values[:n_cond], *carry]):
            shown = k & (k - 1) == 0
            before = carry
            step = show(k, carry) if shown else advance([*values[n_cond:n], *carry])
            carry, k = list(step), k + 1
        if not shown:
            show(k - 1, before)
        active = any(v.active for v in ins)
        outs = tuple(Value(x, active and is_floating(x)) for x in carry)
        note = "no cotangent goes back through a while loop" if active else ""
        self.steps.append(Step("while", tuple(ins), outs, site, where, eqn, note=note))
        return outs

    def pull_back(self, wires):
        for step in reversed(self.steps):
            bars = [out.cotangent for out in step.outs]
            if step.pull is None or all(bar is None for bar in bars):
                continue
            try:
                found = list(step.pull(bars))
                step.wires = _wires_in(step, bars) if wires and step.rule else ()
            except Exception as error:  # whatever a rule's bwd raises
                step.note = _first_line(error)
                continue
            finally:
                step.pull = None  # and the residuals with it
            # The last first, as JAX adds them up: rounding is then the same.
            for value, bar in reversed(list(zip(step.ins, found, strict=True))):
                if value.active:
                    _add(value, bar)


def is_floating(x: Any) -> bool:
    dtype = x.dtype if hasattr(x, "dtype") else np.result_type(type(x))
    return jnp.issubdtype(dtype, jnp.inexact)


def holds(jaxpr: Any, test: Callable[[Any], Any]) -> bool:
    """Whether an equation of the jaxpr, or of one inside it, passes the test."""
    return any(
        test(eqn) or any(holds(body, test) for body in _jaxpr.bodies(eqn))
        for eqn in jaxpr.eqns
    )


def wire_name(eqn: Any) -> str | None:
    """What `checkpoint_name` calls the output of an equation."""
    return eqn.params["name"] if eqn.primitive.name == "name" else None


def _with_pullback(eqn, values, live):
    """The outputs, and a function from their cotangents to those of every input."""
    floating: list[int] = []

    def call(*chosen):
        ins = list(values)
        for k, x in zip(live, chosen, strict=True):
            ins[k] = x
        outs = _jaxpr.run_equation(eqn, ins)
        floating[:] = [k for k, o in enumerate(outs) if is_floating(o)]
        return [outs[k] for k in floating], outs

    chosen, back, outs = jax.vjp(call, *(values[k] for k in live), has_aux=True)
    for k, out in zip(floating, chosen, strict=True):
        outs[k] = out  # fwd's value, where the equation is a rule

    def pull(bars):
        full = [_or_zeros(bars[k], outs[k]) for k in floating]
        found: list[Any] = [None] * len(values)
        for k, bar in zip(live, back(full), strict=True):
            found[k] = bar
        return found

    return outs, pull


def _wires_in(step: Step, bars: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
    """The names that a rule's own fwd and bwd give, with their values, in order."""
    values = [v.value for v in step.ins]
    live = [k for k, v in enumerate(step.ins) if v.active]

    def both(chosen, bars):
        ins = list(values)
        for k, x in zip(live, chosen, strict=True):
            ins[k] = x
        return _with_pullback(step.eqn, ins, live)[1](bars)

    args = ([values[k] for k in live], list(bars))
    jaxpr = jax.make_jaxpr(lambda *a: [b for b in both(*a) if b is not None])(*args)
    if not holds(jaxpr, wire_name):
        return ()
    found: list[tuple[str, Any]] = []

    def visit(eqn, ins, outs):
        if name := wire_name(eqn):
            found.append((name, outs[0]))
        return outs

    _jaxpr.interpret(jaxpr, jax.tree.leaves(args), visit)
    return tuple(found)


def _add(value: Value, bar: Any) -> None:
    if bar is not None:
        first = value.cotangent is None
        value.cotangent = bar if first else value.cotangent + bar


def _or_zeros(bar, like):
    return jnp.zeros_like(like) if bar is None else bar


def unrolled_size(jaxpr: Any) -> int:
    """Equations that a run of a jaxpr shows, loops multiplied out."""

    def of(eqn):
        if _jaxpr.as_rule(eqn):
            return 1
        inner = sum(map(unrolled_size, _jaxpr.bodies(eqn)))
        return max(1, inner * eqn.params.get("length", 1))

    return sum(map(of, jaxpr.eqns))


def _pieces(length: int, size: int) -> list[tuple[int, int]]:
    """Iterations of a scan in spans; those of length 1 are shown."""
    shown = np.arange(length)
    if length * size > _UNROLLED:
        shown = np.unique(np.linspace(0, length - 1, _ITERATIONS).astype(int))
    pieces, end = [], 0
    for k in map(int, shown):
        pieces += [(end, k)] if k > end else []
        pieces.append((k, k + 1))
        end = k + 1
    return pieces


def _cut(x, spans):
    """The rows of an array where a span has length 1, slices where it is longer."""
    return [
        # An index that is an array: a static slice would compile once per row.
        jax.lax.dynamic_index_in_dim(x, np.int32(a), keepdims=False)
        if b - a == 1
        else jax.lax.slice_in_dim(x, a, b)
        for a, b in spans
    ]


def _join(pieces, spans):
    ordered = sorted(zip(spans, pieces, strict=True), key=lambda pair: pair[0])
    if len(spans) == ordered[-1][0][1]:
        return jnp.stack([piece for _, piece in ordered])
    return jnp.concatenate([p[None] if b - a == 1 else p for (a, b), p in ordered])


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
