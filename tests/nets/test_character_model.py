"""The character model: its running state, init, errors."""

import jax
import jax.numpy as jnp
import pytest

from jaxbp import nets

NET = nets.character_model(6, context=3, width=2, hidden=4, momentum=0.9)
with jax.enable_x64(True):
    PARAMS, STATE = NET.init(jax.random.key(0)), NET.init_state()
X = jax.random.randint(jax.random.key(1), (8, 3), 0, 6)
Y = jax.random.randint(jax.random.key(2), (8,), 0, 6)


def test_the_state_moves_towards_the_batch_s_statistics():
    _, state = NET.loss(PARAMS, (X, Y), state=STATE)
    hprebn = PARAMS["C"][X].reshape(8, 6) @ PARAMS["W1"] + PARAMS["b1"]
    for name, batch in (("mean", hprebn.mean(0)), ("var", hprebn.var(0))):
        expected = 0.9 * STATE[name] + 0.1 * batch
        # A few roundings of numbers below 10.
        assert jnp.abs(state[name] - expected).max() <= 10 * 10 * 2.3e-16


def test_inference_by_the_batch_s_own_statistics_is_training():
    net = nets.character_model(6, context=3, width=2, hidden=4, momentum=0.0)
    _, state = net.loss(PARAMS, (X, Y), state=STATE)  # of which nothing stays
    logits = net.forward(PARAMS, X, state=state)
    assert jnp.allclose(logits, net.forward(PARAMS, X, train=True), rtol=0, atol=1e-14)
    one = net.forward(PARAMS, X[:1], state=state)
    assert jnp.allclose(one, logits[:1], rtol=0, atol=1e-14)


def test_the_chain_can_be_called_without_jax_grad():
    (value, state), res = NET.loss_fwd(PARAMS, X, Y, STATE)
    nothing = jax.tree.map(jnp.zeros_like, state)
    bars = NET.loss_bwd(res, (jnp.ones_like(value), nothing))
    params_bar, x_bar, y_bar, state_bar = bars
    assert (x_bar, y_bar) == (None, None)
    assert not any(bar.any() for bar in state_bar.values())
    step = jax.value_and_grad(lambda p: NET.loss(p, (X, Y), state=STATE), has_aux=True)
    (same, _), gradient = step(PARAMS)
    assert abs(same - value) <= 4 * 2.3e-16
    # The norm takes off whatever is added to every example.
    assert jnp.abs(gradient["b1"]).max() <= 10 * 2.3e-16
    for bar, expected in zip(
        *map(jax.tree.leaves, (params_bar, gradient)), strict=True
    ):
        assert jnp.abs(bar - expected).max() <= 1e-15


def test_training_by_the_chain_lowers_the_loss():
    step = jax.jit(jax.value_and_grad(NET.loss, has_aux=True))
    params, state, losses = PARAMS, STATE, []
    for _ in range(30):
        (loss, state), bars = step(params, (X, Y), state=state)
        params = jax.tree.map(lambda p, bar: p - 0.5 * bar, params, bars)
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_init_is_the_tutorial_s():
    params = nets.character_model(27, context=3, width=10, hidden=3000).init(
        jax.random.key(0)
    )
    # Of 90,000 draws the deviation is within 2 % by eight of its own.
    assert abs(params["W1"].std() / (5 / 3 / 30**0.5) - 1) <= 0.02
    assert abs(params["W2"].std() / (0.1 / 3000**0.5) - 1) <= 0.02
    assert (params["bngain"] == 1).all()
    assert not params["b1"].any()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: nets.character_model(6, context=3, width=2, hidden=4, momentum=1.5),
            ValueError,
            ": expected momentum to be in [0, 1]; got 1.5.",
        ),
        (
            lambda: nets.character_model(6, context=True, width=2, hidden=4),
            TypeError,
            ": expected context to be an integer; got bool True.",
        ),
        (
            lambda: NET.loss(PARAMS, (X[:, :2], Y), state=STATE),
            ValueError,
            ".loss: expected contexts (*n, 3), labels (*n); got contexts (8, 2), "
            "labels (8,): contexts's last axis is 2, not 3.",
        ),
        (
            lambda: NET.loss(PARAMS, (X, Y), state={"mean": STATE["mean"]}),
            ValueError,
            ".loss: expected state to be a dict with mean, var; got mean.",
        ),
        (
            lambda: NET.forward(PARAMS, X),
            ValueError,
            ".forward: expected state to be a dict with mean, var; got a NoneType.",
        ),
        (
            lambda: NET.loss(
                PARAMS,
                (X, Y),
                state=jax.tree.map(lambda s: s.astype("float32"), STATE),
            ),
            TypeError,
            ".loss: expected params, state of one dtype; got params float64 (4,), "
            "state float32 (4,): cast them to one, a rule never changes dtype.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, text):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == f"jaxbp.character_model{text}"
