"""HMM log-likelihood: no way, far apart, impossible observations, memory by length."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops import _hmm

NO = -jnp.inf
PLAIN = _hmm.CASES[0].plain


def _arrays(n, t, k, scale=1.0):
    return _hmm._at(n, t, k, scale)(jax.random.key(3), jnp.float64)


def _pull(f, args, bar):
    """In one program: equation by equation JAX would compile as many."""

    def pull(args, bar):
        value, back = jax.vjp(f, *args)
        return value, *back(bar)

    return jax.jit(pull)(args, bar)


def _by_all_paths(pi, a, b):
    """Independent: every path by itself."""
    t, k = b.shape
    logs = [
        pi[z[0]] + b[range(t), z].sum() + sum(a[i, j] for i, j in itertools.pairwise(z))
        for z in map(list, itertools.product(range(k), repeat=t))
    ]
    weights = np.exp(np.array(logs) - max(logs))
    return max(logs) + np.log(weights.sum()), weights / weights.sum()


def test_value_and_posterior_are_those_of_all_paths():
    pi, a, b = (np.asarray(x) for x in _arrays((), 4, 3))
    value, pi_bar, a_bar, b_bar = _pull(
        ops.hmm_log_likelihood, (pi, a, b), jnp.array(1.0)
    )
    expected, weights = _by_all_paths(pi, a, b)
    gamma, xi = np.zeros((4, 3)), np.zeros((3, 3))
    for z, w in zip(itertools.product(range(3), repeat=4), weights, strict=True):
        gamma[range(4), z] += w
        for i, j in itertools.pairwise(z):
            xi[i, j] += w
    # 81 paths: fewer than a hundred roundings.
    for actual, exact in ((value, expected), (pi_bar, gamma[0]), (a_bar, xi)):
        np.testing.assert_allclose(actual, exact, rtol=100 * 2.3e-16)
    np.testing.assert_allclose(b_bar, gamma, rtol=100 * 2.3e-16)


@pytest.mark.parametrize("scale", [1.0, 300.0])  # by products, and by logarithms
def test_no_way_has_gradient_0_and_the_others_a_finite_one(scale):
    pi = jnp.array([0.0, NO, NO])
    a = jnp.array([[-0.7, -0.7, NO], [NO, -0.7, -0.7], [NO, NO, 0.0]])
    b = scale * _arrays((2,), 4, 3)[2]
    bar = jnp.array([0.7, -1.3])
    value, *bars = _pull(ops.hmm_log_likelihood, (pi, a, b), bar)
    expected, *expected_bars = _pull(PLAIN, (pi, a, b), bar)
    # Logarithms up to 4 × 300 × 3, each a few roundings off, are exponents of weights.
    np.testing.assert_allclose(value, expected, rtol=100 * 2.3e-16)
    for actual, exact in zip(bars, expected_bars, strict=True):
        np.testing.assert_allclose(actual, exact, rtol=0, atol=4e3 * 20 * 2.3e-16)
    assert not bars[0][1:].any()
    assert not bars[1][jnp.isneginf(a)].any()


def test_an_impossible_observation_gives_minus_infinity_with_gradient_0():
    pi, a, b = _arrays((2,), 3, 2)
    b = b.at[0, 1].set(NO)
    value, *bars = _pull(ops.hmm_log_likelihood, (pi, a, b), jnp.array([1.0, 1.0]))
    assert value[0] == NO
    assert np.isfinite(value[1])
    assert not bars[2][0].any()
    assert all(np.isfinite(x).all() for x in bars)


def test_a_state_that_was_all_but_ruled_out_comes_back_in_float32():
    """Products would have lost it: e^-200 is 0 in float32."""
    pi, a = jnp.array([0.0, 0.0]), jnp.array([[0.0, NO], [NO, 0.0]])  # all stay
    b = jnp.array([[0.0, -200.0], [-400.0, 0.0]])
    args = [x.astype(jnp.float32) for x in (pi, a, b)]
    value, _, _, b_bar = _pull(ops.hmm_log_likelihood, args, jnp.float32(1.0))
    assert value == -200.0
    assert b_bar.tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_float32_is_more_accurate_than_unnormalised_logarithms():
    args = [x.astype(jnp.float32) for x in _arrays((), 300, 4)]
    wide = [x.astype(jnp.float64) for x in args]
    exact = _pull(PLAIN, wide, jnp.array(1.0))
    error = lambda f: max(
        float(np.abs(x.astype(jnp.float64) - y).max())
        for x, y in zip(_pull(f, args, jnp.float32(1.0))[1:], exact[1:], strict=True)
    )
    assert error(ops.hmm_log_likelihood) <= error(PLAIN)


def test_what_does_not_fit_is_refused():
    pi, a, b = _arrays((), 3, 2)
    with pytest.raises(ValueError, match="got shape \\(0, 2\\)"):
        ops.hmm_log_likelihood(pi, a, b[:0])
    with pytest.raises(ValueError, match="log_transition's first is 3"):
        ops.hmm_log_likelihood(pi, jnp.zeros((3, 3)), b)


def _temp_bytes(f, t, k):
    pi, a, b = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((k,), (k, k), (t, k)))

    def step(args, bar):
        y, back = jax.vjp(f, *args)
        return y, back(bar)

    bar = jax.ShapeDtypeStruct((), jnp.float32)
    compiled = jax.jit(step).lower((pi, a, b), bar).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.optimised
def test_temporary_memory_beside_autodiff():
    f = ops.hmm_log_likelihood
    assert _temp_bytes(f, 1000, 64) <= 0.07 * _temp_bytes(PLAIN, 1000, 64)


@pytest.mark.optimised
def test_temporary_memory_is_linear_in_the_length():
    lengths = 1000, 2000, 4000, 8000
    steps = np.diff([_temp_bytes(ops.hmm_log_likelihood, t, 16) for t in lengths])
    # Equal slopes: twice the length, twice the difference.
    assert np.allclose(steps[1:], 2 * steps[:-1], rtol=0.01)


def test_a_rule_that_takes_the_filtered_states_for_the_posterior_is_reported():
    @jax.custom_vjp
    def faulty(pi, a, b):
        return ops.hmm_log_likelihood(pi, a, b)

    def bwd(res, bar):
        pi_bar, a_bar, _ = ops.hmm_log_likelihood_bwd(res, bar)
        return pi_bar, a_bar, bar * jax.nn.softmax(res[1])

    faulty.defvjp(ops.hmm_log_likelihood_fwd, bwd)
    findings = compare(faulty, *_arrays((), 3, 2)).findings
    assert [f.argument for f in findings if f.verdict == "wrong"] == ["[2]"]
