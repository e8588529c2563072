"""audit: what a rule can get wrong, and what it cannot help."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from audited import X, rule, sine
from jax import lax

from jaxbp.instrument._audit import audit


@pytest.mark.parametrize(
    ("bwd", "verdict", "kind"),
    [
        (lambda res, y_bar: (-y_bar * jnp.cos(res[0]),), "wrong", "sign"),
        (lambda res, y_bar: (jnp.cos(res[0]),), "broken-contract", ""),
        (lambda res, y_bar: (None,), "broken-contract", "missing"),
        (lambda res, y_bar: (y_bar[:2],), "broken-contract", ""),
    ],
    ids=["sign", "ignored cotangent", "None", "shape"],
)
def test_each_mistake_has_its_verdict(bwd, verdict, kind):
    (finding,) = audit(lambda x: rule(sine, bwd)(x).sum(), X).findings
    assert (finding.verdict, finding.kind) == (verdict, kind), finding


def test_a_forward_pass_of_another_value_is_a_broken_contract():
    f = jax.custom_vjp(sine)
    f.defvjp(lambda x: (jnp.sin(x) + 1, x), lambda x, y_bar: (y_bar * jnp.cos(x),))
    (finding,) = audit(lambda x: f(x).sum(), X).findings
    assert (finding.verdict, finding.argument) == ("broken-contract", "value")


def test_the_argument_at_fault_is_named():
    def product(params, x):
        return params["w"] * x

    def product_fwd(params, x):
        return product(params, x), x

    f = jax.custom_vjp(product)
    f.defvjp(product_fwd, lambda x, y_bar: ({"w": y_bar * x}, y_bar * x))
    (finding,) = audit(lambda w, x: f({"w": w}, x).sum(), X, 2 * X).findings
    assert (finding.argument, finding.verdict) == ("x", "wrong")


def test_swapped_arguments_are_named_as_such():
    def product(x, y):
        return x * y

    def product_fwd(x, y):
        return product(x, y), (x, y)

    f = jax.custom_vjp(product)
    f.defvjp(product_fwd, lambda res, p_bar: (p_bar * res[0], p_bar * res[1]))
    (finding,) = audit(lambda x, y: f(x, y).sum(), X, jnp.cos(X)).findings
    assert (finding.verdict, finding.kind) == ("wrong", "swapped")


def test_custom_jvp_and_custom_gradient_are_asked():
    @jax.custom_jvp
    def square(x):
        return x * x

    square.defjvps(lambda x_dot, y, x: 3 * x * x_dot)

    @jax.custom_gradient
    def cube(x):
        return x**3, lambda y_bar: 3 * x**2 * y_bar

    square_finding, cube_finding = audit(lambda x: square(cube(x)).sum(), X).findings
    assert (square_finding.verdict, square_finding.kind) == ("wrong", "factor")
    assert cube_finding.verdict == "right"


def test_jaxs_own_rules_are_asked_and_a_kink_is_no_mistake():
    (finding,) = audit(lambda x: jax.nn.relu(x).sum(), jnp.array([-1.0, 0, 2])).findings
    assert finding.rule == "relu"
    assert finding.verdict == "kink"


def host_sine(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(lambda x: np.sin(x), shape, x, vmap_method="sequential")


def root(x):
    return lax.while_loop(
        lambda y: jnp.abs(y * y - x).max() > 1e-14 * x.max(),
        lambda y: (y + x / y) / 2,
        x,
    )


@pytest.mark.parametrize(
    ("primal", "slope"),
    [(host_sine, jnp.cos), (root, lambda x: 0.5 / jnp.sqrt(x))],
    ids=["callback", "while"],
)
def test_a_primal_without_autodiff_is_held_against_the_numeric_derivative(
    primal, slope
):
    x = jnp.array([0.7, 1.9])
    hand = rule(primal, lambda res, y_bar: (y_bar * slope(res[0]),))
    off = rule(primal, lambda res, y_bar: (1.01 * y_bar * slope(res[0]),))
    assert audit(lambda x: hand(x).sum(), x).verdict == "right"
    assert audit(lambda x: off(x).sum(), x).verdict == "wrong"


def test_what_custom_root_takes_twice_is_differentiated_as_one():
    def f(x):
        def excess(y):
            return y**3 - x

        def solve(g, y):
            return lax.fori_loop(0, 60, lambda k, y: y - g(y) / (3 * y**2), y)

        start = jnp.ones_like(x)
        return lax.custom_root(excess, start, solve, lambda g, y: y / g(1.0))

    found = audit(f, 2.0)
    assert found.verdict in ("right", "autodiff-wrong"), found


def entropy(x):
    return x * jnp.log(x)


@pytest.mark.parametrize("slope", [1.0, 2.0])
def test_an_element_that_is_not_finite_hides_nothing_beside_it(slope):
    f = rule(entropy, lambda res, y_bar: (slope * y_bar * (jnp.log(res[0]) + 1),))
    for point in (jnp.array([0.0, 0.5]), jnp.array([0.5, jnp.inf])):
        (finding,) = audit(lambda x: f(x).sum(), point).findings
        assert finding.verdict == ("right" if slope == 1.0 else "wrong"), finding
