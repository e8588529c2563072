"""The course of a comparison: at the caller's point first, and then elsewhere."""

import contextlib
import functools
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._errors import first_line
from jaxbp._jaxpr import is_differentiable
from jaxbp._steps import holds
from jaxbp.instrument._comparison import FAILED, Finding
from jaxbp.instrument._contract import repeatable, sparsely
from jaxbp.instrument._coverage import Coverage
from jaxbp.instrument._dtypes import look_at_dtypes
from jaxbp.instrument._further import look_further
from jaxbp.instrument._precision import in_low_precision
from jaxbp.instrument._program import check_runs, in_float64, traced
from jaxbp.instrument._search import (
    AT_FEW,
    Question,
    calls_out,
    look_again,
    look_around,
    stay_positive,
    varied,
    worse,
)
from jaxbp.instrument._structure import MASK, structures
from jaxbp.instrument._testimony import Testimony
from jaxbp.instrument._variants import too_large

_NAMED = 4  # changes of length that are left out
_PROVEN_WRONG = ("broken-contract", "wrong")
_ALIKE = 1e-3  # numeric and autodiff: at a search's end they are, before it nowhere
_FEW = 4  # points that a large program is asked at, with effort="full"


class Here(NamedTuple):
    """What was found at the caller's point, and what to go on with from there.

    `precision` is the context to ask in, `note` why it is not float64, if it is not;
    `working` the answers in the caller's dtype, where that is narrower.
    """

    answers: Testimony
    working: Testimony | None
    coverage: Coverage
    findings: list[Finding]
    precision: Callable[[], AbstractContextManager[Any]]
    note: str

    def let_go(self) -> None:
        """Keep no answers that take much memory."""
        for answers in (self.answers, self.working):
            if answers is not None:
                answers.let_go()


def at_the_point(asked: Question) -> Here:
    """The answers in float64 and in the caller's dtype, and what follows from them.

    Raises:
        RuleRaises: there is no answer, and what JAX says of the rule.
    """
    program, precision, note = _traced(asked)
    paths, purposely, seed = asked.paths, asked.surrogates, asked.seed
    narrow = any(map(_narrow, jax.tree.leaves((asked.args, asked.kwargs))))
    with precision():
        answers = Testimony(program, program.inputs, paths, seed)
        coverage = Coverage(program.manual, program.inputs)
        findings = answers.findings(purposely, callers=bool(note) or not narrow)
        if findings:
            findings = repeatable(answers, findings)
            findings = worse(findings, sparsely(answers, purposely), ours=True)
    working = None
    if narrow and findings and not (note or answers.refused):
        own = traced(asked.f, asked.args, asked.kwargs, asked.reference)
        working = Testimony(own, own.inputs, paths, seed)
        further = in_low_precision(working, answers, purposely)
        findings = worse(findings, further, ours=False)
    return Here(answers, working, coverage, findings, precision, note)


def looked_elsewhere(
    asked: Question, here: Here, full: bool, order: int
) -> list[Finding]:
    """The findings; worse ones from other points, shapes and dtypes in their place.

    A leaf that is found wrong is not judged again: only its contract is held.
    """
    findings = here.findings
    # Where the caller's own point shows a mistake, quick need not look for one.
    failed = any(finding.verdict in FAILED for finding in findings)
    # Autodiff does not see through a search. Where it suddenly does, the search has
    # ended where it may go no further, and a rule for what is found is not asked.
    searches = any(finding.verdict == "autodiff-wrong" for finding in findings)
    settled = {*asked.surrogates}
    asked = asked._replace(surrogates=settled)

    def add(further: list[Finding], *, ours: bool = True) -> None:
        nonlocal findings
        if searches and ours:
            further = [f for f in further if not _is_at_an_end(f)]
        findings = worse(findings, further, ours=ours)
        settled.update(f.argument for f in findings if f.verdict in _PROVEN_WRONG)

    add([])
    here.let_go()
    with here.precision():
        if full or not failed:
            few = _FEW if full else 0
            around = look_around(asked, here.answers, here.coverage, few)
            for further in itertools.islice(around, AT_FEW if searches else None):
                add(further)
        if full:
            for further in look_further(asked, here.answers, here.working):
                add(further)
        if order == 2:
            add(look_again(asked, here.answers), ours=False)
    here.let_go()
    if full and not here.note:
        for further in look_at_dtypes(asked, here.answers, larger=not searches):
            add(further)
    return findings


