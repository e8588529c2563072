"""Is a mutant the same function? Full Jacobians in float64, at a thousand inputs.

The judge of the instrument's misses: it shares nothing with `jaxbp.instrument`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

Rule = Callable[..., Any]
_EPS = 2.0**-52
_DRAWS = 8
# An entry is the product of at most some tens of roundings of half an eps each, by
# which two orders of the same arithmetic differ; the draws find the largest effect of
# one eps in every residual at once to within a factor of two or so.
_ROUNDINGS = 64
_CHUNK = 64  # inputs that are differentiated at once: bounds the memory
_KINKS = 64  # differing inputs that are looked at from both sides


class Judgement(NamedTuple):
    """`kink`: it differs only by the choice of a subgradient.

    `inputs` counts those compared, at which the function is finite; `example` is one
    at which the Jacobians differ.
    """

    verdict: Literal["equivalent", "kink", "different"]
    inputs: int
    example: Any = None


def judge(
    fwd: Rule, bwd: Rule, mutated: Rule, batches: Iterable[tuple[Any, ...]]
) -> Judgement:
    """Hold the Jacobian of `mutated` against that of `bwd`.

    Args:
        fwd: args to (value, residuals).
        bwd: (residuals, cotangent) to cotangents, the true one.
        mutated: the same, changed.
        batches: arguments, stacked along a new first axis. A batch at whose shapes the
            mutant does not evaluate says nothing.
    Returns:
        Judgement: `different` at the first batch that shows it.
    """
    count, kinks = 0, None

    def difference(args):
        y, res = fwd(*args)
        true, other = _jacobian(bwd, y, res), _jacobian(mutated, y, res)
        finite = jnp.isfinite(ravel_pytree(y)[0])
        # Where the value or the true derivative is infinite nothing is held against it.
        held = finite[:, None] & jnp.isfinite(true)
        near = jnp.abs(other - true) <= _allowed(bwd, y, res, true)
        return finite.all(), held & ~near

    def over(batch):
        return jax.lax.map(lambda a: _counted(difference(a)), batch, batch_size=_CHUNK)

    for batch in batches:
        try:
            counted, differs = map(np.asarray, jax.jit(over)(batch))
        except (TypeError, ValueError, LookupError):  # not at these shapes
            continue
        count += int(counted.sum())
        if not differs.any():
            continue
        some = np.flatnonzero(differs)
        points = [jax.tree.map(lambda x, k=k: x[k], batch) for k in some[:_KINKS]]
        for point in points:
            if not _is_kink(fwd, bwd, mutated, point, difference(point)[1]):
                return Judgement("different", count, point)
        kinks = points[0]
    return Judgement("equivalent" if kinks is None else "kink", count, kinks)


def _counted(result):
    counted, differs = result
    return counted, differs.any()


def _jacobian(bwd: Rule, y: Any, res: Any) -> jax.Array:
    """Cotangents of all floating inputs, a row for every element of the output."""
    flat, unravel = ravel_pytree(y)

    def row(one_hot):
        bars = jax.tree.leaves(bwd(res, unravel(one_hot)))
        return ravel_pytree([bar for bar in bars if _is_float(bar)])[0]

    return jax.vmap(row)(jnp.eye(flat.size, dtype=flat.dtype))


def _allowed(bwd: Rule, y: Any, res: Any, true: jax.Array) -> jax.Array:
    """What rounding can do to each entry.

    The residuals are themselves rounded: each is moved by one unit of roundoff, up or
    down, and what that moves an entry bounds what rounding within the rule can do, but
    for the rounding of the entry. Integers stay: labels and edge points are exact.
    """
    moved = jnp.zeros_like(true)
    for key in jax.random.split(jax.random.key(0), _DRAWS):
        change = jnp.abs(_jacobian(bwd, y, _perturbed(res, key)) - true)
        moved = jnp.fmax(moved, jnp.where(jnp.isfinite(change), change, 0))
    return _ROUNDINGS * (moved + _EPS * jnp.abs(true))


def _perturbed(res, key):
    leaves, tree = jax.tree.flatten(res)
    keys = jax.random.split(key, len(leaves) + 1)

    def new(x, key):
        if not _is_float(x):
            return x
        sign = jax.random.rademacher(key, jnp.shape(x), x.dtype)
        return jnp.where(x == jnp.round(x), x, x * (1 + _EPS * sign))

    moved = [new(x, key) for x, key in zip(leaves, keys[1:], strict=True)]
    return jax.tree.unflatten(tree, moved)


def _is_kink(fwd: Rule, bwd: Rule, mutated: Rule, args: Any, differs: Any) -> bool:
    """Whether every entry that differs lies between the two one-sided derivatives."""
    leaves, tree = jax.tree.flatten(args)
    chosen = [k for k, x in enumerate(leaves) if _is_float(x)]
    flat, unravel = ravel_pytree([leaves[k] for k in chosen])
    steps = 1e-6 * jnp.maximum(1.0, jnp.abs(flat))

    def jacobian(rule, values):
        new = dict(zip(chosen, unravel(values), strict=True))
        at = [new.get(k, x) for k, x in enumerate(leaves)]
        return _jacobian(rule, *fwd(*jax.tree.unflatten(tree, at)))

    def column(k):
        step = jnp.zeros_like(flat).at[k].set(steps[k])
        return [jacobian(bwd, flat + s * step)[:, k] for s in (-1, 1)]

    left, right = (np.asarray(x).T for x in jax.lax.map(column, jnp.arange(flat.size)))
    other = np.asarray(jacobian(mutated, flat))
    low, high = np.minimum(left, right), np.maximum(left, right)
    # Over a step of 1e-6 a smooth derivative moves by about as much of itself.
    slack = 1e-4 * (np.abs(left) + np.abs(right))
    jumps = high - low > 10 * slack
    between = (low - slack <= other) & (other <= high + slack)
    return bool((jumps & between)[np.asarray(differs)].all())


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)
