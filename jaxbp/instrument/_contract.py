"""What JAX accepts in silence: a rule holds twice, sparsely and transformed."""

import dataclasses
import itertools
from collections.abc import Collection

import jax
import numpy as np

from jaxbp._errors import first_line
from jaxbp.instrument._answers import AUTO, MANUAL, beyond_rounding, worst_at
from jaxbp.instrument._comparison import Finding, elsewhere
from jaxbp.instrument._judge import worst_elements
from jaxbp.instrument._testimony import Testimony
from jaxbp.instrument._transformed import transformed
from jaxbp.instrument._witnesses import Pullback

_ONE_HOTS = 6  # of an output, with effort="full"
_ONE_CALL = ("remat",)  # of the cotangent itself


def repeatable(answers: Testimony, findings: list[Finding]) -> list[Finding]:
    """The findings; broken-contract in their place where a second run differs."""
    again = answers.hand_written(answers.probes[-1])
    # By autodiff's noise: that of a rule which is not repeatable hides what it does.
    once, message = answers.manual[-1], "differs between two runs"
    changed = _changed(answers, once, again, message, AUTO)
    instead = {finding.argument: finding for finding in changed}
    return [instead.get(finding.argument, finding) for finding in findings]


def sparsely(
    answers: Testimony, surrogates: Collection[str], *, everywhere: bool = False
) -> list[Finding]:
    """Findings for a cotangent that is 0 but in one element; `everywhere`: for many.

    What divides by its cotangent, or looks for the largest, shows where most are 0.
    """
    avals, size = answers.program.avals, sum(g.size for g in answers.probes[0])
    if size < 2:
        return []
    rng = np.random.default_rng((answers.seed, 2))
    chosen = [int(rng.integers(size))]
    if everywhere:
        ends = np.cumsum([0, *(aval.size for aval in avals)])
        for start, stop in itertools.pairwise(ends):
            chosen += np.linspace(start, stop - 1, _ONE_HOTS).astype(int).tolist()
    bars = [_one_hot(answers.probes[-1], k) for k in dict.fromkeys(chosen) if k >= 0]
    if everywhere:
        bars.append([g * (rng.random(g.shape) < 0.5) for g in answers.probes[-1]])
    asked = (answers.program, answers.inputs, answers.paths, answers.seed)
    there = Testimony(*asked, cotangents=bars)
    findings = there.findings(surrogates, callers=False)
    return elsewhere(findings, "for a cotangent that is mostly 0")


def transformations(answers: Testimony) -> list[Finding]:
    """broken-contract where vmap, scan, remat or sharding change the pullback.

    Where one raises it is a finding only if autodiff's pullback does not raise there.
    """
    program, args = answers.program, (answers.inputs, answers.probes[-1])
    plain = answers.hand_written(answers.probes[-1])
    linear = _linear(answers, plain)
    found: list[Finding] = []
    for name, result in transformed(program.manual, *args):
        if name == "remat" and _remat_is_broken():
            continue
        if isinstance(result, Pullback):
            message = f"under {name} another gradient than without"
            changed = _changed(answers, plain, result, message)
            found += [f for f in changed if f.argument in linear or name in _ONE_CALL]
            continue
        of_auto = dict(transformed(program.auto, *args, only=name))[name]
        if isinstance(of_auto, Pullback):
            reason = first_line(result)
            message = f"{name} raises, of autodiff it does not: {reason}"
            found += [
                Finding("broken-contract", path, message=message)
                for path in answers.paths
            ]
    paths = dict.fromkeys(finding.argument for finding in found)
    return [_together([f for f in found if f.argument == path]) for path in paths]


def _remat_is_broken() -> bool:
    """Whether this JAX cannot remat a rule of static arguments, whoever wrote it."""
    old = jax.__version_info__ < (0, 11)
    return old and bool(getattr(jax.config, "jax_custom_vjp3", False))


def _linear(answers: Testimony, plain: Pullback) -> set[str]:
    """The leaves that twice the cotangent gives twice as much: a clipped one does not.

    Of a gradient that is different on purpose that is its own affair; how its calls
    add up is not known.
    """
    twice = answers.hand_written([2 * g for g in answers.probes[-1]])
    pairs = zip(answers.paths, twice.cotangents, plain.cotangents, strict=True)
    return {p for p, t, m in pairs if beyond_rounding(t / 2, m, answers.unit) is None}


def _together(found):
    """One finding of several on a leaf: the first, with what all of them say."""
    message = "; ".join(dict.fromkeys(finding.message for finding in found))
    return dataclasses.replace(found[0], message=message)


def _one_hot(cotangents, k):
    bars = []
    for g in cotangents:
        bar = np.zeros_like(g)
        if 0 <= k < g.size:
            bar.flat[k] = g.flat[k]
        bars.append(bar)
        k -= g.size
    return bars


def _changed(
    answers: Testimony,
    plain: Pullback,
    result: Pullback,
    message: str,
    side: int = MANUAL,
) -> list[Finding]:
    """broken-contract where a pullback of the last probe is not the plain one.

    Beyond the rounding noise of that side.
    """
    after, before = result.cotangents, plain.cotangents
    pairs = zip(range(len(before)), after, before, strict=True)
    last, found = len(answers.probes) - 1, []
    for k, some, beyond, note in answers.beyond_noise(last, pairs, [side]):
        worst = worst_at(after[k], before[k], int(some[worst_elements(beyond)[0]]))
        path, said = answers.paths[k], f"{note}{message}, which is {worst.auto:.10g}"
        worst = dataclasses.replace(worst, auto=None)
        found.append(Finding("broken-contract", path, "", worst, "", said))
    return found
