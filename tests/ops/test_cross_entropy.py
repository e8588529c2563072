"""Cross-entropies at the ends of their domain, and what their labels may be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops


def test_losses_at_certain_labels_stay_finite():
    certain, labels = jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 1.0]])
    for loss in (ops.cross_entropy, ops.binary_cross_entropy):
        value, p_bar = jax.value_and_grad(lambda p, f=loss: f(p, labels)[0])(certain)
        assert value == 0
        assert np.isfinite(p_bar).all()
    logits = jnp.array([[1e4, -1e4]])
    for loss in (ops.softmax_cross_entropy, ops.binary_cross_entropy_with_logits):
        value, bar = jax.value_and_grad(lambda x, f=loss: f(x, labels)[0])(logits)
        assert np.isfinite(value)
        assert np.isfinite(bar).all()


def test_integer_and_boolean_labels_are_numbers():
    logits, classes = jnp.array([[0.3, -1.2]]), jnp.array([[1, 0]])
    as_floats = ops.softmax_cross_entropy(logits, classes.astype(float))
    assert ops.softmax_cross_entropy(logits, classes) == as_floats
    assert ops.softmax_cross_entropy(logits, classes.astype(bool)) == as_floats


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("x", [9.0, 20.0, 80.0, -9.0, -80.0])
def test_binary_cross_entropy_is_accurate_near_a_certain_label(x, label):
    loss = lambda x: ops.binary_cross_entropy_with_logits(x, jnp.full(1, label, "f4"))
    value, bar = jax.value_and_grad(loss)(jnp.full(1, x, "float32"))
    away = x if label == 0 else -x
    # exp, log1p, a quotient and a sum: each within an ulp or two of float32.
    exact = np.log1p(np.exp(-abs(x))) + max(away, 0)
    assert abs(float(value) / exact - 1) <= 6 * 1.2e-7
    slope = 1 / (1 + np.exp(-away)) * (1 if label == 0 else -1)
    assert abs(float(bar[0]) / slope - 1) <= 6 * 1.2e-7


def test_binary_cross_entropy_with_a_cancelling_gradient_is_reported_as_less_accurate():
    @jax.custom_vjp
    def loss(x, t):
        return ops.binary_cross_entropy_with_logits(x, t)

    def bwd(res, bar):
        x, t = res
        return (jax.lax.logistic(x) - t) * bar[..., None], -x * bar[..., None]

    loss.defvjp(lambda x, t: (loss(x, t), (x, t)), bwd)
    x, t = jnp.full((1, 2), 16.0, "float32"), jnp.ones((1, 2), "float32")
    verdicts = {f.verdict for f in compare(loss, x, t, accuracy=True).findings}
    assert "less-accurate" in verdicts
    right = compare(ops.binary_cross_entropy_with_logits, x, t, accuracy=True)
    assert right.ok, right
