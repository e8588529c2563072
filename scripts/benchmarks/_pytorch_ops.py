"""The ops in PyTorch's own functions, on arrays that lie as ours do, channels last.

Imported where PyTorch is installed.
"""

from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

from benchmarks._pytorch import Peer


def peer_of(case: Any) -> Peer | None:
    """The op with the case's options; None where PyTorch has none."""
    made = _PEERS.get(case.op.__name__)
    return made(*case.options) if made else None


def always(peer):
    return lambda *options: peer


def per_row(loss):
    return always(lambda p, y: loss(p, y, reduction="none").sum(dim=-1))


def first(x):  # channels, of images that stay as they lie
    return x.permute(0, 3, 1, 2)


def last(x):
    return x.permute(0, 2, 3, 1)


def conv2d(stride, padding, dilation, groups):
    how = stride, padding.lower(), dilation, groups
    return lambda x, w, b: last(F.conv2d(first(x), w.permute(3, 2, 0, 1), b, *how))


def depthwise(stride, padding, dilation):
    def peer(x, w):
        taps = w.permute(2, 0, 1)[:, None]
        how = stride, padding.lower(), dilation, len(taps)
        return last(F.conv2d(first(x), taps, None, *how))

    return peer


def padded(x, window, stride, padding, fill):
    if padding == "VALID":
        return x
    over = max(0, (-(-x.shape[-1] // stride) - 1) * stride + window - x.shape[-1])
    return F.pad(x, 2 * (over // 2, over - over // 2), value=fill)


def max_pool(window, stride, padding):
    step = stride or window

    def peer(x):
        wide = padded(first(x), window, step, padding, -torch.inf)
        return last(F.max_pool2d(wide, window, step))

    return peer


def avg_pool(window, stride, padding, count_include_pad):
    step = stride or window

    def peer(x):
        wide = padded(first(x), window, step, padding, 0)
        y = F.avg_pool2d(wide, window, step)
        if not count_include_pad:
            ones = torch.ones_like(first(x)[:1, :1])
            y = y / F.avg_pool2d(padded(ones, window, step, padding, 0), window, step)
        return last(y)

    return peer


def batch_norm(eps):
    def peer(x, scale, bias):
        y = F.batch_norm(x, None, None, scale, bias, training=True, eps=eps)
        return y, x.mean(dim=0), x.var(dim=0, correction=0)

    return peer


def inference(eps):  # PyTorch's own has no gradient in the statistics
    return lambda x, scale, bias, mean, var: (
        (x - mean) * torch.rsqrt(var + eps) * scale + bias
    )


def attention(causal, scale, block):
    return lambda q, k, v: F.scaled_dot_product_attention(
        q[None], k[None], v[None], is_causal=causal, scale=scale
    )[0]


def contrastive(chunk):
    def peer(x, y, scale):
        logits, own = scale * x @ y.T, torch.arange(len(x))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    return peer


def linear_cross_entropy(reduction, ignore_index, chunk):
    return lambda x, w, labels: F.cross_entropy(x @ w, labels.long())


def integer(ignore_index, label_smoothing):
    how = {"reduction": "none", "label_smoothing": label_smoothing}
    if ignore_index is not None:
        how["ignore_index"] = ignore_index

    def peer(logits, labels, weights=None):
        losses = F.cross_entropy(logits, labels.long(), **how)
        return losses if weights is None else weights * losses

    return peer


def recurrent(layer, x, state, wx, wh, bx, bh):
    layer = layer(wx.shape[0], wh.shape[0], batch_first=True)
    names = "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"
    given = dict(zip(names, (wx.T, wh.T, bx, bh), strict=True))
    return torch.func.functional_call(layer, given, (x, state))


def rnn(x, h0, wx, wh, b):
    y, h = recurrent(torch.nn.RNN, x, h0[None], wx, wh, b, 0 * b)
    return y, h[0]


def gru(x, h0, wx, wh, bx, bh):
    y, h = recurrent(torch.nn.GRU, x, h0[None], wx, wh, bx, bh)
    return y, h[0]


def lstm(x, h0, c0, wx, wh, b):
    state = h0[None], c0[None]
    y, (h, c) = recurrent(torch.nn.LSTM, x, state, wx, wh, b, 0 * b)
    return y, (h[0], c[0])


def solve(positive_definite):
    if not positive_definite:
        return torch.linalg.solve

    def peer(a, b):
        columns = b if b.ndim == a.ndim else b[..., None]
        x = torch.cholesky_solve(columns, torch.linalg.cholesky(a))
        return x.reshape(b.shape)

    return peer


_PEERS: dict[str, Callable[..., Peer]] = {
    "add": always(torch.add),
    "multiply": always(torch.mul),
    "square": always(torch.square),
    "reciprocal": always(torch.reciprocal),
    "exp": always(torch.exp),
    "sigmoid": always(torch.sigmoid),
    "log_sigmoid": always(F.logsigmoid),
    "tanh": always(torch.tanh),
    "softplus": always(F.softplus),
    "relu": always(F.relu),
    "leaky_relu": lambda slope: lambda x: F.leaky_relu(x, slope),
    "gelu": lambda tanh: lambda x: F.gelu(x, approximate="tanh" if tanh else "none"),
    "silu": always(F.silu),
    "swiglu": always(lambda x, v: F.silu(x) * v),
    "softmax": always(lambda x: F.softmax(x, dim=-1)),
    "log_softmax": always(lambda x: F.log_softmax(x, dim=-1)),
    "logsumexp": always(lambda x: torch.logsumexp(x, dim=-1)),
    "dense": always(lambda x, w, b: torch.addmm(b, x, w)),
    "embedding": lambda padding_id: lambda table, ids: F.embedding(ids, table),
    "squared_error": per_row(F.mse_loss),
    "half_squared_error": per_row(lambda *a, **k: F.mse_loss(*a, **k) / 2),
    "huber_loss": lambda delta: (
        lambda p, y: F.huber_loss(p, y, reduction="none", delta=delta).sum(dim=-1)
    ),
    "binary_cross_entropy": per_row(F.binary_cross_entropy),
    "binary_cross_entropy_with_logits": per_row(F.binary_cross_entropy_with_logits),
    "softmax_cross_entropy": always(
        lambda x, y: -(y * F.log_softmax(x, dim=-1)).sum(dim=-1)
    ),
    "softmax_cross_entropy_with_integer_labels": integer,
    "linear_softmax_cross_entropy": linear_cross_entropy,
    "contrastive_loss": contrastive,
    "conv2d": conv2d,
    "depthwise_conv2d": depthwise,
    "max_pool2d": max_pool,
    "avg_pool2d": avg_pool,
    "layer_norm": lambda eps: (
        lambda x, scale, bias: F.layer_norm(x, x.shape[-1:], scale, bias, eps)
    ),
    "rms_norm": lambda eps: lambda x, scale: F.rms_norm(x, x.shape[-1:], scale, eps),
    "l2_normalise": always(lambda x: F.normalize(x, dim=-1)),
    "batch_norm": batch_norm,
    "batch_norm_inference": inference,
    "attention": attention,
    "rnn": always(rnn),
    "gru": always(gru),
    "lstm": always(lstm),
    "cumlogsumexp": always(lambda x: torch.logcumsumexp(x, dim=-1)),
    "linear_solve": solve,
    "dropout": lambda rate: lambda x, key: F.dropout(x, rate),
}
