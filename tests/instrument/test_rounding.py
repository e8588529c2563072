"""compare: rounding is no mistake, and a mistake is no rounding."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from hand_written import rule

from jaxbp import compare
from jaxbp.instrument._answers import BOTH, MANUAL, Answers
from jaxbp.instrument._program import traced


def test_an_ill_conditioned_solve_is_not_called_wrong():
    hilbert = 1 / (jnp.arange(8.0)[:, None] + jnp.arange(8.0) + 1)

    def bwd(res, y_bar):
        a, b = res
        b_bar = jnp.linalg.solve(a.T, y_bar)
        return -jnp.outer(b_bar, jnp.linalg.solve(a, b)), b_bar

    comparison = compare(rule(jnp.linalg.solve, bwd), hilbert, jnp.arange(1.0, 9.0))
    assert comparison.verdict in ("right", "unproven")


def test_rounding_is_no_mistake_and_a_mistake_no_rounding():
    def variance(x):
        return jnp.mean((x - x.mean()) ** 2)

    def bwd(x, y_bar):  # the same in exact arithmetic, far apart in rounding
        return (2 * (x / x.size - x.mean() / x.size) * y_bar,)

    x = 1e6 + jnp.arange(50.0) * 1e-3
    assert compare(rule(variance, bwd), x).verdict == "right"
    wrong = rule(variance, lambda x, y_bar: (bwd(x, y_bar)[0] * 1.001,))
    assert compare(wrong, x).verdict == "wrong"


def test_a_less_accurate_rule_is_told_in_the_callers_dtype():
    def softplus(x):
        return jnp.log1p(jnp.exp(x))

    def cancels(x, y_bar):
        return (y_bar * (1 - 1 / (1 + jnp.exp(x))),)

    f = rule(softplus, cancels)
    comparison = compare(f, jnp.linspace(-14, -10, 7, dtype=jnp.float32))
    assert comparison.verdict == "less-accurate", comparison
    assert comparison.ok
    far = jnp.linspace(-14, -10, 7, dtype=jnp.float32)
    assert not compare(f, far, accuracy=True).ok
    assert compare(f, jnp.linspace(1, 2, 7, dtype=jnp.float32)).verdict == "right"


def test_what_is_cast_down_inside_is_no_less_accurate_than_autodiff():
    def slope(x):  # of tanh(x) e^x, by another formula than autodiff's
        t = jnp.tanh(x)
        return jnp.exp(x) * ((1 - t) * (1 + t) + t)

    def primal(x):
        y = x.astype(jnp.float32)
        return (jnp.tanh(y) * jnp.exp(y)).astype(x.dtype)

    def bwd(x, y_bar, off=0.0):
        y, y_bar = x.astype(jnp.float32), y_bar.astype(jnp.float32)
        return ((slope(y) * y_bar * (1 + off)).astype(x.dtype),)

    x = jnp.linspace(-9, 9, 300)
    for dtype in (jnp.float32, jnp.bfloat16):
        assert compare(rule(primal, bwd), x.astype(dtype), accuracy=True).ok
    # A thousand units of float32, where rounding makes some ten.
    wrong = rule(primal, functools.partial(bwd, off=1e-4))
    assert not compare(wrong, x.astype(jnp.float32)).ok


def test_where_autodiff_has_no_number_the_rules_own_rounding_counts():
    # sqrt(1 + x²) - x; what the where leaves out makes autodiff's NaN beyond 700.
    def f(x):
        t = jnp.where(x > 700, x, jnp.exp(x) * 0 + x)
        return 1 / (t + jnp.sqrt(1 + t * t))

    def bwd(x, g):  # of two that are nearly equal where x is large
        return (g * (x / jnp.sqrt(1 + x * x) - 1),)

    x = jnp.array([1.0, 2.0, 1.0])
    assert compare(rule(f, bwd), x).ok
    wrong = rule(f, lambda x, g: (bwd(x, g)[0] * jnp.where(x > 700, 1.001, 1),))
    assert compare(wrong, x).verdict == "wrong"


@pytest.mark.parametrize(("sides", "is_nan"), [([MANUAL], True), (BOTH, False)])
def test_where_rounding_may_give_nan_to_all_that_are_asked_it_is_without_bound(
    sides, is_nan
):
    def bwd(x, g):
        gap = (1 + x) - 1  # a unit of 1, or none
        return (g * jnp.where(gap == 0, 1, gap / gap) * jnp.cos(x),)

    x = jnp.full(3, 2.0**-52)
    program = traced(rule(jnp.sin, bwd), (x,), {}, None)
    answers = Answers(program, program.inputs, ["[0]"], 0)
    assert np.isfinite(answers.manual[0].cotangents[0]).all()
    places, needed = {0: np.arange(3)}, {0: np.full(3, 1e-9)}
    (noise,) = answers.noise_at(0, places, needed, sides=sides)
    assert np.isnan(noise).any() == is_nan, noise
