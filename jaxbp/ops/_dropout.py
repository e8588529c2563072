"""Dropout by key."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats, describe
from jaxbp.ops._case import Case, beside, normal
from jaxbp.ops._sharding import alike


def dropout(
    x: Float[Array, "*n"], key: jax.Array, *, rate: float = 0.5
) -> Float[Array, "*n"]:
    r"""Dropout: $y = mx/(1 - r)$, each $m$ 0 with probability r, else 1.

    VJP: $\bar x = m\bar y/(1 - r)$, with the same m. The key has no cotangent.

    Args:
        x: any shape.
        key: typed (`jax.random.key`) or raw (`jax.random.PRNGKey`). The same key drops
            the same elements, in every dtype; under `shard_map` fold the device's index
            in, or all shards drop alike.
        rate: r, from 0 and below 1.
    Returns:
        x with elements dropped, the rest larger, so that the expectation is x.
        Residuals kept: `key`. The mask is drawn again: that takes the time of a second
        drawing, and the memory of none.
    Raises:
        ValueError: a rate outside [0, 1); more than one key.
        TypeError: x not floating, key not a key.
    Source: Srivastava et al., "Dropout" (2014), sec. 4 and 10 (scaled in training).
    """
    (x,) = as_floats("dropout", x=x)
    if not 0 <= rate < 1:
        raise argument_error("dropout", "rate", "from 0 and below 1", rate)
    typed = jnp.issubdtype(getattr(key, "dtype", np.bool_), jax.dtypes.prng_key)
    raw = getattr(key, "dtype", None) == np.uint32
    if not typed and not raw:
        expected, mend = "a key", "make it with jax.random.key(seed)"
        raise argument_error(
            "dropout", "key", expected, describe(key), mend, kind=TypeError
        )
    if key.ndim != (0 if typed else 1):
        expected = "one key"
        mend = "split them with vmap"
        raise argument_error("dropout", "key", expected, f"shape {key.shape}", mend)
    return _dropout(*alike(x, key), float(rate))


@functools.partial(jax.custom_vjp, nondiff_argnames=("rate",))
def _dropout(x, key, rate):
    return _dropped(x, key, rate)


def dropout_fwd(x, key, rate):
    return _dropout(x, key, rate), key


def dropout_bwd(rate, key, y_bar):
    x_bar = _dropped(y_bar, key, rate)
    chex.assert_trees_all_equal_shapes_and_dtypes(x_bar, y_bar)
    return x_bar, None


_dropout.defvjp(dropout_fwd, dropout_bwd)


def _dropped(x, key, rate):
    # Compared in float32 whatever x is: other dtypes would draw another mask.
    kept = jax.random.uniform(key, x.shape, jnp.float32) < np.float32(1 - rate)
    return jnp.where(kept, x / (1 - rate), 0)


def _plain(x, key, rate):
    kept = jax.random.bernoulli(key, np.float32(1 - rate), x.shape)
    return jnp.where(kept, x, 0) / (1 - rate)


def _with_key(*shape):
    return lambda key, dtype: beside(normal(shape), jax.random.key(3))(key, dtype)


def _with_raw_key(*shape):
    return lambda key, dtype: beside(normal(shape), jax.random.PRNGKey(3))(key, dtype)


CASES = (
    Case(
        functools.partial(dropout, rate=0.25),
        functools.partial(_plain, rate=0.25),
        {
            "ordinary": _with_key(5, 3),
            "raw key": _with_raw_key(5, 3),
            "scalar": _with_key(),
            "empty": _with_key(0, 3),
        },
        {"4096×1024": _with_key(4096, 1024)},
        "Srivastava et al. (2014), sec. 10",
        1,
        why="it keeps a key, autodiff the mask; the mask is drawn twice for that",
    ),
)
