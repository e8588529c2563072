"""One hand-written rule at one place of a program: the question, and the finding."""

import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
from jax.errors import UnexpectedTracerError

from jaxbp._errors import first_line
from jaxbp.instrument._comparison import (
    FAILED,
    VERDICTS,
    Finding,
    Worst,
    without_autodiff,
)
from jaxbp.instrument._evidence import Evidence
from jaxbp.instrument._findings import LinkFinding
from jaxbp.instrument._judge import ASKED, judge, worst_elements
from jaxbp.instrument._met import Call, Link
from jaxbp.instrument._pair import Answer, Pair, beyond
from jaxbp.instrument._parts import cotangent, slopes

_MEASURED = 4  # calls of a link whose rounding noise is measured, the worst first
_PLAIN = 1e-6  # a difference on this scale is no rounding
_ITERATION = r"(\w+)\[([\d:]+)\]"
_INSIDE = "asked by the values and cotangents of the shard_map around it"


class _Doubt(NamedTuple):
    """One answer in which the cheap bound fails; `size`: of the largest difference."""

    size: float
    call: Call
    pair: Pair
    bars: list[Any]
    manual: Answer
    auto: Answer


def question(
    link: Link, pairs: Callable[[Call], Pair], seed: int
) -> tuple[int, LinkFinding]:
    """The finding on a link, and its place: of the wrong call nearest to the loss.

    The rules of one shard_map are first asked together, and one by one where they fail:
    each then alone of its rules is kept.
    """
    if link.together:
        link.together.found = link.together.found or _asked(link.together, pairs, seed)
        place, found = link.together.found
        if found.verdict not in FAILED:
            # Not the elements: they are those of the shard_map's arguments.
            message = "; ".join(m for m in (found.message, _INSIDE) if m)
            finding = Finding(found.verdict, "", message=message)
            return place, _about(link, finding, link.wire)
    return _asked(link, pairs, seed)


def _asked(link: Link, pairs, seed: int) -> tuple[int, LinkFinding]:
    doubts: list[_Doubt] = []
    finding = None
    for call in link.calls:
        try:
            pair = pairs(call)
            if finding is None:
                finding = _first(pair, call, link, seed)
            doubts += _doubts(pair, call, link, seed)
        except UnexpectedTracerError:
            message = "closes over a value that f computes: hand it to the rule instead"
            finding = Finding("unproven", "", message=message)
            return call.place, _about(link, finding, "")
        except Exception as error:  # whatever the rule's own fwd or bwd raises
            message = f"raises {type(error).__name__}: {first_line(error)}"
            finding = Finding("broken-contract", "", message=message)
            return call.place, _about(link, finding, "")
    assert finding is not None, "a link has a call"
    place, wire = link.calls[0].place, link.wire
    doubts.sort(key=lambda doubt: -doubt.size)
    for doubt in doubts[:_MEASURED]:
        found, at = _weighed(doubt, seed)
        if VERDICTS.index(found.verdict) < VERDICTS.index(finding.verdict):
            finding, wire = _told_where(found, doubt.call), at or link.wire
            alike = min(_PLAIN, doubt.size)
            place = min(d.call.place for d in doubts if d.size >= alike)
        if finding.verdict in FAILED:
            break
    return place, _about(link, finding, wire)


def _about(link: Link, finding: Finding, wire: str) -> LinkFinding:
    own = {f.name: getattr(finding, f.name) for f in fields(Finding)}
    message = finding.message
    bars = [bar for call in link.calls for bar in call.bars]
    if not any(bar is not None and np.any(np.asarray(bar)) for bar in bars):
        silent = "no cotangent arrives here"
        if None not in bars:
            silent = "the cotangent that arrives here is 0"
        message = "; ".join(
            part for part in (message, f"{silent}: asked with random ones") if part
        )
    rule = link.rule
    return LinkFinding(
        **{**own, "message": message},
        rule=rule.name,
        site=link.site,
        source=rule.source,
        wire=wire,
        calls=len(link.calls),
        within=link.within,
    )


