"""Loops that end at a tolerance: which they are, and whether they came to it."""

import functools

import jax
import jax.numpy as jnp
import pytest
from hand_written import rule

from jaxbp import audit, compare
from jaxbp.instrument._tolerance import at_tolerance, is_without_bound

X = jax.random.normal(jax.random.key(1), (6,))


def test_a_loop_is_at_its_tolerance_or_out_of_rounds():
    def halved(rate, most):
        going = lambda s: (jnp.abs(s[0] - s[1]).max() > 1e-9) & (s[2] < most)
        step = lambda s: (rate * s[0] + 1, s[0], s[2] + 1)
        return jax.lax.while_loop(going, step, (rate, 0 * rate + 9, 0))[0]

    def told(f, *args):
        return at_tolerance(jax.make_jaxpr(f)(*args), args)

    def noted(rate, most):  # whether it moves, in the state
        def step(s):
            x = rate * s[0] + 1
            return x, jnp.abs(x - s[0]).max() > 1e-9, s[2] + 1

        going = lambda s: s[1] & (s[2] < most)
        return jax.lax.while_loop(going, step, (rate, jnp.array(True), 0))[0]

    few, many = (functools.partial(halved, most=k) for k in (20, 90))
    assert [told(functools.partial(noted, most=k), 0.5) for k in (20, 90)] == [
        [False],
        [True],
    ]
    turns = lambda s: (s[0] / 2, ~s[1], s[2] + 1)  # which hangs on no float
    start = lambda x: (x, jnp.array(True), 0)
    counted = lambda x: jax.lax.while_loop(lambda s: s[1], turns, start(x))[0]
    assert told(counted, 0.5) == []
    assert told(many, 0.5) == [True]
    assert told(few, 0.5) == [False]
    # A round changes little long before it is there.
    assert told(many, 0.9) == [False]
    assert told(jax.jit(lambda x: many(x) + few(x)), 0.5) == [True, False]
    assert told(jax.vmap(many), jnp.array([0.1, 0.9])) == [False]
    # Inside another loop nobody looks.
    repeated = lambda x: jax.lax.fori_loop(0, 2, lambda _, x: 0.1 * few(x), x)
    assert told(repeated, 0.5) == [True]


@pytest.mark.parametrize("most", [None, 40])
def test_a_loop_has_a_bound_where_its_test_counts(most):
    def halved(x):
        going = lambda s: (s[0] > 1e-9) & (True if most is None else s[1] < most)
        return jax.lax.while_loop(going, lambda s: (s[0] / 2, s[1] + 1), (x, 0))[0]

    (loop,) = [
        eqn for eqn in jax.make_jaxpr(halved)(1.0).eqns if eqn.primitive.name == "while"
    ]
    assert is_without_bound(loop) == (most is None)


def _expectile(sign):
    """Of x, by weights that are found again until they stay, at most 60 times."""

    def weights(x, m, tau):
        return jnp.where(x > m, tau, 1 - tau)

    def found(x, tau):
        def again(state):
            w = weights(x, state[0], tau)
            m = (w * x).sum() / w.sum()
            return m, (weights(x, m, tau) != w).any(), state[2] + 1

        start = x.mean(), jnp.array(True), 0
        return jax.lax.while_loop(lambda s: s[1] & (s[2] < 60), again, start)[0]

    def bwd(res, g):
        x, tau = res
        m = found(x, tau)
        share = g * weights(x, m, tau) / weights(x, m, tau).sum()
        slope = jnp.abs(x - m).sum() / weights(x, m, tau).sum()
        return share, sign * g * slope

    return rule(found, bwd)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_loop_that_notes_whether_it_moves_ends_at_a_tolerance_too(sign):
    # Beyond 1 the weights have two signs, and no end.
    c = compare(_expectile(sign), X, 0.8)
    assert c.verdict == ("right" if sign == 1 else "wrong"), c


def _solution(spoil=1.0):
    """Of P x = b by conjugate gradients, which end where the residual is small."""

    def solve(p, b):
        def step(state):
            x, r, d, rr, k, _ = state
            pd = p @ d
            a = rr / (d @ pd)
            r = r - a * pd
            return x + a * d, r, r + (r @ r / rr) * d, r @ r, k + 1, r @ r < 1e-20

        start = 0 * b, b, b, b @ b, 0, jnp.array(False)
        going = lambda state: ~state[5] & (state[4] < 200)
        return jax.lax.while_loop(going, step, start)[0]

    def bwd(res, g):
        (p, _), x = res
        w = solve(p, g)
        return -spoil * jnp.outer(w, x), w

    return rule(solve, bwd, lambda p, b: (solve(p, b), ((p, b), solve(p, b))))


@pytest.mark.parametrize("seed", range(4))
def test_a_symmetric_matrix_ends_a_solver_further_within_than_its_neighbours(seed):
    root, b = jax.random.normal(jax.random.key(seed), (2, 5, 5))
    args = root @ root.T + 2 * jnp.eye(5), b[0]
    right, wrong = _solution(), _solution(spoil=1.001)
    c = compare(right, *args)
    assert c.ok, c
    assert audit(lambda p, b: (right(p, b) ** 2).sum(), *args).ok
    assert compare(wrong, *args).findings[0].verdict == "wrong"
    assert not audit(lambda p, b: (wrong(p, b) ** 2).sum(), *args).ok


@pytest.mark.parametrize(("off", "verdict"), [(0, "right"), (1e-4, "broken-contract")])
def test_fwd_may_go_nearer_to_the_limit_than_f_does(off, verdict):
    def root(a, tolerance=1e-3):
        going = lambda x: (jnp.abs(x * x - a) > tolerance).any()
        return jax.lax.while_loop(going, lambda x: (x + a / x) / 2, a + 0.5)

    def fwd(a):
        return root(a, 1e-12) + off, root(a, 1e-12)

    f = rule(root, lambda x, g: (g / (2 * x),), fwd)
    c = compare(f, jnp.array([1.3, 2.0, 3.7]))
    assert c.verdict == verdict, c


def test_a_factor_is_that_of_the_numeric_derivative_where_there_is_no_other():
    twice, args = _solution(spoil=2.0), (2 * jnp.eye(3) + 1, X[:3])
    told = str(compare(twice, *args))
    assert "hand-written / the numeric derivative is 2 in every element" in told


def test_nothing_larger_is_asked_in_a_narrow_dtype_of_what_is_searched():
    """A quantile of logistics, between bounds that u has to be within."""

    def cdf(x, m):
        return jax.nn.sigmoid(x[:, None] - m).mean(-1)

    def quantile(u, m):
        def halved(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            below = cdf(middle, m) < u
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        bounds = jnp.full_like(u, m.min() - 40), jnp.full_like(u, m.max() + 40)
        low, high = jax.lax.fori_loop(0, 60, halved, bounds)
        return (low + high) / 2

    def bwd(res, g):
        (u, m), x = res
        _, pull = jax.vjp(cdf, x, m)
        slope, _ = pull(jnp.ones_like(u))
        return g / slope, pull(-g / slope)[1]

    f = rule(quantile, bwd, lambda u, m: (quantile(u, m), ((u, m), quantile(u, m))))
    args = jnp.array([0.2, 0.5, 0.9], jnp.float32), X[:4].astype(jnp.float32)
    c = compare(f, *args, effort="full")
    assert c.ok, c
