"""Every call of a hand-written rule that a program meets, from the loss backwards."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxbp import _interpret, _jaxpr
from jaxbp._jaxpr import Rule
from jaxbp._steps import Step, holds, is_floating, is_users_rule, wire_name
from jaxbp._sweep import sweep
from jaxbp.instrument._findings import LinkFinding, short
from jaxbp.instrument._probes import probes

_SHOWN = ("scan", "while")  # whose rules are met at other iterations
_OPENED = 8  # calls of one equation whose primal is looked into


class Call(NamedTuple):
    """A rule's equation with the values and the cotangents (or None) that meet there.

    `place` counts from the loss backwards. Where the rule is met inside a shard_map,
    which is run whole, the equation is the shard_map: `alone` is a jaxpr of nothing
    else, `kept` the rule in it that is asked (None: all of them together).
    """

    eqn: Any
    inputs: list[Any]
    bars: list[Any]
    where: tuple[str, ...]
    place: int
    note: str
    alone: Any = None
    kept: Rule | None = None


@dataclass
class Link:
    """A rule, where it is called, and every call that was met there.

    `together`: all rules of the shard_map that it is called in; `found`, once asked,
    its finding with the place of the call that it is about; `widened`: it is asked in
    float64 where the caller asked in a narrower dtype, of so many bytes.
    """

    rule: Rule
    site: str
    wire: str
    within: str
    calls: list[Call] = field(default_factory=list)
    together: "Link | None" = None
    found: tuple[int, LinkFinding] | None = None
    widened: int = 0


def met_links(
    program: _jaxpr.Program, seed: int, strict: bool = False
) -> tuple[list[Link], list[str]]:
    """Every rule at every place, in the order in which cotangents meet them.

    And what holds rules that could not be met. A rule that raises is an error if
    `strict`.
    """
    bars = _cotangents(program.jaxpr.out_avals, seed)
    links: dict[tuple[str, ...], Link] = {}
    closed: dict[str, None] = {}
    alone: dict[int, Any] = {}
    calls = _calls(program.jaxpr, program.inputs, bars, None, ())
    for place, (step, wire, within) in enumerate(calls):
        if strict and step.note:
            raise ValueError(step.note)
        inputs, ys = [v.value for v in step.ins], [v.cotangent for v in step.outs]
        call = Call(step.eqn, inputs, ys, step.where, place, step.note)
        if step.rule:
            _link(links, step.rule, step.site, wire, within).calls.append(call)
        elif step.name == "shard_map":
            if id(step.eqn) not in alone:
                alone[id(step.eqn)] = _interpret.alone(step.eqn)
            _inside(links, step, call._replace(alone=alone[id(step.eqn)]), within)
        else:
            closed[f"{step.name} at {short(step.site)}"] = None
    asked = [link for link in links.values() if link.rule.kind != "shard_map"]
    return asked, list(closed)


def _cotangents(avals, seed) -> list[Any]:
    """Random ones for the outputs that are floating, None for the others."""
    floating = [k for k, aval in enumerate(avals) if is_floating(aval)]
    chosen = [avals[k] for k in floating]
    random = probes(chosen, [f"output {k}" for k in floating], seed)[0]
    bars: list[Any] = [None] * len(avals)
    for k, aval, bar in zip(floating, chosen, random, strict=True):
        bars[k] = jnp.asarray(bar, aval.dtype)
    return bars


def _link(links, rule, site, wire, within, around="") -> Link:
    key = (rule.name, rule.source, site, wire, within, around)
    return links.setdefault(key, Link(rule, site, wire, within))


def _inside(links, step: Step, call: Call, within: str) -> None:
    """The links of a shard_map, the last rule first, and one of all together."""
    name = f"shard_map at {step.site}"
    whole = Rule(name, "shard_map", step.site, step.site, True, step.eqn)
    together = _link(links, whole, step.site, "", within)
    together.calls.append(call)
    for rule in reversed(_jaxpr.find_rules(call.alone)):
        outer = rule.outer
        if rule.from_jax or (outer and outer.from_jax):
            continue
        around = outer.name if outer else within
        site = rule.site or step.site
        link = _link(links, rule, site, "", around, name)
        link.calls.append(call._replace(kept=rule))
        link.together = together


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
        if not any(is_floating(v.value) for v in (*step.ins, *step.outs)):
            continue  # nothing to differentiate
        step.where = (*where, *step.where)
        wire = next((wires[id(v)] for v in step.outs if id(v) in wires), "")
        if outer is None or not rule.from_jax:
            yield step, wire or "", outer.name if outer else ""
        values = [v.value for v in step.ins]
        body, taken = _jaxpr.primal(step.eqn, values)
        opened[id(step.eqn)] = opened.get(id(step.eqn), 0) + 1
        if opened[id(step.eqn)] <= _OPENED and holds(body, is_users_rule):
            arriving = [v.cotangent for v in step.outs]
            yield from _calls(body, taken, arriving, rule, step.where)


def _without_rule(eqn) -> bool:
    return not any(holds(body, _jaxpr.as_rule) for body in _jaxpr.bodies(eqn))


def _hides_rules(eqn) -> bool:
    return any(holds(body, is_users_rule) for body in _jaxpr.bodies(eqn))
