"""A step of PyTorch's, eager, in turn with one of ours.

A peer whose cotangents are not ours, to what float32 gives, is an error: it would be
another function that was timed.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp.instrument._measure import interleaved

# Tensors are Any: PyTorch is no requirement, and its types need not be there.
Peer = Callable[..., Any]

_CLOSE = 1e-3  # of the largest element: float32 sums of thousands, in another order
_DRAWN = {"dropout"}  # from a generator of its own


def peers(subject: str, dtype: str) -> Callable[[Any], Peer | None]:
    """`peer_of(case)` of a subject; of nothing but where the two can be compared.

    PyTorch has to be there, and JAX on the CPU, where these run. bfloat16 is left out:
    of a sum of thousands it has no digit by which one function is told from another.
    """
    there = importlib.util.find_spec("torch") is not None
    if not there or jax.default_backend() != "cpu" or dtype == "bfloat16":
        return lambda case: None
    return importlib.import_module(f"benchmarks._pytorch_{subject}").peer_of


def ratios(case: Any, peer: Peer, args: tuple, rounds: int) -> np.ndarray:
    """Seconds of our compiled step over those of PyTorch's, of every round."""
    ours, theirs = _steps(case.function, peer, args)
    if case.name not in _DRAWN:
        for a, b in zip(ours(), theirs(), strict=True):
            a, b = np.asarray(a), b.numpy()
            gap, size = np.abs(a - b).max(), np.abs(a).max()
            if not gap <= _CLOSE * size:
                found = f"cotangents of {b.shape} are {gap:.1e} of {size:.1e} apart"
                raise SystemExit(f"bench: PyTorch's {case.name}: {found}")
    seconds = interleaved(ours, theirs, rounds)
    return seconds[:, 0] / seconds[:, 1]


def _steps(function, peer: Peer, args: tuple) -> tuple[Callable, Callable]:
    """Value and cotangents of the floating arguments, of ours and of theirs."""
    import torch  # pyright: ignore[reportMissingImports]

    leaves, tree = jax.tree.flatten(args)
    chosen = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
    floats = [x for x, c in zip(leaves, chosen, strict=True) if c]

    def merged(leaves, floats):
        given = iter(floats)
        pairs = zip(leaves, chosen, strict=True)
        return jax.tree.unflatten(tree, [next(given) if c else x for x, c in pairs])

    def of_floats(*floats):
        return function(*merged(leaves, floats))

    @jax.jit
    def step(floats, y_bars):
        ys, back = jax.vjp(of_floats, *floats)
        return ys, back(y_bars)

    keys = iter(jax.random.split(jax.random.key(1), 8))
    y_bars = jax.tree.map(
        lambda y: jax.random.normal(next(keys), y.shape, y.dtype),
        jax.eval_shape(of_floats, *floats),
    )

    def ours():
        return jax.block_until_ready(step(floats, y_bars)[1])

    tensors = [torch.tensor(np.asarray(x)) if _is_data(x) else x for x in leaves]
    wanted = [t.requires_grad_() for t, c in zip(tensors, chosen, strict=True) if c]
    given = [x for x in jax.tree.unflatten(tree, tensors) if x is not None]
    bars = [torch.tensor(np.asarray(b)) for b in jax.tree.leaves(y_bars)]

    def theirs():
        ys = jax.tree.leaves(peer(*given))
        return torch.autograd.grad(ys, wanted, bars)

    return ours, theirs


def _is_data(x: Any) -> bool:
    return not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
