"""Rounding noise: it covers what rounding does, and is no wider than it has to be."""

import math

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


def test_draws_that_are_no_number_hide_none_of_the_others():
    def f(x):
        y = (x + 1e16) - 1e16  # a small even number, 0 among them
        return y / y * y

    x = np.full(64, 2.0)
    at = {0: np.arange(64)}

    def noise(needed):
        needed = {0: np.full(64, needed)}
        return rounding_noise(jax.make_jaxpr(f)(x), [x], 0, at, needed)[0]

    lost = np.isnan(_noise(f, x))
    assert lost.any()
    assert (noise(2.0)[lost] >= 2).any()
    assert np.array_equal(np.isnan(noise(1e2)), lost)


def test_a_draw_that_is_no_number_is_told_beside_an_infinite_one():
    x = np.zeros(64)
    near_zero = lambda x: (x + 1e16) - 1e16
    # Of the same draws: negative ones have neither root nor logarithm, 0 has -inf.
    lost = np.isnan(_noise(lambda x: jnp.sqrt(near_zero(x)), x))
    assert lost.any()
    assert np.isnan(_noise(lambda x: jnp.log(near_zero(x)), x)[lost]).all()


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


# XLA's functions, the same of C's or NumPy's library, and where the two part most.
LIBRARY = {
    "log1p": (jax.lax.log1p, np.log1p, np.linspace(-0.415, -0.38, 400)),
    "atanh": (jax.lax.atanh, np.arctanh, np.linspace(0.38, 0.415, 400)),
    "exp2": (jax.lax.exp2, np.exp2, np.linspace(-1000, 1000, 401)),
    "sinh": (jax.lax.sinh, np.sinh, np.linspace(1, 300, 400)),
    "cosh": (jax.lax.cosh, np.cosh, np.linspace(1, 300, 400)),
    "erfc": (jax.lax.erfc, np.vectorize(math.erfc), np.linspace(1, 25, 400)),
    "lgamma": (
        jax.lax.lgamma,
        np.vectorize(math.lgamma),
        2 + np.linspace(-0.1, 0.1, 400),
    ),
    "tanh": (jax.lax.tanh, np.tanh, np.linspace(-20, 20, 401)),
    "expm1": (jax.lax.expm1, np.expm1, np.linspace(-1, 1, 401)),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_what_xlas_own_functions_are_off_by_is_noise(name):
    function, exact, x = LIBRARY[name]
    noise, value = _noise(function, x), exact(x)
    assert (np.abs(np.asarray(jax.jit(function)(x)) - value) <= 16 * noise).all()
    # No more than eight units of the value, and what a unit of x makes of it.
    slope = jax.vmap(jax.grad(function))(x)
    size = np.maximum(np.abs(value), 1) if name == "lgamma" else np.abs(value)
    assert (noise <= 3 * EPS * (8 * size + np.abs(x * slope))).all()


@pytest.mark.parametrize("f", [jnp.sum, lambda z: jnp.zeros(2, z.dtype).at[0].add(z)])
def test_both_parts_of_complex_sums_have_noise(f):
    z = np.array([1e5 + 1e5j, 1, -1e5 - 1e5j])
    noise = np.atleast_1d(_noise(f, z if f is jnp.sum else z[0]))[0]
    assert 1e5 * EPS <= noise <= 16e5 * EPS


@pytest.mark.parametrize("needed", [0.0, 1e3, np.inf])
def test_no_more_draws_than_tell_and_all_where_none_is_enough(needed):
    x = np.linspace(0.3, 0.7, 9)
    jaxpr, everywhere = jax.make_jaxpr(_product)(x), {0: np.arange(9)}
    (whole,) = rounding_noise(jaxpr, [x], 0)
    (some,) = rounding_noise(jaxpr, [x], 0, everywhere, {0: np.full(9, needed)})
    if np.isinf(needed):
        np.testing.assert_array_equal(some, whole)
    else:  # after one draw, and after three
        assert (some <= whole).all()
        assert (some < whole).any()
