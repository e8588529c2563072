"""The multilayer network against the formulas it stands for."""

import jax
import jax.numpy as jnp
import pytest

from jaxbp import nets

KEY = jax.random.key(3)


def test_forward_is_the_formula():
    net = nets.mlp((2, 3, 2), output="softmax", loss="cross_entropy")
    (one, two), x = net.init(KEY), jax.random.normal(KEY, (4, 2))
    h1 = 1 / (1 + jnp.exp(-(x @ one["w"] + one["b"])))
    expected = jax.nn.softmax(h1 @ two["w"] + two["b"])
    # Two layers of a few roundings each, on numbers below 1.
    assert jnp.abs(net.forward((one, two), x) - expected).max() < 20 * 2.3e-16


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_reduces_over_all_leading_axes(reduction):
    net = nets.mlp((2, 1), loss="squared_error", reduction=reduction)
    params, x = net.init(KEY), jax.random.normal(KEY, (4, 3, 2))
    y = jnp.ones((4, 3, 1))
    errors = ((net.forward(params, x) - y) ** 2).sum(-1)
    expected = errors.mean() if reduction == "mean" else errors.sum()
    assert jnp.abs(net.loss(params, (x, y)) - expected) < 20 * 2.3e-16 * expected


def test_the_chain_can_be_called_without_jax_grad():
    net = nets.mlp((2, 3, 1), output="sigmoid", loss="binary_cross_entropy")
    params, x, y = net.init(KEY), jnp.ones((4, 2)), jnp.zeros((4, 1))
    value, res = net.loss_fwd(params, x, y)
    params_bar, x_bar, y_bar = net.loss_bwd(res, jnp.ones(()))
    assert value == net.loss(params, (x, y))
    gradient = jax.grad(net.loss)(params, (x, y))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, params_bar, gradient))
    assert x_bar.shape == x.shape
    assert y_bar.shape == y.shape


def test_integer_labels_are_cast_and_carry_no_cotangent():
    net = nets.mlp((2, 3), loss="softmax_cross_entropy")
    params, x, y = net.init(KEY), jnp.ones((1, 2)), jnp.array([[0, 1, 0]])
    gradient = jax.grad(net.loss)(params, (x, y))
    expected = jax.grad(net.loss)(params, (x, y.astype(float)))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, gradient, expected))


def test_init_is_glorot_and_reproducible():
    net = nets.mlp((100, 50), bias=False)
    (layer,) = net.init(KEY)
    assert set(layer) == {"w"}
    assert jnp.abs(layer["w"]).max() <= (6 / 150) ** 0.5
    assert jnp.array_equal(layer["w"], net.init(KEY)[0]["w"])


@pytest.mark.optimised
def test_a_batch_costs_no_loop():
    # Large enough that no product is written as a sum of elementwise ones.
    net = nets.mlp((30, 40, 20), loss="softmax_cross_entropy")
    params, batch = net.init(KEY), (jnp.ones((70, 30)), jnp.ones((70, 20)))
    text = jax.jit(jax.grad(net.loss)).lower(params, batch).as_text()
    assert "while" not in text
    assert text.count("dot_general") == 5  # forward 2, weights 2, one hidden
