"""Linear solve: pivoting, one right-hand side, symmetric matrices, singular ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops._linear_solve import CASES

POSITIVE = functools.partial(ops.linear_solve, positive_definite=True)


def _arrays(m, *right, case=CASES[0], lead=()):
    keys = jax.random.split(jax.random.key(3))
    a = 3 * jnp.eye(m) + jax.random.normal(keys[0], (*lead, m, m))
    if case is CASES[1]:
        a = a @ a.mT
    return a, jax.random.normal(keys[1], (*lead, m, *right))


@pytest.mark.parametrize("case", CASES, ids=["lu", "positive definite"])
@pytest.mark.parametrize("right", [(), (1,), (4,)])
def test_value_and_cotangents_are_those_of_the_inverse(case, right):
    a, b = _arrays(5, *right, case=case)
    x, back = jax.vjp(case.function, a, b)
    x_bar = jax.random.normal(jax.random.key(1), x.shape)
    inverse = np.linalg.inv(a)
    exact, b_bar = inverse @ b, inverse.T @ x_bar
    a_bar = -b_bar.reshape(5, -1) @ exact.reshape(5, -1).T
    if case is CASES[1]:
        a_bar = (a_bar + a_bar.T) / 2
    for one, other in zip((x, *back(x_bar)), (exact, a_bar, b_bar), strict=True):
        # Five equations of condition below 20.
        assert np.abs(one - other).max() <= 5 * 20 * 2.3e-16 * np.abs(other).max()


def test_only_the_symmetric_part_of_a_positive_definite_matrix_counts():
    a, b = _arrays(4, 2, case=CASES[1])
    skew = jnp.triu(jnp.ones((4, 4)), 1)
    skew = skew - skew.T
    x, same = POSITIVE(a, b), POSITIVE(a + skew, b)
    # (a + s)/2 and its transpose are rounded once each.
    assert np.abs(x - same).max() <= 20 * 2.3e-16 * np.abs(x).max() * 20
    a_bar = jax.grad(lambda a: POSITIVE(a, b).sum())(a)
    assert (a_bar == a_bar.T).all()


def test_a_zero_on_the_diagonal_is_no_obstacle():
    a = jnp.array([[0.0, 2.0], [3.0, 0.0]])
    x, back = jax.vjp(ops.linear_solve, a, jnp.array([4.0, 9.0]))
    assert x.tolist() == [3.0, 2.0]
    a_bar, b_bar = back(jnp.array([1.0, 0.0]))
    # 1/3 of the second equation, rounded once, and times 3 and 2.
    assert np.abs(b_bar - jnp.array([0, 1 / 3])).max() <= 2.3e-16
    assert np.abs(a_bar + jnp.array([[0, 0], [1, 2 / 3]])).max() <= 4.6e-16


def test_what_has_no_solution_is_not_finite():
    singular = jnp.array([[1.0, 2.0], [2.0, 4.0]])
    assert not np.isfinite(ops.linear_solve(singular, jnp.ones(2))).all()
    indefinite = jnp.array([[1.0, 0.0], [0.0, -1.0]])
    assert np.isnan(POSITIVE(indefinite, jnp.ones(2))).all()


def test_errors_of_an_ill_conditioned_matrix_are_no_larger_than_autodiffs():
    a = jnp.array([[1 / (1 + i + j) for j in range(5)] for i in range(5)], jnp.float32)
    b = jnp.array([1.0, -1.0, 0.5, 2.0, 0.0], jnp.float32)
    bars = lambda f, *args: jax.vjp(f, *args)[1](jnp.ones_like(args[1]))
    wide = [x.astype(jnp.float64) for x in (a, b)]
    exact = bars(CASES[0].plain, *wide)
    off = lambda f: max(
        float(np.abs(x - y).max() / np.abs(y).max())
        for x, y in zip(bars(f, a, b), exact, strict=True)
    )
    with jax.numpy_dtype_promotion("standard"):
        assert off(ops.linear_solve) <= 4 * off(CASES[0].plain)
    # Its condition is 5e5: in float32 an error of a tenth would be no surprise.
    with jax.numpy_dtype_promotion("standard"):
        assert off(ops.linear_solve) <= 5e5 * 6e-8 * 5


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            ((3, 2), (3,)),
            "jaxbp.linear_solve: expected a (*n, m, m), b (*n, m); got a (3, 2), b "
            "(3,): a's first axis is 3, a's last is 2.",
        ),
        (
            ((2, 3, 3), (3, 2)),
            "jaxbp.linear_solve: expected a (*n, m, m), b (*n, m); got a (2, 3, 3), b "
            "(3, 2): a's leading axes are (2,), b's are (3,).",
        ),
        (
            ((3, 3), (2, 3, 3)),
            "jaxbp.linear_solve: expected a (*n, m, m), b (*n, m, r); got a (3, 3), b "
            "(2, 3, 3): a's leading axes are (), b's are (2,).",
        ),
    ],
)
def test_what_does_not_chain_is_refused(shapes, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is held below
        ops.linear_solve(*map(jnp.ones, shapes))
    assert str(caught.value) == message


def _temp_bytes(f, a, b):
    def step(a, b, x_bar):
        x, back = jax.vjp(f, a, b)
        return x, back(x_bar)

    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (a, b, b)]
    return jax.jit(step).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("case", CASES, ids=["lu", "positive definite"])
@pytest.mark.optimised
def test_temporary_memory_beside_autodiff(case):
    shapes = (256, 256), (256, 64)
    ours, auto = (_temp_bytes(f, *shapes) for f in (case.function, case.plain))
    assert ours <= 1.1 * auto


def test_a_rule_that_solves_with_the_matrix_itself_is_reported():
    @jax.custom_vjp
    def faulty(a, b):
        return ops.linear_solve(a, b)

    def bwd(res, x_bar):
        a, x = res
        b_bar = ops.linear_solve(a, x_bar)  # not the transpose
        return -b_bar @ x.T, b_bar

    def fwd(a, b):
        x = faulty(a, b)
        return x, (a, x)

    faulty.defvjp(fwd, bwd)
    comparison = compare(faulty, *_arrays(3, 2))
    assert [f.verdict for f in comparison.findings] == ["wrong", "wrong"], comparison
