"""The networks with integer data, tiny: what their tests ask them at."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbp import autodiff, nets
from jaxbp.nets import _plain
from jaxbp.nets.catalogue import with_state
from tests.nets.planted import gradients


class Network(NamedTuple):
    """A loss of one scalar, the plain model's, and arguments for both."""

    function: Callable
    plain: Callable
    args: tuple


def _params(net):
    """Far from init's symmetries: no bias of 0, no scale of 1."""
    leaves, tree = jax.tree.flatten(net.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        p + 0.4 * jax.random.normal(k, p.shape)
        for k, p in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def _tokens(net, shape, vocabulary):
    tokens, labels = (
        jax.random.randint(jax.random.key(k), shape, 0, vocabulary) for k in (2, 3)
    )
    # A token that occurs twice, and a step that does not count.
    tokens = tokens.at[0, :2].set(1)
    return _params(net), (tokens, labels.at[-1, -1].set(-1))


def _gpt(layers, shape=(2, 3), **options):
    sizes = {"context": 4, "width": 4, "layers": layers, "heads": 2, "hidden": 6}
    net = nets.gpt(5, **sizes, **options)
    plain = functools.partial(_plain.gpt, heads=2)
    return Network(net.loss, plain, _tokens(net, shape, 5))


def _lstm():
    net = nets.lstm_language_model(5, width=2, hidden=3)
    return Network(net.loss, _plain.lstm_language_model, _tokens(net, (2, 4), 5))


def _total(loss):
    """Of the loss and the state after it, one scalar that every part moves."""

    def total(params, batch, state):
        value, state = loss(params, batch, state)
        weights = jnp.arange(6).astype(value.dtype)
        return value + jnp.vdot(state["mean"], weights) - state["var"].sum()

    return total


def _characters():
    net = nets.character_model(6, context=3, width=2, hidden=6, momentum=0.7)
    contexts = jax.random.randint(jax.random.key(2), (5, 3), 0, 6)
    batch = contexts, jax.random.randint(jax.random.key(3), (5,), 0, 6)
    state = {"mean": jnp.arange(6.0) / 6, "var": jnp.arange(6.0) / 6 + 0.5}
    plain = functools.partial(_plain.character_model, momentum=0.7)
    args = _params(net), batch, state
    return Network(_total(with_state(net)), _total(plain), args)


def _cnn():
    net = nets.cnn((5, 4, 2), 3, channels=(2, 3), hidden=(4,), window=3)
    x = jax.random.normal(jax.random.key(2), (3, 5, 4, 2))
    y = jax.random.randint(jax.random.key(3), (3,), 0, 3)
    return Network(net.loss, _plain.cnn, (_params(net), (x, y)))


with jax.enable_x64(True):
    NETWORKS = {
        "gpt, one block": _gpt(1),
        "gpt, recomputed": _gpt(2, norm="rms"),
        "gpt, kept": _gpt(2, recompute=False),
        "lstm": _lstm(),
        "characters": _characters(),
        "images": _cnn(),
    }


@functools.cache
def by_autodiff(name):
    """The gradient of a network with all hand-written rules removed."""
    network = NETWORKS[name]
    return gradients(autodiff(network.function), *network.args)
