"""Every network of the library at the sizes where it is measured."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbp.nets import _plain
from jaxbp.nets._character_model import character_model
from jaxbp.nets._cnn import cnn
from jaxbp.nets._gpt import gpt
from jaxbp.nets._lstm_language_model import lstm_language_model
from jaxbp.nets._mlp import mlp
from jaxbp.nets._net import Net


class Case(NamedTuple):
    """One network in one setting: its loss, and the plain model's.

    `plain` is what a careful user writes for autodiff: the same arguments, no code
    shared. `cost` maps a size to the maker `(key, dtype) -> args` of what is measured
    there; `rivals` names other plain models, `why` is the reason for the chain where it
    is neither faster nor smaller.
    """

    name: str
    function: Callable[..., Any]
    plain: Callable[..., Any]
    cost: Mapping[str, Callable[..., tuple]]
    source: str
    rivals: Mapping[str, Callable[..., Any]] = {}
    why: str = ""


def with_state(net: Net) -> Callable[..., Any]:
    """The loss of a network with running state, all its arguments in their places."""

    def loss(params, batch, state):
        return net.loss(params, batch, state=state)

    return loss


def _params(net: Net, key, dtype):
    return jax.tree.map(lambda p: p.astype(dtype), net.init(key))


def _integers(seed, shape, below):
    """Drawn once: data, whatever the key."""
    drawn = np.random.default_rng(seed).integers(0, below, shape)
    return jnp.asarray(drawn, jnp.int32)


def _tokens(net: Net, shape, vocabulary):
    """Parameters, and sequences with the tokens that follow."""

    def make(key, dtype):
        batch = _integers(0, shape, vocabulary), _integers(1, shape, vocabulary)
        return _params(net, key, dtype), batch

    return make


def _characters(net: Net, examples, context, vocabulary):
    def make(key, dtype):
        contexts = _integers(0, (examples, context), vocabulary)
        batch = contexts, _integers(1, (examples,), vocabulary)
        assert net.init_state is not None
        state = jax.tree.map(lambda s: s.astype(dtype), net.init_state())
        return _params(net, key, dtype), batch, state

    return make


def _vectors(net: Net, examples, inputs, classes):
    def make(key, dtype):
        x = jax.random.normal(key, (examples, inputs), dtype)
        y = jax.nn.one_hot(_integers(0, (examples,), classes), classes, dtype=dtype)
        return _params(net, key, dtype), (x, y)

    return make


def _images(net: Net, examples, shape, classes):
    def make(key, dtype):
        x = jax.random.normal(key, (examples, *shape), dtype)
        return _params(net, key, dtype), (x, _integers(0, (examples,), classes))

    return make


def _optax_loss(logits, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


_mlp = mlp((784, 512, 256, 10), activation="sigmoid", loss="softmax_cross_entropy")
_lenet = cnn((28, 28, 1), 10)
_ninja = character_model(27, context=3, width=10, hidden=64)
_wide = character_model(27, context=8, width=24, hidden=512)
_lstm = lstm_language_model(2048, width=256, hidden=256)
_gpt = functools.partial(gpt, 8192, context=512, width=256, layers=4, heads=4)
_decoder = functools.partial(_plain.gpt, heads=4)
_decoders = {
    "jax.checkpoint of the blocks": functools.partial(_decoder, checkpointed=True),
    "optax's loss": functools.partial(_decoder, loss=_optax_loss),
}
_at_512 = {"4 layers of 256, T=512, B=4, 8k": _tokens(_gpt(), (4, 512), 8192)}
CASES = (
    Case(
        "mlp",
        _mlp.loss,
        _plain.mlp,
        {"784-512-256-10, B=256": _vectors(_mlp, 256, 784, 10)},
        "Nielsen, ch. 2, BP1–BP4",
        why="the chain itself: autodiff's products are the same",
    ),
    Case(
        "cnn",
        _lenet.loss,
        _plain.cnn,
        {"28×28, 6 and 16 channels, B=64": _images(_lenet, 64, (28, 28, 1), 10)},
        "LeCun et al. (1998), §II-B",
    ),
    Case(
        "character_model",
        with_state(_ninja),
        functools.partial(_plain.character_model, momentum=0.999),
        {"n=3, 64 units, B=32": _characters(_ninja, 32, 3, 27)},
        "Karpathy, “Becoming a backprop ninja”",
        why="the chain itself, at the tutorial's size",
    ),
    Case(
        "character_model, wide",
        with_state(_wide),
        functools.partial(_plain.character_model, momentum=0.999),
        {"n=8, 512 units, B=2048": _characters(_wide, 2048, 8, 27)},
        "Karpathy, “Becoming a backprop ninja”",
        why="the chain itself: autodiff's products are the same",
    ),
    Case(
        "lstm_language_model",
        _lstm.loss,
        _plain.lstm_language_model,
        {"256 units, T=512, B=8, 2k": _tokens(_lstm, (8, 512), 2048)},
        "Zaremba et al. (2014)",
        rivals={
            "input product hoisted": functools.partial(
                _plain.lstm_language_model, hoisted=True
            )
        },
    ),
    Case(
        "gpt, recomputed",
        _gpt(recompute=True).loss,
        _decoder,
        _at_512,
        "Radford et al. (2019)",
        rivals=_decoders,
    ),
    Case(
        "gpt, kept",
        _gpt(recompute=False).loss,
        _decoder,
        _at_512,
        "Radford et al. (2019)",
        rivals=_decoders,
    ),
)
