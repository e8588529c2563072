"""Rows of a table by integer ids."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxbp._errors import argument_error, as_floats, check_shapes, describe
from jaxbp.ops._case import Case, beside, normal
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike


def embedding(
    table: Float[Array, "v d"], ids: Int[Array, "*n"], *, padding_id: int | None = None
) -> Float[Array, "*n d"]:
    r"""Rows of a table: $y_n = E_{i_n}$.

    VJP: $\bar E_r = \sum_{n:\,i_n = r} \bar y_n$: an id that occurs twice brings two
    cotangents to its row.

    Args:
        table: one embedding a row.
        ids: integers in [0, v), any shape. Out of range (negative ones too: they do not
            count from the end) they give a row of NaN, which no one overlooks, and no
            row of the table a cotangent; under jit an id cannot raise.
        padding_id: its embedding is 0, and so is the cotangent of its row. It may lie
            outside the table.
    Returns:
        the rows. Residuals kept: `ids` (and the table's length: the rule is linear, no
        value of it is needed). The cotangent is as large as the table, however few ids
        occur: time and memory of the backward pass grow with v × d.
    Raises:
        ValueError: the table is no matrix.
        TypeError: ids not integers, table not floating.
    Source: Bengio et al., "A neural probabilistic language model" (2003), §2, matrix C.
    """
    (table,) = as_floats("embedding", table=table)
    check_shapes("embedding", "table (v, d)", table=table)
    if not jnp.issubdtype(jnp.result_type(ids), jnp.integer):
        got = describe(ids)
        raise argument_error("embedding", "ids", "integers", got, kind=TypeError)
    return _embedding(*alike(table, jnp.asarray(ids)), padding_id)


@functools.partial(jax.custom_vjp, nondiff_argnames=("padding_id",))
def _embedding(table, ids, padding_id):
    v = len(table)
    rows = table.at[_index(ids, v)].get(mode="fill", fill_value=jnp.nan)
    return rows if padding_id is None else jnp.where(_pads(ids, padding_id), 0, rows)


def embedding_fwd(table, ids, padding_id):
    return _embedding(table, ids, padding_id), (ids, table[:, :0])


def embedding_bwd(padding_id, res, y_bar):
    ids, empty_rows = res
    v, d = len(empty_rows), y_bar.shape[-1]
    chex.assert_shape(y_bar, (*ids.shape, d))
    if padding_id is not None:
        y_bar = jnp.where(_pads(ids, padding_id), 0, y_bar)
    wide = y_bar.astype(accumulator(y_bar.dtype))
    zeros, wide, ids = alike(jnp.zeros((v, d), wide.dtype), wide, ids)
    table_bar = zeros.at[_index(ids, v)].add(wide, mode="drop")
    return table_bar.astype(y_bar.dtype), None


_embedding.defvjp(embedding_fwd, embedding_bwd)


def _index(ids, v):
    """Ids for a gather or a scatter, with v for every one out of range."""
    ids = ids.astype(jnp.int32) if ids.dtype.itemsize < 4 else ids
    return jnp.where((ids < 0) | (ids >= v), v, ids)


def _pads(ids, padding_id):
    return (ids == padding_id)[..., None]


def _plain(table, ids):
    return jnp.take(table, ids, axis=0)


def _inputs(v, d, ids):
    return beside(normal((v, d)), np.asarray(ids, np.int32))


CASES = (
    Case(
        embedding,
        _plain,
        {
            "ordinary": _inputs(4, 3, [2, 0, 2, 2, 1]),
            "one id": _inputs(4, 3, 2),
            "two leading axes": _inputs(4, 3, [[3, 3], [3, 0]]),
            "one row": _inputs(1, 2, [0, 0]),
            "no id": _inputs(4, 3, np.zeros((0,))),
        },
        {
            "8192 of 16k×256": _inputs(
                16384, 256, np.random.default_rng(0).integers(0, 16384, 8192)
            )
        },
        "Bengio et al. (2003), §2",
        5,
        why="says what repeated, padding and foreign ids do; autodiff is the same sum",
    ),
    Case(
        functools.partial(embedding, padding_id=2),
        lambda table, ids: jnp.where(
            (ids == 2)[..., None], 0, jnp.take(table, ids, axis=0)
        ),
        {"ordinary": _inputs(4, 3, [2, 0, 3, 3, 1]), "all": _inputs(4, 3, [2, 2])},
        {},
        "Bengio et al. (2003), §2",
        5,
        variant="padded",
        why="says what repeated, padding and foreign ids do; autodiff is the same sum",
    ),
)
