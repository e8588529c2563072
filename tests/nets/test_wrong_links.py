"""A wrong link in a network's chain spoils the leaves below it and no other."""

from collections import Counter

import jax
import jax.numpy as jnp
import pytest

from jaxbp import audit, compare
from tests.nets.networks import NETWORKS, by_autodiff
from tests.nets.planted import (
    differences,
    factor,
    gradients,
    missing_path,
    plant,
    sign,
    transposed,
)


def _paths(*names):
    """Key paths of parameters by dotted names, and of the input, "x"."""
    keys = (("[0]", *(f"['{part}']" for part in n.split("."))) for n in names)
    return {"[1][0]" if "['x']" in path else "".join(path) for path in keys}


def _layer(name):
    return {f"blocks.{name}.w", f"blocks.{name}.b"}


def _norm(name):
    return {f"{name}.scale", f"{name}.bias"}


BELOW = {"tokens", "positions"}
MIX_IN = _norm("blocks.norm1") | _layer("qkv")
KEYS = (MIX_IN | BELOW) - {"blocks.norm1.bias", "blocks.qkv.b"}
FED_IN = _norm("blocks.norm2") | _layer("up")
BLOCK = MIX_IN | _layer("mix") | FED_IN | _layer("down")
RMS = {name for name in BLOCK if not name.endswith("bias")}
CELL = {"lstm.wx", "lstm.wh", "lstm.b"}
CONV1 = {"conv1.w", "conv1.b"}
CONVS = CONV1 | {"conv2.w", "conv2.b"}
DENSE = {f"dense{j}.{name}" for j in (1, 2) for name in "wb"}
IMAGE = {"x"}
HIDDEN = {"bngain", "bnbias", "W1", "C"}


def _fixed_statistics(res, bars, right):
    """What batch norm's rule were, did mean and variance not depend on x."""
    _, scale, _, inverse = res
    return bars[0] * scale * inverse, *right[1:]


def _overwritten(res, y_bar, bars):
    """Of a token that occurs twice, one cotangent."""
    ids, empty_rows = res
    zeros = jnp.zeros((len(empty_rows), y_bar.shape[-1]), y_bar.dtype)
    return zeros.at[ids].set(y_bar), None


def _everywhere(res, y_bar, bars):
    """The rectifier's cotangent, also where it was closed."""
    return (y_bar,)


