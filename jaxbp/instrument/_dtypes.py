"""The question asked in the dtypes that are narrower than float64."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxbp._jaxpr import is_differentiable
from jaxbp._steps import holds
from jaxbp.instrument._comparison import Finding, elsewhere
from jaxbp.instrument._precision import in_low_precision
from jaxbp.instrument._program import Program, in_float64, traced
from jaxbp.instrument._search import Question, all_finite
from jaxbp.instrument._testimony import Testimony
from jaxbp.instrument._variants import SQUARES, Variant, other_dtypes


def look_at_dtypes(asked: Question, answers: Testimony) -> Iterator[list[Finding]]:
    """Findings in each narrower dtype: contract, overflow, accuracy.

    What a dtype that is not the caller's cannot hold of arguments made larger is told,
    but not held against the rule: it was not asked for there. Nor is a slope that is
    lost where squares of arguments overflow, if it is next to none or 0 itself.
    """
    own = {jnp.result_type(x) for x in _floats(asked.args, asked.kwargs)}
    for variants in other_dtypes(asked.args, asked.kwargs):
        narrow = None
        for variant in variants:
            leaves = _floats(variant.args, variant.kwargs)
            as_it_is = narrow is None
            narrow = narrow or _narrowed(asked, answers, variant)
            findings = narrow and _in_dtype(narrow, leaves, asked, answers)
            if findings is None:
                break
            foreign = not as_it_is and own.isdisjoint(map(jnp.result_type, leaves))
            slopes = variant.name.endswith(SQUARES)
            findings = [_milder(f, foreign, slopes) for f in findings]
            yield elsewhere(findings, variant.name, variant[1:3])


def _narrowed(asked: Question, answers: Testimony, variant: Variant) -> Program | None:
    """The program in a narrow dtype; None where the function is not for that."""
    try:
        args = variant.args, variant.kwargs
        narrow = traced(asked.f, *args, asked.reference, once=True)
    except Exception:  # whatever `f` raises of it
        return None
    wide = answers.program.manual.jaxpr
    # One whose constants overflow in this dtype is not written for it.
    overflows = holds(narrow.manual.jaxpr, _infinite) and not holds(wide, _infinite)
    return None if overflows else narrow


def _in_dtype(
    narrow: Program, leaves: list[Any], asked: Question, answers: Testimony
) -> list[Finding] | None:
    """Findings at leaves of a narrow dtype; none where that cannot hold the values.

    None where the function takes no gradient in it.
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
    return in_low_precision(there, exact, asked.surrogates, callers=False)


def _floats(args, kwargs) -> list[Any]:
    return list(filter(is_differentiable, jax.tree.leaves((args, kwargs))))


def _milder(finding: Finding, foreign: bool, slopes: bool) -> Finding:
    """Told and not held: all that a foreign dtype loses, or slopes that are lost."""
    overflow, lost = (finding.kind == kind for kind in ("overflow", "dtype"))
    value = finding.argument == "value"
    flat = overflow and finding.worst is not None and finding.worst.auto == 0
    told = (foreign and (overflow or lost or value)) or (slopes and (lost or flat))
    return replace(finding, verdict="less-accurate") if told else finding


def _infinite(eqn: Any) -> bool:
    values = (v.val for v in eqn.invars if isinstance(v, Literal))
    return any(np.isinf(np.asarray(v, np.float64)).any() for v in values if _is_real(v))


def _is_real(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _lost(narrow, exact) -> bool:
    """Whether the values themselves went wrong in a narrow dtype, by overflow, say."""
    for value, truth in zip(narrow, exact, strict=True):
        if value.shape == truth.shape and truth.size:
            with np.errstate(all="ignore"):
                off = np.abs(value.astype(truth.dtype) - truth).max()
                if not off <= np.abs(truth).max() / 4:
                    return True
    return False
