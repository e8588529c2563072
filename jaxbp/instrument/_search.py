"""The question asked elsewhere than at the caller's point, and of the rule again."""

import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._errors import first_line
from jaxbp._jaxpr import is_differentiable
from jaxbp._steps import holds
from jaxbp.instrument._boundaries import (
    boundaries,
    lengths,
    magnitudes,
    numbers,
    sentinels,
    takes_infinities,
)
from jaxbp.instrument._by_numpy import overflows
from jaxbp.instrument._comparison import FAILED, VERDICTS, Finding, elsewhere
from jaxbp.instrument._coverage import Coverage
from jaxbp.instrument._data import is_data
from jaxbp.instrument._points import Point, points
from jaxbp.instrument._program import Program
from jaxbp.instrument._roundings import OPAQUE
from jaxbp.instrument._testimony import Testimony
from jaxbp.instrument._tolerance import at_tolerance, ends_at_a_float, iterates

# A Padé approximant, a series, a table: in float64 too it is often made for float32.
_COARSE = 2.0**-23
AT_FEW = 12  # points at which a function is asked that autodiff does not understand


class Question(NamedTuple):
    """What is compared: the function, its arguments, and how."""

    f: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reference: Callable[..., Any] | None
    paths: Sequence[str]
    surrogates: Collection[str]
    seed: int

    def with_inputs(self, inputs: Sequence[Any]) -> tuple[Any, Any]:
        """The arguments, the inputs of the traced program in the place of theirs."""
        leaves, tree = jax.tree.flatten((self.args, self.kwargs))
        for place, x in zip(self.places(len(inputs)), inputs, strict=True):
            leaves[place] = x
        return jax.tree.unflatten(tree, leaves)

    def places(self, count: int) -> list[int]:
        """The arguments' leaves that are the inputs of a program that has so many."""
        leaves = jax.tree.leaves((self.args, self.kwargs))
        data_too = sum(map(varied, leaves)) == count
        is_input = varied if data_too else is_differentiable
        return [k for k, x in enumerate(leaves) if is_input(x)]


def look_around(
    asked: Question, answers: Testimony, coverage: Coverage, few: int
) -> Iterator[list[Finding]]:
    """Findings at other points of the same shapes, in turn; of a large program at few.

    What nobody can tell there is not held against the rule: those points are ours, not
    the caller's.
    """
    program = answers.program
    at_few = program.is_large or program.is_long
    if (at_few and not few) or not any(aval.size for aval in program.avals):
        return
    # At values of ours, a loop that ends when values say so may go on for ever.
    # The pullback holds what the rules' own forward and backward passes compare with.
    bars = answers.probes[-1]
    written = program.manual.read(answers.inputs, bars)
    if holds(program.auto.jaxpr, ends_at_a_float) or holds(written, ends_at_a_float):
        return

    def finite(inputs):
        try:  # without autodiff, fwd's values are what there is
            if answers.refused:
                outputs = program.manual(inputs, answers.probes[-1]).outputs
            else:
                outputs = program.ask(inputs, answers.probes[-1])[1].outputs
        except Exception:  # a callback that refuses such values
            return False
        return all_finite(outputs)

    constants = boundaries(program.auto.jaxpr, written)
    marks = sentinels(program.auto.jaxpr, written)
    repeats = not holds(program.auto.jaxpr, overwrites)
    shapes = [aval.shape for aval in program.avals]
    ask = (answers.inputs, constants, marks, asked.seed, finite, shapes)
    auto = program.auto.jaxpr
    meant = {"counts": lengths(auto), "numbers": numbers(auto)}
    infinities = takes_infinities(auto)
    found = points(*ask, **meant, repeats=repeats, infinities=infinities)
    floats = filter(is_differentiable, jax.tree.leaves((asked.args, asked.kwargs)))
    most = min(float(jnp.finfo(jnp.result_type(x)).max) for x in floats)
    if answers.refused:  # every element of every point is differentiated numerically
        found = itertools.islice(found, AT_FEW)
    positive = stay_positive(answers)
    limits = Limits(answers)
    may_refuse = any(holds(j, calls_out) for j in (program.auto.jaxpr, written))
    for point in itertools.islice(found, few if at_few else None):
        point = point.kept_positive(positive)
        try:
            findings = _at(point, asked, answers, most)
            if limits.are_left(program, point.inputs, bars, findings):
                continue
            coverage.see(point.inputs)
        except Exception:
            if not may_refuse:
                raise
            continue  # a callback that refuses such values
        yield elsewhere(findings, point.name, asked.with_inputs(point.inputs))


def stay_positive(answers: Testimony) -> list[int]:
    """The inputs, positive at the caller's point, that magnitudes are held against."""
    held_against = sorted(magnitudes(answers.program.auto.jaxpr))
    return [k for k in held_against if (np.asarray(answers.inputs[k]) > 0).all()]


