"""The cotangents that a gradient is asked with."""

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

PROBES = 3


def probes(
    avals: Sequence[jax.ShapeDtypeStruct],
    paths: Sequence[str],
    seed: int,
    count: int = PROBES,
) -> list[list[np.ndarray]]:
    """Random cotangents of uneven magnitude, seeded by the path of their output.

    Of eight significant bits, so that every dtype holds them exactly. A function of one
    scalar is asked with 1 first: that pullback is its gradient.
    """
    found = []
    for k in range(count):
        pairs = zip(avals, paths, strict=True)
        found.append([_random(aval, path, (seed, k)) for aval, path in pairs])
    if len(avals) == 1 and not avals[0].shape:
        found[0] = [np.ones((), np.float64)]
    return found


def _random(aval, path, seed):
    rng = np.random.default_rng((*seed, zlib.crc32(path.encode())))

    def draw():
        magnitude = 2.0 ** rng.integers(-3, 4, aval.shape)
        values = np.asarray(rng.standard_normal(aval.shape) * magnitude)
        return np.asarray(values.astype(jnp.bfloat16).astype(np.float64))

    if jnp.issubdtype(aval.dtype, jnp.complexfloating):
        return draw() + 1j * draw()
    return draw()
