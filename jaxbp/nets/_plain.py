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


def gpt(params, batch, *, heads, checkpointed=False):
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
    return cross_entropy(_norm(x, params["norm"]) @ params["head"], labels)


def _norm(x, p):
    if "bias" in p:
        centred = x - x.mean(-1, keepdims=True)
        root = jnp.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
        return centred / root * p["scale"] + p["bias"]
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + EPS) * p["scale"]
