"""What every network is, and the checks that they share."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._errors import argument_error, as_floats, check_shapes, describe

IGNORED = -1  # the label of a step that does not count


class Net(NamedTuple):
    """A network as pure functions.

    `init(key) -> params`; `forward(params, x) -> y`; `loss(params, (x, y)) -> scalar`,
    with a hand-written gradient; `loss_fwd(params, x, y) -> (scalar, res)` and
    `loss_bwd(res, loss_bar) -> (params_bar, x_bar, y_bar)`, the chain itself; data that
    has no gradient, such as integers, has None in its place.

    A network with running state has `init_state() -> state` as well. It takes the state
    in `forward(params, x, state=state)` and in `loss(params, (x, y), state=state)`,
    which returns `(scalar, state)`; in the chain it stands last among the arguments and
    their cotangents.
    """

    init: Callable[[jax.Array], Any]
    forward: Callable[..., jax.Array]
    loss: Callable[..., Any]
    loss_fwd: Callable[..., tuple[Any, Any]]
    loss_bwd: Callable[[Any, Any], tuple]
    init_state: Callable[[], Any] | None = None


def bound(network: str, spec: Any, *functions: Callable) -> Net:
    """The functions of a network, in `Net`'s order, with its sizes filled in."""

    def named(function, name):
        partial = functools.partial(function, spec)
        partial.__name__ = f"{network}.{name}"  # pyright: ignore
        return partial

    return Net(*map(named, functions, Net._fields))


def checked_size(function: str, name: str, size: Any) -> int:
    """A length, as a Python integer.

    Raises:
        TypeError: no integer.
        ValueError: below 1.
    """
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool):
        got = describe(size)
        raise argument_error(function, name, "an integer", got, kind=TypeError)
    if size < 1:
        raise argument_error(function, name, "at least 1", size)
    return int(size)


def checked_batch(function: str, batch: Any, names: str = "(x, y)") -> tuple[Any, Any]:
    """The two halves of a batch.

    Raises:
        TypeError: no pair.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        got = describe(batch)
        expected = f"a pair {names}"
        raise argument_error(function, "batch", expected, got, kind=TypeError)
    return batch[0], batch[1]


def checked_integers(function: str, expected: str, **arrays: Any) -> list[jax.Array]:
    """Arrays of integers, their shapes held against a signature.

    Raises:
        TypeError: of another dtype.
        ValueError: the shapes do not fit, or hold nothing.
    """
    for name, value in arrays.items():
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            got = describe(value)
            raise argument_error(function, name, "integers", got, kind=TypeError)
    check_shapes(function, expected, **arrays)
    for name, value in arrays.items():
        if 0 in jnp.shape(value):
            got = f"shape {jnp.shape(value)}"
            raise argument_error(function, name, "at least one example", got)
    return [jnp.asarray(value) for value in arrays.values()]


def checked_params(function: str, params: Any, shapes: Mapping[str, Any]) -> Any:
    """Parameters as arrays of one floating dtype, like a nested dict of shapes.

    Raises:
        ValueError: other names than those of `shapes`, or another shape.
        TypeError: not floating, or of more than one dtype.
    """
    return checked_tree(function, "params", params, shapes)


def checked_tree(function: str, name: str, tree: Any, shapes: Mapping[str, Any]):
    """`checked_params` of any argument."""
    leaves: dict[str, Any] = {}
    tree = _like(function, name, tree, shapes, leaves)
    first, *others = leaves.items()
    for other in others:
        as_floats(function, **dict((first, other)))
    return jax.tree.map(jnp.asarray, tree)


def _like(function, path, tree, shapes, leaves):
    if not isinstance(shapes, Mapping):
        as_floats(function, **{path: tree})
        if jnp.shape(tree) != shapes:
            got = describe(tree)
            raise argument_error(function, path, f"of shape {shapes}", got)
        leaves[path] = tree
        return tree
    if not isinstance(tree, Mapping) or set(tree) != set(shapes):
        expected = f"a dict with {', '.join(shapes)}"
        held = isinstance(tree, Mapping)
        got = ", ".join(map(str, tree)) if held else f"a {type(tree).__name__}"
        raise argument_error(function, path, expected, got or "an empty one")
    return {
        key: _like(function, f"{path}['{key}']", tree[key], shape, leaves)
        for key, shape in shapes.items()
    }
