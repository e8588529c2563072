"""compare(f, *args): is the hand-written gradient the gradient, and who says so."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import jax

from jaxbp._arguments import (
    check_concrete,
    check_function,
    check_numbers,
    checked,
    leaves_with_paths,
    traceable,
    whole,
)
from jaxbp._errors import argument_error, describe, function_name
from jaxbp._jaxpr import find_rules, is_differentiable, out_of_reach
from jaxbp.instrument._comparison import (
    Comparison,
    Finding,
    without_autodiff,
    worst_of,
)
from jaxbp.instrument._course import at_the_point, looked_elsewhere, not_asked
from jaxbp.instrument._presence import took_part
from jaxbp.instrument._program import RuleRaises
from jaxbp.instrument._search import Question


@jax.disable_jit(False)  # it takes a hundred times as long
@jax.debug_nans(False)  # what is not finite is an answer
@jax.debug_infs(False)
@traceable("compare")
def compare(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    reference: Callable[..., Any] | None = None,
    surrogate: bool | str | Sequence[str] = (),
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
    element when $|M-A| \le 8\epsilon(|A|+|M|)$, or within 16 times the noise measured
    in that very element: of rounding, and of what a loop leaves open that nearly
    reaches its limit. In the caller's dtype M's error is held against A's.

    Args:
        f: any JAX function. Pytrees in and out; float and complex leaves are
            differentiated, all others are data.
        *args: where to ask.
        kwargs: keyword arguments of `f`, differentiated alike.
        reference: a function of the same arguments to stand in autodiff's place.
        surrogate: True, or the key paths of arguments whose gradient is different on
            purpose: only its contract is held.
        order: 1, the gradient; 2, the rule differentiated once more as well.
        effort: "quick" asks at the caller's point and, of what is not large, at others
            of the same shapes: neighbours near and far, special values, ties, the
            constants that `f` compares with, other data. "full" goes further: to other
            lengths of axes, narrower dtypes, sparse cotangents, and under vmap, scan,
            remat and, where there are several devices, sharding. What another dtype
            than the caller's loses of larger arguments, rounding alone in the caller's,
            or the rule where `f` itself overflows, is `less-accurate` at worst.
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
            argument has, a reference with other outputs.
        TypeError: `f` or `reference` is not callable, or a value is traced: call it at
            the top level.
    """
    kwargs = checked("compare", f, args, kwargs)
    seed = whole("compare", "seed", seed, 0)
    _check(reference, surrogate, order, effort)
    leaves = leaves_with_paths(args, kwargs)
    check_concrete("compare", leaves)
    check_numbers("compare", leaves)
    paths = [path for path, x in leaves if is_differentiable(x)]
    purposely = _purposely(surrogate, paths)
    asked = Question(f, args, kwargs, reference, paths, purposely, seed)
    try:
        here = at_the_point(asked)
    except RuleRaises as error:
        name, verdict = function_name(f), "broken-contract"
        found = [Finding(verdict, path, message=str(error)) for path in paths]
        return Comparison(name, verdict, tuple(found), None, None, None, accuracy)
    answers, coverage, findings = here.answers, here.coverage, here.findings
    if findings:
        findings = looked_elsewhere(asked, here, effort == "full", order)
    numbers = None
    with here.precision():
        left_out = not_asked(asked, here, effort == "full")
        nothing = _nothing(answers, reference, findings) or coverage.unproven
        if numeric and findings and not here.note:
            numbers = answers.numeric_gradient()
            findings = [_with_numeric(f, paths, numbers) for f in findings]
    if nothing:
        findings = [_doubted(finding) for finding in findings]
    manual, auto = (side[0].cotangents for side in (answers.manual, answers.auto))
    note = here.note
    if answers.refused:
        auto, numbers = None, auto
        findings = list(map(without_autodiff, findings))
        note = f"judged by the numeric derivative, no autodiff: {answers.refused}"
    return Comparison(
        function_name(f),
        worst_of([finding.verdict for finding in findings]),
        tuple(findings),
        _like(args, manual),
        _like(args, auto),
        _like(args, numbers),
        accuracy,
        "; ".join(part for part in (nothing, note, left_out) if part),
        coverage.branches,
        "autodiff" if reference is None else function_name(reference),
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
    __tracebackhide__ = True  # pytest shows the test's line, not this one
    comparison = compare(f, *args, **options)
    if not comparison.ok:
        raise AssertionError(str(comparison))


def _check(reference, surrogate, order, effort) -> None:
    if reference is not None:
        check_function("compare", "reference", reference)
    if isinstance(surrogate, str | bool):
        surrogate = ()
    if not isinstance(surrogate, Iterable) or not all(
        isinstance(path, str) for path in surrogate
    ):
        expected = "True, or the key paths of arguments"
        raise argument_error(
            "compare", "surrogate", expected, describe(surrogate), kind=TypeError
        )
    if type(order) is not int or order not in (1, 2):
        raise argument_error("compare", "order", "1 or 2", repr(order))
    if not isinstance(effort, str) or effort not in ("quick", "full"):
        raise argument_error("compare", "effort", "'quick' or 'full'", repr(effort))


def _purposely(surrogate, paths):
    if isinstance(surrogate, bool):
        return set(paths) if surrogate else set()
    surrogate = (surrogate,) if isinstance(surrogate, str) else surrogate
    for path in surrogate:
        if path not in paths:
            known = ", ".join(paths)
            raise argument_error("compare", "surrogate", f"among {known}", path)
    return set(surrogate)


def _nothing(answers, reference, findings) -> str:
    """Why this compares nothing, or not all that there is; then no leaf is `right`."""
    manual = answers.program.manual
    if not findings:
        return "nothing to compare: f has no floating argument or no floating output"
    if all(f.verdict == "right" and f.worst is None for f in findings):
        return "nothing to compare: every differentiated array is empty"
    hidden = out_of_reach(manual.jaxpr)
    if hidden:
        return (
            f"out of reach, since f or JAX has differentiated it: {', '.join(hidden)}; "
            "compare the function that holds that rule"
        )
    if reference is not None:
        return ""
    if all(rule.from_jax for rule in find_rules(manual.jaxpr)):
        return (
            "nothing to compare: f holds no hand-written rule, or it is JAX's own; "
            "reference= compares f with another function"
        )
    if not took_part(answers):
        return (
            "nothing to compare: no hand-written backward pass took part in this "
            "gradient; ask where the branch that holds it is taken, and what reaches "
            "it is not empty"
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
    worst = dataclasses.replace(worst, numeric=value.item())
    return dataclasses.replace(finding, worst=worst)


def _like(args, values):
    """Values of the differentiated leaves in a tree like `args`, None elsewhere."""
    if values is None:
        return None
    leaves, tree = jax.tree.flatten(args)
    values = iter(values)
    filled = [next(values) if is_differentiable(leaf) else None for leaf in leaves]
    return jax.tree.unflatten(tree, filled)
