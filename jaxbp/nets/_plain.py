"""The same models as a careful user writes them for autodiff: the references.

They share the parameters' layout with the networks, and no code.
"""

import jax
import jax.numpy as jnp

EPS = 1e-5


def cross_entropy(logits, labels):
    """Mean over the labels that are not -1."""
    counts = labels != -1
    logs = jax.nn.log_softmax(logits)
    at = jnp.where(counts, labels, 0)[..., None]
    losses = -jnp.take_along_axis(logs, at, axis=-1)[..., 0]
    total = jnp.where(counts, losses, 0).sum()
    return total / jnp.maximum(counts.sum(), 1).astype(total.dtype)


def mlp(params, batch):
    x, y = batch
    for layer in params[:-1]:
        x = jax.nn.sigmoid(x @ layer["w"] + layer["b"])
    logits = x @ params[-1]["w"] + params[-1]["b"]
    return -(y * jax.nn.log_softmax(logits)).sum(-1).mean()


def character_model(params, batch, state, *, momentum):
    contexts, labels = batch
    e = params["C"][contexts].reshape(*contexts.shape[:-1], -1)
    a = e @ params["W1"] + params["b1"]
    n = tuple(range(a.ndim - 1))
    mean, var = a.mean(n), a.var(n)
    a = (a - mean) / jnp.sqrt(var + EPS) * params["bngain"] + params["bnbias"]
    loss = cross_entropy(jnp.tanh(a) @ params["W2"] + params["b2"], labels)
    new = {"mean": mean, "var": var}
    return loss, {k: momentum * state[k] + (1 - momentum) * new[k] for k in new}


def cnn(params, batch):
    x, y = batch
    names = sorted(params)
    for name in names:
        if name.startswith("conv"):
            p = params[name]
            dims = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(
                x, p["w"], (1, 1), "SAME", dimension_numbers=dims
            )
            x = jax.nn.relu(x + p["b"])
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
    x = x.reshape(len(x), -1)
    *hidden, last = (params[name] for name in names if name.startswith("dense"))
    for p in hidden:
        x = jax.nn.relu(x @ p["w"] + p["b"])
    return cross_entropy(x @ last["w"] + last["b"], y)


def lstm_language_model(params, batch, *, hoisted=False):
    """`hoisted`: the products with the inputs of all steps in one, before the scan."""
    tokens, labels = batch
    x, p = params["tokens"][tokens], params["lstm"]
    start = jnp.zeros((*tokens.shape[:-1], len(p["wh"])), x.dtype)
    inputs = x @ p["wx"] + p["b"] if hoisted else x

    def step(state, x):
        h, c = state
        z = (x if hoisted else x @ p["wx"] + p["b"]) + h @ p["wh"]
        i, f, g, o = jnp.split(z, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    _, hs = jax.lax.scan(step, (start, start), jnp.moveaxis(inputs, -2, 0))
    logits = jnp.moveaxis(hs, 0, -2) @ params["head"]["w"] + params["head"]["b"]
    return cross_entropy(logits, labels)


def gpt(params, batch, *, heads, checkpointed=False, loss=cross_entropy):
    tokens, labels = batch
    t = tokens.shape[-1]
    x = params["tokens"][tokens] + params["positions"][:t]
    seen = jnp.tril(jnp.ones((t, t), bool))

    def block(x, p):
        qkv = _norm(x, p["norm1"]) @ p["qkv"]["w"] + p["qkv"]["b"]
        q, k, v = jnp.split(qkv, 3, axis=-1)
        q, k, v = (a.reshape(*a.shape[:-1], heads, -1) for a in (q, k, v))
        s = jnp.einsum("...qhd,...khd->...hqk", q, k) / q.shape[-1] ** 0.5
        weights = jax.nn.softmax(jnp.where(seen, s, -jnp.inf))
        y = jnp.einsum("...hqk,...khd->...qhd", weights, v).reshape(x.shape)
        x = x + y @ p["mix"]["w"] + p["mix"]["b"]
        a = jax.nn.gelu(_norm(x, p["norm2"]) @ p["up"]["w"] + p["up"]["b"])
        return x + a @ p["down"]["w"] + p["down"]["b"], None

    step = jax.checkpoint(block, prevent_cse=False) if checkpointed else block
    x, _ = jax.lax.scan(step, x, params["blocks"])
    return loss(_norm(x, params["norm"]) @ params["head"], labels)


def _norm(x, p):
    if "bias" in p:
        centred = x - x.mean(-1, keepdims=True)
        root = jnp.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
        return centred / root * p["scale"] + p["bias"]
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + EPS) * p["scale"]
