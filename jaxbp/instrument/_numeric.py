"""The numeric witness: secants on a ladder of steps, extrapolated, with their error.

Richardson's extrapolation as in Ridders (1982), "Accurate computation of F'(x) and
F'(x)F''(x)". The step is chosen by the secants' own agreement, never by looking at the
gradient that is to be judged.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_RUNGS = 18
_DEPTH = 6


class Secants(NamedTuple):
    """Derivatives at some elements, each with an estimate of its error.

    `central` is the derivative where there is one; `left` and `right` are the one-sided
    ones, which differ at a kink.
    """

    central: np.ndarray
    error: np.ndarray
    left: np.ndarray
    left_error: np.ndarray
    right: np.ndarray
    right_error: np.ndarray


def ladder(phi: Callable[..., Any]) -> Callable[..., Any]:
    """The program that evaluates a scalar `phi(context, *leaves)` on many rungs.

    Compiled once for all leaves, contexts and equally many elements. `phi` may return
    its rounding magnitude beside its value: `(value, magnitude)`.
    """

    @jax.jit
    def evaluate(context, leaves, elements, offsets):
        x = jnp.concatenate([jnp.zeros(0), *(jnp.ravel(leaf) for leaf in leaves)])

        def moved(pair):
            out = phi(context, *split(x.at[pair[0]].add(pair[1]), leaves))
            value, magnitude = out if isinstance(out, tuple) else (out, jnp.abs(out))
            return jnp.reshape(value, ()), jnp.reshape(magnitude, ())

        pairs = (jnp.repeat(elements, offsets.shape[1]), offsets.ravel())
        return jax.lax.map(moved, pairs)

    return evaluate


def secants(
    program: Callable[..., Any],
    context: Any,
    leaves: Sequence[Any],
    elements: np.ndarray | None = None,
) -> Secants:
    """Derivatives of a `ladder`'s phi in elements of the concatenated leaves.

    To be called under `enable_x64`, with float64 leaves. The steps go from a quarter of
    the element's scale down by halves.
    """
    x = np.concatenate([np.zeros(0), *(np.ravel(leaf) for leaf in leaves)])
    typical = np.concatenate([np.zeros(0), *map(_typical, leaves)])
    elements = np.arange(x.size) if elements is None else np.asarray(elements, np.int64)
    scale = np.maximum(np.abs(x), typical)[elements]
    # Powers of two: x + h is then exact, or as near as x allows.
    first = 2.0 ** (np.floor(np.log2(np.where(scale > 0, scale, 1.0))) - 2)
    steps = first[:, None] * 0.5 ** np.arange(_RUNGS)
    values, noise = _rungs(program, context, leaves, elements, steps)
    middle, above, below = values[:, :1], values[:, 1::2], values[:, 2::2]
    at = x[elements, None]
    with np.errstate(all="ignore"):
        up, down = (at + steps) - at, at - (at - steps)
        central = (above - below) / (up + down)
        right, left = (above - middle) / up, (middle - below) / down
        floor = noise[:, None] / steps
        return Secants(
            *_extrapolated(central, floor, 2),
            *_extrapolated(left, 2 * floor, 1),
            *_extrapolated(right, 2 * floor, 1),
        )


def numeric_gradient(f: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """Numeric gradient of a scalar `f` in all its arguments, and its error estimate.

    Each element by central secants, Richardson-extrapolated, in float64.

    Args:
        f: a scalar function of float arrays, traceable by JAX.
        *args: pytrees of float arrays or Python floats.
    Returns:
        (gradient, error), both trees like `args`, as NumPy arrays. On a smooth function
        the error is about 1e-13 of the gradient's scale.
    """
    with jax.enable_x64(True):
        flat, tree = jax.tree.flatten(args)
        flat = [np.asarray(leaf, np.float64) for leaf in flat]
        program = ladder(lambda _, *leaves: f(*jax.tree.unflatten(tree, leaves)))
        found = secants(program, (), flat)
    gradient, error = split(found.central, flat), split(found.error, flat)
    return jax.tree.unflatten(tree, gradient), jax.tree.unflatten(tree, error)


def split(flat: Any, leaves: Sequence[Any]) -> list[Any]:
    """A vector cut into pieces of the leaves' shapes."""
    ends = np.cumsum([np.size(leaf) for leaf in leaves])
    starts = [0, *ends[:-1]]
    return [
        flat[a:b].reshape(np.shape(leaf))
        for a, b, leaf in zip(starts, ends, leaves, strict=True)
    ]


def _typical(leaf):
    finite = np.ravel(leaf)[np.isfinite(np.ravel(leaf))]
    rms = np.sqrt(np.mean(np.square(finite))) if finite.size else 0.0
    return np.full(np.size(leaf), rms)


def _rungs(program, context, leaves, elements, steps):
    """Values at x, x + h, x - h, … of every element, and the rounding noise in them."""
    offsets = np.zeros((len(elements), 2 * steps.shape[1] + 1))
    offsets[:, 1::2], offsets[:, 2::2] = steps, -steps
    values, magnitudes = program(context, list(leaves), elements, offsets)
    values = np.asarray(values).reshape(offsets.shape)
    magnitudes = np.asarray(magnitudes).reshape(offsets.shape)
    finite = np.where(np.isfinite(magnitudes), magnitudes, 0)
    return values, np.finfo(np.float64).eps * finite.max(axis=1, initial=0)


def _extrapolated(secant, floor, power):
    """The best entry of each element's Richardson table, and its error estimate.

    `power` is the first power of the step in the secant's error: 2 for central ones
    (then 4, 6, …), 1 for one-sided ones (then 2, 3, …). Column j combines j+1 rungs, so
    that its rounding floor is about that of its smallest step.
    """
    table, best = secant, np.full(len(secant), np.nan)
    least = np.full(len(secant), np.inf)
    for j in range(1, _DEPTH):
        factor = 2.0 ** (power * j)
        finer, coarser = table[:, 1:], table[:, :-1]
        new = finer + (finer - coarser) / (factor - 1)
        # Two neighbours of the same column guard against an accidental agreement.
        spread = np.maximum(
            np.abs(new[:, :-1] - finer[:, :-1]), np.abs(new[:, :-1] - new[:, 1:])
        )
        error = spread + 2 * floor[:, j : j + spread.shape[1]]
        error = np.where(np.isfinite(error), error, np.inf)
        k = np.argmin(error, axis=1)
        rows = np.arange(len(k))
        better = error[rows, k] < least
        best = np.where(better, new[rows, k], best)
        least = np.where(better, error[rows, k], least)
        table = new
    return best, least