def _told_where(finding: Finding, call: Call) -> Finding:
    if not call.where:
        return finding
    inward = [re.sub(_ITERATION, _inward, w) for w in call.where]
    return replace(finding, message=f"{finding.message}; in {', '.join(inward)}")


def _inward(place: re.Match[str]) -> str:
    """Of a loop the iteration, counted from 0; of a cond the branch."""
    what, number = place.groups()
    which = "branch" if what == "cond" else "iteration"
    return f"{which} {number} of a {what}"


def _first(pair: Pair, call: Call, link: Link, seed: int) -> Finding:
    """What one call says of the contract; `right`, with its worst element, if held."""
    bars = pair.cotangents(call.bars, link.rule.name, seed)[0]
    manual, auto = pair.ask(call.inputs, bars)
    zeros, _ = pair.ask(call.inputs, [np.zeros_like(g) for g in bars])
    worst, argument = None, ""
    for k, name in enumerate(pair.arguments):
        m, a, dtype = manual.cotangents[k], auto.cotangents[k], pair.dtypes[k]
        zero = zeros.cotangents[k]
        # A rule may be written for the caller's narrower dtype, and answer in that. And
        # what f makes itself stays as narrow beside arguments that were widened.
        least = link.widened if dtype.itemsize >= 8 else dtype.itemsize
        own = link.widened and m.dtype.itemsize >= least
        if m.dtype != dtype and not own:
            message = f"a cotangent of dtype {m.dtype} for {dtype}"
            return Finding("broken-contract", name, message=message)
        if zero.any() and np.isfinite(zero).all():
            message = "not 0 for a cotangent of 0"
            return Finding("broken-contract", name, message=message)
        if m.size and worst is None:
            worst, argument = _worst(m, a, _largest(m, a)), name
    if worst is None or not pair.floating:
        message = "nothing to compare: no floating argument or output, or all are empty"
        return Finding("unproven", "", message=message)
    if not any(np.isfinite(m).any() for m in manual.cotangents):
        message = "not finite, hand-written and by autodiff: ask elsewhere"
        return Finding("unproven", argument, worst=worst, message=message)
    if pair.auto is None:
        message = f"autodiff has no answer ({pair.refused}): held against the numeric"
        return Finding("right", argument, message=f"{message} derivative")
    return Finding("right", argument, worst=worst)


def _doubts(pair: Pair, call: Call, link: Link, seed: int) -> list[_Doubt]:
    found = []
    for bars in pair.cotangents(call.bars, link.rule.name, seed):
        manual, auto = pair.ask(call.inputs, bars)
        if pair.auto is None:
            found.append(_Doubt(np.inf, call, pair, bars, manual, auto))
            break
        pairs = zip(
            manual.outputs + manual.cotangents,
            auto.outputs + auto.cotangents,
            strict=True,
        )
        sizes = [_size(m, a) for m, a in pairs if beyond([m], [a])[0].any()]
        if sizes:
            found.append(_Doubt(max(sizes), call, pair, bars, manual, auto))
    return found


def _weighed(doubt: _Doubt, seed: int) -> tuple[Finding, str]:
    """The worst finding of one answer, and the wire at fault."""
    _, call, pair, bars, manual, auto = doubt
    if pair.auto is None:
        return _by_numbers(doubt, seed), ""
    noise = pair.noise(call.inputs, bars, seed)
    for k, multiple in enumerate(beyond(manual.outputs, auto.outputs, noise.outputs)):
        if multiple.any():
            m, a = manual.outputs[k], auto.outputs[k]
            message = "fwd's value is not the primal's"
            worst = None
            if m.shape == a.shape:
                worst = _worst(m, a, int(worst_elements(multiple)[0]))
            return Finding("broken-contract", "value", "", worst, "", message), ""
    multiples = beyond(manual.cotangents, auto.cotangents, noise.cotangents)
    found = [_judged(doubt, k, multiples[k], seed) for k in range(len(multiples))]
    finding = min(found, key=lambda f: VERDICTS.index(f.verdict))
    if finding.verdict not in FAILED:
        return finding, ""
    others = [f.argument for f in found if f.verdict in FAILED and f is not finding]
    message = finding.message
    if others:
        message += f"; wrong too: {', '.join(others)}"
    wires = beyond(manual.wires, auto.wires, noise.wires)
    wrong = [k for k, multiple in enumerate(wires) if multiple.any()]
    if not pair.wires:
        return replace(finding, message=message), ""
    if not wrong:
        message += f"; every named wire is right, down to {pair.wires[-1]}_bar"
        return replace(finding, message=message), ""
    wire, before = pair.wires[wrong[0]], pair.wires[: wrong[0]]
    first = f"{wire}_bar is the first wrong cotangent from the loss"
    if before:
        first += f", {', '.join(f'{w}_bar' for w in before)} before it right"
    return replace(finding, message=f"{message}; {first}"), wire


