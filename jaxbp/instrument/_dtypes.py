"""The question asked in the dtypes that are narrower than float64."""

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import is_differentiable
from jaxbp._steps import holds
from jaxbp.instrument._answers import MANUAL
from jaxbp.instrument._boundaries import names_infinity
from jaxbp.instrument._comparison import Finding, elsewhere
from jaxbp.instrument._precision import in_low_precision
from jaxbp.instrument._program import Program, in_float64, traced
from jaxbp.instrument._search import Question, all_finite, forgiven, largest
from jaxbp.instrument._testimony import Testimony
from jaxbp.instrument._tolerance import is_without_bound
from jaxbp.instrument._variants import SQUARES, Variant, other_dtypes

_LITTLE = 2.0**-8  # of the largest gradient at the caller's point: next to none


def look_at_dtypes(
    asked: Question, answers: Testimony, *, larger: bool = True
) -> Iterator[list[Finding]]:
    """Findings in each narrower dtype: contract, overflow, accuracy.

    Also for arguments made `larger`, unless those may leave what f searches.

    What a dtype that is not the caller's cannot hold of arguments made larger is told,
    but not held against the rule: it was not asked for there. Nor are digits of a slope
    that rounding alone takes of arguments so large; nor a slope that is lost where
    their squares overflow, if it is next to none or 0 itself, or has no digit left.
    """
    own = {jnp.result_type(x) for x in _floats(asked.args, asked.kwargs)}
    sizes = map(largest, answers.auto[0].cotangents)
    little = {p: _LITTLE * size for p, size in zip(asked.paths, sizes, strict=True)}
    for variants in other_dtypes(asked.args, asked.kwargs):
        narrow = None
        for variant in variants if larger else itertools.islice(variants, 1):
            leaves = _floats(variant.args, variant.kwargs)
            as_it_is = narrow is None
            narrow = narrow or _narrowed(asked, answers, variant)
            slopes = variant.name.endswith(SQUARES)
            told = ("dtype", "overflow") if slopes else () if as_it_is else ("dtype",)
            findings = narrow and _in_dtype(
                narrow, leaves, asked, answers, little, told
            )
            if findings is None:
                break
            foreign = not as_it_is and own.isdisjoint(map(jnp.result_type, leaves))
            least = little if slopes else {}
            findings = [
                _milder(f, foreign, least.get(f.argument, -1.0)) for f in findings
            ]
            yield elsewhere(findings, variant.name, variant[1:3])


def _narrowed(asked: Question, answers: Testimony, variant: Variant) -> Program | None:
    """The program in a narrow dtype; None where the function is not for that."""
    try:
        args = variant.args, variant.kwargs
        narrow = traced(asked.f, *args, asked.reference, once=True)
        written = narrow.manual.read(narrow.inputs, narrow.avals)
    except Exception:  # whatever `f` raises of it
        return None
    if holds(written, is_without_bound):
        return None
    wide = answers.program.manual.jaxpr
    # One whose constants overflow in this dtype is not written for it.
    overflows = holds(narrow.manual.jaxpr, names_infinity) and not holds(
        wide, names_infinity
    )
    return None if overflows else narrow


def _in_dtype(
    narrow: Program,
    leaves: list[Any],
    asked: Question,
    answers: Testimony,
    little: Mapping[str, float],
    told: Collection[str],
) -> list[Finding] | None:
    """Findings at leaves of a narrow dtype; none where that cannot hold the values.

    None where the function takes no gradient in it. Mistakes of the kinds in `told` are
    not held where rounding leaves the rule no digit.
    """
    if not all(np.isfinite(np.asarray(x, complex)).all() for x in leaves):
        return []  # too large for this dtype, or infinite from the start
    try:
        there = Testimony(narrow, leaves, asked.paths, asked.seed, count=1)
    except Exception:  # whatever its rules raise
        return None
    with jax.enable_x64(True):
        wide = [in_float64(x) for x in leaves]
        inputs = answers.program.manual.moved(answers.inputs, wide)
        exact = Testimony(answers.program, inputs, asked.paths, asked.seed, 1)
        lost = _lost(there.auto[0].outputs, exact.auto[0].outputs)
    if lost or not all_finite(there.auto[0].cotangents):
        return []
    findings = in_low_precision(
        there, exact, asked.surrogates, callers=False, little=little
    )
    findings = [
        replace(f, verdict="less-accurate")
        if f.verdict == "wrong" and f.kind in told and _without_digits(f, there, exact)
        else f
        for f in findings
    ]
    return forgiven(findings, narrow, leaves)


def _without_digits(finding: Finding, there: Testimony, exact: Testimony) -> bool:
    """Whether rounding leaves the hand-written rule no digit in the worst element."""
    if finding.worst is None or finding.argument not in exact.paths:
        return False
    k, at = exact.paths.index(finding.argument), finding.worst.index
    truth = exact.manual[0].cotangents[k]
    noise = exact.noise(0, MANUAL).cotangents[k]
    times = there.unit / np.finfo(truth.dtype).eps
    return not (np.isfinite(truth[at]) and noise[at] * times <= abs(truth[at]))


def _floats(args, kwargs) -> list[Any]:
    return list(filter(is_differentiable, jax.tree.leaves((args, kwargs))))


def _milder(finding: Finding, foreign: bool, little: float) -> Finding:
    """Told and not held: all that a foreign dtype loses, or a slope up to `little`."""
    overflow, lost = (finding.kind == kind for kind in ("overflow", "dtype"))
    value, size = finding.argument == "value", np.inf
    if finding.worst is not None and finding.worst.auto is not None:
        size = abs(finding.worst.auto)
    slope = (lost and size <= little) or (overflow and size == 0 <= little)
    told = slope or (foreign and (overflow or lost or value))
    return replace(finding, verdict="less-accurate") if told else finding


def _lost(narrow, exact) -> bool:
    """Whether the values themselves went wrong in a narrow dtype, by overflow, say."""
    for value, truth in zip(narrow, exact, strict=True):
        if value.shape == truth.shape and truth.size:
            with np.errstate(all="ignore"):
                off = np.abs(value.astype(truth.dtype) - truth).max()
                if not off <= np.abs(truth).max() / 4:
                    return True
    return False
