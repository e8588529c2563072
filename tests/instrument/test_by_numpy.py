"""Equations run by NumPy answer as JAX does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp.instrument._by_numpy import evaluate, quickly

X = np.random.default_rng(0).standard_normal((4, 3))
B = np.random.default_rng(1).standard_normal((2, 4, 3))


def elementwise(x):
    p = jnp.abs(x) + 0.5
    ways = (jnp.exp, jnp.log, jnp.tanh, jax.nn.sigmoid, jnp.sqrt, jax.lax.rsqrt)
    ways += (jnp.cbrt, jnp.log1p, jnp.expm1, jax.lax.erf, jnp.square, jnp.arctan)
    return [f(p) for f in ways] + [p**2.5, p**-2, jnp.fmod(x, 0.3), x / p, -x]


def choosing(x):
    flags = (x > 0) & ~(x >= 1) | (x == 0.5)
    return [
        jnp.where(flags, x, 0.0),
        jnp.clip(x, -0.2, 0.3),
        jnp.maximum(x, 0.1),
        jax.lax.select_n(
            jnp.array([0, 2, 1]), *(jnp.full(3, c) for c in (1.0, 2.0, 3.0))
        ),
        jnp.sign(x),
        jnp.round(x * 3),
        x.astype(jnp.int32),
    ]


def moving(x):
    return [
        x.T[::-1].reshape(2, 6),
        jnp.concatenate([x, x[1:3, ::2].repeat(2, 1)[:, :3]]),
        jnp.pad(x, ((1, 2), (0, 1)), constant_values=7.0),
        jax.lax.dynamic_slice(x, (3, 1), (2, 2)),
        jax.lax.dynamic_update_slice(x, x[:2, :2] * 2, (9, -1)),
        jnp.broadcast_to(x[:, None], (4, 2, 3)),
        jnp.split(x, (1, 3))[1],
        jnp.sort(x, axis=0),
        jnp.eye(3),
    ]


def reducing(x):
    return [
        x.sum(0),
        x.max(),
        x.min(1),
        x.prod(1),
        (x > 0).any(0),
        x.argmax(1),
        jnp.cumsum(x, axis=1),
        jax.lax.cummax(x, axis=0, reverse=True),
        x @ x.T,
        jnp.einsum("bij,bkj->bik", B, B + x),
        jnp.einsum("bij,kj->ikb", B, x),
    ]


def looping(x):
    carry, rows = jax.lax.scan(lambda c, v: (c * v + 1, c), x[0], x)
    return [carry, rows, jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x)]


@pytest.mark.parametrize("f", [elementwise, choosing, moving, reducing, looping])
def test_numpy_answers_as_jax_does(f):
    jaxpr = jax.make_jaxpr(f)(X)
    for mine, theirs in zip(evaluate(jaxpr, [X]), f(X), strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(mine, theirs, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_narrow_dtypes_stay_what_they_are(dtype):
    def f(x):
        return jnp.sum(x * x.dtype.type(300), axis=0)  # over float16's range, in steps

    x = np.asarray(X).astype(dtype)
    (mine,) = evaluate(jax.make_jaxpr(f)(x), [x])
    assert mine.dtype == dtype
    unit = float(jnp.finfo(dtype).eps)
    scale = np.abs(x.astype(float) * 300).sum(0)
    error = np.abs(mine.astype(float) - np.asarray(f(x)).astype(float))
    assert (error <= 4 * unit * scale).all()  # four roundings in either


def test_what_numpy_does_not_know_is_left_to_jax():
    def f(x, key):
        noise = jax.random.normal(key, x.shape, x.dtype)
        return jnp.linalg.solve(x.T @ x, x[0]), x[jnp.array([2, 0])], noise

    key = jax.random.key(3)
    jaxpr = jax.make_jaxpr(f)(X, key)
    for mine, theirs in zip(evaluate(jaxpr, [X, key]), f(X, key), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    assert quickly(jaxpr, [X, key]) is None


def test_long_and_large_programs_are_compiled():
    def loop(n):
        return lambda x: jax.lax.scan(lambda c, _: (c * 2, None), x, None, length=n)[0]

    def is_quick(f, *args):
        return quickly(jax.make_jaxpr(f)(*args), args) is not None

    assert is_quick(loop(10), X)
    # A rule is no equation of its own: its primal is run.
    rule = jax.custom_vjp(lambda x: jnp.sin(x) * 2)
    rule.defvjp(lambda x: (rule(x), x), lambda x, g: (2 * g * jnp.cos(x),))
    pull = lambda x, g: jax.vjp(rule, x)[1](g)
    assert is_quick(rule, X)
    assert is_quick(pull, X, X)
    assert not is_quick(loop(10_000), X)
    assert not is_quick(jnp.sin, np.zeros(10**6))
    until = lambda x: jax.lax.while_loop(lambda x: x < 1e6, lambda x: x + 1, x)
    assert is_quick(until, 999_990.0)
    assert not is_quick(until, 1.0)
