"""Norms of rows: flat, huge and tiny ones, and the memory of the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops.catalogue import CASES
from tests.ops.ulps import ulps

ROWS = {c.name: c for c in CASES if c.name in ("layer_norm", "rms_norm")}


def _temporary(f, *shapes):
    """Bytes beside arguments and results of a step: value and all cotangents."""
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]

    def step(args, y_bar):
        y, back = jax.vjp(f, *args)
        return y, back(y_bar)

    compiled = jax.jit(step).lower(shapes, shapes[0]).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(("name", "bar"), [("layer_norm", 0.01), ("rms_norm", 0.015)])
@pytest.mark.optimised
def test_the_backward_pass_needs_a_block_of_rows_however_many_there_are(name, bar):
    case = ROWS[name]
    columns = [(1024,)] * (1 if name == "rms_norm" else 2)
    of = {n: _temporary(case.function, (n, 1024), *columns) for n in (1024, 2048, 4096)}
    assert of[4096] <= bar * _temporary(case.plain, (4096, 1024), *columns)
    # A block does not grow; mean and inverse, two numbers a row, do.
    assert of[4096] - of[2048] <= 2048 * 2 * 4
    assert of[2048] - of[1024] <= 1024 * 2 * 4


@pytest.mark.parametrize("case", ROWS.values(), ids=ROWS)
def test_gradients_in_float32_are_those_of_float64(case):
    args = case.inputs["ordinary"](jax.random.key(5), jnp.float64)
    y_bar = jax.random.normal(jax.random.key(6), args[0].shape)

    def bars(dtype):
        # Of arguments that both dtypes hold.
        single = jax.tree.map(lambda x: x.astype(jnp.float32).astype(dtype), args)
        bar = y_bar.astype(jnp.float32).astype(dtype)
        return [np.asarray(b, float) for b in jax.vjp(case.function, *single)[1](bar)]

    for a, b in zip(bars(jnp.float32), bars(jnp.float64), strict=True):
        # Some twenty roundings, of terms no larger than a few of the largest result.
        assert np.abs(a - b).max() <= 40 * 6e-8 * np.abs(b).max()


def test_rows_of_one_value_have_the_gradient_that_eps_gives():
    x, y_bar = jnp.full((2, 4), 3.0), jax.random.normal(jax.random.key(0), (2, 4))
    one, eps = jnp.ones(4), 1e-4
    layer = lambda x: ops.layer_norm(x, one, one, eps=eps)
    (x_bar,) = jax.vjp(layer, x)[1](y_bar)
    # Each of a few roundings of numbers up to 1/sqrt(eps) times the cotangent's.
    expected = (y_bar - y_bar.mean(-1, keepdims=True)) / eps**0.5
    assert np.abs(x_bar - expected).max() <= 16 * 2.3e-16 * np.abs(expected).max()
    rms = lambda x: ops.rms_norm(x, one, eps=eps)
    (x_bar,) = jax.vjp(rms, jnp.zeros((2, 4)))[1](y_bar)
    assert jnp.allclose(x_bar, y_bar / eps**0.5, rtol=1e-15, atol=0)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_l2_normalise_does_not_see_the_magnitude(size):
    x = jnp.array([3.0, -4.0, 12.0], jnp.float32) * jnp.float32(size)
    y, back = jax.vjp(ops.l2_normalise, x)
    assert ulps(y, np.array([3, -4, 12]) / np.longdouble(13)) <= 4
    (x_bar,) = back(jnp.array([1.0, 0.5, -1.0], jnp.float32))
    exact = np.asarray(x, np.longdouble)
    length, g = np.sqrt((exact**2).sum()), np.array([1, 0.5, -1], np.longdouble)
    exact = (g - exact * (exact @ g) / length**2) / length
    # Two terms of which neither is over twice the difference, four roundings each.
    assert ulps(x_bar, exact) <= 16


def test_l2_normalise_at_zero_is_zero_and_so_is_its_gradient():
    y, back = jax.vjp(ops.l2_normalise, jnp.array([[0.0, -0.0], [3.0, 4.0]]))
    (x_bar,) = back(jnp.ones((2, 2)))
    assert not y[0].any()
    assert not x_bar[0].any()
    assert x_bar[1].any()


def test_the_rule_that_holds_the_variance_fixed_is_reported():
    @jax.custom_vjp
    def fixed(x, scale, bias):
        return ops.layer_norm(x, scale, bias)

    def bwd(res, y_bar):
        x, scale = res
        inverse = jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)
        g = y_bar * scale
        x_bar = inverse * (g - g.mean(-1, keepdims=True))
        rest = jax.vjp(lambda s, b: ops.layer_norm(x, s, b), scale, scale)[1](y_bar)
        return x_bar, *rest

    fixed.defvjp(lambda x, s, b: (ops.layer_norm(x, s, b), (x, s)), bwd)
    args = ROWS["layer_norm"].inputs["ordinary"](jax.random.key(1), jnp.float64)
    comparison = compare(fixed, *args)
    verdicts = [f.verdict for f in comparison.findings]
    assert verdicts == ["wrong", "right", "right"], comparison


def test_wrong_arguments_are_named():
    x, one = jnp.ones((2, 3)), jnp.ones(3)
    with pytest.raises(ValueError, match=r"scale's last is 4|x's last axis is 3"):
        ops.layer_norm(x, jnp.ones(4), one)
    with pytest.raises(ValueError, match=r"eps to be above 0 and finite; got 0"):
        ops.rms_norm(x, one, eps=0)
    with pytest.raises(ValueError, match=r"of shape \(\*n, k\) with k at least 1"):
        ops.l2_normalise(jnp.ones(()))
