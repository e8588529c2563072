"""compare(f, *args): is the hand-written gradient the gradient, and who says so."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._errors import argument_error, describe
from jaxbp._jaxpr import find_rules, is_differentiable, out_of_reach
from jaxbp.instrument._comparison import Comparison, worst_of
from jaxbp.instrument._search import (
    Question,
    look_again,
    look_at_dtypes,
    look_further,
    varied,
    worse,
)
from jaxbp.instrument._testimony import Testimony
from jaxbp.instrument._witnesses import in_float64, traced


def compare(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    reference: Callable[..., Any] | None = None,
    surrogate: bool | Sequence[str] = (),
    order: Literal[1, 2] = 1,
    effort: Literal["quick", "full"] = "quick",
    numeric: bool = False,
    accuracy: bool = False,
    seed: int = 0,
) -> Comparison:
    r"""Hold the hand-written gradient of `f` against autodiff's, leaf by leaf.

    For random cotangents $\bar y$: M, the VJP of `f`; A, the VJP of `autodiff(f)` or of
    `reference`; and, where they differ, N, a numeric derivative that decides between
    them. All in float64, whatever the dtype of the arguments. M and A agree in an
    element when $|M-A| \le 8\epsilon(|A|+|M|)$, or within 16 times the rounding noise
    measured in that very element. In the caller's dtype M's error is held against A's.

    Args:
        f: any JAX function. Pytrees in and out; float and complex leaves are
            differentiated, all others are data.
        *args: where to ask.
        kwargs: keyword arguments of `f`, differentiated alike.
        reference: a function of the same arguments to stand in autodiff's place.
        surrogate: True, or the key paths of arguments whose gradient is different on
            purpose: only its contract is held.
        order: 1, the gradient; 2, the rule differentiated once more as well.
        effort: "quick" asks at the caller's point; "full" goes looking as well: at
            neighbours near and far, special values, ties, the constants that `f`
            compares with, other data, other lengths of axes, narrower dtypes, and under
            vmap, scan and remat.
        numeric: ask the numeric witness about every element (of 4,096 evenly chosen
            ones, where there are more), not only where M and A differ.
        accuracy: a gradient less accurate than autodiff's in the caller's dtype is not
            `.ok`.
        seed: of the cotangents.
    Returns:
        Comparison: `.ok`, `.verdict`, `.findings`, one Finding a leaf; `str()` is a
        table. A comparison of nothing (no float leaf, no rule of anybody's in `f`) is
        `unproven`.
    Raises:
        ValueError: an unknown option, NaN among the arguments, a surrogate path that no
            argument has.
        TypeError: `f` is not callable.
    """
    kwargs = dict(kwargs or {})
    _check(f, args, kwargs, order, effort)
    paths = _differentiated_paths(args, kwargs)
    purposely = _purposely(surrogate, paths)
    asked = Question(f, args, kwargs, reference, paths, purposely, seed)
    try:
        with jax.enable_x64(True):
            program = _traced_in_float64(asked, effort)
    except Exception as error:
        note = f"judged in the caller's dtype, float64 does not trace: {error}"
        program, precision = traced(f, args, kwargs, reference), nullcontext()
    else:
        note, precision = "", jax.enable_x64(True)
    numbers = None
    with precision:
        answers = Testimony(program, program.inputs, paths, seed)
        findings = answers.findings(purposely)
        if effort == "full" and findings:
            for further in look_further(asked, answers):
                findings = worse(findings, further, ours=True)
        if order == 2 and findings:
            findings = worse(findings, look_again(asked, answers), ours=False)
        if numeric and findings and not note:
            numbers = answers.numeric_gradient()
            findings = [_with_numeric(f, paths, numbers) for f in findings]
    if not note and any(map(_narrow, jax.tree.leaves((args, kwargs)))):
        narrow = traced(f, args, kwargs, reference)
        working = Testimony(narrow, narrow.inputs, paths, seed)
        findings = working.less_accurate(answers, findings)
    if effort == "full" and not note:
        for further in look_at_dtypes(asked, answers):
            findings = worse(findings, further, ours=True)
    nothing = _nothing(program, reference, findings)
    if nothing:
        findings = [_doubted(finding) for finding in findings]
    return Comparison(
        _name(f),
        worst_of([finding.verdict for finding in findings]),
        tuple(findings),
        _like(args, answers.manual[0].cotangents),
        _like(args, answers.auto[0].cotangents),
        _like(args, numbers),
        accuracy,
        "; ".join(part for part in (nothing, note) if part),
    )


def assert_gradients(f: Callable[..., Any], *args: Any, **options: Any) -> None:
    """`compare`, raising what it prints.

    Args:
        f: any JAX function.
        *args: where to ask.
        **options: those of `compare`.
    Raises:
        AssertionError: the comparison is not `.ok`; the text is its table.
    """
    comparison = compare(f, *args, **options)
    if not comparison.ok:
        raise AssertionError(str(comparison))


def _check(f, args, kwargs, order, effort):
    if not callable(f):
        raise argument_error("compare", "f", "a function", describe(f), kind=TypeError)
    if order not in (1, 2):
        raise argument_error("compare", "order", "1 or 2", order)
    if effort not in ("quick", "full"):
        raise argument_error("compare", "effort", "'quick' or 'full'", repr(effort))
    for path, leaf in _leaves(args, kwargs):
        if is_differentiable(leaf) and (bad := int(np.isnan(np.asarray(leaf)).sum())):
            got = f"NaN in {bad} of {np.size(leaf)} elements"
            mend = "ask at a point where the function is defined"
            raise argument_error("compare", path, "numbers", got, mend)


def _traced_in_float64(asked: Question, effort: str):
    wide_args, wide_kwargs = jax.tree.map(in_float64, (asked.args, asked.kwargs))
    if effort == "full":
        try:
            return traced(asked.f, wide_args, wide_kwargs, asked.reference, varied)
        except Exception:  # data that decides how f is traced stays as it is
            pass
    return traced(asked.f, wide_args, wide_kwargs, asked.reference)


def _leaves(args, kwargs):
    """Every leaf with its key path in the argument tuple, or after its keyword."""
    pairs = jax.tree_util.tree_leaves_with_path((args, kwargs))
    return [(jax.tree_util.keystr(path[1:]), leaf) for path, leaf in pairs]


def _differentiated_paths(args, kwargs):
    return [path for path, leaf in _leaves(args, kwargs) if is_differentiable(leaf)]


def _purposely(surrogate, paths):
    if isinstance(surrogate, bool):
        return set(paths) if surrogate else set()
    for path in surrogate:
        if path not in paths:
            known = ", ".join(paths)
            raise argument_error("compare", "surrogate", f"among {known}", path)
    return set(surrogate)


def _narrow(leaf):
    if not is_differentiable(leaf):
        return False
    return jnp.finfo(jnp.result_type(leaf)).bits < 64


def _nothing(program, reference, findings):
    """Why this compares nothing, or not all that there is; then no leaf is `right`."""
    if not findings:
        return "nothing to compare: f has no floating argument or no floating output"
    if all(f.verdict == "right" and f.worst is None for f in findings):
        return "nothing to compare: every differentiated array is empty"
    hidden = out_of_reach(program.manual.jaxpr)
    if hidden:
        return (
            f"out of reach, since f or JAX has differentiated it: {', '.join(hidden)}; "
            "compare the function that holds that rule"
        )
    if reference is None and all(r.from_jax for r in find_rules(program.manual.jaxpr)):
        return (
            "nothing to compare: f holds no hand-written rule, or it is JAX's own; "
            "reference= compares f with another function"
        )
    return ""


def _doubted(finding):
    if finding.verdict != "right":
        return finding
    return dataclasses.replace(finding, verdict="unproven")


def _with_numeric(finding, paths, numbers):
    """The finding with the numeric value of its worst element, where it was asked."""
    worst = finding.worst
    if numbers is None or worst is None or worst.numeric is not None:
        return finding
    if finding.argument not in paths:
        return finding
    value = numbers[paths.index(finding.argument)][worst.index]
    worst = dataclasses.replace(worst, numeric=float(value))
    return dataclasses.replace(finding, worst=worst)


def _like(args, values):
    """Values of the differentiated leaves in a tree like `args`, None elsewhere."""
    if values is None:
        return None
    leaves, tree = jax.tree.flatten(args)
    values = iter(values)
    filled = [next(values) if is_differentiable(leaf) else None for leaf in leaves]
    return jax.tree.unflatten(tree, filled)


def _name(f):
    inner = f if hasattr(f, "__name__") else getattr(f, "func", f)  # of a partial
    return getattr(inner, "__name__", type(inner).__name__)
