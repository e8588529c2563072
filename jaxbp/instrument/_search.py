"""The question asked elsewhere than at the caller's point, and of the rule again."""

import itertools
import os
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._errors import first_line
from jaxbp._jaxpr import is_differentiable
from jaxbp._steps import holds
from jaxbp.instrument._boundaries import boundaries, sentinels
from jaxbp.instrument._comparison import FAILED, VERDICTS, Finding, elsewhere
from jaxbp.instrument._contract import sparsely, transformations
from jaxbp.instrument._coverage import Coverage
from jaxbp.instrument._data import is_data, repeated
from jaxbp.instrument._noise import OPAQUE
from jaxbp.instrument._points import Point, points
from jaxbp.instrument._program import (
    Program,
    RuleRaises,
    check_runs,
    in_float64,
    traced,
)
from jaxbp.instrument._testimony import Testimony
from jaxbp.instrument._tolerance import ends_at_a_float, iterates
from jaxbp.instrument._variants import Variant, other_flags, other_lengths

_VECTOR = 4  # components, or a quaternion's
_AT_FEW = 12  # points at which a function without autodiff is asked


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
        data_too = sum(map(varied, leaves)) == len(inputs)
        is_input, new = varied if data_too else is_differentiable, iter(inputs)
        leaves = [next(new) if is_input(x) else x for x in leaves]
        return jax.tree.unflatten(tree, leaves)


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
    repeats = not holds(program.auto.jaxpr, _overwrites)
    shapes = [aval.shape for aval in program.avals]
    found = points(
        answers.inputs, constants, marks, asked.seed, finite, shapes, repeats=repeats
    )
    floats = filter(is_differentiable, jax.tree.leaves((asked.args, asked.kwargs)))
    largest = min(float(jnp.finfo(jnp.result_type(x)).max) for x in floats)
    if answers.refused:  # every element of every point is differentiated numerically
        found = itertools.islice(found, _AT_FEW)
    at_limit = _at_limit(answers)
    calls_out = any(holds(j, _calls_out) for j in (program.auto.jaxpr, written))
    for point in itertools.islice(found, few if at_few else None):
        try:
            findings = _at(point, asked, answers, largest)
            if _off_limit(at_limit, program, point.inputs, bars, findings):
                continue
            coverage.see(point.inputs)
        except Exception:
            if not calls_out:
                raise
            continue  # a callback that refuses such values
        yield elsewhere(findings, point.name, asked.with_inputs(point.inputs))


def _at(
    point: Point, asked: Question, answers: Testimony, largest: float
) -> list[Finding]:
    """Findings at a point; none where values or gradient are too large for the caller.

    A backward pass may well work in the caller's own dtype.
    """
    there = Testimony(answers.program, point.inputs, asked.paths, asked.seed, count=1)
    there.earlier = [answers.inputs]
    # Without autodiff, fwd's values are what there is.
    told = there.manual if there.refused else there.auto
    if max(map(_largest, (*told[0].outputs, *told[0].cotangents))) > largest:
        return []
    finite = all_finite(told[0].outputs)
    findings = _held(there, asked)
    if not finite:  # nothing to hold fwd's value against
        findings = [f for f in findings if f.argument != "value"]
    return findings


def _largest(values: np.ndarray) -> float:
    """The largest magnitude that is finite."""
    return np.max(np.abs(values), initial=0.0, where=np.isfinite(values))


def look_further(
    asked: Question, answers: Testimony, working: Testimony | None
) -> Iterator[list[Finding]]:
    """Findings under transformations, for sparse cotangents, at other lengths.

    A rule that is written for one dtype, whose cotangents in float64 are of that one,
    is transformed in the caller's: JAX does not add cotangents of two dtypes.
    """
    args = answers.inputs, answers.probes[-1]
    _, bars = jax.eval_shape(answers.program.manual.pullback, *args)
    pairs = zip(bars, answers.leaves, strict=True)
    of_one = any(m.dtype != jnp.result_type(x) for m, x in pairs)
    yield transformations(working if working and of_one else answers)
    yield sparsely(answers, asked.surrogates, everywhere=True)
    answers.let_go()
    variants = (other_flags, other_lengths)
    repeats = not holds(answers.program.auto.jaxpr, _overwrites)
    at_limit = _at_limit(answers)
    loops = holds(answers.program.auto.jaxpr, ends_at_a_float) or any(at_limit)
    caller = jax.tree.leaves((asked.args, asked.kwargs))
    for variant in itertools.chain(*(v(asked.args, asked.kwargs) for v in variants)):
        pairs = zip(caller, jax.tree.leaves(variant[1:3]), strict=True)
        if not repeats and any(repeated(*pair) for pair in pairs):
            continue
        if loops and any(map(_is_larger, caller, jax.tree.leaves(variant[1:3]))):
            continue  # a matrix that is repeated need not be a contraction any more
        with jax.enable_x64(True):
            findings = _of_variant(variant, asked, at_limit)
        yield elsewhere(findings, variant.name, variant[1:3])


