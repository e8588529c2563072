"""Softmax and its kin: saturated, masked, infinitely small, and far from 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from tests.ops.ulps import ulps

FAMILY = (ops.softmax, ops.log_softmax, ops.logsumexp)
every_op = pytest.mark.parametrize("op", FAMILY, ids=lambda op: op.__name__)
dtypes = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


def _pulled(op, x, bar=None, mask=None):
    y, back = jax.vjp(lambda x: op(x, mask), x)
    bar = jax.random.normal(jax.random.key(1), y.shape, y.dtype) if bar is None else bar
    return y, back(bar)[0]


@dtypes
def test_gradients_keep_their_digits_where_one_class_has_all(dtype):
    gaps = [5.0, 17.0, 40.0, 60.0]
    x = jnp.stack([jnp.array([g, 0.0, -1.0], dtype) for g in gaps])
    bar = jax.random.normal(jax.random.key(2), x.shape, dtype)
    e, g = np.exp(np.asarray(x, np.longdouble)), np.asarray(bar, np.longdouble)
    p = e / e.sum(-1, keepdims=True)
    # Differences first, so that nothing is lost.
    pairs = g[:, :, None] - g[:, None, :]
    # Every factor is good for 4 units, and the sum of two terms cancels by less than
    # half of them here.
    exact = p * (pairs * p[:, None, :]).sum(-1)
    assert ulps(_pulled(ops.softmax, x, bar)[1], exact) <= 16
    one_hot = jnp.eye(3, dtype=dtype)[:1] * jnp.ones_like(x)
    rest = p[:, 1:].sum(-1, keepdims=True)
    exact = np.concatenate([rest, -p[:, 1:]], axis=-1)
    assert ulps(_pulled(ops.log_softmax, x, one_hot)[1], exact) <= 16
    bar = jnp.ones_like(x[:, 0])
    assert ulps(_pulled(ops.logsumexp, x, bar)[1], p) <= 8


def test_large_logits_are_told_apart():
    x = jnp.array([1e4 + 0.25, 1e4], jnp.float32)
    exact = np.array([1, np.exp(np.longdouble(-0.25))])
    exact = exact / exact.sum()
    assert ulps(_pulled(ops.logsumexp, x, jnp.ones((), x.dtype))[1], exact) <= 8
    # The sum's logarithm is rounded once, in a number between 1/2 and 1.
    assert ulps(ops.log_softmax(x), np.log(exact)) <= 4


@every_op
def test_where_nothing_is_kept_there_is_no_gradient(op):
    x = jnp.array([[1.0, -2.0, 0.5], [3.0, 1.0, 2.0]])
    mask = jnp.array([[False] * 3, [True, False, True]])
    y, x_bar = _pulled(op, x, mask=mask)
    assert not x_bar[0].any()
    assert x_bar[1, 1] == 0
    assert x_bar[1, 0] != 0
    nothing = 0 if op is ops.softmax else -jnp.inf
    assert (y[0] == nothing).all()
    assert np.isfinite(y[1]).any()


@every_op
def test_a_logit_of_minus_infinity_is_one_without_weight(op):
    x, lowest = jnp.array([1.0, 2.0, -1.0]), -jnp.inf
    bar = jnp.array([0.3, -1.2, 0.0])
    bar = bar if op is not ops.logsumexp else jnp.asarray(0.7)
    y, x_bar = _pulled(op, x.at[2].set(lowest), bar)
    masked, masked_bar = _pulled(op, x, bar, jnp.array([True, True, False]))
    assert jnp.array_equal(y, masked)
    assert jnp.array_equal(x_bar, masked_bar)
    empty, empty_bar = _pulled(op, jnp.full(3, lowest), jnp.zeros_like(bar))
    assert not np.isnan(empty).any()
    assert not empty_bar.any()


@every_op
def test_what_is_masked_is_not_looked_at(op):
    mask = jnp.array([True, True, False])
    expected, expected_bar = _pulled(op, jnp.array([1.0, 2.0, 0.0]), mask=mask)
    for other in (jnp.inf, -jnp.inf, jnp.nan, 1e308):
        y, x_bar = _pulled(op, jnp.array([1.0, 2.0, other]), mask=mask)
        assert jnp.array_equal(y, expected)
        assert jnp.array_equal(x_bar, expected_bar)


def test_the_rule_that_forgets_the_mask_is_reported():
    @jax.custom_vjp
    def forgetful(x, mask):
        return ops.softmax(x, mask)

    forgetful.defvjp(
        lambda x, mask: (ops.softmax(x, mask), x),
        lambda x, g: (jax.vjp(ops.softmax, x)[1](g)[0], None),
    )
    mask = jnp.array([True, False, True])
    comparison = compare(forgetful, jnp.array([1.0, 2.0, 0.5]), mask)
    assert comparison.verdict == "wrong"
    assert comparison.findings[0].argument == "[0]"


@pytest.mark.parametrize("op", FAMILY[:2], ids=lambda op: op.__name__)
@pytest.mark.optimised
def test_the_step_needs_no_array_beside_its_output_and_gradient(op):
    shape = jax.ShapeDtypeStruct((8192, 1000), jnp.float32)

    def step(x, y_bar):
        y, back = jax.vjp(op, x)
        return y, back(y_bar)

    memory = jax.jit(step).lower(shape, shape).compile().memory_analysis()
    # A few numbers a row; autodiff of softmax keeps an array of x's size.
    assert memory.temp_size_in_bytes <= 4 * 8192 * 4


def test_wrong_arguments_are_named():
    x = jnp.ones((2, 3))
    with pytest.raises(
        ValueError, match=r"softmax: expected x to be of shape \(\*n, k"
    ):
        ops.softmax(jnp.ones((2, 0)))
    with pytest.raises(TypeError, match=r"mask to be boolean; got int64 \(3,\): True"):
        ops.logsumexp(x, jnp.array([1, 0, 1]))
    for shape in ((2,), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"broadcasts to x's \(2, 3\); got"):
            ops.log_softmax(x, jnp.ones(shape, bool))