def _judged(doubt: _Doubt, k: int, multiple: np.ndarray, seed: int) -> Finding:
    _, call, pair, bars, manual, auto = doubt
    m, a, name = manual.cotangents[k], auto.cotangents[k], pair.arguments[k]
    if not multiple.any():
        return Finding("right", name)
    numeric = pair.numeric(call.inputs, bars, k, worst_elements(multiple), seed)
    others = dict(zip(pair.arguments, auto.cotangents, strict=True))
    del others[name]
    evidence = Evidence([m], [a], 0, others)
    return judge(name, m, a, multiple, numeric, pair.unit, evidence)


def _by_numbers(doubt: _Doubt, seed: int) -> Finding:
    """M against the numeric derivative alone, at a few elements of every argument."""
    _, call, pair, bars, manual, _ = doubt
    why = f"no autodiff ({pair.refused}), and no float64 for the numeric witness"
    found = [Finding("unproven", "", message=why)]
    for k, (m, name) in enumerate(zip(manual.cotangents, pair.arguments, strict=True)):
        largest = np.argsort(-np.abs(m), axis=None, kind="stable")[: ASKED // 2]
        spread = np.linspace(0, max(m.size - 1, 0), ASKED // 2).astype(int)
        elements = np.unique([*largest, *spread])[: m.size]
        try:
            numeric = pair.numeric(call.inputs, bars, k, elements, seed)
        except Exception as error:
            numeric, found[0] = None, replace(found[0], message=str(error))
        if numeric is None:
            return found[0]
        derivatives = np.array(slopes(m))
        told = derivatives.flat[numeric.elements]
        off = np.abs(told - numeric.value) > 4 * numeric.error + (
            8 * pair.unit * np.abs(numeric.value)
        )
        derivatives.flat[numeric.elements[off]] = numeric.value[off]
        a = cotangent(derivatives, m)
        finding = Finding("right", name)
        if off.any():
            if np.iscomplexobj(m):
                off = np.repeat(off.reshape(-1, 2).any(axis=1), 2)
            asked = type(numeric)(*(column[off] for column in numeric))
            finding = judge(name, m, a, (m != a).astype(float), asked, pair.unit)
            finding = without_autodiff(finding)
        found.append(finding)
    return min(found[1:] or found, key=lambda f: VERDICTS.index(f.verdict))


def _size(m: np.ndarray, a: np.ndarray) -> float:
    """The largest difference, on the scale of autodiff's array."""
    if m.shape != a.shape:
        return np.inf
    with np.errstate(all="ignore"):
        size = np.max(np.abs(m - a)) / np.max(np.abs(a))
    return float(size) if np.isfinite(size) else np.inf


def _largest(m: np.ndarray, a: np.ndarray) -> int:
    with np.errstate(all="ignore"):
        return int(np.argmax(np.nan_to_num(np.abs(m - a))))


def _worst(m: np.ndarray, a: np.ndarray, element: int) -> Worst:
    index = tuple(int(i) for i in np.unravel_index(element, m.shape))
    return Worst(index, m.flat[element].item(), a.flat[element].item(), None)
