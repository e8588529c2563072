"""Compiling what runs a few times on little data: XLA need not make it fast."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxbp import _jaxpr
from jaxbp._steps import holds
from jaxbp.instrument._equations import LARGE

# Of the CPU's compiler; some come and some go with its versions.
_UNOPTIMISED = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


# XLA's algebra makes a select of a mask over its sum: 0 where 0/0 is written. There are
# programs that it cannot compile without.
_AS_WRITTEN = {"xla_disable_hlo_passes": "algsimp"}


def jitted(f: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit(f)`, on a CPU left unoptimised where its arguments are small.

    It takes a fraction of the time to compile, and longer to run. Where flags are
    reckoned with it does what is written.
    """
    optimised = jax.jit(f)
    if jax.default_backend() != "cpu":
        return optimised
    options = unoptimised()
    exact = options | dict(filter(_is_known, _AS_WRITTEN.items()))
    spared, as_written = (jax.jit(f, compiler_options=o) for o in (options, exact))
    chosen = None

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        nonlocal chosen
        if sum(map(np.size, jax.tree.leaves(args))) > LARGE:
            return optimised(*args)
        if chosen is None:
            flagged = holds(spared.trace(*args).jaxpr, _is_of_flags)
            chosen = as_written if flagged else spared
        try:
            return chosen(*args)
        except jax.errors.JaxRuntimeError:
            if chosen is spared:
                raise
            chosen = spared  # what f's own callback raises, it raises again
            return spared(*args)

    return call


def _is_of_flags(eqn: Any) -> bool:
    if eqn.primitive.name != "convert_element_type":
        return False
    old, new = (v.aval.dtype for v in (*eqn.invars, *eqn.outvars))
    return old.kind == "b" and jnp.issubdtype(new, jnp.inexact)


def unoptimised() -> dict[str, Any]:
    """The options that spare compiling, those that this version's compiler knows."""
    return dict(filter(_is_known, _UNOPTIMISED.items()))


@functools.cache
def _is_known(option: tuple[str, Any]) -> bool:
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=dict([option]))
    except jax.errors.JaxRuntimeError:
        return False
    return True


class Programs:
    """Compiled jaxprs: those that read alike share one, constants being arguments."""

    def __init__(self):
        self._compiled: dict[str, Callable[..., Any]] = {}

    def __len__(self) -> int:
        return len(self._compiled)

    def __call__(self, jaxpr: Any, inputs: Sequence[Any]) -> list[np.ndarray]:
        key = f"{id(jaxpr)}" if holds(jaxpr, _array_literal) else str(jaxpr)
        if key not in self._compiled:
            run = functools.partial(_jaxpr.evaluate_with, jaxpr)
            self._compiled[key] = jitted(run)
        return [np.asarray(x) for x in self._compiled[key](jaxpr.consts, inputs)]


def _array_literal(eqn) -> bool:
    return any(isinstance(v, Literal) and np.ndim(v.val) for v in eqn.invars)
