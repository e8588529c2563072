"""A function that reads one triangle of a matrix is held along symmetric ones."""

import jax
import jax.numpy as jnp
import pytest
from hand_written import rule
from jax import lax

from jaxbp import audit, compare

ROOT = jax.random.normal(jax.random.key(0), (4, 4))
X = jax.random.normal(jax.random.key(1), (4,))
COVARIANCE = (ROOT @ ROOT.T + ROOT.T @ ROOT) / 2 + jnp.eye(4)
COVARIANCE = (COVARIANCE + COVARIANCE.T) / 2


def log_likelihood(x, covariance):
    """Of a normal distribution; LAPACK's Cholesky reads the lower triangle alone."""
    root = lax.linalg.cholesky(covariance, symmetrize_input=False)
    z = lax.linalg.triangular_solve(root, x[:, None], left_side=True, lower=True)
    return -jnp.sum(z * z) / 2 - jnp.sum(jnp.log(jnp.diagonal(root)))


def pulled_back(spoil):
    def bwd(res, g):
        x, covariance = res
        precision = jnp.linalg.inv(covariance)
        w = precision @ x
        return -g * w, g * spoil((jnp.outer(w, w) - precision) / 2)

    return rule(log_likelihood, bwd)


SYMMETRIC = pulled_back(lambda bar: bar)
SPOILED = {
    "twice": lambda bar: 2 * bar,
    "the diagonal twice": lambda bar: bar + jnp.diag(jnp.diagonal(bar)),
    "no diagonal": lambda bar: bar - jnp.diag(jnp.diagonal(bar)),
}


@pytest.mark.parametrize("effort", ["quick", "full"])
def test_a_symmetric_gradient_is_right_where_one_triangle_is_read(effort):
    comparison = compare(SYMMETRIC, X, COVARIANCE, effort=effort)
    assert comparison.ok, comparison
    assert "held along symmetric matrices" in str(comparison)
    assert audit(lambda x, c: jnp.sin(SYMMETRIC(2 * x, c)), X, COVARIANCE).ok


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_another_one_is_wrong_there(spoil):
    spoiled = pulled_back(spoil)
    assert compare(spoiled, X, COVARIANCE).findings[1].verdict == "wrong"
    found = audit(lambda x, c: jnp.sin(spoiled(2 * x, c)), X, COVARIANCE)
    assert found.findings[0].verdict == "wrong"


def test_a_gradient_in_the_triangle_that_is_read_is_the_numeric_one():
    in_one = pulled_back(lambda bar: jnp.tril(bar) + jnp.tril(bar, -1))
    # Autodiff's is right there in jax 0.12, in 0.10 along symmetric matrices alone.
    assert compare(in_one, X, COVARIANCE).verdict in ("right", "autodiff-wrong")
    assert not compare(pulled_back(jnp.tril), X, COVARIANCE).ok


def test_a_function_of_the_whole_matrix_is_held_in_every_element():
    """Half of a gradient and of its transpose is another one, at any matrix."""

    def bilinear(x, a):
        return x @ (a @ jnp.sin(x))

    def bwd(res, g, own):
        x, a = res
        ax, xa = a @ jnp.sin(x), x @ a
        bar = g * jnp.outer(x, jnp.sin(x))
        return g * (ax + xa * jnp.cos(x)), own * bar + (1 - own) * bar.T

    right = rule(bilinear, lambda res, g: bwd(res, g, own=1))
    wrong = rule(bilinear, lambda res, g: bwd(res, g, own=0.5))
    assert compare(right, X, COVARIANCE).ok
    assert compare(wrong, X, COVARIANCE).findings[1].verdict == "wrong"


def _exponential(equal):
    """Of a symmetric matrix, by its eigenvalues; `equal`: where two of them are."""

    def exponential(a):
        values, vectors = jnp.linalg.eigh((a + a.T) / 2)
        return (vectors * jnp.exp(values)) @ vectors.T

    def bwd(a, g):
        values, vectors = jnp.linalg.eigh((a + a.T) / 2)
        gap = jnp.abs(values[:, None] - values)
        apart = gap != 0
        safe = jnp.where(apart, gap, 1.0)
        larger = jnp.exp(jnp.maximum(values[:, None], values))
        slopes = larger * jnp.where(apart, -jnp.expm1(-safe) / safe, equal)
        slopes = jnp.where(jnp.eye(len(values)) > 0, jnp.exp(values), slopes)
        bar = vectors @ (slopes * (vectors.T @ g @ vectors)) @ vectors.T
        return ((bar + bar.T) / 2,)

    return rule(exponential, bwd)


def test_no_matrices_are_asked_nothing():
    trace = rule(lambda a: jnp.einsum("nii->n", a), lambda a, g: (0 * a,))
    assert compare(trace, jnp.zeros((0, 3, 3))).verdict == "unproven"


def test_eigenvalues_are_asked_to_be_equal():
    assert compare(_exponential(equal=1.0), COVARIANCE).ok
    found = compare(_exponential(equal=0.0), COVARIANCE)
    assert found.verdict == "wrong", found
    assert found.findings[0].message.startswith("a multiple of the identity"), found


def test_a_limit_that_is_reached_at_the_callers_point_alone_is_held_there_alone():
    """A ray in one dimension has no direction of length one."""

    def march(origin, direction, center):
        def step(t, _):
            return t + jnp.linalg.norm(origin + t * direction - center) - 1, None

        return lax.scan(step, jnp.zeros_like(center[0]), length=60)[0]

    def bwd(res, g, factor=1.0):
        origin, direction, center, t = res
        normal = origin + t * direction - center
        bar = -factor * g * normal / (normal @ direction)
        return bar, t * bar, -bar

    def fwd(*args):
        t = march(*args)
        return t, (*args, t)

    direction = jnp.array([0.1, 0.05, 1.0])
    direction = direction / jnp.linalg.norm(direction)
    args = jnp.array([0.1, -0.2, -3.0]), direction, jnp.array([0.0, 0.1, 0.2])
    comparison = compare(rule(march, bwd, fwd), *args, effort="full")
    assert comparison.ok, comparison
    wrong = rule(march, lambda res, g: bwd(res, g, factor=0.99), fwd)
    assert not compare(wrong, *args).ok
