"""The experiments' networks in PyTorch, where it is installed, from the same start."""

import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments._data import UNCOUNTED

PYTORCH = "PyTorch"
_EPS = 1e-5  # of norms
_STAYS = 0.999  # of the running statistics, in a step

# Tensors are Any: PyTorch is no requirement, and its types need not be there.
Network = Callable[[Any, Any, bool], Any]  # logits of parameters, inputs; in training


class Fitted(NamedTuple):
    """`logits(inputs)` of NumPy arrays, the parameters, the seconds of training."""

    logits: Callable[[np.ndarray], np.ndarray]
    params: Any
    seconds: float


def is_installed() -> bool:
    return importlib.util.find_spec("torch") is not None


def fitted(
    network: Network, start, rows, *, rate: float, batch: int, steps: int, seed: int
) -> Fitted:
    """By Adam, with a rate that falls to 0 as half a cosine does.

    The batches are those of `train.fit`. Labels of -1 do not count.
    """
    import torch  # pyright: ignore[reportMissingImports]

    of_class = torch.nn.functional.cross_entropy
    params = jax.tree.map(lambda p: torch.tensor(np.asarray(p)), start)
    leaves = [p.requires_grad_() for p in jax.tree.leaves(params)]
    inputs, labels = (torch.tensor(np.asarray(a)) for a in rows)
    optimizer = torch.optim.Adam(leaves, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    chosen = [torch.tensor(some) for some in _batches(len(labels), batch, steps, seed)]
    began = time.perf_counter()
    for some in chosen:
        logits = network(params, inputs[some], True).flatten(0, -2)
        wanted = labels[some].flatten().long()
        optimizer.zero_grad()
        of_class(logits, wanted, ignore_index=UNCOUNTED).backward()
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - began

    def logits(asked):
        with torch.no_grad():
            return network(params, torch.tensor(np.asarray(asked)), False).numpy()

    ended = jax.tree.map(lambda p: p.detach().numpy(), params)
    return Fitted(logits, ended, seconds)


def _batches(rows: int, batch: int, steps: int, seed: int) -> list[np.ndarray]:
    """The rows of every step of `train.fit`."""
    key, _ = jax.random.split(jax.random.key(seed))
    epochs = range(-(-steps // (rows // batch)))
    orders = [jax.random.permutation(jax.random.fold_in(key, e), rows) for e in epochs]
    whole = rows - rows % batch
    drawn = [np.asarray(order)[:whole].reshape(-1, batch) for order in orders]
    return [some for epoch in drawn for some in epoch][:steps]


def convolutional(white: int) -> Network:
    """`nets.cnn` of images whose brightest element is `white`."""
    from torch.nn import functional  # pyright: ignore[reportMissingImports]

    def network(params, x, training):
        del training
        convolutions = sorted(name for name in params if name.startswith("conv"))
        *dense, last = sorted(name for name in params if name.startswith("dense"))
        h = (x.to(params[last]["w"].dtype) / white).permute(0, 3, 1, 2)
        for name in convolutions:
            w, b = params[name]["w"].permute(3, 2, 0, 1), params[name]["b"]
            h = functional.conv2d(h, w, b, padding="same")
            h = functional.max_pool2d(functional.relu(h), 2)
        h = h.permute(0, 2, 3, 1).flatten(1)
        for name in dense:
            h = functional.relu(_dense(params[name], h))
        return _dense(params[last], h)

    return network


def character_model() -> Network:
    """`nets.character_model`; its running statistics are kept beside the parameters."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional  # pyright: ignore[reportMissingImports]

    running: list[Any] = []

    def network(params, contexts, training):
        embedded = params["C"][contexts.long()].flatten(1)
        before = embedded @ params["W1"] + params["b1"]
        if not running:
            zero = torch.zeros_like(params["b1"].detach())
            running.extend((zero, zero + 1))
        if training:  # as ours does; PyTorch's own divides the variance by n - 1
            now = before.detach()
            running[0].lerp_(now.mean(dim=0), 1 - _STAYS)
            running[1].lerp_(now.var(dim=0, correction=0), 1 - _STAYS)
        seen = (None, None) if training else running
        scaled = params["bngain"], params["bnbias"]
        normed = functional.batch_norm(before, *seen, *scaled, training, eps=_EPS)
        return normed.tanh() @ params["W2"] + params["b2"]

    return network


def lstm_language_model(params, tokens, training):
    """`nets.lstm_language_model`."""
    import torch  # pyright: ignore[reportMissingImports]

    del training
    embedded, cell = params["tokens"][tokens.long()], params["lstm"]
    sizes = embedded.shape[-1], cell["wh"].shape[0]
    layer = torch.nn.LSTM(*sizes, batch_first=True, dtype=embedded.dtype)
    given = {
        "weight_ih_l0": cell["wx"].T,
        "weight_hh_l0": cell["wh"].T,
        "bias_ih_l0": cell["b"],
        "bias_hh_l0": torch.zeros_like(cell["b"]),
    }
    h, _ = torch.func.functional_call(layer, given, (embedded,))
    return _dense(params["head"], h)


def gpt(heads: int) -> Network:
    """`nets.gpt` with layer norms."""
    from torch.nn import functional  # pyright: ignore[reportMissingImports]

    def norm(params, x):
        given = params["scale"], params["bias"], _EPS
        return functional.layer_norm(x, x.shape[-1:], *given)

    def mixed(params, x):
        n, t, d = x.shape
        parts = _dense(params["qkv"], norm(params["norm1"], x)).chunk(3, dim=-1)
        q, k, v = (p.view(n, t, heads, d // heads).transpose(1, 2) for p in parts)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return _dense(params["mix"], seen.transpose(1, 2).reshape(n, t, d))

    def fed(params, x):
        a = _dense(params["up"], norm(params["norm2"], x))
        return _dense(params["down"], functional.gelu(a, approximate="tanh"))

    def network(params, tokens, training):
        del training
        x = params["tokens"][tokens.long()] + params["positions"][: tokens.shape[1]]
        for layer in range(len(params["blocks"]["up"]["b"])):
            block = jax.tree.map(lambda p, k=layer: p[k], params["blocks"])
            x = x + mixed(block, x)
            x = x + fed(block, x)
        return norm(params["norm"], x) @ params["head"]

    return network


def _dense(layer, x):
    return x @ layer["w"] + layer["b"]
