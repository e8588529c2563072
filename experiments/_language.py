"""Networks that spell names: what they are trained on, asked, and sampled from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _data, _torch
from experiments._data import LETTERS, UNCOUNTED, Names
from jaxbp import nets, train


class Speller(NamedTuple):
    """A network and its training.

    `data` and `tests` are rows to learn and to test; `losses(params)` of every
    character of the test names while it trains; `logits(result, tokens)` of what
    follows each prefix, (n, t, v); `theirs` makes the same network in PyTorch.
    """

    name: str
    loss: Callable[..., Any]
    start: Any
    data: Any
    tests: Any
    losses: Callable[[Any], jax.Array]
    logits: Callable[[train.Result, Any], jax.Array]
    letters: str  # the key of the embedding
    rate: float
    batch: int
    steps: int
    options: dict[str, Any]
    theirs: Callable[[], _torch.Network]


def ninja(names: Names, test: Names, key: jax.Array) -> Speller:
    """The "backprop ninja" model: three characters give the fourth, with batch norm."""
    net = nets.character_model(len(LETTERS), context=3, width=10, hidden=100)
    contexts, labels = _data.windows(test, 3)
    assert net.init_state is not None

    def losses(params):
        return _cross_entropy(net.forward(params, contexts, train=True), labels)

    def logits(result, tokens):
        padded = jnp.pad(tokens, ((0, 0), (2, 0)), constant_values=_data.END)
        at = jnp.arange(tokens.shape[1])[:, None] + jnp.arange(3)
        return net.forward(result.params, padded[:, at], state=result.state)

    return Speller(
        "character model",
        net.loss,
        jax.jit(net.init)(key),
        _data.windows(names, 3),
        (contexts, labels),
        losses,
        logits,
        letters="C",
        rate=0.01,
        batch=128,
        steps=3000,
        options={"has_state": True, "state": net.init_state()},
        theirs=_torch.character_model,
    )


def lstm(names: Names, test: Names, key: jax.Array) -> Speller:
    net = nets.lstm_language_model(len(LETTERS), width=16, hidden=64)
    theirs = lambda: _torch.lstm_language_model
    return _reader("LSTM", net, names, test, key, 0.01, 1000, theirs)


def gpt(names: Names, test: Names, key: jax.Array) -> Speller:
    sizes = {"context": names.tokens.shape[1], "width": 32, "layers": 2, "heads": 4}
    net = nets.gpt(len(LETTERS), **sizes, recompute=False)
    theirs = lambda: _torch.gpt(sizes["heads"])
    return _reader("GPT", net, names, test, key, 0.005, 1000, theirs)


def _reader(name: str, net: nets.Net, names, test, key, rate, steps, theirs) -> Speller:
    """Of a network that reads whole names."""
    counted = test.labels != UNCOUNTED

    def losses(params):
        logits = net.forward(params, test.tokens)
        return _cross_entropy(logits[counted], test.labels[counted])

    return Speller(
        name,
        net.loss,
        jax.jit(net.init)(key),
        tuple(names),
        tuple(test),
        losses,
        lambda result, tokens: net.forward(result.params, tokens),
        letters="tokens",
        rate=rate,
        batch=64,
        steps=steps,
        options={},
        theirs=theirs,
    )


def _cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def character_losses(logits: Callable, names: Names) -> np.ndarray:
    """The loss of every character of the names and of their ends, in their order."""
    counted = names.labels != UNCOUNTED
    found = jax.jit(logits)(jnp.asarray(names.tokens))[counted]
    return np.asarray(_cross_entropy(found, names.labels[counted]))


def sample(logits: Callable, key: jax.Array, count: int, longest: int) -> list[str]:
    """Names drawn letter by letter, each from what the network says comes next."""

    def step(tokens, t):
        drawn = jax.random.categorical(
            jax.random.fold_in(key, t), logits(tokens[:, :-1])[:, t]
        )
        ended = (t > 0) & (tokens[:, t] == _data.END)
        drawn = jnp.where(ended, _data.END, drawn).astype(tokens.dtype)
        return tokens.at[:, t + 1].set(drawn), None

    @jax.jit
    def sampled():
        first = jnp.full((count, longest + 1), _data.END)
        return jax.lax.scan(step, first, jnp.arange(longest))[0]

    return [_data.spelled(row) for row in np.asarray(sampled())[:, 1:]]
