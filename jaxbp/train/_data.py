"""Batches, drawn inside the compiled program."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbp._arguments import whole
from jaxbp._errors import argument_error, describe, first_line, function_name
from jaxbp.train._mesh import Layout


class Batches(NamedTuple):
    """How the batch of a step is made.

    `arrays` is what the program is given, `first()` the order that it carries from step
    to step, `draw(arrays, order, step) -> (batch, order)`; `per_epoch` is the number of
    steps in an epoch, None where data has no end.
    """

    arrays: Any
    first: Callable[[], Any]
    draw: Callable[[Any, Any, jax.Array], tuple[Any, Any]]
    per_epoch: int | None


def batches(
    data: Any, batch_size: int | None, key: jax.Array, layout: Layout
) -> Batches:
    """Of arrays with one leading axis, or of a function `batch(step, key)`.

    Minibatches of epoch e follow the permutation drawn from `fold_in(key, e)`; what is
    left of an epoch after the last whole one is dropped. They are drawn from rows that
    every device holds: none has to ask another for them.

    Raises:
        ValueError: data without arrays or rows, leading axes that differ, a batch
            larger than the data or that the mesh does not divide, a batch size for a
            function.
    """
    if callable(data):
        _check_taken(data)
        if batch_size is not None:
            mend = "let data(step, key) return batches of that size"
            raise argument_error("fit", "batch_size", "None", batch_size, mend)

        def made(arrays, order, step):
            del arrays
            batch = jax.tree.map(jnp.asarray, data(step, jax.random.fold_in(key, step)))
            return layout.split(batch), order

        return Batches((), tuple, made, None)
    arrays = jax.tree_util.tree_map_with_path(_array, data)
    length = _length(arrays)
    if batch_size is None:
        rows = layout.rows(arrays)
        return Batches(rows, tuple, lambda a, order, step: (a, order), 1)
    size = whole("fit", "batch_size", batch_size, 1)
    if size > length:
        got = f"{size} of data with {length} rows"
        raise argument_error("fit", "batch_size", f"at most {length}", got)
    count = length // size

    def first():
        return jnp.arange(length)

    def draw(arrays, order, step):
        epoch, place = step // count, step % count

        def shuffled():
            return jax.random.permutation(jax.random.fold_in(key, epoch), length)

        order = jax.lax.cond(place == 0, shuffled, lambda: order)
        rows = jax.lax.dynamic_slice(order, (place * size,), (size,))
        return layout.split(jax.tree.map(lambda a: a[rows], arrays)), order

    return Batches(layout.placed(arrays), first, draw, count)


def _check_taken(data: Callable[..., Any]) -> None:
    """TypeError for a function that does not take a step and a key."""
    try:
        inspect.signature(data).bind(0, None)
    except ValueError:  # of what is not written in Python
        return
    except TypeError as error:
        got = f"{function_name(data)}: {first_line(error)}"
        raise argument_error(
            "fit", "data", "a function of (step, key)", got, kind=TypeError
        ) from None


def _array(path: Any, x: Any) -> jax.Array:
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError):
        name = f"data{jax.tree_util.keystr(path)}"
        expected = "arrays with one leading axis"
        mend = "of a loader, give a function batch(step, key) that makes a batch"
        got = type(x).__name__
        raise argument_error("fit", name, expected, got, mend, kind=TypeError) from None


def _length(arrays) -> int:
    """The length of the one leading axis."""
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    named = [(f"data{jax.tree_util.keystr(path)}", x) for path, x in leaves]
    if not named:
        raise argument_error("fit", "data", "arrays with a leading axis", "no array")
    for name, x in named:
        if not x.ndim or not x.shape[0]:
            expected = "an array with rows along its first axis"
            raise argument_error("fit", name, expected, describe(x))
    (first, x), *others = named
    for name, other in others:
        if len(other) != len(x):
            expected = f"of as many rows as {first}, {len(x)}"
            raise argument_error("fit", name, expected, describe(other))
    return len(x)