def _turned(res, y_bar, bars):
    """The image's cotangent by weights that are not turned by 180°."""
    _, w, _ = res
    x_bar = jax.lax.conv_general_dilated(
        y_bar,
        w.swapaxes(2, 3),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return x_bar, *bars[1:]


def _rows_for_columns(res, y_bar, bars):
    return bars[0], bars[1].swapaxes(0, 1), bars[2]


FAULTS = ("wrong", "broken-contract")  # the second: zeros for an input that counts
LOSS = "linear_softmax_cross_entropy_bwd"
CLASSES = "softmax_cross_entropy_with_integer_labels_bwd"
# Network, rule, which of its calls, what is wrong; the first wrong wire, leaves below.
PLANTS = [
    ("gpt, one block", LOSS, (0, 1), factor(0), "last", _norm("norm") | BLOCK | BELOW),
    ("gpt, one block", LOSS, (0, 1), sign(1), "", {"head"}),
    (
        "gpt, one block",
        "layer_norm_bwd",
        (1, 3),
        factor(0),
        "u",
        MIX_IN | _layer("mix") | BELOW,
    ),
    ("gpt, one block", "dense_bwd", (2, 4), transposed, "seen", MIX_IN | BELOW),
    ("gpt, one block", "dense_bwd", (1, 4), sign(1), "", {"blocks.up.w"}),
    # What is added to all keys moves no weight: k's cotangents sum to 0.
    ("gpt, one block", "attention_bwd", (0, 1), missing_path(1), "qkv", KEYS),
    (
        "gpt, one block",
        "gelu_bwd",
        (0, 1),
        sign(0),
        "a",
        (BLOCK | BELOW) - _layer("down"),
    ),
    ("gpt, one block", "add_bwd", (1, 3), missing_path(0), "x0", BELOW),
    ("gpt, one block", "embedding_bwd", (0, 1), _overwritten, "", {"tokens"}),
    # In the layers below the residual that is dropped everything is wrong.
    ("gpt, recomputed", "add_bwd", (0, 3), missing_path(0), "u[1]", RMS | BELOW),
    ("gpt, recomputed", "add_bwd", (1, 3), missing_path(0), "y[0]", RMS | BELOW),
    ("gpt, recomputed", "rms_norm_bwd", (0, 3), factor(1), "", {"norm.scale"}),
    ("gpt, kept", "add_bwd", (0, 3), missing_path(0), "u[1]", BLOCK | BELOW),
    ("gpt, kept", "dense_bwd", (2, 4), transposed, "seen[1]", BLOCK | BELOW),
    ("gpt, kept", "attention_bwd", (0, 1), factor(2), "qkv[1]", BLOCK | BELOW),
    ("lstm", LOSS, (0, 1), factor(0), "h", CELL | {"tokens"}),
    ("lstm", LOSS, (0, 1), sign(3), "", {"head.b"}),
    ("lstm", "lstm_bwd", (0, 1), sign(0), "emb", {"tokens"}),
    ("lstm", "lstm_bwd", (0, 1), missing_path(4), "", {"lstm.wh"}),
    ("lstm", "embedding_bwd", (0, 1), _overwritten, "", {"tokens"}),
    ("characters", CLASSES, (0, 1), factor(0), "logits", HIDDEN | {"W2", "b2"}),
    ("characters", "dense_bwd", (0, 2), transposed, "h", HIDDEN),
    ("characters", "tanh_bwd", (0, 1), sign(0), "hpreact", HIDDEN),
    (
        "characters",
        "batch_norm_bwd",
        (0, 1),
        _fixed_statistics,
        "hprebn",
        {"b1", "W1", "C"},
    ),
    ("characters", "dense_bwd", (1, 2), missing_path(0), "embcat", {"C"}),
    ("images", CLASSES, (0, 1), factor(0), "logits", DENSE | CONVS | IMAGE),
    ("images", "dense_bwd", (1, 2), sign(0), "flat", CONVS | IMAGE),
    ("images", "max_pool2d_bwd", (1, 2), factor(0), "r1", CONV1 | IMAGE),
    ("images", "relu_bwd", (1, 3), _everywhere, "c2", CONVS | IMAGE),
    ("images", "conv2d_bwd", (0, 2), _turned, "p1", CONV1 | IMAGE),
    ("images", "conv2d_bwd", (0, 2), _rows_for_columns, "", {"conv2.w"}),
]
every_plant = pytest.mark.parametrize(
    ("name", "rule", "call", "wrong", "wire", "below"),
    PLANTS,
    ids=[f"{p[0]}-{p[1]}{p[2][0]}-{p[3].__name__}" for p in PLANTS],
)


def test_at_least_three_wrong_links_are_planted_in_every_network():
    counts = Counter(planted[0] for planted in PLANTS)
    assert all(counts[name] >= 3 for name in NETWORKS)


@every_plant
def test_a_wrong_link_spoils_the_leaves_below_it_and_no_other(
    monkeypatch, name, rule, call, wrong, wire, below
):
    auto, network = by_autodiff(name), NETWORKS[name]
    plant(monkeypatch, rule, call, wrong)
    off = differences(gradients(network.function, *network.args), auto)
    spoiled = {leaf for leaf, v in off.items() if not v <= 1e-12}
    assert spoiled == _paths(*below)


@pytest.mark.slow
@every_plant
@pytest.mark.usefixtures("only_the_caller_s_point")
def test_the_instrument_names_the_leaves_and_the_wire(
    monkeypatch, name, rule, call, wrong, wire, below
):
    plant(monkeypatch, rule, call, wrong)
    network = NETWORKS[name]
    comparison = compare(network.function, *network.args)
    bad = {f.argument for f in comparison.findings if f.verdict in FAULTS}
    assert bad == _paths(*below), comparison
    first = audit(network.function, *network.args).first
    assert first.verdict in FAULTS
    assert first.wire == wire, first
