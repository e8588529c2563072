"""Activations where they saturate, at their kinks, and beyond the largest square."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from tests.ops.ulps import ulps

tanh_gelu = functools.partial(ops.gelu, approximate=True)
dtypes = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


def _sigma(x):
    return 1 / (1 + np.exp(-x))


# Of NumPy's extended precision: value, derivative.
EXACT = {
    ops.sigmoid: (_sigma, lambda x: _sigma(x) * _sigma(-x)),
    ops.log_sigmoid: (
        lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))),
        lambda x: _sigma(-x),
    ),
    ops.tanh: (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    ops.softplus: (
        lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
        _sigma,
    ),
    ops.relu: (lambda x: np.maximum(x, 0), lambda x: np.where(x > 0, 1, 0)),
    ops.silu: (
        lambda x: x * _sigma(x),
        lambda x: _sigma(x) * (1 + x * _sigma(-x)),
    ),
}
every_activation = pytest.mark.parametrize("op", EXACT, ids=lambda op: op.__name__)


def _gradient(op, x):
    return jax.jit(lambda x: jax.vjp(op, x)[1](jnp.ones_like(x))[0])(x)


@every_activation
@dtypes
def test_saturated_values_and_gradients_keep_their_digits(op, dtype):
    # From where 1 - y is rounded to where it is gone, and on while e^-x is a normal
    # number: of its own exponential, tanh'(x) is e^-2x.
    far = 38.0 if dtype == jnp.float32 else 300.0
    x = jnp.concatenate([jnp.linspace(8.0, far, 97, dtype=dtype), jnp.zeros(1, dtype)])
    x = jnp.concatenate([x, -x])
    value, slope = EXACT[op]
    exact = np.asarray(x, np.longdouble)
    # XLA's exponential, logistic and tanh are good for 4 units each; three of them
    # meet in a product.
    assert ulps(jax.jit(op)(x), value(exact)) <= 6
    assert ulps(_gradient(op, x), slope(exact)) <= 12


@pytest.mark.parametrize("op", [ops.gelu, tanh_gelu], ids=["exact", "tanh"])
def test_gelu_is_as_good_as_its_tail_is_conditioned(op):
    single = jnp.linspace(-9.0, 9.0, 181, dtype=jnp.float32)
    double = single.astype(jnp.float64)
    # In float64 half the digits are to spare: it is the witness.
    for of in (jax.jit(op), functools.partial(_gradient, op)):
        exact = np.asarray(of(double))
        for x, a, b in zip(double, np.asarray(of(single), float), exact, strict=True):
            # A unit of x is this many units of e^(-x^2/2), or of e^-2u; the derivative
            # crosses 0 at -0.75, where its terms are 0.2.
            condition = 1 + float(x) ** 2 * (1 + 0.1 * float(x) ** 2)
            unit = 1.2e-7 * max(abs(b), 0.2 if -1 < x < -0.5 else 0.0)
            assert abs(a - b) <= 16 * condition * unit, x


@pytest.mark.parametrize("op", [*EXACT, ops.gelu, tanh_gelu, ops.leaky_relu])
def test_far_away_nothing_is_lost_to_an_infinity(op):
    x = jnp.array([1e30, -1e30, 3e38, -3e38], jnp.float32)
    assert np.isfinite(jax.jit(op)(x)).all()
    assert np.isfinite(_gradient(op, x)).all()


def test_gradients_at_the_kink_are_those_that_the_docstrings_name():
    zeros = jnp.array([0.0, -0.0])
    assert not _gradient(ops.relu, zeros).any()
    assert (_gradient(ops.leaky_relu, zeros) == 1).all()


@pytest.mark.parametrize("slope", [0.0, -1.0, 1e-320])
def test_a_leak_of_any_sign_or_size_knows_its_side(slope):
    leaky = functools.partial(ops.leaky_relu, negative_slope=slope)
    x = jnp.array([-2.0, 3.0, -1e-10])
    assert _gradient(leaky, x).tolist() == [slope, 1.0, slope]


def test_nan_stays_nan():
    for op in (*EXACT, ops.gelu, ops.leaky_relu):
        assert np.isnan(op(jnp.nan))


def test_the_rule_from_the_output_is_reported_where_it_saturates():
    @jax.custom_vjp
    def sigmoid(x):
        return jax.lax.logistic(x)

    sigmoid.defvjp(lambda x: (sigmoid(x),) * 2, lambda y, g: (g * y * (1 - y),))
    saturated = jnp.array([12.0, 16.0, 20.0], jnp.float32)
    comparison = compare(sigmoid, saturated, reference=ops.sigmoid, accuracy=True)
    assert comparison.verdict == "less-accurate"
    assert not comparison.ok
    ours = compare(ops.sigmoid, saturated, accuracy=True)
    assert ours.ok, ours


def test_swiglu_with_its_arguments_swapped_is_reported():
    x, v = jax.random.normal(jax.random.key(0), (2, 4))
    swapped = compare(lambda x, v: ops.swiglu(v, x), x, v, reference=ops.swiglu)
    assert not swapped.ok


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"negative_slope to be finite; got inf"):
        ops.leaky_relu(1.0, negative_slope=float("inf"))
    message = r"expected x \(\*n\), v \(\*n\); got x \(2,\), v \(3,\)"
    with pytest.raises(ValueError, match=message):
        ops.swiglu(jnp.ones(2), jnp.ones(3))
    with pytest.raises(TypeError, match=r"cast it: jnp.asarray\(x, dtype=float\)"):
        ops.tanh(jnp.ones(2, int))
