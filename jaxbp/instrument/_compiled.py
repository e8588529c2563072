"""Compiling what runs a few times on little data: XLA need not make it fast."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
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


# Its algebra is no IEEE arithmetic: a mask over its sum becomes a select, whose other
# side is 0 where 0/0 is written.
_AS_WRITTEN = {"xla_disable_hlo_passes": "algsimp"}


def jitted(f: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit(f)`, on a CPU left unoptimised where its arguments are small.

    It takes a fraction of the time to compile, and longer to run.
    """
    optimised = jax.jit(f)
    if jax.default_backend() != "cpu":
        return optimised
    as_written = dict(filter(_is_known, _AS_WRITTEN.items()))
    spared = jax.jit(f, compiler_options=unoptimised() | as_written)

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        small = sum(map(np.size, jax.tree.leaves(args))) <= LARGE
        return (spared if small else optimised)(*args)

    return call


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
