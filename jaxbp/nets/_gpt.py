"""GPT: a decoder of pre-norm blocks, scanned forward and backward by hand."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name as wire
from jaxtyping import Array, Float, Int

from jaxbp import ops
from jaxbp._errors import argument_error
from jaxbp.nets._gpt_block import attend, block_bwd, block_fwd, norm_bwd, norm_fwd
from jaxbp.nets._net import (
    IGNORED,
    Net,
    bound,
    checked_batch,
    checked_integers,
    checked_params,
    checked_size,
)
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike

_NORMS = ("layer", "rms")
_LOSS = ("mean", IGNORED, 256)  # reduction, ignore_index, chunk


class _Spec(NamedTuple):
    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    hidden: int
    norm: str
    recompute: bool


def gpt(
    vocabulary: int,
    *,
    context: int,
    width: int,
    layers: int,
    heads: int,
    hidden: int | None = None,
    norm: str = "layer",
    recompute: bool = True,
) -> Net:
    r"""GPT: $x_0 = E_{i} + P$, then for every layer
    $u = x + \mathrm{att}(N_1(x))$, $x \leftarrow u + W_2\,\mathrm{gelu}(W_1 N_2(u))$,
    and the loss is the cross-entropy of the softmax of $N(x_L)\,W$.

    att is causal: $q, k, v$ are a dense layer's thirds, cut into heads, and what the
    heads see is joined and mixed by another; every dense layer in a block has a bias.
    The parameters of all blocks are stacked, and both passes scan over layers.

    VJP, from the loss down: $\bar x_L$ and $\bar W$ by the fused loss and the last
    norm; then for every layer, the last first, with $\bar x$ what arrives:
    $\bar u = \bar x + N_2^*\,W_1^\top\,(\mathrm{gelu}' \cdot W_2^\top\bar x)$ and
    $\bar x \leftarrow \bar u + N_1^*\,\mathrm{att}^*\,\bar u$, where a star is the
    op's rule; at last $\bar P = \sum_n\bar x_0$, and $\bar E$ takes in the row of every
    token.

    Wires: `tok`, `x0`; in every layer `n1`, `qkv`, `seen`, `mixed`, `u`, `n2`, `a`,
    `g`, `fed`, `y`; `last`, `loss`; each with its `_bar` in the chain.

    Args:
        vocabulary: how many tokens there are.
        context: the longest sequence.
        width: of the vectors between blocks; a multiple of `heads`.
        layers: blocks.
        heads: of every attention.
        hidden: width inside a block's dense pair, 4 times `width` if None.
        norm: "layer" or "rms".
        recompute: True keeps each block's input and makes the rest again on the way
            back, one block at a time; False keeps what products and attention gave,
            so that none is computed twice.
    Returns:
        Net. `params` holds `tokens` (v, d), `positions` (context, d), `blocks`, each
        array with an axis of layers in front, `norm`, and `head` (d, v). `init` draws
        weights N(0, 0.02²), those that add onto x divided by $\sqrt{2L}$; biases 0,
        scales 1. `loss` takes `batch = (tokens, labels)`, integers (*n, t) in
        [0, v), and is the mean over all steps whose label is not -1; a token or another
        label outside gives NaN. `forward(params, tokens)` are logits (*n, t, v).
        Residuals kept: of every block its input (*n, t, d), or, not recomputed, that,
        q, k, v, what the heads see and two numbers a query, u and a; and, of the fused
        loss, the gradient by its input and by `head`. Temporary memory grows with t,
        never with t² or t × v.
    Raises:
        ValueError: a size below 1, heads that do not divide `width`, an unknown norm;
            in `loss` and `forward`, parameters or arrays of other shapes, a sequence
            longer than `context`, an empty batch.
        TypeError: a size that is no integer; parameters that are not floating, tokens
            or labels that are not integers.
    Source: Radford et al., "Language models are unsupervised multitask learners"
        (2019), §2.3; weights: Radford et al. (2018), §4.1; Karpathy, nanoGPT.
    """
    sizes = {"vocabulary": vocabulary, "context": context, "width": width}
    sizes |= {"layers": layers, "heads": heads}
    sizes["hidden"] = 4 * width if hidden is None else hidden
    sizes = {name: checked_size("gpt", name, n) for name, n in sizes.items()}
    if width % heads:
        raise argument_error("gpt", "width", f"a multiple of heads, {heads}", width)
    if norm not in _NORMS:
        raise argument_error("gpt", "norm", f"one of {', '.join(_NORMS)}", norm)
    spec = _Spec(**sizes, norm=norm, recompute=bool(recompute))
    return bound("gpt", spec, _init, _forward, _public_loss, _loss_fwd, _loss_bwd)


def _shapes(spec: _Spec) -> dict[str, Any]:
    d, h, n = spec.width, spec.hidden, spec.layers

    def norm(*lead):
        names = ("scale", "bias") if spec.norm == "layer" else ("scale",)
        return dict.fromkeys(names, (*lead, d))

    def dense(i, o):
        return {"w": (n, i, o), "b": (n, o)}

    blocks = {"norm1": norm(n), "qkv": dense(d, 3 * d), "mix": dense(d, d)}
    blocks |= {"norm2": norm(n), "up": dense(d, h), "down": dense(h, d)}
    return {
        "tokens": (spec.vocabulary, d),
        "positions": (spec.context, d),
        "blocks": blocks,
        "norm": norm(),
        "head": (d, spec.vocabulary),
    }


def _init(spec: _Spec, key: jax.Array):
    shapes = _shapes(spec)
    paths, tree = jax.tree.flatten_with_path(
        shapes, is_leaf=lambda x: isinstance(x, tuple)
    )
    keys = jax.random.split(key, len(paths))

    def leaf(key, path, shape):
        name = path[-1].key
        if name in ("scale", "b", "bias"):
            return jnp.full(shape, float(name == "scale"))
        onto = path[-2].key in ("mix", "down") if len(path) > 1 else False
        scale = 0.02 / (2 * spec.layers) ** 0.5 if onto else 0.02
        return scale * jax.random.normal(key, shape)

    leaves = [leaf(k, *pair) for k, pair in zip(keys, paths, strict=True)]
    return jax.tree.unflatten(tree, leaves)


def _forward(
    spec: _Spec, params, tokens: Int[Array, "*n t"], *, key=None, train: bool = False
) -> Float[Array, "*n t v"]:
    del key, train  # no layer is random, none behaves otherwise in training
    params, tokens = _checked(spec, "gpt.forward", params, tokens=tokens)
    last, _ = _links(spec, params, tokens, training=False)
    return ops.dense(last, params["head"], jnp.zeros_like(params["head"][0]))


def _public_loss(spec: _Spec, params, batch, *, key=None) -> Float[Array, ""]:
    del key
    name = "gpt.loss"
    tokens, labels = checked_batch(name, batch, "(tokens, labels)")
    return _loss(spec, *_checked(spec, name, params, tokens=tokens, labels=labels))


def _checked(spec: _Spec, function, params, **arrays):
    expected = ", ".join(f"{name} (*n, t)" for name in arrays)
    values = checked_integers(function, expected, **arrays)
    length = values[0].shape[-1]
    if length > spec.context:
        expected = f"at most {spec.context} steps long"
        raise argument_error(function, "tokens", expected, f"{length} steps")
    return alike(checked_params(function, params, _shapes(spec)), *values)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(spec, params, tokens, labels):
    last, _ = _links(spec, params, tokens, training=False)
    args = last, params["head"], labels
    loss = ops.linear_softmax_cross_entropy(*args, ignore_index=IGNORED)
    return wire(loss, "loss")


def _loss_fwd(spec, params, tokens, labels):
    last, res = _links(spec, params, tokens, training=True)
    loss, loss_res = ops.linear_softmax_cross_entropy_fwd(
        last, params["head"], labels, None, None, *_LOSS
    )
    return wire(loss, "loss"), (params["blocks"], res, loss_res)


def _loss_bwd(spec, res, loss_bar):
    blocks, (tok_res, kept, norm_res, positions), loss_res = res
    loss_bar = wire(loss_bar, "loss_bar")
    last_bar, head_bar, *_ = ops.linear_softmax_cross_entropy_bwd(
        *_LOSS, loss_res, loss_bar
    )
    x_bar, norm_bar = norm_bwd(norm_res, wire(last_bar, "last_bar"))

    def layer(x_bar, inputs):
        params, kept = inputs
        if spec.recompute:
            _, kept = block_fwd(spec.heads, params, kept, name=lambda x, name: x)
        return block_bwd(params, kept, x_bar)

    x_bar, blocks_bar = jax.lax.scan(layer, x_bar, (blocks, kept), reverse=True)
    tok_bar, added_bar = ops.add_bwd((), wire(x_bar, "x0_bar"))
    tokens_bar, _ = ops.embedding_bwd(None, tok_res, wire(tok_bar, "tok_bar"))
    bars = {
        "tokens": tokens_bar,
        "positions": _placed_bwd(positions, added_bar),
        "blocks": blocks_bar,
        "norm": norm_bar,
        "head": head_bar,
    }
    return bars, None, None


_loss.defvjp(_loss_fwd, _loss_bwd)


def _links(spec: _Spec, params, tokens, training: bool):
    """What the loss is asked of, and what all links but the loss keep."""
    tok, tok_res = ops.embedding_fwd(params["tokens"], tokens, None)
    tok = wire(tok, "tok")
    x, _ = ops.add_fwd(tok, _placed(params["positions"], tok.shape))

    def layer(x, params):
        if not training:
            return block_fwd(spec.heads, params, x, attend)[0], None
        y, kept = block_fwd(spec.heads, params, x)
        return y, x if spec.recompute else kept

    x, kept = jax.lax.scan(layer, wire(x, "x0"), params["blocks"])
    last, norm_res = norm_fwd(params["norm"], x)
    empty_rows = params["positions"][:, :0]  # its length: no value of it is needed
    return wire(last, "last"), (tok_res, kept, norm_res, empty_rows)


def _placed(positions, shape):
    """The positions of a sequence, for all of a batch."""
    return jnp.broadcast_to(positions[: shape[-2]], shape)


def _placed_bwd(empty_rows, x_bar):
    wide = accumulator(x_bar.dtype)
    of_step = x_bar.sum(axis=tuple(range(x_bar.ndim - 2)), dtype=wide)
    unused = len(empty_rows) - len(of_step)
    return jnp.pad(of_step, [(0, unused), (0, 0)]).astype(x_bar.dtype)
