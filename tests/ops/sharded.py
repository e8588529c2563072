"""Every op under shard_map: the first array split over 8 devices, the rest replicated.

Run by the test beside it, in a process that has eight devices. Prints what is wrong.
"""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from jaxbp.ops.catalogue import CASES
from tests import unoptimised

MESH = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
SPLIT, WHOLE = PartitionSpec("batch"), PartitionSpec()


def _is_floating(x):
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _mistake(case) -> str:
    """Gradients of a loss that sums over 8 first arguments, split and whole."""
    args = case.inputs["ordinary"](jax.random.key(7), jnp.float64)
    leaves, tree = jax.tree.flatten(args)
    first = next(k for k, x in enumerate(leaves) if _is_floating(x))
    before = sum(map(_is_floating, leaves[:first]))
    floats = [x for k, x in enumerate(leaves) if _is_floating(x) and k != first]
    scales = 1 - jnp.arange(8.0) / 16  # towards 0: probabilities stay such
    copies = scales.reshape(8, *[1] * leaves[first].ndim) * leaves[first]

    def loss(copy, *floats):
        rest = iter((*floats[:before], copy, *floats[before:]))
        merged = [next(rest) if _is_floating(x) else x for x in leaves]
        ys = jax.tree.leaves(case.function(*jax.tree.unflatten(tree, merged)))
        ys = [y for y in ys if _is_floating(y)]
        rng = np.random.default_rng(1)
        return sum(jnp.vdot(rng.standard_normal(y.shape), y) for y in ys)

    def whole(copies, *floats):
        return jax.vmap(lambda copy: loss(copy, *floats))(copies).sum()

    def split(copies, *floats):
        def shard(copies, *floats):
            return jax.lax.psum(loss(copies[0], *floats), "batch")

        specs = (SPLIT, *[WHOLE] * len(floats))
        return jax.shard_map(shard, mesh=MESH, in_specs=specs, out_specs=WHOLE)(
            copies, *floats
        )

    wrt = tuple(range(1 + len(floats)))
    pairs = zip(
        *(jax.jit(jax.grad(f, wrt))(copies, *floats) for f in (split, whole)),
        strict=True,
    )
    for k, (a, b) in enumerate(pairs):
        # Fewer than a hundred roundings each, in another order.
        off = np.abs(np.asarray(a) - b).max()
        if not off <= 100 * 2.3e-16 * (1 + np.abs(b).max()):
            return f"{case.name}: leaf {k} is off by {off}"
    return ""


def main() -> int:
    unoptimised.switch(True)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAXBP_CACHE"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    chosen = [c for c in CASES if not sys.argv[1:] or c.op.__name__ in sys.argv[1:]]
    mistakes = [text for text in map(_mistake, chosen) if text]
    print("\n".join(mistakes))
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
