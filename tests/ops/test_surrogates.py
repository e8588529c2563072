"""Surrogate gradients are what their docstrings say, and dropout is by its key."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops


def _bar(op, x, y_bar):
    y, back = jax.vjp(op, jnp.asarray(x))
    return y, back(jnp.asarray(y_bar, y.dtype))[0]


def test_rounding_goes_straight_through():
    y, x_bar = _bar(ops.straight_through_round, [0.5, 1.5, -2.4], [1.0, -2.0, 3.0])
    assert y.tolist() == [0, 2, -2]
    assert x_bar.tolist() == [1, -2, 3]


def test_sign_goes_straight_through_near_its_threshold():
    x = [0.0, -0.0, 1.0, -1.0, 1.5, -1.5]
    y, x_bar = _bar(ops.straight_through_sign, x, [2.0] * 6)
    assert y.tolist() == [1, 1, 1, -1, 1, -1]
    assert x_bar.tolist() == [2, 2, 2, 2, 0, 0]


def test_each_element_is_clipped_to_the_limit():
    clip = functools.partial(ops.clip_gradient, limit=0.5)
    y, x_bar = _bar(clip, [1.0, 2.0, 3.0], [0.25, -7.0, 1e308])
    assert y.tolist() == [1, 2, 3]
    assert x_bar.tolist() == [0.25, -0.5, 0.5]


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e300])
def test_a_long_cotangent_is_shortened_to_the_norm(size):
    y_bar = size * np.array([3.0, -4.0])
    clip = functools.partial(ops.clip_gradient, max_norm=5e-10)
    expected = y_bar if size < 1e-10 else 1e-10 * np.array([3.0, -4.0])
    # A square root, two quotients, a product.
    np.testing.assert_allclose(_bar(clip, [0.0, 0.0], y_bar)[1], expected, rtol=1e-15)


def test_nothing_passes_a_bound_of_zero():
    for bound in ({"limit": 0.0}, {"max_norm": 0.0}):
        clip = functools.partial(ops.clip_gradient, **bound)
        assert not _bar(clip, [1.0, 2.0], [3.0, 4.0])[1].any()
        assert not _bar(clip, [1.0, 2.0], [0.0, 0.0])[1].any()


def test_the_reversed_gradient_is_scaled():
    reverse = functools.partial(ops.reverse_gradient, scale=0.5)
    assert _bar(reverse, [1.0], [3.0])[1].tolist() == [-1.5]


def test_a_surrogate_that_is_not_declared_is_reported():
    x = jnp.array([0.3, -1.2])
    assert compare(ops.reverse_gradient, x).verdict == "wrong"
    assert compare(ops.reverse_gradient, x, surrogate=True).verdict == "surrogate"


def test_wrong_options_are_named():
    x = jnp.ones(2)
    with pytest.raises(ValueError, match="one bound to be limit or max_norm; got both"):
        ops.clip_gradient(x, limit=1.0, max_norm=1.0)
    with pytest.raises(ValueError, match="limit or max_norm; got neither"):
        ops.clip_gradient(x)
    with pytest.raises(ValueError, match="max_norm to be from 0, and finite; got -1"):
        ops.clip_gradient(x, max_norm=-1.0)
    with pytest.raises(ValueError, match="scale to be finite; got nan"):
        ops.reverse_gradient(x, scale=float("nan"))


KEY = functools.partial(jax.random.key, 5)


def test_dropout_drops_by_its_rate_and_keeps_the_expectation():
    x = jnp.ones(40_000)
    y, x_bar = _bar(lambda x: ops.dropout(x, KEY(), rate=0.25), x, x)
    # Of a binomial: five standard deviations of its mean.
    assert abs(float((y == 0).mean()) - 0.25) < 5 * (0.25 * 0.75 / 40_000) ** 0.5
    assert jnp.array_equal(y, x_bar)
    assert jnp.allclose(y[y != 0], 4 / 3, rtol=1e-15)


def test_one_key_drops_the_same_in_every_dtype_and_representation():
    masks = [
        ops.dropout(jnp.ones(64, dtype), key) == 0
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64)
        for key in (KEY(), jax.random.PRNGKey(5))
    ]
    assert all(jnp.array_equal(mask, masks[0]) for mask in masks)


def test_a_rate_of_zero_drops_nothing_not_even_infinities():
    x = jnp.array([jnp.inf, 1.0, -2.0])
    assert jnp.array_equal(ops.dropout(x, KEY(), rate=0.0), x)
    dropped = ops.dropout(jnp.full(64, jnp.inf), KEY(), rate=0.5)
    assert not np.isnan(dropped).any()


def test_what_is_kept_is_the_key():
    kept = jax.eval_shape(lambda x: ops.dropout_fwd(x, KEY(), 0.5)[1], jnp.ones(4096))
    assert kept.shape == ()


def test_a_mask_drawn_anew_is_reported():
    @jax.custom_vjp
    def fresh(x):
        return ops.dropout(x, KEY())

    def bwd(_, y_bar):
        return (ops.dropout(y_bar, jax.random.fold_in(KEY(), 1)),)

    fresh.defvjp(lambda x: (fresh(x), None), bwd)
    assert compare(fresh, jnp.ones(16)).verdict == "wrong"


def test_wrong_keys_and_rates_are_named():
    x = jnp.ones(2)
    with pytest.raises(ValueError, match="rate to be from 0 and below 1; got 1"):
        ops.dropout(x, KEY(), rate=1)
    with pytest.raises(TypeError, match=r"key to be a key; got int 3: make it with"):
        ops.dropout(x, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"one key; got shape \(2,\): split them with"):
        ops.dropout(x, jax.random.split(KEY()))
