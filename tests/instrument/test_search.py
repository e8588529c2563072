"""effort="full": what ordinary arguments hide is found, and nothing is invented."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ordinary import agrees_with_autodiff

from jaxbp import compare, ops
from jaxbp.instrument._boundaries import boundaries
from jaxbp.instrument._points import points
from jaxbp.instrument._variants import other_lengths

X = jax.random.normal(jax.random.key(0), (4, 3))


def rule(primal, bwd):
    @jax.custom_vjp
    def f(*args):
        return primal(*args)

    def fwd(*args):
        return primal(*args), args if len(args) > 1 else args[0]

    f.defvjp(fwd, bwd)
    return f


def clipped(x):
    return jnp.where(jnp.abs(x) > 40, 40 * jnp.sign(x), x)


def embed(table, ids):
    return table[ids]


HIDDEN = {
    "a length written into the rule": (
        rule(lambda x: x.mean(0), lambda x, g: (jnp.broadcast_to(g / 4, x.shape),)),
        (X,),
    ),
    "an arm that ordinary values do not take": (
        rule(clipped, lambda x, g: (g,)),
        (X,),
    ),
    "zero times infinity at zero": (
        rule(
            lambda x: x * jnp.abs(x),
            lambda x, g: (g * 2 * x * x / jnp.abs(x),),
        ),
        (X,),
    ),
    "an overflow far away": (
        rule(
            lambda x: jnp.logaddexp(x, jnp.zeros_like(x)),
            lambda x, g: (g * jnp.exp(x) / (1 + jnp.exp(x)),),
        ),
        (X,),
    ),
    "repeated indices overwrite one another": (
        rule(
            embed,
            lambda res, g: (jnp.zeros_like(res[0]).at[res[1]].set(g), None),
        ),
        (X, jnp.array([0, 2, 3])),
    ),
    "a mistake that vmap brings out": (
        rule(
            lambda x: x * 2,
            lambda x, g: (2 * g if type(g).__name__ != "BatchTracer" else 3 * g,),
        ),
        (X,),
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_the_callers_point_hides_is_found(name):
    f, args = HIDDEN[name]
    assert agrees_with_autodiff(f, args)  # hidden indeed
    comparison = compare(f, *args, effort="full")
    assert not comparison.ok, comparison
    assert comparison.findings[0].verdict in ("wrong", "broken-contract")


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (ops.softmax_cross_entropy, (X, jax.nn.one_hot(jnp.array([0, 1, 2, 0]), 3))),
        (ops.binary_cross_entropy, (jax.nn.sigmoid(X), jax.nn.sigmoid(-X))),
        (ops.sigmoid, (X,)),
    ],
    ids=["softmax cross-entropy", "binary cross-entropy", "sigmoid"],
)
def test_a_right_rule_stays_right(f, args):
    assert compare(f, *args, effort="full", order=2).ok


def test_second_order_is_compared_where_it_is_asked_for():
    @jax.custom_vjp
    def cube(x):
        return x**3

    def bwd(x, g):  # right, but its own derivative is stopped
        return (3 * jax.lax.stop_gradient(x) ** 2 * g,)

    cube.defvjp(lambda x: (cube(x), x), bwd)
    assert compare(cube, X).ok
    comparison = compare(cube, X, order=2)
    assert comparison.findings[0].verdict in ("wrong", "broken-contract")
    assert comparison.findings[0].message.startswith("second order")


def test_second_order_that_cannot_be_asked_is_unproven():
    def slope(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x: np.asarray(2 * x), shape, x)

    f = rule(lambda x: x * x, lambda x, g: (g * slope(x),))
    assert compare(f, X).ok
    comparison = compare(f, X, order=2)
    assert comparison.verdict == "unproven"
    assert "cannot be differentiated again" in comparison.findings[0].message


def test_boundaries_are_read_from_the_program():
    def f(x):
        return jax.jit(lambda x: jnp.where(x > 2.5, x, jnp.clip(x, -7.0, 2.0)))(x)

    found = boundaries(jax.make_jaxpr(f)(X))
    assert {2.5, -7.0, 2.0} <= set(found)


def test_points_keep_what_an_array_evidently_is():
    probabilities = jax.nn.softmax(X)
    flags = jnp.array([0.0, 1.0, 1.0], X.dtype)
    symmetric = X.T @ X
    inputs = [probabilities, flags, symmetric]
    for point in points(inputs, [0.5], [], seed=0):
        p, f, s = map(np.asarray, point.inputs)
        if "inf" in point.name:
            continue
        assert np.allclose(p.sum(-1), 1, atol=1e-6)
        assert set(np.unique(f)) <= {0, 1}
        assert np.array_equal(s, s.T)


def test_lengths_change_together_wherever_they_occur():
    variants = list(other_lengths((X, jnp.ones(3)), {}))
    shapes = {tuple(np.shape(leaf) for leaf in v.args) for v in variants}
    assert ((4, 1), (1,)) in shapes
    assert ((1, 3), (3,)) in shapes
    assert ((9, 7), (7,)) in shapes
