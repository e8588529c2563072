"""Formulas on the edges: evaluated, they are the numbers beside them."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxbp import graph, ops

WORDS = (
    ("−", "-"),
    (" · ", "*"),
    ("²", "**2"),
    ("π", "math.pi"),
    ("^", "**"),
    ("√", "math.sqrt "),
)


def evaluated(formula, values):
    """The number that a formula comes to."""
    for word, python in WORDS:
        formula = formula.replace(word, python)
    formula = re.sub(r"e\*\*\(", "math.exp(", formula)
    formula = re.sub(r"math\.sqrt ([\w.]+|\([^)]*\))", r"math.sqrt(\1)", formula)
    formula = re.sub(r"\b(sin|cos|sinh|cosh|ln|sign) (\w+)", r"\1(\2)", formula)
    formula = re.sub(r"(\d)([a-z])", r"\1*\2", formula)  # 2y
    formula = re.sub(r"\b([xyz])\(", r"\1*(", formula)  # y(1 − y)
    formula = re.sub(r"\) ?ln", ")*ln", re.sub(r"(\w) ln", r"\1*ln", formula))
    formula = formula.replace("ln 2", "ln(2)").replace("ln(", "math.log(")
    names = {n: getattr(math, n) for n in ("sin", "cos", "sinh", "cosh")}
    names |= {"math": math, "sign": np.sign}
    return eval(formula, names, values)


UNARY = [jnp.abs, jnp.sin, jnp.cos, jnp.tan, jnp.arcsin, jnp.arctan, jnp.sinh, jnp.cosh]
UNARY += [jnp.tanh, jnp.exp, jnp.exp2, jnp.expm1, jnp.log, jnp.log1p, jnp.sqrt]
UNARY += [lax.rsqrt, lax.logistic, lax.erf, lax.neg, lax.square]
UNARY += [lambda x: x**2, lambda x: x**3, lambda x: x**4, lambda x: x**-2]
UNARY += [ops.sigmoid, ops.tanh, ops.exp, ops.square, ops.reciprocal, lambda x: 1 / x]


@pytest.mark.parametrize("f", UNARY)
def test_of_one_input_the_formula_is_the_local_derivative(f):
    x = 0.7
    g = graph(f, x)
    (node,) = (n for n in g.flat() if n.edges)
    (edge,) = node.edges
    values = {"x": x, "y": float(g.wires["y"].value)}
    assert edge.local == pytest.approx(float(jax.grad(f)(x)), rel=1e-14)
    assert evaluated(edge.formula, values) == pytest.approx(edge.local, rel=1e-12)


@pytest.mark.parametrize(
    "f", [lax.add, lax.sub, lax.mul, lax.div, lax.pow, lax.atan2, ops.add, ops.multiply]
)
def test_of_two_inputs_the_formulas_are_the_local_derivatives(f):
    x, z = 0.7, -1.3
    x = 1.7 if f is lax.pow else x
    g = graph(lambda x, z: f(x, z), x, z)
    (node,) = (n for n in g.flat() if n.edges)
    values = {"x": x, "z": z, "y": float(g.wires["y"].value)}
    for edge in node.edges:
        assert evaluated(edge.formula, values) == pytest.approx(edge.local, rel=1e-12)


@pytest.mark.parametrize(
    ("n", "value", "local"),
    [
        (2, "x²", "2x"),
        (3, "x^3", "3 · x²"),
        (4, "x^4", "4 · x^3"),
        (-2, "x^(−2)", "−2 · x^(−3)"),
    ],
)
def test_powers_are_written_as_a_person_would(n, value, local):
    (node,) = graph(lambda x: lax.integer_pow(x, n), 0.7).nodes
    assert (node.expression, node.edges[0].formula) == (value, local)


def test_what_a_tie_gives_is_said():
    g = graph(lambda x: jnp.maximum(x, 0.0), 0.0)
    assert g.nodes[0].edges[0].local == 0.5
    assert g.nodes[0].edges[0].formula == "1 where x > 0, ½ at a tie"
    g = graph(lambda x: x.max(), np.ones(2))
    assert g.nodes[0].edges[0].vjp == "y_bar where x is the largest, shared at a tie"
    np.testing.assert_array_equal(g.wires["x"].gradient, [0.5, 0.5])


def test_where_a_product_has_a_0_its_formula_is_a_number():
    x = np.array([2.0, 0.0, 3.0])
    g = graph(jnp.prod, x)
    assert g.nodes[0].edges[0].vjp == "y_bar · Π of the others"
    np.testing.assert_array_equal(g.wires["a"].gradient, [0, 6, 0])


def test_of_a_complex_number_the_magnitude_is_pulled_back_as_written():
    z = np.array(3 - 4j)
    g = graph(jnp.abs, z)
    (edge,) = g.nodes[0].edges
    assert edge.vjp == f"y_bar · conj({edge.wire})/y"
    np.testing.assert_allclose(edge.gradient, np.conj(z) / abs(z), rtol=1e-15)


def test_a_wrong_formula_would_be_seen():
    assert evaluated("y(1 − y)", {"y": 0.25}) == 0.1875
    assert evaluated("y(1 + y)", {"y": 0.25}) != 0.1875


X, W, B = (
    np.arange(6.0).reshape(2, 3) / 7,
    np.arange(12.0).reshape(3, 4) / 5,
    np.ones(4),
)


def test_products_and_sums_are_pulled_back_as_written():
    g = graph(lambda x, w: (x @ w).sum(), X, W)
    (product,) = (n for n in g.nodes if n.label == "dot_general")
    assert product.expression == "x w"
    assert [e.vjp for e in product.edges] == ["v1_bar wᵀ", "xᵀ v1_bar"]
    bar = g.wires["v1"].gradient
    np.testing.assert_allclose(product.edges[0].gradient, bar @ W.T, rtol=1e-14)
    np.testing.assert_allclose(product.edges[1].gradient, X.T @ bar, rtol=1e-14)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_running_sum_says_from_which_end(reverse):
    g = graph(lambda x: (jax.lax.cumsum(x, reverse=reverse) ** 2).sum(), B)
    node = next(n for n in g.nodes if n.label == "cumsum")
    up, down = "running sum of x", f"running sum of {node.outputs[0]}_bar"
    end = " from the end"
    assert node.expression == (up + end if reverse else up)
    assert node.edges[0].vjp == (down if reverse else down + end)
    bar = g.wires[node.outputs[0]].gradient
    back = np.cumsum(bar) if reverse else np.cumsum(bar[::-1])[::-1]
    np.testing.assert_allclose(node.edges[0].gradient, back, rtol=1e-14)


def test_the_ops_of_the_library_have_their_own():
    def f(x, w, b, t):
        return ops.squared_error(ops.softmax(ops.dense(x, w, b)), t).sum()

    g = graph(f, X, W, B, np.ones((2, 4)))
    nodes = {n.label: n for n in g.nodes}
    dense, softmax, error = (nodes[k] for k in ("dense", "softmax", "squared_error"))
    assert dense.expression == "x w + b"
    assert [e.vjp for e in dense.edges] == [
        "v1_bar wᵀ",
        "xᵀ v1_bar",
        "Σ v1_bar over examples",
    ]
    v1, v2 = g.wires["v1"], g.wires["v2"]
    np.testing.assert_allclose(dense.edges[0].gradient, v1.gradient @ W.T)
    np.testing.assert_allclose(dense.edges[2].gradient, v1.gradient.sum(0))
    assert softmax.edges[0].vjp == "v2 · (v2_bar − Σ v2_bar · v2)"
    y, y_bar = v2.value, v2.gradient
    mine = y * (y_bar - (y_bar * y).sum(-1, keepdims=True))
    np.testing.assert_allclose(softmax.edges[0].gradient, mine, rtol=1e-12)
    assert error.edges[0].vjp == "v3_bar · 2(v2 − t)"
    mine = g.wires["v3"].gradient[:, None] * 2 * (y - 1)
    np.testing.assert_allclose(error.edges[0].gradient, mine, rtol=1e-12)


def test_a_rule_of_anothers_with_such_a_name_has_none_of_them():
    @jax.custom_vjp
    def _dense(w, x, b):
        return jnp.exp(x @ w) + b

    def fwd(w, x, b):
        return _dense(w, x, b), ()

    _dense.defvjp(fwd, lambda res, y_bar: (W, X, y_bar.sum(0)))
    g = graph(lambda w: _dense(w, X, B).sum(), W)
    (node,) = (n for n in g.nodes if n.kind == "rule")
    assert node.expression.startswith("dense(w, ")
    assert node.edges[0].vjp == "by dense's rule"
