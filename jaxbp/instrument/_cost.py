"""cost(f, *args): what a hand-written gradient buys, in time, memory and FLOPs."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._arguments import (
    check_closed,
    check_concrete,
    check_function,
    checked,
    leaves_with_paths,
    traceable,
    whole,
)
from jaxbp._autodiff import autodiff
from jaxbp._errors import (
    argument_error,
    describe,
    first_line,
    function_name,
    not_differentiable,
)
from jaxbp._jaxpr import find_rules, out_of_reach, without_rules
from jaxbp.instrument._bill import Cost, Ratio, Side
from jaxbp.instrument._measure import Compiled, Traced, compiled, interleaved, traced_at
from jaxbp.instrument._residuals import Residual, residuals

__all__ = ["Cost", "Ratio", "Residual", "Side", "cost"]


@jax.disable_jit(False)  # what is compiled is what is measured
@jax.debug_nans(False)  # what is not finite is an answer
@jax.debug_infs(False)
@traceable("cost")
def cost(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    reference: Callable[..., Any] | None = None,
    rounds: int = 11,
) -> Cost:
    r"""What the hand-written gradient of `f` costs, beside autodiff's.

    Of the step $(y, \bar x) = (f(x), \partial f(x)^\top \bar y)$ for a random cotangent
    $\bar y$, compiled for each side, in the caller's dtype and on the device that JAX
    chooses:

    - FLOPs, transcendentals and bytes, counted from the jaxpr: a scan its length times,
      the dearest branch of a cond, a while loop once, and `notes` says so. Beside them
      XLA's own figures, which are of the fused program and count every loop's body
      once.
    - Temporary memory of the compiled program; and the residuals, the arrays kept from
      the forward to the backward pass where these are two programs, without the
      arguments and constants, which are alive anyway.
    - Seconds to trace (f, then its step, the removal of rules not counted), to lower
      and compile (with no help from a persistent cache), and to run: the two sides
      interleaved, each called until the clock can tell, the ratio taken in every round.

    Args:
        f: any JAX function. Float and complex leaves are differentiated, all others are
            data, as in `compare`.
        *args: where to measure: shapes and dtypes matter, and values where they decide
            a loop or a branch.
        kwargs: keyword arguments of `f`.
        reference: a function of the same arguments to stand in autodiff's place.
        rounds: how often the two are run after a warm-up.
    Returns:
        Cost: `.time`, the ratio of run times with its quartiles; `.manual` and `.auto`;
        `str()` is a table. Times of another machine, or of this one under another load,
        are other times; the ratio is what to quote, with device, cores and load.
    Raises:
        ValueError: no floating argument or output; fewer than 1 round; the reference's
            outputs are not like f's; autodiff cannot differentiate `f`, and no
            reference is given.
        TypeError: `f` or `reference` is not callable, or a value is traced: call it at
            the top level.
    """
    kwargs = checked("cost", f, args, kwargs)
    rounds = whole("cost", "rounds", rounds, 1)
    check_concrete("cost", leaves_with_paths(args, kwargs))
    if reference is not None:
        check_function("cost", "reference", reference)
    ours = traced_at(f, args, kwargs)
    check_closed("cost", ours.jaxpr)
    _check_differentiable(ours)
    cotangents = _cotangents(ours.outputs)
    rival = reference or autodiff(f)
    if reference is None:
        theirs = ours._replace(jaxpr=without_rules(ours.jaxpr))
    else:
        theirs = traced_at(reference, args, kwargs)
        _check_alike(ours, theirs)
    try:
        manual = compiled(ours, cotangents)
    except jax.errors.UnexpectedTracerError:
        raise  # `traceable` says what mends it
    except Exception as error:  # whatever the rule's own passes raise
        raise not_differentiable("cost", error) from error
    try:
        auto = compiled(theirs, cotangents)
    except Exception as error:
        if reference is not None:
            raise
        got = f"{type(error).__name__}: {first_line(error).rstrip('.')}"
        mend = "give reference=, a function of the same arguments to measure against"
        expected = "differentiable without its hand-written rules"
        raise argument_error("cost", "f", expected, got, mend) from error
    seconds = interleaved(manual, auto, rounds)
    ratios = seconds[:, 0] / seconds[:, 1]
    median, lower, upper = map(float, np.quantile(ratios, [0.5, 0.25, 0.75]))
    devices = _devices(manual())
    return Cost(
        function_name(f),
        "autodiff" if reference is None else function_name(reference),
        Ratio(median, lower, upper, rounds),
        _side(manual, residuals(f, args, kwargs), seconds[:, 0]),
        _side(auto, residuals(rival, args, kwargs), seconds[:, 1]),
        devices[0].device_kind,
        len(devices),
        _cores(),
        os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        _note(ours) if reference is None else "",
    )


def _side(side: Compiled, kept: tuple[Residual, ...], seconds: np.ndarray) -> Side:
    counted, program = side.counted, side.program
    figures = _told(program.cost_analysis)
    figures = figures[0] if isinstance(figures, list) else figures

    def xla(name):  # which leaves out what is 0, and says -1 where it cannot tell
        value = figures.get(name, 0.0) if figures else -1.0
        return None if value < 0 else value

    return Side(
        counted.flops,
        counted.transcendentals,
        counted.bytes,
        xla("flops"),
        xla("transcendentals"),
        xla("bytes accessed"),
        getattr(_told(program.memory_analysis), "temp_size_in_bytes", None),
        sum(r.bytes for r in kept),
        kept,
        side.trace_seconds,
        side.compile_seconds,
        float(np.median(seconds)),
        counted.notes,
    )


def _told(analysis: Callable[[], Any]) -> Any:
    """What the compiled program says of itself; None where the backend says nothing."""
    try:
        return analysis()
    except (NotImplementedError, RuntimeError):  # as JAX's backends refuse it
        return None


def _cotangents(avals: Sequence[Any]) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(a.shape), a.dtype) for a in avals]


def _check_differentiable(side: Traced) -> None:
    if not side.leaves:
        expected = "arguments of f with a floating leaf"
        raise argument_error("cost", "args", expected, "none")
    if not side.outputs:
        raise argument_error("cost", "f", "a function with a floating output", "none")


def _check_alike(ours: Traced, theirs: Traced) -> None:
    expected, got = (", ".join(map(describe, s.outputs)) for s in (ours, theirs))
    if expected != got:
        expected = f"a function with f's outputs, {expected}"
        raise argument_error("cost", "reference", expected, got or "none")


def _note(side: Traced) -> str:
    if hidden := out_of_reach(side.jaxpr):
        return f"on both sides, since it cannot be removed: {', '.join(hidden)}"
    if all(rule.from_jax for rule in find_rules(side.jaxpr)):
        return "f holds no hand-written rule, or it is JAX's own: both sides are one"
    return ""


def _devices(outputs: Any) -> list[Any]:
    return list(jax.tree.leaves(outputs)[0].devices())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
