"""What a test compiles runs once or twice on little data: XLA need not make it fast.

Most of the suite's time went into LLVM's optimiser and into the emitters of fused
loops. Without them a program compiles several times faster. Tests of what the ordinary
compiler makes (memory, time, last digits) are marked `optimised`.
"""

import jax

# JAX's own switch, `jax_disable_most_optimizations`, says only the first two.
from jax._src import compiler

_OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
_ordinary = compiler.get_compile_options


def _is_known(option) -> bool:
    nothing = jax.jit(lambda: 0).lower()
    try:
        nothing.compile(compiler_options=dict([option]))
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _unoptimised(*args, env_options_overrides=None, **kwargs):
    options = _OPTIONS | (env_options_overrides or {})
    return _ordinary(*args, env_options_overrides=options, **kwargs)


def switch(on: bool) -> None:
    """From now on, whoever compiles; what is compiled stays. Elsewhere than on a CPU:
    nothing."""
    if jax.default_backend() == "cpu":
        compiler.get_compile_options = _unoptimised if on else _ordinary


if jax.default_backend() == "cpu":  # options come and go with XLA's versions
    _OPTIONS = dict(filter(_is_known, _OPTIONS.items()))
