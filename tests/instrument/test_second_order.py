"""compare: the derivative of the derivative, where it is asked for."""

import jax
import numpy as np
from hand_written import rule

from jaxbp import compare

X = jax.random.normal(jax.random.key(0), (4, 3))


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
    message = comparison.findings[0].message
    assert message.startswith("second order")
    assert "no cotangent" not in message  # which the gradient itself is given


def test_second_order_that_cannot_be_asked_is_unproven():
    def slope(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x: np.asarray(2 * x), shape, x)

    f = rule(lambda x: x * x, lambda x, g: (g * slope(x),))
    assert compare(f, X).ok
    comparison = compare(f, X, order=2)
    assert comparison.verdict == "unproven"
    assert "cannot be differentiated again" in comparison.findings[0].message


def test_what_the_first_order_excuses_the_second_does_not_hold_again():
    relu = rule(jax.nn.relu, lambda x, g: (jax.numpy.where(x >= 0, g, 0),))
    at_the_kink = np.array([0.0, 1.0])
    assert compare(relu, at_the_kink).verdict == "kink"
    assert compare(relu, at_the_kink, order=2).verdict == "kink"
    through = rule(jax.numpy.round, lambda x, g: (g,))
    comparison = compare(through, X, order=2, surrogate=True)
    assert comparison.verdict == "surrogate", comparison
