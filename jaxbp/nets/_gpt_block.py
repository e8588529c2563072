"""One pre-norm block of a transformer: attention, then a dense pair, each added on.

Of a block only what products and the attention gave is kept: its input, what the
attention keeps, the sum after it and the activation's input. Norms and the activation
cost one sweep and are made again; weights are the parameters'.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name as wire

from jaxbp import ops

EPS = 1e-5
_TANH = True  # which gelu


def attend(q, k, v):
    """Causal attention in a call that is not differentiated: nothing is kept."""
    return ops.attention(q, k, v, causal=True), None


def attend_fwd(q, k, v):
    return ops.attention_fwd(q, k, v, None, True, None, None)


def block_fwd(heads: int, params, x, attention: Callable = attend_fwd, name=wire):
    """The block's output, and what is kept of it; its wires named by `name`."""
    u, (attention_res,) = _mixed(heads, params, x, attention, name)
    y, (a,) = _fed(params, u, name)
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y)
    return y, (x, attention_res, u, a)


def block_bwd(params, kept, y_bar):
    """Cotangents of the block's input and of its parameters."""
    x, attention_res, u, a = kept
    u_bar, fed_bar = _fed_bwd(params, u, a, wire(y_bar, "y_bar"))
    x_bar, mixed_bar = _mixed_bwd(params, x, attention_res, wire(u_bar, "u_bar"))
    return x_bar, mixed_bar | fed_bar


def _mixed(heads, params, x, attention, name):
    """The first half: every step takes up what it sees in those before it."""
    n1, _ = norm_fwd(params["norm1"], x)
    qkv, _ = ops.dense_fwd(name(n1, "n1"), **params["qkv"])
    q, k, v = _split(name(qkv, "qkv"), 3, heads)
    seen, attention_res = attention(q, k, v)
    seen = name(_joined([seen]), "seen")
    mixed, _ = ops.dense_fwd(seen, **params["mix"])
    u, _ = ops.add_fwd(x, name(mixed, "mixed"))
    return name(u, "u"), (attention_res,)


def _mixed_bwd(params, x, attention_res, u_bar):
    x_bar, mixed_bar = ops.add_bwd((), u_bar)
    y, heads = attention_res[4], attention_res[0].shape[-3]
    mixed_bar = wire(mixed_bar, "mixed_bar")
    seen_bar, mix_bar = _dense_bwd(params["mix"], _joined([y]), mixed_bar)
    (seen_bar,) = _split(wire(seen_bar, "seen_bar"), 1, heads)
    q_bar, k_bar, v_bar, _ = ops.attention_bwd(
        True, None, None, attention_res, seen_bar
    )
    qkv_bar = wire(_joined([q_bar, k_bar, v_bar]), "qkv_bar")
    n1, norm_res = norm_fwd(params["norm1"], x)
    n1_bar, of_qkv = _dense_bwd(params["qkv"], n1, qkv_bar)
    through, norm1_bar = norm_bwd(norm_res, wire(n1_bar, "n1_bar"))
    return x_bar + through, {"norm1": norm1_bar, "qkv": of_qkv, "mix": mix_bar}


def _fed(params, u, name):
    """The second half: every step by itself."""
    n2, _ = norm_fwd(params["norm2"], u)
    a, _ = ops.dense_fwd(name(n2, "n2"), **params["up"])
    a = name(a, "a")
    g, _ = ops.gelu_fwd(a, _TANH)
    fed, _ = ops.dense_fwd(name(g, "g"), **params["down"])
    y, _ = ops.add_fwd(u, name(fed, "fed"))
    return name(y, "y"), (a,)


def _fed_bwd(params, u, a, y_bar):
    u_bar, fed_bar = ops.add_bwd((), y_bar)
    g, gelu_res = ops.gelu_fwd(a, _TANH)
    g_bar, down_bar = _dense_bwd(params["down"], g, wire(fed_bar, "fed_bar"))
    (a_bar,) = ops.gelu_bwd(_TANH, gelu_res, wire(g_bar, "g_bar"))
    n2, norm_res = norm_fwd(params["norm2"], u)
    n2_bar, up_bar = _dense_bwd(params["up"], n2, wire(a_bar, "a_bar"))
    through, norm2_bar = norm_bwd(norm_res, wire(n2_bar, "n2_bar"))
    bars = {"norm2": norm2_bar, "up": up_bar, "down": down_bar}
    return u_bar + through, bars


def norm_fwd(params, x):
    """Layer norm, or RMS norm where there is no bias."""
    if "bias" in params:
        return ops.layer_norm_fwd(x, params["scale"], params["bias"], EPS)
    return ops.rms_norm_fwd(x, params["scale"], EPS)


def norm_bwd(res, y_bar) -> tuple[jax.Array, dict[str, Any]]:
    if len(res) == 3:
        x_bar, scale_bar = ops.rms_norm_bwd(EPS, res, y_bar)
        return x_bar, {"scale": scale_bar}
    x_bar, scale_bar, bias_bar = ops.layer_norm_bwd(EPS, res, y_bar)
    return x_bar, {"scale": scale_bar, "bias": bias_bar}


def _dense_bwd(params, x, y_bar):
    x_bar, w_bar, b_bar = ops.dense_bwd((x, params["w"]), y_bar)
    return x_bar, {"w": w_bar, "b": b_bar}


def _split(x, parts: int, heads: int) -> list[jax.Array]:
    """(*n, t, parts · heads · d) as `parts` arrays (*n, heads, t, d)."""
    x = x.reshape(*x.shape[:-1], parts, heads, -1)
    return [jnp.swapaxes(x[..., k, :, :], -2, -3) for k in range(parts)]


def _joined(arrays) -> jax.Array:
    """The opposite of `_split`, and so the way back through it."""
    x = jnp.stack([jnp.swapaxes(a, -2, -3) for a in arrays], axis=-3)
    return x.reshape(*x.shape[:-3], -1)
