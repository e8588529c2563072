"""What the catalogue knows of an op."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Inputs = Callable[[jax.Array, jnp.dtype], tuple]


class Case(NamedTuple):
    """One op: the function, an independent form of it, and inputs to ask both at.

    `plain` is what a careful user would write without a hand-written rule; it shares no
    code with `function`. `inputs` maps a regime ("ordinary", "empty batch", …) to a
    maker `(key, dtype) -> args`; `cost` makes the inputs at which time and memory are
    measured; `source` says where the formula comes from.
    """

    function: Callable
    plain: Callable
    inputs: dict[str, Inputs]
    cost: Inputs
    source: str

    @property
    def name(self) -> str:
        return self.function.__name__


def normal(*shapes: tuple[int, ...], scale: float = 1.0) -> Inputs:
    """Independent N(0, scale²) arrays of these shapes."""

    def make(key, dtype):
        keys = jax.random.split(key, len(shapes))
        return tuple(
            scale * jax.random.normal(k, shape, dtype)
            for k, shape in zip(keys, shapes, strict=True)
        )

    return make


def points(*arrays: object) -> Inputs:
    """These very values."""
    return lambda key, dtype: tuple(jnp.asarray(a, dtype) for a in arrays)


def then(make: Inputs, *maps: Callable | None) -> Inputs:
    """`make`, each argument then mapped into the op's domain (None leaves it)."""

    def mapped(key, dtype):
        args = make(key, dtype)
        return tuple(f(a) if f else a for f, a in zip(maps, args, strict=True))

    return mapped
