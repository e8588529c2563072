"""One side of a cost: a step traced, compiled, and run against the other's."""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import (
    constants,
    evaluate_with,
    is_tracer,
    live,
    trace,
    unsaved,
)
from jaxbp.instrument._count import Count, count

_LEAST = 0.005  # seconds that a side runs for in a round, or the clock is all there is


class Traced(NamedTuple):
    """A traced function, what it is traced at, and the seconds that tracing took."""

    jaxpr: Any
    consts: list[Any]
    leaves: list[Any]
    seconds: float

    def forward(self, consts: Sequence[Any], *leaves: Any) -> tuple[list, list]:
        """The floating outputs, and apart the others."""
        outs = evaluate_with(self.jaxpr, consts, leaves)
        return _halves(outs, [is_floating(a) for a in self.jaxpr.out_avals])

    def step(self, consts, leaves, cotangents):
        def forward(*leaves):
            return self.forward(consts, *leaves)

        outs, back, others = jax.vjp(forward, *leaves, has_aux=True)
        return outs, others, back(cotangents)

    @property
    def outputs(self) -> list[Any]:
        """Shapes and dtypes of the floating outputs."""
        return [a for a in self.jaxpr.out_avals if is_floating(a)]


class Compiled(NamedTuple):
    program: Any
    arguments: tuple[Any, ...]
    counted: Count
    trace_seconds: float
    compile_seconds: float

    def __call__(self) -> Any:
        return jax.block_until_ready(self.program(*self.arguments))


def traced_at(f, args, kwargs) -> Traced:
    start = time.perf_counter()
    program = trace(f, args, kwargs)
    seconds = time.perf_counter() - start
    # Given as arguments: what is a constant to the compiler it would compute with.
    consts = [jnp.asarray(c) for c in program.jaxpr.consts]
    leaves = [jnp.asarray(x) for x in program.inputs]
    return Traced(program.jaxpr, consts, leaves, seconds)


def compiled(side: Traced, cotangents: list[Any]) -> Compiled:
    def step(*arguments):
        return side.step(*arguments)

    # A name that no cache has seen: the time to compile is the time to compile.
    step.__name__ = f"step_{uuid.uuid4().hex}"
    arguments = (side.consts, side.leaves, cotangents)
    with unsaved():
        start = time.perf_counter()
        traced = jax.jit(step).trace(*arguments)
        middle = time.perf_counter()
        if any(map(is_tracer, constants(traced))):
            raise jax.errors.UnexpectedTracerError("a value of another trace is used")
        program = traced.lower().compile()
        end = time.perf_counter()
    counted = count(live(traced.jaxpr))
    return Compiled(
        program, arguments, counted, side.seconds + middle - start, end - middle
    )


def interleaved(
    manual: Callable[[], Any], auto: Callable[[], Any], rounds: int
) -> np.ndarray:
    """Seconds of a call, (rounds, 2); who begins alternates."""
    sides = (manual, auto)
    calls = []
    for side in sides:
        side()
        calls.append(max(1, round(_LEAST / max(_seconds(side, 1), 1e-6))))
    seconds = np.empty((rounds, 2))
    for k in range(rounds):
        for s in (k % 2, 1 - k % 2):
            seconds[k, s] = _seconds(sides[s], calls[s])
    return seconds


def _seconds(side: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        side()
    return (time.perf_counter() - start) / calls


def _halves(values, chosen):
    pairs = list(zip(values, chosen, strict=True))
    return [v for v, c in pairs if c], [v for v, c in pairs if not c]


def is_floating(aval) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.inexact)
