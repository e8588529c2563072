"""What rules need under `jax.shard_map`: arguments varying over the same axes."""

from typing import Any

import jax


def alike(*arguments: Any) -> tuple[Any, ...]:
    """The arguments, each array of them varying over every mesh axis that any does.

    A weight that is replicated meets inputs that are not: its cotangent must be summed
    over the mesh axes it does not vary on. Made to vary before its rule is called, it
    gets that sum from JAX (the transpose of `pcast`), and no rule mentions a mesh. The
    same arrays outside `shard_map`.
    """
    leaves, tree = jax.tree.flatten(arguments)
    axes = frozenset[Any]().union(*map(_varying, leaves))
    leaves = [
        jax.lax.pcast(leaf, tuple(axes - _varying(leaf)), to="varying")
        if axes - _varying(leaf)
        else leaf
        for leaf in leaves
    ]
    return jax.tree.unflatten(tree, leaves)


def _varying(x: Any) -> frozenset[Any]:
    kind = jax.typeof(x)
    if hasattr(kind, "manual_axis_type"):  # jax 0.12
        return kind.manual_axis_type.varying
    return getattr(kind, "vma", frozenset())
