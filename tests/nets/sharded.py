"""Every network under shard_map: the batch split over devices, parameters replicated.

Run by the test beside it, in a process that has two devices. Prints what is wrong.
"""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from tests import unoptimised
from tests.nets.planted import gradients

MESH = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
SPLIT, WHOLE = PartitionSpec("batch"), PartitionSpec()


def _mistake(name: str, network) -> str:
    """The summed loss's gradient of two batches, one a device, and of both in turn."""
    f, _, (params, batch, *rest) = network
    batches = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), batch)

    def whole(params):
        both = [jax.tree.map(lambda x, k=k: x[k], batches) for k in (0, 1)]
        return sum(f(params, one, *rest) for one in both)

    def split(params):
        def shard(params, batches):
            one = jax.tree.map(lambda x: x[0], batches)
            return jax.lax.psum(f(params, one, *rest), "batch")

        specs = {"in_specs": (WHOLE, SPLIT), "out_specs": WHOLE}
        return jax.shard_map(shard, mesh=MESH, **specs)(params, batches)

    bars = jax.tree.leaves(jax.jit(jax.grad(split))(params))
    pairs = zip(bars, gradients(whole, params).values(), strict=True)
    for k, (a, b) in enumerate(pairs):
        # A few hundred roundings, in another order.
        off = np.abs(np.asarray(a) - b).max()
        if not off <= 400 * 2.3e-16 * (1 + np.abs(b).max()):
            return f"{name}: leaf {k} is off by {off}"
    return ""


def main() -> int:
    unoptimised.switch(True)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAXBP_CACHE"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    from tests.nets.networks import NETWORKS  # it makes arrays, by compiled programs

    chosen = sys.argv[1:] or NETWORKS
    mistakes = [text for name in chosen if (text := _mistake(name, NETWORKS[name]))]
    print("\n".join(mistakes))
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
