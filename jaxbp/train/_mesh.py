"""Where a run's arrays lie: batches split over a mesh, all else whole on each device.

Programs stay those of one device: `jax.jit` splits them by the layout of what they are
given, and puts in the sums over devices itself. No loss or rule mentions a mesh, and no
gradient is summed twice or not at all.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxbp._errors import argument_error, describe

BATCH = "batch"  # the axis of a mesh along which batches are split


class Layout:
    """Of one run. Without a mesh, every array is left where it is."""

    def __init__(self, mesh: Mesh | None):
        # Under explicit axes each product in a loss would have to name its layout.
        auto = (AxisType.Auto,) * (0 if mesh is None else mesh.devices.ndim)
        self._mesh = mesh and Mesh(mesh.devices, mesh.axis_names, axis_types=auto)

    def placed(self, tree: Any) -> Any:
        """Its arrays on the mesh: as they lie there already, else whole on each device.

        In several processes every one gives its own copy of what is whole.
        """
        return self._put(tree, self.shardings(tree))

    def like(self, given: Any, tree: Any) -> Any:
        """Its arrays where the given tree's are."""
        return self._put(tree, self.shardings(given))

    def rows(self, tree: Any) -> Any:
        """A batch on the mesh, its leading axes split."""
        if self._mesh is None:
            return tree
        self._check_rows(tree)
        return self._put(tree, jax.tree.map(self._by_rows, tree))

    def split(self, tree: Any) -> Any:
        """The same of a batch that is being made, inside a program."""
        if self._mesh is None:
            return tree
        self._check_rows(tree)
        shardings = jax.tree.map(self._by_rows, tree)
        return jax.lax.with_sharding_constraint(tree, shardings)

    def shardings(self, tree: Any) -> Any:
        """How `placed` lays out each array; None where that is left to JAX."""
        return None if self._mesh is None else jax.tree.map(self._kept, tree)

    def whole(self, tree: Any) -> Any:
        """Its arrays off the mesh, each of them whole in this process."""
        if self._mesh is None:
            return tree
        shardings = jax.tree.map(lambda x: self._sharding(), tree)
        return jax.tree.map(_local, self._put(tree, shardings))

    def _put(self, tree: Any, shardings: Any) -> Any:
        if self._mesh is None:
            return tree
        if not self._mesh.is_multi_process:
            return jax.device_put(tree, shardings)
        return jax.jit(lambda x: x, out_shardings=shardings)(jax.tree.map(_free, tree))

    def _sharding(self, *axes: Any) -> NamedSharding:
        assert self._mesh is not None
        return NamedSharding(self._mesh, PartitionSpec(*axes))

    def _by_rows(self, x: Any) -> NamedSharding:
        return self._sharding(BATCH) if x.ndim else self._sharding()

    def _kept(self, x: Any) -> NamedSharding:
        return self._sharding(*(spec_on(self._mesh, x) or ()))

    def _check_rows(self, batch: Any) -> None:
        assert self._mesh is not None
        devices = self._mesh.shape[BATCH]
        for path, x in jax.tree_util.tree_leaves_with_path(batch):
            if x.ndim and len(x) % devices:
                expected = f"of rows that mesh's {devices} along {BATCH!r} divide"
                mend = f"take a multiple of {devices} rows, by batch_size= or in data"
                name = f"batch{jax.tree_util.keystr(path)}"
                raise argument_error("fit", name, expected, describe(x), mend)


def layout_over(mesh: Any, params: Any, state: Any) -> Layout:
    """The layout over a mesh, which parameters and states may be split over already.

    Raises:
        TypeError: no mesh.
        ValueError: a mesh without the axis of batches, or with one that nothing is
            split along; one without devices of every process; parameters that are
            split over another mesh.
    """
    count = jax.process_count()
    if mesh is None:
        if count > 1:
            got = f"None in one of {count} processes"
            raise argument_error("fit", "mesh", _SPANNING, got, _MEND)
        return Layout(None)
    if not isinstance(mesh, Mesh):
        got = describe(mesh)
        raise argument_error(
            "fit", "mesh", "a jax.sharding.Mesh", got, _MEND, kind=TypeError
        )
    named = _axes_of(mesh, {"params": params, "state": state})
    if BATCH not in mesh.axis_names:
        expected = f"one with an axis {BATCH!r}, along which batches are split"
        got = f"one with {_listed(mesh.axis_names)}"
        raise argument_error("fit", "mesh", expected, got, _MEND)
    if idle := [name for name in mesh.axis_names if name not in {BATCH, *named}]:
        expected = f"of {BATCH!r} and axes that parameters are split along"
        got = f"{_listed(idle)}, which none of them is"
        mend = "put them there by jax.device_put, or leave the axis out"
        raise argument_error("fit", "mesh", expected, got, mend)
    owners = {device.process_index for device in mesh.devices.flat}
    if len(owners) != count:
        got = f"one over those of {len(owners)}"
        raise argument_error("fit", "mesh", _SPANNING, got, _MEND)
    return Layout(mesh)


_SPANNING = "over devices of every process"
_MEND = f"jax.make_mesh((jax.device_count(),), ({BATCH!r},))"


def spec_on(mesh: Mesh | None, x: Any) -> PartitionSpec | None:
    """How an array is split over the mesh; None where it is not on it."""
    given = getattr(x, "sharding", None)
    if mesh is None or not isinstance(given, NamedSharding):
        return None
    same = isinstance(given.mesh, Mesh) and (
        given.mesh.axis_names == mesh.axis_names
        and np.array_equal(given.mesh.devices, mesh.devices)
    )
    return given.spec if same else None


def _axes_of(mesh: Mesh, trees: dict[str, Any]) -> set[Any]:
    """The axes that arrays are split along."""
    found = set()
    for name, tree in trees.items():
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            spec = spec_on(mesh, x)
            if spec is not None:
                found |= {a for axes in spec for a in _several(axes)}
            elif isinstance(x, jax.Array) and not x.is_fully_replicated:
                argument = f"{name}{jax.tree_util.keystr(path)}"
                mend = "jax.device_put it there, or nowhere"
                raise argument_error(
                    "fit", argument, "split over `mesh` alone", x.sharding, mend
                )
    return found


def _several(axes: Any) -> tuple[Any, ...]:
    return axes if isinstance(axes, tuple) else (axes,)


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(repr, names))


def is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def key_data(x: Any) -> Any:
    """The bits of keys; anything else as it is."""
    return np.asarray(jax.random.key_data(x)) if is_key(x) else x


def wrap_key_data(data: Any, like: Any) -> Any:
    """Keys of such bits."""
    return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(like))


def _local(x: Any) -> Any:
    """A whole array, as one of this process alone."""
    data = np.asarray(key_data(x))
    return wrap_key_data(data, x) if is_key(x) else data


def _free(x: Any) -> Any:
    """An array that is on this process's device, on none."""
    if isinstance(x, jax.Array) and x.is_fully_addressable:
        return _local(x)
    return x
