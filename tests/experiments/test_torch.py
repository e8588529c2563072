"""The networks in PyTorch are ours: the same logits of the same parameters."""

import functools

import jax
import numpy as np
import optax
import pytest

from experiments import _torch
from jaxbp import nets, train

pytest.importorskip("torch", reason="PyTorch is not installed")

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 1)).astype(np.uint8)
TOKENS = np.random.default_rng(1).integers(0, 7, (5, 6)).astype(np.int32)


def _cnn():
    net = nets.cnn((8, 9, 1), 4, channels=(3, 5), hidden=(6,), window=3)
    return net, _torch.convolutional(255), IMAGES, lambda x: x / 255.0


def _lstm():
    net = nets.lstm_language_model(7, width=3, hidden=4)
    return net, _torch.lstm_language_model, TOKENS, lambda x: x


def _gpt():
    net = nets.gpt(7, context=6, width=8, layers=2, heads=2)
    return net, _torch.gpt(2), TOKENS, lambda x: x


@pytest.mark.parametrize("make", [_cnn, _lstm, _gpt])
def test_logits_are_ours(make):
    net, network, given, scaled = make()
    params = _disturbed(net.init(KEY))
    rows = given, np.zeros(len(given), int)
    theirs = _torch.fitted(network, params, rows, rate=0.0, batch=5, steps=0, seed=0)
    np.testing.assert_allclose(
        theirs.logits(given), net.forward(params, scaled(given)), rtol=1e-10, atol=1e-12
    )


def test_logits_of_the_character_model_are_ours_and_its_state():
    net = nets.character_model(7, context=3, width=4, hidden=5)
    params, contexts = _disturbed(net.init(KEY)), TOKENS[:, :3]
    rows, state = (contexts, contexts[:, 0]), net.init_state()
    how = {"rate": 0.0, "batch": 5, "steps": 30, "seed": 0}
    theirs = _torch.fitted(_torch.character_model(), params, rows, **how)
    for _ in range(how["steps"]):
        _, state = net.loss(params, rows, state=state)
    ours = net.forward(params, contexts, state=state)
    np.testing.assert_allclose(theirs.logits(contexts), ours, rtol=1e-10, atol=1e-12)


def test_it_walks_the_way_that_fit_does():
    """Over three epochs, of each of which a row is left out."""
    net, network, images, scaled = _cnn()
    start = net.init(KEY)
    images = np.concatenate([images, 255 - images])[:7]
    labels = np.arange(7) % 4
    theirs = _torch.fitted(
        network, start, (images, labels), rate=0.01, batch=3, steps=6, seed=5
    )
    with jax.numpy_dtype_promotion("standard"):  # which optax's schedules ask for
        ours = train.fit(
            net.loss,
            start,
            (scaled(images), labels),
            optax.adam(optax.cosine_decay_schedule(0.01, 6)),
            steps=6,
            batch_size=3,
            seed=5,
            on_log=lambda entry: None,
        )
    # Adam's first step is a gradient over its own size: where that is nearly zero, a
    # difference of roundoff is a large part of it.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-9),
        theirs.params,
        ours.params,
    )


def _disturbed(params):
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(2)
    moved = [x + 0.1 * rng.standard_normal(x.shape) for x in leaves]
    return jax.tree.unflatten(tree, moved)
