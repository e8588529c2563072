"""Rounding noise: it covers what rounding does, and is no wider than it has to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp.instrument._noise import rounding_noise

EPS = np.finfo(np.float64).eps


def _noise(f, *args):
    (noise,) = rounding_noise(jax.make_jaxpr(f)(*args), args, seed=0)
    return noise


def _cancelling(x):
    return (x + 1e5) - 1e5


def _long_sum(x):
    return jnp.sum(jnp.sin(x) * 1e3)


def _product(x):
    return jnp.outer(x, x) @ x


@pytest.mark.parametrize("f", [_cancelling, _long_sum, _product, jnp.exp])
def test_noise_covers_the_true_rounding_error(f):
    x = jax.random.normal(jax.random.key(0), (100,)).astype(jnp.float32)
    exact = np.asarray(f(x.astype(jnp.float64)))
    error = np.abs(np.asarray(f(x)).astype(np.float64) - exact)
    assert error.any()
    assert (error <= 16 * _noise(f, x)).all()


def test_noise_is_no_wider_than_its_model():
    x = jax.random.normal(jax.random.key(0), (100,))
    # Two moves of one unit in the last place, and half a one where each is rounded.
    assert (_noise(jnp.exp, x) <= 3 * EPS * np.exp(x)).all()
    # sqrt(n) units of the sum of magnitudes, up and down.
    assert _noise(jnp.sum, x) <= 2.1 * 10 * EPS * np.abs(x).sum()
    assert (_noise(_cancelling, x) <= 4 * EPS * 1e5).all()


def test_moves_and_choices_are_exact():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    assert not _noise(lambda x: jnp.maximum(-x.T[::-1], 0).reshape(-1)[2:5], x).any()


def test_a_cast_down_brings_its_own_unit():
    noise = _noise(lambda x: x.astype(jnp.float32).astype(jnp.float64), jnp.array(1.3))
    assert 1e-8 < noise < 1e-6


def test_an_exact_zero_stays_exact():
    assert _noise(lambda x: (x * 0.0) @ x, jnp.ones(3)) == 0


def test_an_infinity_on_the_way_is_exact():
    x = jnp.ones(3)
    assert np.isfinite(_noise(lambda x: jnp.exp(-(x / 0.0)) + x * 3.1, x)).all()


def test_noise_is_found_inside_scans_and_branches():
    def looped(x):
        return jax.lax.scan(lambda c, _: (c + 1e8 - 1e8, None), x, None, length=3)[0]

    def branched(x):
        return jax.lax.cond(x > 0, _cancelling, lambda x: x, x)

    x = jnp.array(0.3)
    assert _noise(looped, x) > 1e-9
    assert _noise(branched, x) > 1e-11
