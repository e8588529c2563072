"""Cross-entropies at the ends of their domain, and what their labels may be."""

import jax
import jax.numpy as jnp

from jaxbp import ops


def test_losses_at_certain_labels_stay_finite():
    certain, labels = jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 1.0]])
    for loss in (ops.cross_entropy, ops.binary_cross_entropy):
        value, p_bar = jax.value_and_grad(lambda p, f=loss: f(p, labels)[0])(certain)
        assert value == 0
        assert jnp.isfinite(p_bar).all()
    logits = jnp.array([[1e4, -1e4]])
    for loss in (ops.softmax_cross_entropy, ops.binary_cross_entropy_with_logits):
        value, bar = jax.value_and_grad(lambda x, f=loss: f(x, labels)[0])(logits)
        assert jnp.isfinite(value)
        assert jnp.isfinite(bar).all()


def test_integer_and_boolean_labels_are_numbers():
    logits, classes = jnp.array([[0.3, -1.2]]), jnp.array([[1, 0]])
    as_floats = ops.softmax_cross_entropy(logits, classes.astype(float))
    assert ops.softmax_cross_entropy(logits, classes) == as_floats
    assert ops.softmax_cross_entropy(logits, classes.astype(bool)) == as_floats
