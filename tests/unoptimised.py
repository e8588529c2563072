"""What a test compiles runs once or twice on little data: XLA need not make it fast.

Most of the suite's time went into LLVM's optimiser and into the emitters of fused
loops. Without them a program compiles several times faster. Tests of what the ordinary
compiler makes (memory, time, last digits) are marked `optimised`.
"""

import functools

import jax

# JAX's own switch, `jax_disable_most_optimizations`, says only two of the options.
from jax._src import compiler

from jaxbp.instrument._compiled import unoptimised

_ordinary = compiler.get_compile_options


def _with(options, *args, env_options_overrides=None, **kwargs):
    options = options | (env_options_overrides or {})
    return _ordinary(*args, env_options_overrides=options, **kwargs)


def switch(on: bool) -> None:
    """From now on, whoever compiles; what is compiled stays. Elsewhere than on a CPU:
    nothing."""
    if jax.default_backend() == "cpu":
        spared = functools.partial(_with, unoptimised())
        compiler.get_compile_options = spared if on else _ordinary
