"""Cumulative log-sum-exp: pieces and their rest, -inf, spread, memory by length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops import _cumulative
from jaxbp.ops._cumulative import CASES

PLAIN = CASES[0].plain


def _pull(f, x, y_bar):
    """In one program: equation by equation JAX would compile as many."""

    def pull(x, y_bar):
        y, back = jax.vjp(f, x)
        return y, back(y_bar)[0]

    return jax.jit(pull)(x, y_bar)


def _arrays(*shape):
    keys = jax.random.split(jax.random.key(3))
    return [jax.random.normal(k, shape) for k in keys]


@pytest.mark.parametrize("k", [3, 4, 6, 9, 13])  # a block, blocks, pieces, and rests
def test_pieces_and_their_rest_are_one_axis(k, monkeypatch):
    monkeypatch.setattr(_cumulative, "_BLOCK", 3)
    monkeypatch.setattr(_cumulative, "_BLOCKS", 2)
    x, y_bar = _arrays(2, k)
    actual, expected = _pull(ops.cumlogsumexp, x, y_bar), _pull(PLAIN, x, y_bar)
    for a, b in zip(actual, expected, strict=True):
        # Fewer than a hundred roundings on the way to each element.
        assert np.abs(a - b).max() <= 100 * 2.3e-16 * np.abs(b).max()


def test_they_can_be_differentiated_again_in_pieces(monkeypatch):
    monkeypatch.setattr(_cumulative, "_BLOCK", 2)
    monkeypatch.setattr(_cumulative, "_BLOCKS", 2)
    x = jnp.array([0.5, 0.5, -1.0, 2.0, 2.0])  # with ties, across blocks too
    comparison = compare(ops.cumlogsumexp, x, reference=PLAIN, order=2)
    assert comparison.ok, comparison


def test_minus_infinity_counts_for_nothing():
    low = -jnp.inf
    x = jnp.array([[low, 1.0, low, 2.0], [low, low, low, low], [0.0, low, low, low]])
    y, x_bar = _pull(ops.cumlogsumexp, x, _arrays(3, 4)[1])
    assert (y[0, 0] == low) & (y[1] == low).all() & (y[2] == 0).all()
    assert not x_bar[jnp.isneginf(x)].any()
    assert np.isfinite(x_bar).all()
    second = jax.grad(lambda x: _pull(ops.cumlogsumexp, x, jnp.ones_like(x))[1].sum())
    assert np.isfinite(jax.jit(second)(x)).all()


def test_far_apart_in_float32_is_what_it_is_in_float64():
    """A shift by the highest of all would lose what is 200 below it."""
    x = jnp.concatenate([_arrays(1, 100)[0], 200 + _arrays(1, 100)[1]], axis=1)
    x = x.astype(jnp.float32).astype(jnp.float64)
    y_bar = _arrays(1, 200)[1].astype(jnp.float32).astype(jnp.float64)
    narrow = [a.astype(jnp.float32) for a in (x, y_bar)]
    y, x_bar = _pull(ops.cumlogsumexp, *narrow)
    expected, expected_bar = _pull(PLAIN, x, y_bar)
    # Half a unit in the last place of a logarithm below 256, and of 100 terms.
    assert np.abs(y.astype(jnp.float64) - expected).max() <= 256 * 1.2e-7
    error = jnp.abs(x_bar.astype(jnp.float64) - expected_bar)
    # A weight's exponent is as wrong as y is: 2 roundings of a number below 256.
    assert error.max() <= 4 * 256 * 1.2e-7 * jnp.abs(y_bar).sum()


def test_a_number_has_no_axis():
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is held below
        ops.cumlogsumexp(1.0)
    assert str(caught.value) == (
        "jaxbp.cumlogsumexp: expected x to be of shape (*n, k); got shape ()."
    )


def _temp_bytes(f, *shape):
    def step(x, y_bar):
        y, back = jax.vjp(f, x)
        return y, back(y_bar)

    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    compiled = jax.jit(step).lower(x, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.optimised
def test_temporary_memory_beside_autodiff():
    assert _temp_bytes(ops.cumlogsumexp, 64, 4096) <= 0.35 * _temp_bytes(
        PLAIN, 64, 4096
    )


@pytest.mark.optimised
def test_temporary_memory_is_linear_in_the_length():
    lengths = 4096, 8192, 16384, 32768
    steps = np.diff([_temp_bytes(ops.cumlogsumexp, 4, k) for k in lengths])
    # Equal slopes: twice the length, twice the difference.
    assert np.allclose(steps[1:], 2 * steps[:-1], rtol=0.01)


def test_a_rule_that_stops_at_its_block_is_reported():
    @jax.custom_vjp
    def faulty(x):
        return ops.cumlogsumexp(x)

    def bwd(res, y_bar):
        x, y = res
        blocks = slice(0, 2), slice(2, 4)
        bars = [ops.cumlogsumexp_bwd((x[k], y[k]), y_bar[k])[0] for k in blocks]
        return (jnp.concatenate(bars),)

    faulty.defvjp(ops.cumlogsumexp_fwd, bwd)
    (finding,) = compare(faulty, _arrays(4)[0]).findings
    assert finding.verdict == "wrong"
    assert finding.worst.index[0] < 2
