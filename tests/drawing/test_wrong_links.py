"""Both gradients on one graph, and the first wrong link counted from the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import graph, nets, ops
from tests.drawing.wrong import tripled

X = np.linspace(-0.7, 0.9, 4)


def test_both_gradients_stand_there_and_the_wrong_link_is_marked():
    g = graph(lambda x: tripled(ops.sigmoid(tripled(x))).sum(), X)
    for wire in ("x", "v1"):
        ratio = g.wires[wire].gradient / g.wires[wire].autodiff
        np.testing.assert_allclose(ratio, 2.25 if wire == "x" else 1.5)
        assert g.wires[wire].units > 1e14
    assert g.wires["v3"].units == 0
    assert g.wrong.nodes == ("3",)  # the one nearer to the loss
    assert (g.wrong.rule, g.wrong.verdict) == ("tripled", "wrong")
    assert not g.ok
    assert "first wrong link from the loss: tripled" in str(g)
    (marked,) = (line for line in str(g).splitlines() if "←" in line)
    assert marked.startswith("v3 = ")


@pytest.mark.parametrize(
    ("op", "wire", "made"),
    [("sigmoid_bwd", "a1", "h1"), ("softmax_bwd", "a2", "yhat")],
)
def test_a_wrong_link_of_a_chain_is_the_marked_node(monkeypatch, op, wire, made):
    net = nets.mlp((4, 4, 2), output="softmax")
    params = net.init(jax.random.key(0))
    batch = jnp.array([2.0, 5, 3, 3]), jnp.array([1.0, 0])
    right = graph(net.loss, params, batch)
    assert right.wrong is None
    assert right.ok

    real = getattr(ops, op)
    monkeypatch.setattr(ops, op, lambda res, y_bar: (-real(res, y_bar)[0],))
    g = graph(net.loss, params, batch)
    assert g.wrong.wire == wire
    (marked,) = map(g.node, g.wrong.nodes)
    assert made in marked.outputs
    assert g.check.ok  # it is what jax.grad gives


def test_what_autodiff_does_not_get_through_has_no_gradient_by_it():
    @jax.custom_vjp
    def doubled(x):
        """Of a loop that JAX has no VJP of: 8x + 7 at 0.5."""
        return jax.lax.while_loop(lambda c: c < 10, lambda c: 2 * c + 1, x)

    doubled.defvjp(lambda x: (doubled(x), None), lambda res, y_bar: (16 * y_bar,))
    aside = graph(lambda x: tripled(x) + jax.lax.stop_gradient(doubled(x)), 0.5)
    assert aside.wires["x"].autodiff == 2
    g = graph(lambda x: doubled(jnp.sin(x)) + x, 0.5)
    for wire in ("x", "v1"):
        assert g.wires[wire].autodiff is None
        assert g.wires[wire].gradient is not None
    assert g.wires["v2"].autodiff == 1
    (rule,) = (n for n in g.nodes if n.kind == "rule")
    assert (rule.expression, rule.edges[0].vjp) == (
        "doubled(v1)",
        "by doubled's rule",
    )


def test_an_argument_that_alone_is_wrong_marks_the_node_that_reads_it(monkeypatch):
    net = nets.mlp((4, 4, 2), output="softmax")
    params = net.init(jax.random.key(0))
    batch = jnp.array([2.0, 5, 3, 3]), jnp.array([1.0, 0])
    real = ops.dense_bwd

    def wrong(res, y_bar):
        x_bar, w_bar, b_bar = real(res, y_bar)
        return x_bar, w_bar, 2 * b_bar if y_bar.shape == (4,) else b_bar

    monkeypatch.setattr(ops, "dense_bwd", wrong)
    g = graph(net.loss, params, batch)
    (marked,) = map(g.node, g.wrong.nodes)
    assert "a1" in marked.outputs
    assert g.wrong.wire == "params[0]['b']"
