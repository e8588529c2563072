"""The question asked further away: transformed, at other lengths, of other flags."""

import itertools
import os
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from jaxbp._steps import holds
from jaxbp.instrument._boundaries import lengths
from jaxbp.instrument._comparison import FAILED, Finding, elsewhere
from jaxbp.instrument._contract import sparsely, transformations
from jaxbp.instrument._data import repeated
from jaxbp.instrument._probes import probes
from jaxbp.instrument._program import (
    Program,
    RuleRaises,
    check_runs,
    in_float64,
    traced,
)
from jaxbp.instrument._search import (
    Limits,
    Question,
    all_finite,
    held,
    overwrites,
)
from jaxbp.instrument._testimony import Testimony
from jaxbp.instrument._tolerance import ends_at_a_float
from jaxbp.instrument._variants import Variant, other_flags, other_lengths

_VECTOR = 4  # components, or a quaternion's
_OBLONG = frozenset(("svd", "geqrf", "qr"))  # factorisations of tall or wide matrices


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
    found = lengths(answers.program.auto.jaxpr)
    places = asked.places(len(answers.inputs))
    counts = [place for k, place in enumerate(places) if k in found]
    variants = itertools.chain(
        other_flags(asked.args, asked.kwargs),
        other_lengths(asked.args, asked.kwargs, counts),
    )
    repeats = not holds(answers.program.auto.jaxpr, overwrites)
    limits = Limits(answers)
    loops = holds(answers.program.auto.jaxpr, ends_at_a_float) or limits
    oblong = holds(answers.program.auto.jaxpr, _factors_oblong)
    caller = jax.tree.leaves((asked.args, asked.kwargs))
    for variant in variants:
        pairs = zip(caller, jax.tree.leaves(variant[1:3]), strict=True)
        if not repeats and any(repeated(*pair) for pair in pairs):
            continue
        if loops and any(map(_is_larger, caller, jax.tree.leaves(variant[1:3]))):
            continue  # a matrix that is repeated need not be a contraction any more
        if oblong and any(map(_turns, caller, jax.tree.leaves(variant[1:3]))):
            continue  # of independent columns; a wide matrix has none
        with jax.enable_x64(True):
            findings = _of_variant(variant, asked, answers.program, limits)
        yield elsewhere(findings, variant.name, variant[1:3])


def _goes_beyond(other: Program, here: Program) -> bool:
    """Whether f's indices leave its arrays, as they do not at the caller's lengths.

    JAX then takes the nearest element, or drops what is written: f does not mean it.
    """

    def leaves_them(program: Program) -> bool:
        values = program.auto.primal
        checked = checkify.checkify(values, errors=checkify.index_checks)
        error, _ = checked(program.inputs)
        return error.get() is not None

    try:
        return leaves_them(other) and not leaves_them(here)
    except Exception:  # what checkify does not know
        return False


def _is_unread(other: Program, here: Program) -> bool:
    """Whether f takes nothing of what arrays have more than here, as of a pair's third.

    It then means no such length.
    """

    def beyond(k, bar):
        kept = np.ones(np.shape(bar), bool)
        kept[tuple(map(slice, np.shape(here.inputs[k])))] = False
        return bar[kept]

    try:
        (bars,) = probes(other.avals, other.output_paths, 0, 1)
        found = other.auto(other.inputs, bars).cotangents
    except Exception:  # autodiff cannot
        return False
    more = [beyond(*pair) for pair in zip(here.auto.wrt, found, strict=True)]
    more = [x for x in more if x.size]
    return bool(more) and not any(x.any() for x in more)


def _is_larger(old: Any, new: Any) -> bool:
    return np.size(new) > np.size(old)


def _factors_oblong(eqn: Any) -> bool:
    return eqn.primitive.name in _OBLONG


def _turns(old: Any, new: Any) -> bool:
    """Whether a tall matrix becomes a wide one, or the other way."""
    (m, n), (rows, columns) = ((1, 1, *np.shape(x))[-2:] for x in (old, new))
    return (m - n) * (rows - columns) < 0


def _of_variant(
    variant: Variant, asked: Question, here: Program, limits: Limits
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
        if known or _goes_beyond(other, here) or _is_unread(other, here):
            return []
        return _refusals(other, asked)
    if not all_finite(outputs):
        return []
    findings = held(there, asked)
    if limits.are_left(other, there.inputs, there.probes[0], findings):
        return []
    failed = any(f.verdict in FAILED for f in findings)
    return [] if failed and _goes_beyond(other, here) else findings


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
