"""Huber's loss where its two branches meet, and far out."""

import jax
import jax.numpy as jnp
import pytest

from jaxbp import compare, ops


@pytest.mark.parametrize("delta", [0.5, 1.0, 3.0])
def test_the_branches_meet_with_one_value_and_slope(delta):
    loss = lambda p: ops.huber_loss(p, jnp.zeros(1), delta=delta)
    for sign in (1, -1):
        value, bar = jax.value_and_grad(loss)(jnp.array([sign * delta]))
        assert value == delta * delta / 2
        assert bar[0] == sign * delta


def test_a_far_outlier_overflows_neither_value_nor_gradient():
    p = jnp.array([3e38], "float32")
    value, bar = jax.value_and_grad(ops.huber_loss)(p, jnp.zeros(1, "float32"))
    assert value == p[0]
    assert bar[0] == 1


def test_a_rule_that_forgets_the_clip_is_reported():
    @jax.custom_vjp
    def loss(p, t):
        return ops.huber_loss(p, t)

    def bwd(difference, bar):
        p_bar = difference * bar[..., None]
        return p_bar, -p_bar

    loss.defvjp(lambda p, t: (loss(p, t), p - t), bwd)
    p, t = jnp.array([[0.3, 4.0]]), jnp.array([[0.1, -2.0]])
    comparison = compare(loss, p, t)
    assert {f.verdict for f in comparison.findings} == {"wrong"}
    assert [f.worst.index for f in comparison.findings] == [(0, 1), (0, 1)]


def test_delta_is_positive():
    for delta in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="expected delta to be positive") as raised:
            ops.huber_loss(jnp.zeros(1), jnp.zeros(1), delta=delta)
        text = f"jaxbp.huber_loss: expected delta to be positive; got {delta}."
        assert str(raised.value) == text
