"""What the catalogue knows of an op."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Inputs = Callable[[jax.Array, jnp.dtype], tuple]


class Case(NamedTuple):
    """One op in one setting: the function, an independent form, where to ask both.

    `function` is the public op, or a `functools.partial` that sets its options. `plain`
    is what a careful user would write without a hand-written rule; it shares no code
    with `function`. `inputs` maps a regime ("ordinary", "empty batch", …) to a maker
    `(key, dtype) -> args`; `cost` maps a size ("4096×1024") to the maker of the inputs
    at which time and memory are measured; `source` says where the formula comes from.

    `residuals` counts the elements kept between the passes at "ordinary": a rule that
    starts to keep more must say so. `variant` tells apart the cases of one op. `rivals`
    names other plain JAX forms that are faster or smaller than `plain`. `why` is the
    reason for the rule where it is neither. `surrogate`: its gradient is different on
    purpose. `twice`: it can be differentiated again.
    """

    function: Callable[..., Any]
    plain: Callable[..., Any]
    inputs: Mapping[str, Inputs]
    cost: Mapping[str, Inputs]
    source: str
    residuals: int
    variant: str = ""
    rivals: Mapping[str, Callable[..., Any]] = {}
    why: str = ""
    surrogate: bool = False
    twice: bool = True

    @property
    def op(self) -> Callable[..., Any]:
        """The public function, without the options that are set."""
        return getattr(self.function, "func", self.function)

    @property
    def name(self) -> str:
        name = self.op.__name__
        return f"{name}, {self.variant}" if self.variant else name

    @property
    def fwd(self) -> Callable[..., Any]:
        """`NAME_fwd` with this case's options: `(*args) -> (y, res)`."""
        rule, options = self._rule("fwd"), self.options
        return lambda *args: rule(*args, *options)

    @property
    def bwd(self) -> Callable[..., Any]:
        """`NAME_bwd` with this case's options: `(res, y_bar) -> bars`."""
        return functools.partial(self._rule("bwd"), *self.options)

    def _rule(self, side: str) -> Callable[..., Any]:
        module = sys.modules[self.op.__module__]
        return getattr(module, f"{self.op.__name__}_{side}")

    @property
    def options(self) -> tuple[Any, ...]:
        """Values of the keyword-only parameters: last in fwd, first in bwd."""
        given = getattr(self.function, "keywords", {})
        parameters = inspect.signature(self.op).parameters.values()
        return tuple(
            given.get(p.name, p.default) for p in parameters if p.kind == p.KEYWORD_ONLY
        )


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
    """These very values; arrays of integers, booleans or keys stay what they are."""

    def make(key, dtype):
        del key
        return tuple(_as(a, dtype) for a in arrays)

    return make


def then(make: Inputs, *maps: Callable | None) -> Inputs:
    """`make`, each argument then mapped into the op's domain (None leaves it)."""

    def mapped(key, dtype):
        args = make(key, dtype)
        return tuple(f(a) if f else a for f, a in zip(maps, args, strict=True))

    return mapped


def beside(make: Inputs, *others: object) -> Inputs:
    """`make`, with these further arguments after it: data, as they are."""
    return lambda key, dtype: (*make(key, dtype), *others)


def _as(value, dtype):
    kept = hasattr(value, "dtype") and not jnp.issubdtype(value.dtype, jnp.floating)
    return value if value is None or kept else jnp.asarray(value, dtype)
