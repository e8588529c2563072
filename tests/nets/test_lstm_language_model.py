"""The LSTM language model: padding, what is kept, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import nets
from jaxbp.nets import _plain
from tests.nets.memory import residual_bytes, shapes_of, temp_bytes
from tests.nets.networks import NETWORKS
from tests.nets.planted import evaluated, gradients

NET = nets.lstm_language_model(5, width=2, hidden=3)
PARAMS, (TOKENS, LABELS) = NETWORKS["lstm"].args


def test_the_loss_is_the_cross_entropy_of_the_logits():
    (logits,) = evaluated(NET.forward, PARAMS, TOKENS)
    expected = _plain.cross_entropy(logits, LABELS)
    # A few roundings of numbers below 4.
    (loss,) = evaluated(NET.loss, PARAMS, (TOKENS, LABELS))
    assert abs(loss - expected) <= 20 * 2.3e-16


def test_a_padded_sequence_is_the_sequence():
    labels = LABELS.at[1, 2:].set(-1)
    padded = gradients(lambda p: NET.loss(p, (TOKENS, labels)), PARAMS)
    short = TOKENS.at[1, 2:].set(4)
    other = gradients(lambda p: NET.loss(p, (short, labels)), PARAMS)
    for leaf, bar in padded.items():
        assert np.array_equal(bar, other[leaf])
    pieces = [(TOKENS[:1], labels[:1]), (TOKENS[1:, :2], labels[1:, :2])]

    def one_by_one(params):
        # Four steps count in the first, two in the second.
        first, second = (NET.loss(params, piece) for piece in pieces)
        return (4 * first + 2 * second) / 6

    for leaf, bar in gradients(one_by_one, PARAMS).items():
        assert np.abs(padded[leaf] - bar).max() <= 1e-15


def test_where_no_step_counts_loss_and_gradient_are_0():
    none = jnp.full_like(LABELS, -1)
    assert NET.loss(PARAMS, (TOKENS, none)) == 0
    bars = gradients(lambda p: NET.loss(p, (TOKENS, none)), PARAMS)
    assert not any(bar.any() for bar in bars.values())


def test_init_opens_the_forget_gate():
    params = NET.init(jax.random.key(0))
    assert params["lstm"]["b"].tolist() == [0] * 3 + [1] * 3 + [0] * 6
    for w in (params["tokens"], params["lstm"]["wh"], params["head"]["w"]):
        assert jnp.abs(w).max() <= 0.1


@pytest.mark.optimised
def test_memory_beside_autodiff_of_the_plain_model():
    n, t, d, v = 8, 512, 256, 2048
    net = nets.lstm_language_model(v, width=d, hidden=d)
    params, batch = shapes_of(net, (n, t), (n, t))
    manual, auto = (
        temp_bytes(f, params, batch) for f in (net.loss, _plain.lstm_language_model)
    )
    assert manual <= 0.5 * auto
    # emb, h, c and the loss's h_bar; its w_bar and b_bar; the ids, the cell's weights
    # and the first state.
    cell = sum(p.size for p in params["lstm"].values())
    most = 4 * n * t * d + d * v + v + n * t + cell + 2 * n * d + 8
    assert residual_bytes(net.loss, params, batch) <= 4 * most


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: nets.lstm_language_model(5, width=0, hidden=3),
            ValueError,
            ": expected width to be at least 1; got 0.",
        ),
        (
            lambda: NET.loss(PARAMS | {"lstm": PARAMS["head"]}, (TOKENS, LABELS)),
            ValueError,
            ".loss: expected params['lstm'] to be a dict with wx, wh, b; got b, w.",
        ),
        (
            lambda: NET.forward(PARAMS, TOKENS.astype(float)),
            TypeError,
            ".forward: expected tokens to be integers; got float64 (2, 4).",
        ),
        (
            lambda: NET.loss(PARAMS, (TOKENS, LABELS[:1])),
            ValueError,
            ".loss: expected tokens (*n, t), labels (*n, t); got tokens (2, 4), labels "
            "(1, 4): tokens's leading axes are (2,), labels's are (1,).",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, text):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == f"jaxbp.lstm_language_model{text}"
