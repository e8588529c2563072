"""The networks in PyTorch, and their losses: what the experiments train beside ours.

Imported where PyTorch is installed.
"""

from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

from benchmarks._pytorch import Peer
from experiments import _torch

_MOMENTUM = 0.999  # of the character model's running statistics
_EPS = 1e-5


def peer_of(case: Any) -> Peer:
    """The loss of the network of the case."""
    name, *_ = case.name.split(",")
    return _PEERS[name]


def _of_classes(network: _torch.Network) -> Peer:
    def loss(params, batch):
        logits = network(params, batch[0], True).flatten(0, -2)
        return F.cross_entropy(logits, batch[1].flatten().long())

    return loss


def _mlp(params, batch):
    h, y = batch
    *hidden, last = params
    for layer in hidden:
        h = torch.sigmoid(h @ layer["w"] + layer["b"])
    return F.cross_entropy(h @ last["w"] + last["b"], y)


def _character_model(params, batch, state):
    """With gradients of the running statistics, which PyTorch's batch norm has not."""
    contexts, labels = batch
    before = params["C"][contexts.long()].flatten(1) @ params["W1"] + params["b1"]
    moved = {"mean": before.mean(dim=0), "var": before.var(dim=0, correction=0)}
    state = {k: _MOMENTUM * state[k] + (1 - _MOMENTUM) * moved[k] for k in state}
    scaled = params["bngain"], params["bnbias"]
    normed = F.batch_norm(before, None, None, *scaled, training=True, eps=_EPS)
    logits = normed.tanh() @ params["W2"] + params["b2"]
    return F.cross_entropy(logits, labels.long()), state


_PEERS: dict[str, Peer] = {
    "mlp": _mlp,
    "cnn": _of_classes(_torch.convolutional(1)),
    "character_model": _character_model,
    "lstm_language_model": _of_classes(_torch.lstm_language_model),
    "gpt": _of_classes(_torch.gpt(4)),
}
