"""What the ops share that are given functions: blocks of a chain, maps to iterate.

A rule's own derivative is written by hand; that of a function it is given is taken by
`jax.vjp`, one call at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbp._errors import argument_error, describe
from jaxbp.ops._dtypes import accumulator


class Hoisted(NamedTuple):
    """Parameters, and the traced arrays that the function beside them closed over."""

    own: Any
    closed: tuple[Any, ...]


def hoisted(f: Callable[..., Any], params: Any, *examples: Any) -> tuple[Callable, Any]:
    """The function and its parameters, without tracers in the function's closure.

    A rule outlives the trace that called it, and must not hide a way for gradients: the
    arrays become part of the parameters, and the function takes them after `examples`.
    """
    converted, closed = jax.closure_convert(f, *examples)
    return (converted, Hoisted(params, tuple(closed))) if closed else (f, params)


def parts(params: Any) -> Hoisted:
    return params if isinstance(params, Hoisted) else Hoisted(params, ())


def like(params: Any, own_bar: Any, closed_bar: tuple[Any, ...]) -> Any:
    """Cotangents in the structure of the parameters that `parts` took apart."""
    return Hoisted(own_bar, closed_bar) if isinstance(params, Hoisted) else own_bar


def floats_and_others(tree: Any) -> tuple[Any, Any]:
    """Two trees like this one, with None for the leaves that are in the other."""
    floats = jax.tree.map(lambda x: x if _is_floating(x) else None, tree)
    return floats, jax.tree.map(lambda x: None if _is_floating(x) else x, tree)


def merged(floats: Any, others: Any) -> Any:
    either = lambda a, b: b if a is None else a
    return jax.tree.map(either, floats, others, is_leaf=lambda x: x is None)


def local_vjp(f: Callable[..., Any], params: Any, x: Any, closed: tuple[Any, ...] = ()):
    """`f(params, x, *closed)`, and its pullback: cotangents of params, closed and x.

    Integers and keys have none: there is None in their place.
    """
    floats, others = floats_and_others((params, closed))

    def of_floats(floats, x):
        params, closed = merged(floats, others)
        return f(params, x, *closed)

    y, pull = jax.vjp(of_floats, floats, x)

    def back(y_bar):
        (params_bar, closed_bar), x_bar = pull(y_bar)
        return params_bar, closed_bar, x_bar

    return y, back


def sums_of(tree: Any) -> Any:
    """Zeros for the cotangents of the float leaves, in the accumulator's dtype."""
    floats, _ = floats_and_others(tree)
    return jax.tree.map(lambda x: jnp.zeros_like(x, accumulator(x.dtype)), floats)


def added(sums: Any, bars: Any) -> Any:
    return jax.tree.map(lambda s, b: s + b.astype(s.dtype), sums, bars)


def narrowed(sums: Any, tree: Any) -> Any:
    floats, _ = floats_and_others(tree)
    return jax.tree.map(lambda s, x: s.astype(x.dtype), sums, floats)


def blocks_of(function: str, name: str, params: Any, length: int | None = None) -> int:
    """The number of blocks: the length of the first axis of every leaf.

    Raises:
        ValueError: there is no leaf, or one of another length.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        expected = "arrays with one row for each block"
        raise argument_error(function, name, expected, "no array")
    for path, leaf in leaves:
        shape = jnp.shape(leaf)
        length = shape[0] if length is None and shape else length
        if not shape or shape[0] != length:
            where = f"{name}{jax.tree_util.keystr(path)}"
            expected = f"of shape ({'n' if length is None else length}, …)"
            mend = "its first axis is that of the blocks"
            raise argument_error(function, where, expected, f"shape {shape}", mend)
    return length or 0


def first_of(params: Any) -> Any:
    """The parameters of the first block; where there is none, any of the same kind."""
    row = lambda a: a[0] if a.shape[0] else jnp.zeros(a.shape[1:], a.dtype)
    return jax.tree.map(row, params)


def check_callable(function: str, **functions: Any) -> None:
    for name, f in functions.items():
        if not callable(f):
            raise argument_error(
                function, name, "a function", describe(f), kind=TypeError
            )


def check_output(function: str, call: str, y: Any, expected: Any) -> None:
    """Hold what a given function returns against what must come of it.

    Raises:
        ValueError: another structure, shape or dtype.
    """
    if jax.tree.structure(y) != jax.tree.structure(expected):
        got, want = jax.tree.structure(y), jax.tree.structure(expected)
        raise argument_error(function, call, f"of the structure {want}", got)
    pairs = zip(jax.tree.leaves(y), jax.tree.leaves(expected), strict=True)
    for got, want in pairs:
        if (got.shape, got.dtype) != (want.shape, want.dtype):
            raise argument_error(function, call, describe(want), describe(got))


def as_state(function: str, name: str, x: Any) -> Any:
    """The tree with arrays for leaves, all of them floating.

    Raises:
        TypeError: a leaf of integers, booleans, keys, or no array at all.
    """
    leaves = jax.tree_util.tree_leaves_with_path(x)
    for path, leaf in leaves:
        if not _is_floating(leaf):
            where = f"{name}{jax.tree_util.keystr(path)}"
            expected = "floating-point numbers"
            got = describe(leaf)
            raise argument_error(function, where, expected, got, kind=TypeError)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), x)


def _is_floating(x: Any) -> bool:
    try:
        return jnp.issubdtype(jnp.result_type(x), jnp.floating)
    except TypeError:
        return False
