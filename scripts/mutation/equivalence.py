"""Is a mutant the same function? Full Jacobians in float64, at a thousand inputs.

The judge of the instrument's misses: it shares nothing with `jaxbp.instrument`.
"""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

Rule = Callable[..., Any]
_EPS = 2.0**-52
_DRAWS = 4
# Two orders of the same arithmetic differ by some tens of roundings of half an eps
# each; the largest of the draws is within a factor of a few of what one eps in every
# residual can do at worst.
_ROUNDINGS = 64
_CHUNK = 256  # inputs that are differentiated at once: bounds the memory
_KINKS = 64  # differing inputs that are looked at from both sides


class Judgement(NamedTuple):
    """`kink`: it differs only by the choice of a subgradient.

    `inputs` counts those compared, at which the function is finite; `example` is one
    at which the Jacobians differ.
    """

    verdict: Literal["equivalent", "kink", "different"]
    inputs: int
    example: Any = None


class Judge:
    """Holds the Jacobians of mutants against that of the true rule.

    `fwd` takes arguments to (value, residuals), `bwd` (residuals, cotangent) to
    cotangents; `batches` are arguments, each stacked along a new first axis.
    """

    def __init__(self, fwd: Rule, bwd: Rule, batches: Iterable[tuple[Any, ...]]):
        self.fwd, self.bwd = fwd, bwd
        self.chunks = [chunk for batch in batches for chunk in _chunks(batch)]
        self._truth = jax.jit(jax.vmap(self._true))

    def __call__(self, mutated: Rule) -> Judgement:
        """`different` at the first input that shows it.

        Shapes at which the mutant does not evaluate say nothing.
        """
        count, kink = 0, None
        other_of = jax.jit(jax.vmap(functools.partial(_jacobian, mutated)))
        sides = jax.jit(functools.partial(self._sides, mutated))
        for chunk in self.chunks:
            y, res, true, allowed, finite = self._truth(chunk)
            try:
                other = np.asarray(other_of(y, res))
            except (TypeError, ValueError, LookupError):  # not at these shapes
                continue
            count += int(np.sum(finite))
            with np.errstate(invalid="ignore"):
                near = np.abs(other - true) <= allowed
            # Where value or true derivative are infinite nothing is held against it.
            held = np.isfinite(true) & np.isfinite(_rows(y))[:, :, None]
            differs = held & ~near
            for k in np.flatnonzero(differs.any(axis=(1, 2)))[:_KINKS]:
                here = jax.tree.map(operator.itemgetter(k), chunk)
                if self._same_by_steps(mutated, here):
                    continue
                kink = here
                left, right, mutant = map(np.asarray, sides(kink))
                if not _between(left, right, mutant, differs[k]):
                    return Judgement("different", count, kink)
        return Judgement("equivalent" if kink is None else "kink", count, kink)

    def _true(self, args):
        y, res = self.fwd(*args)
        true = _jacobian(self.bwd, y, res)
        finite = jnp.isfinite(ravel_pytree(y)[0]).all()
        return y, res, true, _allowed(self.bwd, y, res, true), finite

    def _same_by_steps(self, mutated, args):
        """To the bit, operation by operation: XLA fuses, and rounds, two programs of
        the same arithmetic in two ways."""
        y, res = self.fwd(*args)
        true, other = (
            np.asarray(_jacobian(rule, y, res)) for rule in (self.bwd, mutated)
        )
        return np.array_equal(true, other, equal_nan=True)

    def _sides(self, mutated, args):
        """The true Jacobian from the left and the right of each input, the mutant's."""
        leaves, tree = jax.tree.flatten(args)
        chosen = [k for k, x in enumerate(leaves) if _is_float(x)]
        flat, unravel = ravel_pytree([leaves[k] for k in chosen])

        def jacobian(rule, values):
            new = dict(zip(chosen, unravel(values), strict=True))
            at = [new.get(k, x) for k, x in enumerate(leaves)]
            return _jacobian(rule, *self.fwd(*jax.tree.unflatten(tree, at)))

        def column(k):
            step = 1e-6 * jnp.maximum(1.0, jnp.abs(flat[k]))
            step *= jnp.array([-1.0, 1.0])
            moved = jax.vmap(lambda h: jacobian(self.bwd, flat.at[k].add(h)))(step)
            return moved[:, :, k]

        columns = jax.lax.map(column, jnp.arange(flat.size))
        return columns[:, 0].T, columns[:, 1].T, jacobian(mutated, flat)


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
    leaves, tree = jax.tree.flatten(res)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (_DRAWS, len(leaves), 64))

    def draw(moved, signs):
        pairs = zip(leaves, signs, strict=True)
        other = jax.tree.unflatten(tree, [_perturbed(x, s) for x, s in pairs])
        change = jnp.abs(_jacobian(bwd, y, other) - true)
        return jnp.fmax(moved, jnp.where(jnp.isfinite(change), change, 0)), None

    moved, _ = jax.lax.scan(draw, jnp.zeros_like(true), signs)
    return _ROUNDINGS * (moved + _EPS * jnp.abs(true))


def _perturbed(x, signs):
    if not _is_float(x):
        return x
    sign = jnp.resize(signs, jnp.shape(x))
    return jnp.where(x == jnp.round(x), x, x * (1 + _EPS * sign))


def _between(left, right, other, differs) -> bool:
    """Whether every entry that differs lies between two one-sided derivatives."""
    left, right, other = left[differs], right[differs], other[differs]
    low, high = np.minimum(left, right), np.maximum(left, right)
    with np.errstate(invalid="ignore"):
        # Over a step of 1e-6 a smooth derivative moves by about as much of itself.
        slack = 1e-4 * (np.abs(left) + np.abs(right))
        jumps = high - low > 10 * slack
        return bool((jumps & (low - slack <= other) & (other <= high + slack)).all())


def _rows(y) -> np.ndarray:
    """The outputs of every input of a chunk."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(y)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


def _chunks(batch):
    count = len(jax.tree.leaves(batch)[0])
    for k in range(0, count, _CHUNK):
        yield jax.tree.map(operator.itemgetter(slice(k, k + _CHUNK)), batch)


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)
