"""Inputs of a case: those that the instrument is asked at, and those of the judge."""

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp.ops._case import Case

_MANY = 4096  # of which at least 1,000 must be inside the domain
_FEW = 64
_SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 30.0, -30.0, 750.0, -750.0)
_SPECIAL += (1e-30, -1e-30, 1e-8, -1e-8, 1e3, -1e3, 1e10, -1e10)


def asked(case: Case, regime: str) -> tuple[Any, ...]:
    """The arguments at which `compare` is asked, in float64."""
    return _given(case, regime, jax.random.key(7))


def _given(case: Case, regime: str, key: jax.Array) -> tuple[Any, ...]:
    """A regime's arguments, and the defaults of those that it leaves out.

    A forward pass has no defaults: its options come after all arguments.
    """
    args = case.inputs[regime](key, jnp.dtype("float64"))
    parameters = inspect.signature(case.op).parameters.values()
    places = [p for p in parameters if p.kind != p.KEYWORD_ONLY]
    return *args, *(p.default for p in places[len(args) :])


def squared(args: Any) -> Any:
    """Arrays cut so that all their axes have one length: there mistaken axes fit."""
    lengths = {n for x in jax.tree.leaves(args) for n in jnp.shape(x) if n > 1}
    n = min(lengths, default=1)

    def cut(x):
        return x[tuple(slice(n) for _ in jnp.shape(x))] if jnp.ndim(x) else x

    return jax.tree.map(cut, args)


def batches(case: Case, *, square: bool, seed: int = 0) -> Iterator[tuple[Any, ...]]:
    """Stacked arguments for the judge: thousands at ordinary shapes, then the regimes.

    Random draws of the case's own, in which elements and arrays become edge points.
    """
    many = _drawn(case, "ordinary", _MANY, seed)
    if square:
        many = jax.vmap(squared)(many)
    yield _with_edges(many, seed)
    for regime in case.inputs if not square else ():
        few = _drawn(case, regime, _FEW, seed)
        if all(np.size(x) for x in jax.tree.leaves(few)):
            yield few
            yield _with_edges(few, seed)


def _drawn(case, regime, count, seed):
    keys = jax.random.split(jax.random.key(seed), count)
    draw = lambda key: _given(case, regime, key)
    try:
        return jax.vmap(draw)(keys)
    except Exception:  # made with NumPy, one at a time
        return jax.tree.map(lambda *x: jnp.stack(x), *map(draw, keys))


def _with_edges(args, seed):
    rng = np.random.default_rng(seed)

    def new(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        x = np.array(leaf)
        which = rng.choice(len(_EDGES), size=len(x), p=_SHARES)
        for k, edge in enumerate(_EDGES):
            x[which == k] = edge(rng, x[which == k])
        return jnp.asarray(x)

    return jax.tree.map(new, args)


def _one_special(rng, x):
    return np.where(rng.random(x.shape) < 1 / max(1, x[:1].size), _any(rng, x), x)


def _all_special(rng, x):
    return _any(rng, x)


def _one_value(rng, x):
    values = rng.choice(_SPECIAL, size=len(x))
    return np.broadcast_to(values.reshape(-1, *[1] * (x.ndim - 1)), x.shape)


def _any(rng, x):
    return rng.choice(_SPECIAL, size=x.shape)


# Ordinary ones, single and many special values, an array of one value, zeros and ones,
# ties, tiny and large.
_EDGES = (
    lambda rng, x: x,
    _one_special,
    _all_special,
    _one_value,
    lambda rng, x: (x > np.median(x) if x.size else x).astype(float),
    lambda rng, x: np.round(2 * x) / 2,
    lambda rng, x: 1e-8 * x,
    lambda rng, x: 100 * x,
)
_SHARES = (0.37, *[0.09] * 7)
