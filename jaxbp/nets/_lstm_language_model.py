"""The LSTM language model, hand-written from the loss to the embedding."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name as wire
from jaxtyping import Array, Float, Int

from jaxbp import ops
from jaxbp.nets._net import (
    IGNORED,
    Net,
    bound,
    checked_batch,
    checked_integers,
    checked_params,
    checked_size,
)
from jaxbp.ops._sharding import alike

_NAME = "lstm_language_model"
_LOSS = ("mean", IGNORED, 256)  # reduction, ignore_index, chunk


class _Spec(NamedTuple):
    vocabulary: int
    width: int
    hidden: int


def lstm_language_model(vocabulary: int, *, width: int, hidden: int) -> Net:
    r"""LSTM language model: $e_t = E_{i_t}$, $h = \mathrm{lstm}(e)$ from a state of 0,
    and the loss is the cross-entropy of the softmax of $h_t W + b$ over all steps.

    VJP, from the loss down: $\bar h$, $\bar W$, $\bar b$ by the fused loss; $\bar e$
    and the cell's $\bar W_x$, $\bar W_h$, $\bar b$ by the LSTM's rule, from the last
    step to the first; $\bar E$ takes in the row of every token.

    Wires: `emb`, `h`, `loss`; each with its `_bar` in the chain.

    Args:
        vocabulary: how many tokens there are.
        width: of an embedding.
        hidden: units of the LSTM.
    Returns:
        Net. `params` holds `tokens` (v, d), `lstm`: `wx` (d, 4h), `wh` (h, 4h), `b`
        (4h,), and `head`: `w` (h, v), `b` (v,). `init` draws weights uniform in
        [-0.1, 0.1], and biases 0 but for the forget gate's, 1. `loss` takes `batch =
        (tokens, labels)`, integers (*n, t) in [0, v), and is the mean over all steps
        whose label is not -1: a shorter sequence is padded at its end with any token
        and labels of -1, and nothing there counts. A token or another label outside
        gives NaN. `forward(params, tokens)` are logits (*n, t, v). Residuals kept:
        embeddings, outputs and memories of all steps, and, of the fused loss, the
        gradient by its input and by the head. Logits and gates never exist at once.
    Raises:
        ValueError: a size below 1; in `loss` and `forward`, parameters or arrays of
            other shapes, an empty batch.
        TypeError: a size that is no integer; parameters that are not floating, tokens
            or labels that are not integers.
    Source: Zaremba, Sutskever and Vinyals, "Recurrent neural network regularization"
        (2014), §3–4.1; forget bias: Jozefowicz et al. (2015), §2.2.
    """
    sizes = {"vocabulary": vocabulary, "width": width, "hidden": hidden}
    spec = _Spec(**{k: checked_size(_NAME, k, n) for k, n in sizes.items()})
    return bound(_NAME, spec, _init, _forward, _public_loss, _loss_fwd, _loss_bwd)


def _shapes(spec: _Spec) -> dict[str, Any]:
    v, d, h = spec
    return {
        "tokens": (v, d),
        "lstm": {"wx": (d, 4 * h), "wh": (h, 4 * h), "b": (4 * h,)},
        "head": {"w": (h, v), "b": (v,)},
    }


def _init(spec: _Spec, key: jax.Array):
    v, d, h = spec
    keys = jax.random.split(key, 4)
    shapes = (v, d), (d, 4 * h), (h, 4 * h), (h, v)
    tokens, wx, wh, w = (
        jax.random.uniform(k, shape, minval=-0.1, maxval=0.1)
        for k, shape in zip(keys, shapes, strict=True)
    )
    zero = jnp.zeros_like(wx[0])
    b = zero.at[h : 2 * h].set(1)  # the second quarter: the forget gate
    return {
        "tokens": tokens,
        "lstm": {"wx": wx, "wh": wh, "b": b},
        "head": {"w": w, "b": jnp.zeros_like(w[0])},
    }


def _forward(
    spec: _Spec, params, tokens: Int[Array, "*n t"], *, key=None, train: bool = False
) -> Float[Array, "*n t v"]:
    del key, train  # no layer is random, none behaves otherwise in training
    params, tokens = _checked(spec, f"{_NAME}.forward", params, tokens=tokens)
    return ops.dense(_links(params, tokens)[0], **params["head"])


def _public_loss(spec: _Spec, params, batch, *, key=None) -> Float[Array, ""]:
    del key
    name = f"{_NAME}.loss"
    tokens, labels = checked_batch(name, batch, "(tokens, labels)")
    return _loss(spec, *_checked(spec, name, params, tokens=tokens, labels=labels))


def _checked(spec: _Spec, function, params, **arrays):
    expected = ", ".join(f"{name} (*n, t)" for name in arrays)
    values = checked_integers(function, expected, **arrays)
    return alike(checked_params(function, params, _shapes(spec)), *values)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(spec, params, tokens, labels):
    del spec  # it is in the parameters' shapes
    h, _ = _links(params, tokens)
    args = h, params["head"]["w"], labels, params["head"]["b"]
    loss = ops.linear_softmax_cross_entropy(*args, ignore_index=IGNORED)
    return wire(loss, "loss")


def _loss_fwd(spec, params, tokens, labels):
    del spec
    h, res = _links(params, tokens)
    args = h, params["head"]["w"], labels, params["head"]["b"], None
    loss, loss_res = ops.linear_softmax_cross_entropy_fwd(*args, *_LOSS)
    return wire(loss, "loss"), (*res, loss_res)


def _loss_bwd(spec, res, loss_bar):
    del spec
    emb_res, lstm_res, loss_res = res
    h_bar, w_bar, _, b_bar, _ = ops.linear_softmax_cross_entropy_bwd(
        *_LOSS, loss_res, wire(loss_bar, "loss_bar")
    )
    h_bar = wire(h_bar, "h_bar")
    last_bar = jnp.zeros_like(h_bar[..., 0, :])  # nothing follows the last state
    emb_bar, _, _, *lstm_bar, _ = ops.lstm_bwd(lstm_res, (h_bar, (last_bar, last_bar)))
    tokens_bar, _ = ops.embedding_bwd(None, emb_res, wire(emb_bar, "emb_bar"))
    params_bar = {
        "tokens": tokens_bar,
        "lstm": dict(zip(("wx", "wh", "b"), lstm_bar, strict=True)),
        "head": {"w": w_bar, "b": b_bar},
    }
    return params_bar, None, None


_loss.defvjp(_loss_fwd, _loss_bwd)


def _links(params, tokens):
    """What the head is asked of, and what both links below it keep."""
    emb, emb_res = ops.embedding_fwd(params["tokens"], tokens, None)
    emb = wire(emb, "emb")
    wx, wh, b = (params["lstm"][k] for k in ("wx", "wh", "b"))
    start = jnp.broadcast_to(jnp.zeros_like(wh[:, 0]), (*tokens.shape[:-1], len(wh)))
    (h, _), lstm_res = ops.lstm_fwd(emb, start, start, wx, wh, b, None)
    return wire(h, "h"), (emb_res, lstm_res)
