"""compare: whom a rule is held against, and the gradients that each gives."""

import jax
import jax.numpy as jnp
import numpy as np
from hand_written import W, X, product, product_bwd, rule

from jaxbp import compare


def test_without_autodiff_the_numeric_derivative_judges():
    def root(a):  # Newton's iteration for the square root
        def step(s):
            return s[0] / 2 + a / (2 * s[0]), s[0]

        return jax.lax.while_loop(lambda s: abs(s[0] - s[1]) > 1e-12, step, (a, 0 * a))[
            0
        ]

    right = compare(rule(root, lambda a, y_bar: (y_bar / (2 * jnp.sqrt(a)),)), 2.0)
    assert right.verdict == "right", right
    assert "no autodiff" in right.note
    wrong = compare(rule(root, lambda a, y_bar: (y_bar / jnp.sqrt(a),)), 2.0)
    assert wrong.verdict == "wrong"


def test_a_reference_stands_in_autodiffs_place():
    f = rule(product, product_bwd)
    assert compare(f, X, W, reference=product).ok
    assert not compare(f, X, W, reference=lambda x, w: product(x, 2 * w)).ok


def test_another_function_for_a_reference_is_told_as_that():
    def one_more(x, w):
        return product(x, w) + 1

    found = compare(rule(product, product_bwd), X, W, reference=one_more)
    assert found.findings[0].message == "f's value is not the reference's"
    assert [f.verdict for f in found.findings] == ["broken-contract", "right", "right"]


def test_a_scalar_functions_pullback_is_its_gradient():
    def cubes(x):
        return jnp.sum(x**3)

    x = X.astype(jnp.float64)
    comparison = compare(rule(cubes, lambda x, g: (3 * x**2 * g,)), x, numeric=True)
    np.testing.assert_allclose(comparison.manual[0], 3 * x**2, rtol=1e-15)
    np.testing.assert_allclose(comparison.numeric[0], 3 * x**2, rtol=1e-9)


def test_pytrees_data_and_static_arguments_stay_in_place():
    @jax.custom_vjp
    def f(params, n, x):
        return {"y": params["w"] * x[n], "n": n}

    def fwd(params, n, x):
        return f(params, n, x), (params["w"], x, n)

    def bwd(res, out_bar):
        w, x, n = res
        y_bar = out_bar["y"]
        return {"w": x[n] * y_bar}, None, jnp.zeros_like(x).at[n].set(w * y_bar)

    f.defvjp(fwd, bwd)

    def g(params, n, *, x, mode, skip):
        assert (mode, skip) == ("on", None)
        return f(params, n, x)

    options = {"x": X[0], "mode": "on", "skip": None}
    comparison = compare(g, {"w": 2.0}, 1, kwargs=options)
    assert comparison.verdict == "right", comparison
    assert [f.argument for f in comparison.findings] == ["[0]['w']", "['x']"]
    assert comparison.manual[1] is None
    assert comparison.manual[0]["w"].shape == ()
