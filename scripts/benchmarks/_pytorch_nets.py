"""The networks in PyTorch, and their losses: what the experiments train beside ours."""

from typing import Any

from benchmarks._pytorch import Peer
from experiments import _torch

_MOMENTUM = 0.999  # of the character model's running statistics


def peer_of(case: Any) -> Peer:
    """The loss of the network of the case."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

    def of_classes(network):
        def loss(params, batch):
            logits = network(params, batch[0], True).flatten(0, -2)
            return F.cross_entropy(logits, batch[1].flatten().long())

        return loss

    def mlp(params, batch):
        h, y = batch
        *hidden, last = params
        for layer in hidden:
            h = torch.sigmoid(h @ layer["w"] + layer["b"])
        return F.cross_entropy(h @ last["w"] + last["b"], y)

    def character_model(params, batch, state):
        contexts, labels = batch
        before = params["C"][contexts.long()].flatten(1) @ params["W1"] + params["b1"]
        kept = _MOMENTUM * state["mean"], _MOMENTUM * state["var"]
        moved = before.mean(dim=0), before.var(dim=0, correction=0)
        mean, var = (k + (1 - _MOMENTUM) * m for k, m in zip(kept, moved, strict=True))
        logits = _torch.character_model()(params, contexts, True)
        return F.cross_entropy(logits, labels.long()), {"mean": mean, "var": var}

    name, *_ = case.name.split(",")
    return {
        "mlp": mlp,
        "cnn": of_classes(_torch.convolutional(1)),
        "character_model": character_model,
        "lstm_language_model": of_classes(_torch.lstm_language_model),
        "gpt": of_classes(_torch.gpt(4)),
    }[name]
