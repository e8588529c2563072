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

from jaxbp.instrument._compiled import jitted
from jaxbp.instrument._parts import cotangent, from_parts, parts

_RUNGS = 18
_DEPTH = 6
_GROWTH = 1.05  # a halving: that of |x| to the power 0.93
_STEP = 2.1  # a halving: a jump's secants double, no continuous function's grow faster


class Secants(NamedTuple):
    """Derivatives at some elements, each with an estimate of its error.

    `central` is the derivative where there is one; `left` and `right` are the one-sided
    ones, which differ at a kink. `unbounded` is where a one-sided secant grows with
    every smaller step: there is no derivative, as of the square root at 0.
    """

    central: np.ndarray
    error: np.ndarray
    left: np.ndarray
    left_error: np.ndarray
    right: np.ndarray
    right_error: np.ndarray
    unbounded: np.ndarray


def ladder(phi: Callable[..., Any]) -> Callable[..., Any]:
    """The program that evaluates a scalar `phi(context, *leaves)` on many rungs.

    Compiled once for all leaves, contexts and equally many elements. `phi` may return
    its rounding magnitude beside its value: `(value, magnitude)`.
    """

    @jitted
    def evaluate(context, leaves, elements, offsets):
        starts = np.cumsum([0, *(np.size(leaf) for leaf in leaves)])

        def moved(pair):
            places = zip(leaves, starts[:-1], strict=True)
            out = phi(context, *(_with(x, pair[0] - n, pair[1]) for x, n in places))
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
    rounding: float = 0.0,
) -> Secants:
    """Derivatives of a `ladder`'s phi in elements of the concatenated leaves.

    To be called under `enable_x64`, with float64 leaves. The steps go from a quarter of
    the element's scale down by halves. `rounding` is what rounding on the way does to
    phi, beyond the last one: ln(1 - p) of a tiny p is 0 with nothing to round, and off
    by a whole unit of 1 - p.
    """
    if elements is None:
        elements = np.arange(sum(np.size(leaf) for leaf in leaves))
    elements = np.asarray(elements, np.int64)
    x, typical = _at(leaves, elements)
    scale = np.maximum(np.abs(x), typical)
    # Powers of two: x + h is then exact, or as near as x allows.
    first = 2.0 ** (np.floor(np.log2(np.where(scale > 0, scale, 1.0))) - 2)
    steps = first[:, None] * 0.5 ** np.arange(_RUNGS)
    values, noise = _rungs(program, context, leaves, elements, steps)
    noise = noise + rounding
    middle, above, below = values[:, :1], values[:, 1::2], values[:, 2::2]
    at = x[:, None]
    with np.errstate(all="ignore"):
        up, down = (at + steps) - at, at - (at - steps)
        central = (above - below) / (up + down)
        right, left = (above - middle) / up, (middle - below) / down
        floor = noise[:, None] / steps
        return Secants(
            *_extrapolated(central, floor, 2),
            *_extrapolated(left, 2 * floor, 1),
            *_extrapolated(right, 2 * floor, 1),
            _grows(left, floor) | _grows(right, floor),
        )


def numeric_gradient(f: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    r"""Numeric gradient of a scalar `f` in all its arguments, and its error estimate.

    Each element by central secants, Richardson-extrapolated, in float64.

    Args:
        f: a real scalar function of float or complex arrays, traceable by JAX.
        *args: pytrees of such arrays or Python numbers. A complex gradient is JAX's,
            $\partial_x f - i\,\partial_y f$.
    Returns:
        (gradient, error), both trees like `args`, as NumPy arrays. On a smooth function
        the error is about 1e-13 of the gradient's scale.
    """
    with jax.enable_x64(True):
        flat, tree = jax.tree.flatten(args)
        flat = [
            np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)
            for x in flat
        ]

        def phi(_, *moved):
            leaves = map(from_parts, moved, flat)
            return f(*jax.tree.unflatten(tree, leaves))

        moved = list(map(parts, flat))
        found = secants(ladder(phi), (), moved)
    gradient = map(cotangent, split(found.central, moved), flat)
    error = map(np.abs, map(cotangent, split(found.error, moved), flat))
    return jax.tree.unflatten(tree, gradient), jax.tree.unflatten(tree, error)


def split(flat: Any, leaves: Sequence[Any]) -> list[Any]:
    """A vector cut into pieces of the leaves' shapes."""
    ends = np.cumsum([np.size(leaf) for leaf in leaves])
    starts = [0, *ends[:-1]]
    return [
        flat[a:b].reshape(np.shape(leaf))
        for a, b, leaf in zip(starts, ends, leaves, strict=True)
    ]


def _with(leaf, element, offset):
    """The leaf moved in one flat element, or the leaf where it has no such element."""
    if not np.size(leaf):
        return leaf
    flat = jnp.ravel(leaf)
    moved = jnp.where(jnp.arange(flat.size) == element, flat + offset, flat)
    return jnp.reshape(moved, np.shape(leaf))


def _at(leaves, elements) -> tuple[np.ndarray, np.ndarray]:
    """Values at elements of the concatenated leaves, and their leaves' rms."""
    values, typical = np.zeros(elements.shape), np.zeros(elements.shape)
    start = 0
    for leaf in leaves:
        flat = np.ravel(leaf)
        held = (elements >= start) & (elements < start + flat.size)
        if held.any():
            values[held] = flat[elements[held] - start]
            rms = np.sqrt(np.vdot(flat, flat) / flat.size)
            if not np.isfinite(rms):  # infinities, as masks write them
                some = flat[np.isfinite(flat)]
                rms = np.max(np.abs(some), initial=0.0)
            typical[held] = rms
        start += flat.size
    return values, typical


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
    first, last = np.zeros((2, len(secant)), int)  # of the rungs that make the best
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
        first, last = np.where(better, k, first), np.where(better, k + j, last)
        table = new
    runaway = _contradicted(secant, floor, best, first, last)
    runaway |= _larger(secant, floor, _STEP)[:, -1]
    return best, np.where(runaway, np.inf, least)


def _contradicted(secant, floor, best, first, last):
    """Whether a finer secant is further from the best entry than all that made it.

    Steps that jump over all that happens agree with one another, about nothing. At a
    jump, where every halving doubles the secant, the finest is far from any entry.
    """
    off, rung = np.abs(secant - best[:, None]), np.arange(secant.shape[1])
    made = (rung >= first[:, None]) & (rung <= last[:, None])
    own = np.max(off, axis=1, where=made, initial=0)
    finer = rung > last[:, None]
    return (finer & (off - 4 * floor > own[:, None])).any(axis=1)


def _grows(secant, floor):
    """Whether every halving of the step makes the secant larger, and steadily so."""
    growing = _larger(secant, floor, _GROWTH) & ~_larger(secant, floor, _STEP)
    return growing.all(axis=1)


def _larger(secant, floor, times):
    """Halving by halving, whether it makes the secant that many times as large."""
    sizes, rounded = np.abs(secant), 4 * floor
    return sizes[:, 1:] - rounded[:, 1:] > times * (sizes[:, :-1] + rounded[:, :-1])
