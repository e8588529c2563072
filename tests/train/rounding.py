"""Whether parameters are those of another run but for rounding."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

DRAWS = 8


def reordered(loss, order):
    """The loss of a batch whose rows come in another order: it differs by rounding."""

    def of(params, batch, **given):
        return loss(params, jax.tree.map(lambda x: x[order(len(x))], batch), **given)

    return of


def spread(loss, run: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Parameters of `run(loss)`, and what the rows' order does to each of them."""
    expected = run(loss)
    noise = jax.tree.map(np.zeros_like, expected)
    for k in range(DRAWS):
        order = functools.partial(jax.random.permutation, jax.random.key(k))
        apart = jax.tree.map(
            lambda a, b: np.abs(a - b), run(reordered(loss, order)), expected
        )
        noise = jax.tree.map(np.maximum, noise, apart)
    return expected, noise


def difference(found, expected, noise) -> str:
    """What is apart by more than 8 units of roundoff and 16 times that noise."""
    leaves = map(jax.tree.leaves, (expected, noise))
    for (path, a), b, by_order in zip(
        jax.tree_util.tree_leaves_with_path(found), *leaves, strict=True
    ):
        a, eps = np.asarray(a), np.finfo(float).eps
        off, unit = np.abs(a - b), 8 * eps * (np.abs(a) + np.abs(b))
        if not (off <= np.maximum(unit, 16 * by_order)).all():
            return f"{jax.tree_util.keystr(path)} is off by {off.max()}"
    return ""
