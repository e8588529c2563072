"""The numeric witness: right, and right about how right it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp.instrument import numeric_gradient
from jaxbp.instrument._numeric import ladder, secants

SMOOTH = [
    (lambda x: jnp.exp(jnp.exp(x * x)), 1.0),
    (lambda x: jnp.sin(50 * x), 1.0),
    (jnp.log, 1e-3),
    (jnp.sqrt, 1e-8),
    (lambda x: jnp.sum(x**3), np.array([1e-4, 1.0, -100.0])),
    (lambda x: jnp.sum(jnp.tanh(x)) ** 2, np.linspace(-2, 3, 12).reshape(3, 4)),
    (lambda x: 1e8 * jnp.cos(1e-3 * x) + 1.0, 500.0),
]


@pytest.mark.parametrize(("f", "x"), SMOOTH)
def test_the_error_estimate_holds_and_is_small(f, x):
    (value,), (error,) = numeric_gradient(f, x)
    exact = np.asarray(jax.grad(f)(jnp.asarray(x)))
    scale = np.abs(exact).max()
    assert (np.abs(value - exact) <= error + 1e-15 * scale).all()
    assert error.max() <= 1e-9 * scale


def test_at_a_kink_the_one_sided_derivatives_differ():
    program = ladder(lambda _, x: jnp.abs(x))
    s = secants(program, (), [np.zeros(())])
    assert s.left[0] == pytest.approx(-1)
    assert s.right[0] == pytest.approx(1)


def test_what_cannot_be_known_is_not_claimed():
    noisy = ladder(lambda _, x: jnp.float64(jnp.float32(x * x)))
    assert secants(noisy, (), [np.array(1.3)]).error[0] > 1e-9
    undefined = ladder(lambda _, x: jnp.log(x))
    assert not np.isfinite(secants(undefined, (), [np.array(-1.0)]).error[0])


def test_of_complex_numbers_the_gradient_is_jaxs():
    def f(z, x):  # holomorphic in parts, and in parts not
        return (x * jnp.exp(1j * z).real).sum() + (jnp.abs(z) ** 3).sum()

    z, x = np.array([1 + 2j, -0.3j, 0.7]), np.array([0.5, 1.5, -2.0])
    gradient, error = numeric_gradient(f, z, x)
    exact = jax.grad(f, (0, 1))(jnp.asarray(z), jnp.asarray(x))
    for value, off, truth in zip(gradient, error, exact, strict=True):
        assert (np.abs(value - truth) <= off + 1e-15).all()
        assert off.max() < 1e-9


def test_trees_come_back_as_trees():
    params, x = {"w": np.ones(3)}, np.arange(3.0)
    gradient, error = numeric_gradient(lambda p, x: p["w"] @ x, params, x)
    np.testing.assert_allclose(gradient[0]["w"], np.arange(3.0), atol=1e-12)
    assert error[1].shape == (3,)


def test_steps_that_jump_over_everything_are_not_believed():
    # All that happens does so within 1e-6, the finest step is 1e6 times as wide.
    program = ladder(lambda _, x: jnp.tanh((x[0] - 1.0) * 1e6) * 10)
    s = secants(program, (), [np.array([1.0, 1e6])], np.array([0]))
    assert not np.isfinite(s.error[0])


def test_what_rounds_on_the_way_is_part_of_the_error():
    # 1 - p is 1: the logarithm is 0 at every step, with nothing left to round.
    program = ladder(lambda _, x: jnp.log(1 - jax.nn.sigmoid(x)))
    x, exact = [np.array(-60.0)], -np.exp(-60.0)
    assert (
        abs(secants(program, (), x).central[0] - exact)
        > secants(program, (), x).error[0]
    )
    s = secants(program, (), x, rounding=np.finfo(np.float64).eps)
    assert abs(s.central[0] - exact) <= s.error[0]


def test_a_slope_without_bound_is_told_from_steep_ones():
    def unbounded(f, x):
        return secants(ladder(lambda _, x: f(x)), (), [np.array(x)]).unbounded[0]

    assert unbounded(jnp.sqrt, 0.0)
    assert unbounded(lambda x: jnp.abs(x) ** 0.5, 0.0)
    for f, x in ((jnp.sqrt, 1e-3), (jnp.abs, 0.0), (jnp.exp, 30.0), (jnp.tanh, 0.0)):
        assert not unbounded(f, x)


def test_what_a_step_jumps_over_is_no_pole():
    # All that it does beside 0 lies within the finest step of the giant beside it.
    program = ladder(lambda _, x: (x / (1 + x * x)).sum())
    s = secants(program, (), [np.array([0.0, 1e9])], np.array([0]))
    assert not s.unbounded[0]
    assert not np.isfinite(s.error[0])
    # A root's slope is one.
    root = ladder(lambda _, x: jnp.sqrt(jnp.abs(x)).sum())
    assert secants(root, (), [np.array([0.0, 1.0])], np.array([0])).unbounded[0]