def _is_at_an_end(finding: Finding) -> bool:
    """Whether the numeric derivative says what autodiff does, or the rule is 1/0."""
    worst = finding.worst
    if finding.verdict != "wrong" or worst is None:
        return False
    if worst.manual is not None and not np.isfinite(worst.manual):
        return True
    if worst.numeric is None or worst.auto is None:
        return False
    return abs(worst.numeric - worst.auto) <= _ALIKE * abs(worst.auto)


def not_asked(asked: Question, here: Here, full: bool) -> str:
    """Where a large program, or one of large arrays, is not asked, and what is kept."""
    parts = []
    program = here.answers.program
    if program.is_large or program.is_long:
        instead = f"{_FEW} other points" if full else "no other point"
        parts.append(f"a large program, asked at {instead}")
    elif kept := _kept(asked, here):
        parts.append(f"asked as what they seem to be: {kept}")
    if full and (names := too_large(asked.args, asked.kwargs)):
        some, others = names[:_NAMED], len(names[_NAMED:])
        more = f" and {others} more changes of length" if others else ""
        parts.append(f"left out for their size: {', '.join(some)}{more}")
    return "; ".join(parts)


def _kept(asked: Question, here: Here) -> str:
    """The arguments whose structure every other point has too."""
    pairs = zip(asked.paths, map(np.asarray, here.answers.leaves), strict=True)
    reals = [(path, x) for path, x in pairs if not np.iscomplexobj(x)]
    kinds = structures([x.astype(np.float64) for _, x in reals])
    named = zip((path for path, _ in reals), kinds, strict=True)
    kept = [(path, kind) for path, kind in named if kind not in ("", MASK)]
    positive = stay_positive(here.answers)
    places = zip(asked.paths, here.answers.program.auto.wrt, strict=True)
    kept += [(path, "positive") for path, place in places if place in positive]
    return ", ".join(f"{path} {kind}" for path, kind in kept)


def _traced(asked: Question):
    """The program in float64, the context to ask it in, and why not, if not."""
    program, refused = None, ""
    try:
        with jax.enable_x64(True):
            program = _traced_in_float64(asked)
            # A backward pass may be what does not trace: it is traced only when asked.
            if holds(program.manual.read(program.inputs, program.avals), calls_out):
                bars = [np.zeros(aval.shape, aval.dtype) for aval in program.avals]
                program.manual(program.inputs, bars)  # a callback may refuse float64
    except Exception as error:
        refused = first_line(error)
    if program is not None and not refused:
        return program, functools.partial(jax.enable_x64, True), ""
    program = traced(asked.f, asked.args, asked.kwargs, asked.reference)
    check_runs(program)
    note = "judged in the caller's dtype, float64 does not trace: "
    return program, nullcontext, note + refused


def _traced_in_float64(asked: Question):
    wide_args, wide_kwargs = jax.tree.map(in_float64, (asked.args, asked.kwargs))
    with contextlib.suppress(Exception):
        return traced(asked.f, wide_args, wide_kwargs, asked.reference, varied)
    # Data that decides how f is traced stays as it is.
    return traced(asked.f, wide_args, wide_kwargs, asked.reference)


def _narrow(leaf):
    if not is_differentiable(leaf):
        return False
    return jnp.finfo(jnp.result_type(leaf)).bits < 64