def _calls_out(eqn: Any) -> bool:
    return eqn.primitive.name in OPAQUE


def _at_limit(answers: Testimony) -> list[bool]:
    """Of each loop of autodiff's pullback, whether it is at its limit here.

    Where one is not that is here, a rule for the limit is not asked.
    """
    if answers.refused or not holds(answers.program.auto.jaxpr, iterates):
        return []
    return answers.program.auto.settled(answers.inputs, answers.probes[-1])


def _off_limit(at_limit, program, inputs, bars, findings) -> bool:
    """Whether what failed may: a loop is at its limit at the caller's point alone."""
    if not any(at_limit) or not any(f.verdict in FAILED for f in findings):
        return False
    here = program.auto.settled(inputs, bars)
    return not all(h for h, was in zip(here, at_limit, strict=False) if was)


def _is_larger(old: Any, new: Any) -> bool:
    return np.size(new) > np.size(old)


def _of_variant(
    variant: Variant, asked: Question, at_limit: list[bool]
) -> list[Finding]:
    """Findings; none where the function does not take such arguments."""
    try:
        if variant.beside:
            traced(asked.f, *variant.beside, asked.reference)
        wide_args, wide_kwargs = jax.tree.map(in_float64, variant[1:3])
        other = traced(asked.f, wide_args, wide_kwargs, asked.reference, once=True)
    except Exception:  # whatever `f` raises of them
        return []
    try:
        there = Testimony(other, other.inputs, asked.paths, asked.seed, count=1)
        outputs = there.auto[0].outputs
    except Exception:  # whatever the rule or autodiff does
        # What is found wrong already may well raise too.
        known = asked.surrogates or _is_bound(asked) or _out_of_step(asked, variant)
        return [] if known else _refusals(other, asked)
    if not all_finite(outputs):
        return []
    findings = _held(there, asked)
    bars = there.probes[0]
    return [] if _off_limit(at_limit, other, there.inputs, bars, findings) else findings


def _held(there: Testimony, asked: Question) -> list[Finding]:
    """Findings at a point of ours; none of what is different on purpose.

    Its contract may hold for bounds that the caller alone knows.
    """
    found = there.findings(asked.surrogates, callers=False)
    return [f for f in found if f.argument not in asked.surrogates]


def _refusals(program: Program, asked: Question) -> list[Finding]:
    """broken-contract where JAX cannot run the rule, and autodiff of its primal it can.

    What the rule's author raises on purpose is none.
    """
    try:
        check_runs(program)
    except RuleRaises as error:
        # Values that a variant's trace hides from Python are no length's fault.
        hidden = isinstance(error.__cause__, jax.errors.JAXTypeError)
        if not hidden and not _on_purpose(error.__cause__):
            return [
                Finding("broken-contract", path, message=str(error))
                for path in asked.paths
            ]
    except Exception:  # nor can autodiff
        return []
    return []


def _out_of_step(asked: Question, variant: Variant) -> bool:
    """Whether lengths differ that were one, or a last axis that may be a vector's.

    Which f takes by chance alone: an index is clamped, three numbers are any.
    """
    leaves = jax.tree.leaves((asked.args, asked.kwargs))
    pairs = zip(leaves, jax.tree.leaves(variant[1:3]), strict=True)
    shapes = [(np.shape(old), np.shape(new)) for old, new in pairs]
    axes = [axis for pair in shapes for axis in zip(*pair, strict=True)]
    if {n for n, new in axes if n != new} & {n for n, new in axes if n == new}:
        return True
    last = [old for old, new in shapes if old[-1:] != new[-1:]]
    return any(len(shape) > 1 or max(shape) <= _VECTOR for shape in last)


def _on_purpose(error: BaseException | None) -> bool:
    """Whether a line of the user's own raises."""
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    if not frames or frames[-1].filename.startswith(os.path.dirname(jax.__file__)):
        return False
    return any(word in (frames[-1].line or "") for word in ("raise ", "assert "))


def _is_bound(asked: Question) -> bool:
    """Whether a Python integer beside the arrays is one of their lengths."""
    inside = getattr(asked.f, "args", ()), getattr(asked.f, "keywords", {})
    leaves = jax.tree.leaves((asked.args, asked.kwargs, inside))
    lengths = {n for x in leaves for n in np.shape(x) if hasattr(x, "shape")}
    return any(type(x) is int and x in lengths for x in leaves)


def _overwrites(eqn: Any) -> bool:
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
