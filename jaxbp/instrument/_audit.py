"""audit(f, *args): every hand-written rule inside f, asked where it is called."""

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxbp import _jaxpr
from jaxbp._errors import argument_error, describe
from jaxbp._sweep import Step, holds, is_floating, sweep, wire_name
from jaxbp.instrument._comparison import (
    SCHEMA,
    VERDICTS,
    Verdict,
    _jsonable,
    _number,
    worst_of,
)
from jaxbp.instrument._links import Call, Link, LinkFinding, question
from jaxbp.instrument._pair import Pair, Programs
from jaxbp.instrument._probes import probes
from jaxbp.instrument._witnesses import in_float64

_FAILED = VERDICTS[:3]
_SHOWN = ("scan", "while")  # whose rules are met at other iterations
_OPENED = 8  # calls of one equation whose primal is looked into


@dataclass(frozen=True)
class Audit:
    """The answer of `audit`: one finding a rule and place, from the loss backwards."""

    function: str
    verdict: Verdict
    findings: tuple[LinkFinding, ...]
    note: str = ""

    @property
    def ok(self) -> bool:
        """False for `broken-contract`, `wrong` and `unproven`."""
        return self.verdict not in _FAILED

    @property
    def first(self) -> LinkFinding | None:
        """The first wrong link counted from the loss; None where all are right."""
        return next((f for f in self.findings if f.verdict in _FAILED), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: schema, verdict, findings; non-finite numbers as strings."""
        return {
            "schema": SCHEMA,
            "function": self.function,
            "ok": self.ok,
            "verdict": self.verdict,
            "note": self.note,
            "first": None if self.first is None else self.findings.index(self.first),
            "findings": [_jsonable(asdict(finding)) for finding in self.findings],
        }

    def __str__(self) -> str:
        return _table(self)


def audit(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Audit:
    r"""Ask every hand-written rule that `f` meets whether it is right, where it is met.

    One sweep forward and one back over `f(*args)` give, at every call $y = p(x)$ of a
    rule (`jax.custom_vjp`, `jax.custom_jvp`), its values and the cotangent $\bar y$
    that arrives. There M, the rule's VJP, is held against A, the VJP of $p$ with all
    rules removed, in float64, under the tolerance and the numeric witness of `compare`;
    for $\bar y$ and for two random cotangents, since one of zeros proves nothing.
    Rules are found inside jit, scan, while, cond, remat and vmap, and in the primals of
    other rules. In a while loop, where no cotangent arrives, the random ones ask.

    A rule that is a whole chain with its wires named on both sides (`a2` in the forward
    pass, `a2_bar` in its bwd) is also held against autodiff wire by wire: the first
    that is wrong, while those between it and the loss are right, is the wrong link.

    JAX's own rules (`jax.nn.relu`) are asked where `f` meets them, since a program can
    go wrong there as well as anywhere; inside another rule's primal they belong to
    autodiff and are not.

    Args:
        f: any JAX function.
        *args: where to ask. Float and complex leaves are differentiated.
        kwargs: keyword arguments of `f`, differentiated alike.
        seed: of the random cotangents; also of f's own, where it is no real scalar.
    Returns:
        Audit: `.ok`, `.verdict`, `.findings` from the loss backwards, one a rule and
        place, each with `.rule`, `.site`, `.source`, `.wire`, `.calls`; `.first`, the
        first wrong one; `str()` is a table. An `f` that meets no rule is `unproven`.
    Raises:
        TypeError: `f` is not callable.

    Limits: of a long scan the first, the last and four other iterations are asked, of a
    while loop iterations 0, 1, 2, 4, 8, … and the last. Of a cond only the branch that
    is taken is. Noise drawn in the default dtype is other noise in float64. Of rules
    that `f` has differentiated itself nothing is left to ask: they are listed.
    """
    if not callable(f):
        raise argument_error("audit", "f", "a function", describe(f), kind=TypeError)
    kwargs = dict(kwargs or {})
    narrow = any(map(_narrow, jax.tree.leaves((args, kwargs))))
    try:
        with jax.enable_x64(True):
            wide_args, wide_kwargs = jax.tree.map(in_float64, (args, kwargs))
            program = _jaxpr.trace(f, wide_args, wide_kwargs)
            links, closed = _links(program, seed, strict=narrow)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        note = f"asked in the caller's dtype, float64 does not trace: {reason}"
        precision = nullcontext()
        program = _jaxpr.trace(f, args, kwargs)
        links, closed = _links(program, seed)
    else:
        note, precision = "", jax.enable_x64(True)
    with precision:
        programs, pairs = Programs(), {}

        def pair(call: Call) -> Pair:
            if id(call.eqn) not in pairs:
                pairs[id(call.eqn)] = Pair(call.eqn, call.inputs, programs)
            return pairs[id(call.eqn)]

        found = sorted(
            (question(link, pair, seed) for link in links), key=lambda pair: pair[0]
        )
    findings = tuple(finding for _, finding in found)
    verdicts: list[Verdict] = [finding.verdict for finding in findings]
    notes = [note] if note else []
    if closed:
        notes.append(f"not asked, since run whole: rules inside {', '.join(closed)}")
        verdicts.append("unproven")
    if hidden := _jaxpr.differentiated(program.jaxpr):
        notes.append(
            f"out of reach, since f has differentiated it: {', '.join(hidden)}; audit "
            "the function that f differentiates"
        )
        verdicts.append("unproven")
    if not findings:
        notes.append("f meets no hand-written rule")
    return Audit(_name(f), worst_of(verdicts), findings, "; ".join(notes))


def _links(
    program: _jaxpr.Program, seed: int, strict: bool = False
) -> tuple[list[Link], list[str]]:
    """Every rule at every place, in the order in which cotangents meet them.

    And what holds rules that could not be met. A rule that raises is an error if
    `strict`.
    """
    avals = program.jaxpr.out_avals
    floating = [k for k, aval in enumerate(avals) if is_floating(aval)]
    chosen = [avals[k] for k in floating]
    random = probes(chosen, [f"output {k}" for k in floating], seed)[0]
    bars: list[Any] = [None] * len(avals)
    for k, aval, bar in zip(floating, chosen, random, strict=True):
        bars[k] = jnp.asarray(bar, aval.dtype)
    links: dict[tuple[str, ...], Link] = {}
    closed: dict[str, None] = {}
    calls = _calls(program.jaxpr, program.inputs, bars, None, ())
    for place, (step, wire, within) in enumerate(calls):
        if strict and step.note:
            raise ValueError(step.note)
        rule = step.rule
        if rule is None:
            closed[f"{step.name} at {_short(step.site)}"] = None
            continue
        key = (rule.name, rule.source, step.site, wire, within)
        link = links.setdefault(key, Link(rule, step.site, wire, within))
        inputs, ys = [v.value for v in step.ins], [v.cotangent for v in step.outs]
        link.calls.append(Call(step.eqn, inputs, ys, step.where, place, step.note))
    return list(links.values()), list(closed)


def _calls(jaxpr, inputs, bars, outer, where) -> Iterator[tuple[Step, str, str]]:
    """Calls of rules from the last to the first, each before those in its primal.

    With the name of the wire that a call's output stands on, and of the rule around it.
    An equation that is no rule is given where it was run whole with rules inside.
    """
    _, _, steps = sweep(jaxpr, inputs, bars, whole=_without_rule, wires=False)
    wires = {
        id(s.ins[0]): wire_name(s.eqn) for s in steps if s.eqn and wire_name(s.eqn)
    }
    opened: dict[int, int] = {}
    for step in reversed(steps):
        rule = step.rule
        if rule is None:
            if step.eqn and step.name not in _SHOWN and _hides_rules(step.eqn):
                yield step, "", ""
            continue
        step.where = (*where, *step.where)
        wire = next((wires[id(v)] for v in step.outs if id(v) in wires), "")
        if outer is None or not rule.from_jax:
            yield step, wire or "", outer.name if outer else ""
        values = [v.value for v in step.ins]
        body, taken = _jaxpr.primal(step.eqn, values)
        opened[id(step.eqn)] = opened.get(id(step.eqn), 0) + 1
        if opened[id(step.eqn)] <= _OPENED and holds(body, _users_rule):
            arriving = [v.cotangent for v in step.outs]
            yield from _calls(body, taken, arriving, rule, step.where)


def _without_rule(eqn) -> bool:
    return not any(holds(body, _jaxpr.as_rule) for body in _jaxpr.bodies(eqn))


def _hides_rules(eqn) -> bool:
    return any(holds(body, _users_rule) for body in _jaxpr.bodies(eqn))


def _users_rule(eqn) -> bool:
    rule = _jaxpr.as_rule(eqn)
    return rule is not None and not rule.from_jax


def _narrow(leaf) -> bool:
    if not _jaxpr.is_differentiable(leaf):
        return False
    return jnp.finfo(jnp.result_type(leaf)).bits < 64


def _name(f) -> str:
    inner = f if hasattr(f, "__name__") else getattr(f, "func", f)  # of a partial
    return getattr(inner, "__name__", type(inner).__name__)


def _table(audit: Audit) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("rule", "verdict", "wire", "calls", "called at"):
        justify = "right" if name == "calls" else "left"
        table.add_column(name, justify=justify, no_wrap=True)
    for f in audit.findings:
        rule = f"{f.within} > {f.rule}" if f.within else f.rule
        table.add_row(rule, f.verdict, f.wire, str(f.calls), _short(f.site))
    out = io.StringIO()
    console = Console(file=out, width=200, markup=False, highlight=False)

    def say(text):
        console.print(text, soft_wrap=True)

    calls = sum(f.calls for f in audit.findings)
    say(f"audit({audit.function}): {audit.verdict}, {calls} calls of rules")
    if first := audit.first:
        wire = f", wire {first.wire}" if first.wire else ""
        say(f"first wrong link from the loss: {first.rule}{wire}, {_short(first.site)}")
    if audit.findings:
        console.print(table)
    for f in audit.findings:
        if f.verdict != "right" or f.message:
            say(f"  {f.rule}, defined at {_short(f.source)}: {f.verdict}")
            for line in (_values(f), ": ".join(p for p in (f.kind, f.message) if p)):
                say(f"    {line}") if line else None
    if audit.note:
        say(f"  {audit.note}")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _values(f: LinkFinding) -> str:
    if not f.worst:
        return f.argument
    at = str(list(f.worst.index)) if f.worst.index else ""
    manual, auto, numeric = f.worst.manual, f.worst.auto, f.worst.numeric
    return (
        f"{f.argument}{f' at {at}' if at else ''}: hand-written {_number(manual)}, "
        f"autodiff {_number(auto)}, numeric {_number(numeric)}"
    )


def _short(site: str) -> str:
    """A file below the working directory without it."""
    return os.path.relpath(site) if site.startswith(os.getcwd() + os.sep) else site