def _at(
    point: Point, asked: Question, answers: Testimony, most: float
) -> list[Finding]:
    """Findings at a point; none where values or gradient are too large for the caller.

    A backward pass may well work in the caller's own dtype.
    """
    there = Testimony(answers.program, point.inputs, asked.paths, asked.seed, count=1)
    there.earlier = [answers.inputs]
    # Without autodiff, fwd's values are what there is.
    told = there.manual if there.refused else there.auto
    if max(map(largest, (*told[0].outputs, *told[0].cotangents))) > most:
        return []
    finite = all_finite(told[0].outputs)
    findings = held(there, asked)
    if not finite:  # nothing to hold fwd's value against
        findings = [f for f in findings if f.argument != "value"]
    return forgiven(findings, answers.program, point.inputs)


def forgiven(
    findings: list[Finding], program: Program, inputs: Sequence[Any]
) -> list[Finding]:
    """What is lost is told and not held against a rule, where f itself overflows."""

    def is_lost(finding):
        hand = finding.worst.manual if finding.worst else 0.0
        return finding.verdict == "wrong" and not np.isfinite(hand)

    if not any(map(is_lost, findings)) or not overflows(program.auto.jaxpr, inputs):
        return findings
    note = "; f itself overflows there"
    return [
        replace(f, verdict="less-accurate", message=f.message + note)
        if is_lost(f)
        else f
        for f in findings
    ]


def largest(values: np.ndarray) -> float:
    """The largest magnitude that is finite."""
    return float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))


def calls_out(eqn: Any) -> bool:
    return eqn.primitive.name in OPAQUE


class Limits:
    """The loops that are at their limit at the caller's point.

    Where one of those is not, a rule for the limit is not asked. They are those of
    autodiff's pullback, which repeat one step; where it has none, the values' own,
    which end at a tolerance.
    """

    def __init__(self, answers: Testimony):
        self._asked = answers.program, answers.inputs, answers.probes[-1]
        self._of_values = bool(answers.refused)

    @functools.cached_property
    def _here(self) -> list[bool]:
        return self._settled(*self._asked)

    def __bool__(self) -> bool:
        return any(self._here)

    def _settled(self, program, inputs, bars) -> list[bool]:
        auto = program.auto
        if self._of_values:
            return at_tolerance(auto.jaxpr, inputs)
        return auto.settled(inputs, bars) if holds(auto.jaxpr, iterates) else []

    def are_left(self, program, inputs, bars, findings: Sequence[Finding]) -> bool:
        """Whether what failed may: one is at its limit at the caller's point alone."""
        if not any(f.verdict in FAILED for f in findings) or not self:
            return False
        there = self._settled(program, inputs, bars)
        return not all(yes for yes, was in zip(there, self._here, strict=False) if was)


def held(there: Testimony, asked: Question) -> list[Finding]:
    """Findings at a point of ours; none of what is different on purpose.

    Its contract may hold for bounds that the caller alone knows, and f be as coarse an
    approximation as float32 allows.
    """
    found = there.findings(asked.surrogates, callers=False, allowed=_COARSE)
    return [f for f in found if f.argument not in asked.surrogates]


def overwrites(eqn: Any) -> bool:
    """Whether JAX leaves open what a repeated index gives."""
    return eqn.primitive.name == "scatter"


def all_finite(outputs) -> bool:
    return all(np.isfinite(out).all() for out in outputs)


def look_again(asked: Question, answers: Testimony) -> list[Finding]:
    """Second order: the hand-written pullback differentiated, against autodiff's."""
    try:
        second = answers.program.pullbacks(answers.probes[-1])
        there = Testimony(second, answers.inputs, asked.paths, asked.seed, count=2)
    except Exception as error:
        reason = first_line(error)
        message = f"second order: the rule cannot be differentiated again: {reason}"
        return [Finding("unproven", path, message=message) for path in asked.paths]
    # The values are the gradients, which are judged already.
    found = there.findings(asked.surrogates, callers=False)
    return elsewhere([f for f in found if f.argument != "value"], "second order")


def worse(old: list[Finding], new: list[Finding], *, ours: bool) -> list[Finding]:
    """Of two findings on a leaf the worse; of `ours` the unproven does not count."""
    by_path = {finding.argument: finding for finding in new}
    merged = [_worse(f, by_path.pop(f.argument, f), ours) for f in old]
    values = [f for f in by_path.values() if f.argument == "value"]
    return [*values, *merged]


def _worse(old, new, ours):
    if ours and new.verdict == "unproven":
        return old
    return min(old, new, key=lambda finding: VERDICTS.index(finding.verdict))


def varied(leaf: Any) -> bool:
    """Leaves that vary from point to point: the differentiated, arrays of data."""
    return is_differentiable(leaf) or is_data(leaf)
