"""Embedding: repeated, padding and foreign ids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops


def _table(v=4, d=3):
    return jax.random.normal(jax.random.key(0), (v, d))


def test_repeated_ids_bring_all_their_cotangents():
    ids, bar = jnp.array([2, 0, 2, 2]), jax.random.normal(jax.random.key(1), (4, 3))
    _, back = jax.vjp(lambda t: ops.embedding(t, ids), _table())
    (table_bar,) = back(bar)
    expected = bar[0] + bar[2] + bar[3]
    assert np.abs(table_bar[2] - expected).max() <= 4 * 2.3e-16 * np.abs(bar).sum()
    assert (table_bar[0] == bar[1]).all()
    assert not table_bar[jnp.array([1, 3])].any()


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
def test_ids_out_of_range_give_nan_and_no_row_a_cotangent(dtype):
    ids = jnp.array([1, 100, 4] if dtype == "uint8" else [1, -1, 4], dtype)
    y, back = jax.vjp(lambda t: ops.embedding(t, ids), _table())
    assert np.isnan(y[1:]).all()
    assert (y[0] == _table()[1]).all()
    (bar,) = back(jnp.ones((3, 3)))
    assert bar.sum() == 3
    assert (bar[1] == 1).all()


@pytest.mark.parametrize("padding_id", [2, -1, 9])
def test_padding_is_0_both_ways(padding_id):
    ids = jnp.array([padding_id, 1, padding_id])
    f = lambda t: ops.embedding(t, ids, padding_id=padding_id)
    y, back = jax.vjp(f, _table().at[2].set(jnp.nan))
    assert not y[jnp.array([0, 2])].any()
    (bar,) = back(jax.random.normal(jax.random.key(1), (3, 3)))
    assert bar[1].all()
    assert not bar[jnp.array([0, 2, 3])].any()


def test_a_rule_that_overwrites_is_reported():
    ids = jnp.array([2, 0, 2, 1])

    @jax.custom_vjp
    def f(table):
        return ops.embedding(table, ids)

    f.defvjp(
        lambda table: (f(table), table),
        lambda table, bar: (jnp.zeros_like(table).at[ids].set(bar),),
    )
    comparison = compare(f, _table())
    assert comparison.findings[0].verdict == "wrong", comparison
    assert comparison.findings[0].worst.index[0] == 2


@pytest.mark.parametrize(
    ("table", "ids", "error", "text"),
    [
        ((4, 3), jnp.zeros(2, "float32"), TypeError, "ids to be integers; got float32"),
        ((4,), jnp.zeros(2, "int32"), ValueError, "table (v, d); got table (4,)"),
    ],
)
def test_what_does_not_fit_is_refused(table, ids, error, text):
    with pytest.raises(error) as raised:
        ops.embedding(jnp.zeros(table), ids)
    assert str(raised.value).startswith(f"jaxbp.embedding: expected {text}")
