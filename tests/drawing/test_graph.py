"""The graph as data: values, gradients, local derivatives, names, and its own check."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxbp import graph, nets
from jaxbp.drawing import _replay
from tests.drawing.wrong import tripled

A, B, C = 1.0, -2.0, -3.0
X = np.linspace(-0.7, 0.9, 4)


def by_output(g):
    return {name: node for node in g.flat() for name in node.outputs}


def edge(g, output, wire):
    (found,) = (e for e in by_output(g)[output].edges if e.wire == wire)
    return found


def test_the_tutorials_circuit_has_a_value_and_a_gradient_on_every_wire():
    g = graph(nets.three_gates, A, B, C)
    assert (g.inputs, g.outputs) == (("a", "b", "c"), ("f",))
    values = {name: float(w.value) for name, w in g.wires.items()}
    assert values == {"a": 1, "b": -2, "c": -3, "d": -1, "e": 3, "f": values["f"]}
    assert values["f"] == pytest.approx(0.9525741268224334, rel=1e-15)
    expected = {"a": -0.135529979192736, "c": -0.045176659730912, "f": 1.0}
    for name, gradient in expected.items():
        assert g.wires[name].gradient == pytest.approx(gradient, rel=1e-13)
        assert g.wires[name].autodiff == pytest.approx(gradient, rel=1e-13)
    assert edge(g, "e", "d").local == C
    assert edge(g, "e", "c").local == A + B
    assert edge(g, "d", "a").local == edge(g, "d", "b").local == 1
    assert (edge(g, "e", "d").formula, edge(g, "e", "d").vjp) == ("c", "e_bar · c")
    assert by_output(g)["f"].expression == "σ(e)"
    assert edge(g, "f", "e").formula == "f(1 − f)"
    assert g.ok
    assert g.wrong is None


def test_a_rule_is_one_node_that_opens_into_both_passes():
    g = graph(nets.three_gates, A, B, C)
    (rule,) = g.nodes
    assert (rule.label, rule.kind, rule.is_chain) == ("three_gates", "rule", True)
    assert [n.label for n in rule.forward] == ["add", "multiply", "sigmoid"]
    assert all(n.where == ("three_gates",) for n in rule.forward)
    back = rule.backward
    assert {"f_bar", "e_bar", "d_bar", "d", "c", "e"} <= set(back.wires)
    assert back.wires["e_bar"].value == g.wires["e"].gradient
    made = {name for n in back.nodes for name in n.outputs}
    assert {"e_bar", "d_bar"} <= made
    assert "d" not in made  # a residual: the forward pass made it
    for part in back.nodes:
        assert all(e.gradient is None and not e.vjp for e in part.edges)


def test_where_a_variable_branches_its_gradients_add_up():
    g = graph(nets.staged_rational, 3.0, -4.0)
    terms = [float(e.autodiff) for _, e in g.terms("x", opened=True)]
    assert len(terms) == 3
    assert sum(terms) == pytest.approx(float(g.wires["x"].gradient), rel=1e-14)
    assert g.wires["x"].gradient == pytest.approx(2.0595697955721652, rel=1e-14)
    assert edge(g, "xandysqr", "xandy").formula == "2 · xandy"
    assert edge(g, "xandysqr", "xandy").local == -2

    plain = graph(lambda x: (jnp.sin(x) * x + x).sum(), X)
    terms = [e.gradient for _, e in plain.terms("x")]
    assert len(terms) == 3
    np.testing.assert_allclose(sum(terms), plain.wires["x"].gradient, rtol=1e-15)


def test_wires_are_called_as_the_user_calls_them():
    def f(params, *xs, scale):
        y = checkpoint_name(params[0]["w"] * xs[0], "h")
        return {"loss": (jnp.sin(y) * xs[1] * scale).sum(), "n": 3}

    args = [{"w": X}], 2 * X, 3 * X
    g = graph(f, *args, kwargs={"scale": 2.0}, cotangent={"loss": 1.0, "n": None})
    assert g.inputs == ("params[0]['w']", "xs[0]", "xs[1]", "scale")
    assert g.outputs == ("y['loss']",)
    assert "h" in g.wires
    assert [n for n in g.wires if n.startswith("v")] == ["v1", "v2", "v3"]

    def of_one_dict(v):
        return checkpoint_name(v["w1"] * v["x"], "x")

    assert graph(of_one_dict, {"w1": 2.0, "x": 3.0}).inputs == ("w1", "x")
    assert graph(of_one_dict, {"w1": 2.0, "x": 3.0}).outputs == ("x_2",)


def test_data_is_named_too_and_has_no_gradient():
    g = graph(lambda x, rows: x[rows].sum(), X, jnp.array([0, 2, 2]))
    assert g.wires["rows"].kind == "data"
    assert g.wires["rows"].gradient is None
    np.testing.assert_array_equal(g.wires["x"].gradient, [1, 0, 2, 0])
    assert re.search(r"^rows +\[0, 2, 2\] +–$", str(g), re.MULTILINE)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, bool])
def test_data_of_numpy_is_named_though_the_trace_copies_it(dtype):
    def f(x, n, other):
        del other
        return (x * jnp.asarray(n, x.dtype)).sum()

    data = np.array([0, 1, 1, 0], dtype)
    g = graph(f, X, data, 1 - data.astype(int))
    assert g.inputs == ("x", "n")
    assert (g.wires["n"].kind, g.wires["n"].value.dtype) == ("data", dtype)
    assert not any(name.startswith("c") for name in g.wires)


def test_data_that_could_be_either_of_two_arguments_is_a_constant():
    data = np.array([0, 2, 1, 0])
    g = graph(lambda x, n, other: x[n].sum(), X, data, data.copy())
    assert g.wires["c1"].kind == "constant"


def test_keys_are_data_too():
    key = jax.random.key(3)
    g = graph(lambda x, key: (x * jax.random.normal(key, x.shape)).sum(), X, key)
    assert re.search(r"^key +key<fry> +–$", str(g), re.MULTILINE)
    assert json.dumps(g.to_dict())


def test_an_output_that_no_argument_has_a_part_in_is_a_constant():
    g = graph(lambda x: (x, jnp.float32(3)), 1.0, cotangent=(1.0, None))
    assert g.outputs == ("x", "y[1]")
    assert (g.wires["y[1]"].kind, float(g.wires["y[1]"].value)) == ("constant", 3)
    assert re.search(r"^y\[1\] +3 +–$", str(g), re.MULTILINE)


def test_a_derivative_that_is_a_number_stands_there_once():
    text = str(graph(lambda x: x * 3, 2.0))
    assert "∂y/∂x = 3; x_bar += y_bar · 3 = 3" in text
    assert "∂y/∂x = 2x = 4; " in str(graph(jax.lax.square, 2.0))


def test_a_gradient_that_is_not_computed_is_missing_and_never_0():
    def f(x, y):
        return (x * lax.stop_gradient(jnp.exp(y))).sum() + 0 * x.sum()

    g = graph(f, X, X)
    assert g.wires["y"].gradient is None
    assert g.to_dict()["wires"][1]["gradient"] is None
    assert g.check.ok  # where jax.grad says 0


@jax.jit
def layer(x, w):
    return jnp.tanh(x * w)


def test_jitted_functions_and_named_scopes_are_groups():
    def f(x, w):
        with jax.named_scope("encoder"):
            x = layer(jnp.where(x > 0, x, 2 * x), w)
        return layer(layer(x, w), w).sum()

    g = graph(f, X, 2 * X)
    places = list(dict.fromkeys(n.where for n in g.nodes))
    first = ("encoder",), ("encoder", "layer")
    assert tuple(places) == (*first, ("layer",), ("layer #2",), ())


def test_the_check_sees_a_value_or_a_gradient_that_is_not_fs(monkeypatch):
    def f(x):
        return (jnp.sin(x) * x).sum()

    assert graph(f, X).check.value == graph(f, X).check.gradient == 0
    real = _replay.replay
    for part in ("value", "cotangent"):

        def spoiled(*args, part=part):
            *rest, inputs, outputs = args
            value = (outputs if part == "value" else inputs)[0]
            setattr(value, part, getattr(value, part) * (1 + 1e-13))
            return real(*rest, inputs, outputs)

        monkeypatch.setattr("jaxbp.drawing._make.replay", spoiled)
        g = graph(f, X)
        assert not g.check.ok
        assert not g.ok
        assert "NOT FAITHFUL" in str(g)


def test_what_compiling_rounds_otherwise_is_still_faithful():
    @jax.jit
    def f(x):
        return jnp.tanh(x @ x.T).sum() * jnp.exp(x).mean()

    x = jnp.asarray(np.random.default_rng(0).normal(size=(30, 30)), jnp.float32)
    assert graph(f, x).check.ok


def test_what_jax_cannot_differentiate_says_so():
    def f(x):
        aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return (jax.pure_callback(np.sin, aval, x) * x).sum()

    g = graph(f, X)
    assert g.check.gradient is None
    assert "jax.grad has no answer" in str(g)
    assert any("pure_callback: " in note for note in g.notes)


def test_json_holds_it_all():
    def f(x):
        return (tripled(x) / jnp.array([1.0, 0, 1, 1])).sum()

    found = json.loads(json.dumps(graph(f, X).to_dict(), allow_nan=False))
    assert found["schema"] == 1
    assert found["function"] == "f"
    assert found["wires"][0]["value"]["elements"] == X.tolist()
    assert {w["name"] for w in found["wires"]} >= {"x", "v1", "c1", "v2", "y"}
    assert found["nodes"][0]["backward"]["nodes"]
    assert found["outputs"] == ["y"]
    values = {w["name"]: w["value"] for w in found["wires"]}
    assert values["y"]["elements"] == "-inf"


def test_a_request_that_cannot_be_met_is_refused():
    with pytest.raises(TypeError, match=r"jaxbp\.graph: expected f to be a function"):
        graph(3.0)
    with pytest.raises(ValueError, match=r"jaxbp\.graph: expected cotangent to be a t"):
        graph(jnp.sin, X)
    with pytest.raises(TypeError, match=r"expected iteration to be an integer; got f"):
        graph(jnp.sum, X, iteration=0.5)
    with pytest.raises(TypeError, match="call graph outside jit"):
        jax.jit(lambda x: graph(jnp.sum, x))(X)


def test_before_a_loop_without_a_gradient_none_is_claimed():
    def f(x):
        u = 2 * x
        looped = jax.lax.while_loop(lambda v: v < 9, lambda v: 2 * v, u)
        return looped + u * u

    g = graph(f, 0.5)
    (before,) = (n for n in g.nodes if n.edges and n.edges[0].wire == "x")
    assert g.wires["x"].gradient is None
    assert g.wires[before.outputs[0]].gradient is None
    assert g.wires["y"].gradient == 1
