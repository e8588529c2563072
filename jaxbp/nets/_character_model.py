"""The "backprop ninja" character model, hand-written from the loss to the embedding."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name as wire
from jaxtyping import Array, Float, Int

from jaxbp import ops
from jaxbp._errors import argument_error, as_floats
from jaxbp.nets._net import (
    Net,
    bound,
    checked_batch,
    checked_integers,
    checked_params,
    checked_size,
    checked_tree,
)
from jaxbp.ops._sharding import alike

_NAME = "character_model"
_EPS = 1e-5
_LOSS = (None, 0.0)  # ignore_index, label_smoothing


class _Spec(NamedTuple):
    vocabulary: int
    context: int
    width: int
    hidden: int
    momentum: float


def character_model(
    vocabulary: int, *, context: int, width: int, hidden: int, momentum: float = 0.999
) -> Net:
    r"""Character model with batch norm: the `context` characters before give the next.

    $e = (C_{i_1}, \dots, C_{i_n})$, $a = eW_1 + b_1$, $p = \hat a\gamma + \beta$ with
    $\hat a$ normalised over the batch, $h = \tanh p$, $z = hW_2 + b_2$; the loss is the
    mean cross-entropy of the softmax of z.

    VJP, from the loss down: $\bar z = (y - e_c)/N$ with y the softmax;
    $\bar W_2 = h^\top\bar z$, $\bar b_2 = \sum_n\bar z$, $\bar h = \bar z W_2^\top$;
    $\bar p = \bar h(1 - h^2)$; $\bar a$, $\bar\gamma$, $\bar\beta$ by the norm's rule,
    to which what arrives at the state, of which the batch's statistics are a share
    $1 - m$, adds its part; $\bar W_1 = e^\top\bar a$, $\bar b_1 = \sum_n\bar a$ (0 up
    to rounding: the norm takes the mean off), $\bar e = \bar a W_1^\top$; and $\bar C$
    takes in the row of every character.

    Wires, by the tutorial's names: `emb`, `embcat`, `hprebn`, `hpreact`, `mean`, `var`,
    `h`, `logits`, `losses`; each with its `_bar` in the chain.

    Args:
        vocabulary: how many characters there are.
        context: characters of an example, n.
        width: of a character's embedding.
        hidden: units.
        momentum: m, the share of the running statistics that stays in a step.
    Returns:
        Net. `params` holds `C` (v, d), `W1` (n · d, h), `b1` (h,), `bngain` (h,),
        `bnbias` (h,), `W2` (h, v), `b2` (v,); the state `mean` (h,) and `var` (h,), at
        first 0 and 1. `loss` takes `batch = (contexts, labels)`, integers (*n, context)
        and (*n,) in [0, v); one outside gives NaN. It returns the loss and the state
        after the step, $m s + (1 - m) s_{batch}$. `forward(params, contexts, state=…)`
        are logits (*n, v) by the running statistics; with `train=True` by the batch's,
        and no state is needed. `init` draws C from N(0, 1), $W_1$ from
        N(0, (5/3)²/(n · d)), $W_2$ from N(0, 0.01/h); biases 0, gains 1. Residuals
        kept: those of each op: the ids, `embcat`, `hprebn`, `hpreact`, `h`, `logits`,
        the weights, and a few numbers an example and a unit.
    Raises:
        ValueError: a size below 1, a momentum outside [0, 1]; in `loss` and `forward`,
            parameters, state or arrays of other shapes, an empty batch, no state.
        TypeError: a size that is no integer; parameters or state that are not floating,
            contexts or labels that are not integers.
    Source: Karpathy, "Becoming a backprop ninja" (2022), exercises 1–4; the model:
        Bengio et al., "A neural probabilistic language model" (2003), §2; the gain 5/3:
        He et al. (2015), eq. 10, and PyTorch's `calculate_gain`.
    """
    sizes = {"vocabulary": vocabulary, "context": context, "width": width}
    sizes["hidden"] = hidden
    sizes = {name: checked_size(_NAME, name, n) for name, n in sizes.items()}
    if not 0 <= momentum <= 1:
        raise argument_error(_NAME, "momentum", "in [0, 1]", momentum)
    spec = _Spec(**sizes, momentum=float(momentum))
    functions = (_init, _forward, _public_loss, _loss_fwd, _loss_bwd, _init_state)
    return bound(_NAME, spec, *functions)


def _shapes(spec: _Spec) -> dict[str, Any]:
    v, n, d, h, _ = spec
    shapes = {"C": (v, d), "W1": (n * d, h), "b1": (h,), "bngain": (h,)}
    return shapes | {"bnbias": (h,), "W2": (h, v), "b2": (v,)}


def _init(spec: _Spec, key: jax.Array):
    shapes = _shapes(spec)
    keys = dict(zip(("C", "W1", "W2"), jax.random.split(key, 3), strict=True))
    gains = {
        "C": 1.0,
        "W1": 5 / 3 * shapes["W1"][0] ** -0.5,
        "W2": 0.1 * shapes["W2"][0] ** -0.5,
    }
    return {
        name: gains[name] * jax.random.normal(keys[name], shape)
        if name in keys
        else jnp.full(shape, float(name == "bngain"))
        for name, shape in shapes.items()
    }


def _init_state(spec: _Spec):
    return {"mean": jnp.zeros(spec.hidden), "var": jnp.ones(spec.hidden)}


def _forward(
    spec: _Spec,
    params,
    contexts: Int[Array, "*n c"],
    *,
    state=None,
    key=None,
    train: bool = False,
) -> Float[Array, "*n v"]:
    del key  # no layer is random
    name = f"{_NAME}.forward"
    expected = f"contexts (*n, {spec.context})"
    (contexts,) = checked_integers(name, expected, contexts=contexts)
    params = checked_params(name, params, _shapes(spec))
    if train:
        return _links(*alike(params, contexts))[0]
    state = _checked_state(spec, name, params, state)
    hprebn, _ = _before_norm(*alike(params, contexts))
    given = params["bngain"], params["bnbias"], state["mean"], state["var"]
    hpreact = ops.batch_norm_inference(hprebn, *given, eps=_EPS)
    return ops.dense(ops.tanh(hpreact), params["W2"], params["b2"])


def _public_loss(
    spec: _Spec, params, batch, *, state, key=None
) -> tuple[Float[Array, ""], dict[str, Float[Array, " h"]]]:
    del key
    name = f"{_NAME}.loss"
    contexts, labels = checked_batch(name, batch, "(contexts, labels)")
    expected = f"contexts (*n, {spec.context}), labels (*n)"
    values = checked_integers(name, expected, contexts=contexts, labels=labels)
    params = checked_params(name, params, _shapes(spec))
    state = _checked_state(spec, name, params, state)
    return _loss(spec, *alike(params, *values, state))


def _checked_state(spec: _Spec, function, params, state):
    shapes = {"mean": (spec.hidden,), "var": (spec.hidden,)}
    state = checked_tree(function, "state", state, shapes)
    as_floats(function, params=params["b1"], state=state["mean"])  # of one dtype
    return state


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(spec, params, contexts, labels, state):
    return _loss_fwd(spec, params, contexts, labels, state)[0]


def _loss_fwd(spec, params, contexts, labels, state):
    logits, batch_statistics, res = _links(params, contexts)
    losses, loss_res = ops.softmax_cross_entropy_with_integer_labels_fwd(
        logits, labels, None, *_LOSS
    )
    losses = wire(losses, "losses")
    m = spec.momentum
    state = {k: m * state[k] + (1 - m) * batch_statistics[k] for k in state}
    return (losses.mean(), state), (res, loss_res, losses)


def _loss_bwd(spec, res, bars):
    links, loss_res, losses = res
    loss_bar, state_bar = bars
    emb_res, w1_res, norm_res, tanh_res, w2_res = links
    ids, m = emb_res[0], spec.momentum
    losses_bar = wire(jnp.full_like(losses, loss_bar / losses.size), "losses_bar")
    logits_bar, *_ = ops.softmax_cross_entropy_with_integer_labels_bwd(
        *_LOSS, loss_res, losses_bar
    )
    logits_bar = wire(logits_bar, "logits_bar")
    h_bar, w2_bar, b2_bar = ops.dense_bwd(w2_res, logits_bar)
    (hpreact_bar,) = ops.tanh_bwd(tanh_res, wire(h_bar, "h_bar"))
    hprebn_bar, bngain_bar, bnbias_bar = ops.batch_norm_bwd(
        _EPS,
        norm_res,
        (
            wire(hpreact_bar, "hpreact_bar"),
            wire((1 - m) * state_bar["mean"], "mean_bar"),
            wire((1 - m) * state_bar["var"], "var_bar"),
        ),
    )
    hprebn_bar = wire(hprebn_bar, "hprebn_bar")
    embcat_bar, w1_bar, b1_bar = ops.dense_bwd(w1_res, hprebn_bar)
    embcat_bar = wire(embcat_bar, "embcat_bar")
    emb_bar = wire(embcat_bar.reshape(*ids.shape, -1), "emb_bar")
    c_bar, _ = ops.embedding_bwd(None, emb_res, emb_bar)
    params_bar = {"C": c_bar, "W1": w1_bar, "b1": b1_bar, "bngain": bngain_bar}
    params_bar |= {"bnbias": bnbias_bar, "W2": w2_bar, "b2": b2_bar}
    return params_bar, None, None, jax.tree.map(lambda s: m * s, state_bar)


_loss.defvjp(_loss_fwd, _loss_bwd)


def _before_norm(params, contexts):
    """The first layer's sums, and what its two links keep."""
    emb, emb_res = ops.embedding_fwd(params["C"], contexts, None)
    embcat = wire(emb, "emb").reshape(*contexts.shape[:-1], -1)
    embcat = wire(embcat, "embcat")
    hprebn, w1_res = ops.dense_fwd(embcat, params["W1"], params["b1"])
    return wire(hprebn, "hprebn"), (emb_res, w1_res)


def _links(params, contexts):
    """Logits, the batch's statistics, and of every link what it keeps."""
    hprebn, res = _before_norm(params, contexts)
    (hpreact, mean, var), norm_res = ops.batch_norm_fwd(
        hprebn, params["bngain"], params["bnbias"], _EPS
    )
    statistics = {"mean": wire(mean, "mean"), "var": wire(var, "var")}
    h, tanh_res = ops.tanh_fwd(wire(hpreact, "hpreact"))
    logits, w2_res = ops.dense_fwd(wire(h, "h"), params["W2"], params["b2"])
    return wire(logits, "logits"), statistics, (*res, norm_res, tanh_res, w2_res)
