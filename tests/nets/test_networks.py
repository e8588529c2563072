"""Each chain is the gradient, in every setting; a wrong link in it is seen below it.

Gradients are run by NumPy, equation by equation: a network of scans takes seconds to
compile. What is compiled, and what asks the instrument, is few or slow.
"""

import functools
import os
import pathlib
import subprocess
import sys
from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import audit, autodiff, compare
from jaxbp._steps import holds, wire_name
from tests.nets.networks import NETWORKS
from tests.nets.planted import (
    differences,
    factor,
    gradients,
    missing_path,
    plant,
    sign,
    transposed,
)

every_network = pytest.mark.parametrize("name", NETWORKS)


@functools.cache
def _autodiff(name):
    network = NETWORKS[name]
    return gradients(autodiff(network.function), *network.args)


@every_network
def test_the_chain_is_the_gradient(name):
    network = NETWORKS[name]
    hand, auto = gradients(network.function, *network.args), _autodiff(name)
    plain = gradients(network.plain, *network.args)
    for other in (auto, plain):
        off = differences(hand, other)
        assert max(v for k, v in off.items() if k not in network.nothing) <= 1e-13
    for leaf in network.nothing:
        # Sums of a few terms below 1 that cancel.
        assert np.abs(hand[leaf]).max() <= 10 * 2.3e-16


@every_network
def test_every_wire_is_named_once_on_each_side(name):
    network, found = NETWORKS[name], []
    jaxpr = jax.make_jaxpr(jax.grad(network.function))(*network.args)
    holds(jaxpr, lambda eqn: found.append(wire_name(eqn)))
    names = Counter(name for name in found if name)
    forward = {name for name in names if not name.endswith("_bar")}
    assert len(forward) >= 3
    assert set(names) == forward | {f"{name}_bar" for name in forward}
    assert set(names.values()) == {1}


def _wide(args):
    return jax.tree.map(
        lambda x: x.astype(float) if jnp.issubdtype(x.dtype, jnp.floating) else x, args
    )


@every_network
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("x64", [False, True])
def test_dtype_and_shape_of_the_gradient_are_the_parameters(name, dtype, x64):
    network = NETWORKS[name]
    args = jax.tree.map(
        lambda x: (
            np.asarray(x, dtype)
            if jnp.issubdtype(x.dtype, jnp.floating)
            else np.asarray(x, np.int32)
        ),
        network.args,
    )
    with jax.enable_x64(x64):
        step = jax.value_and_grad(lambda *args: network.function(*args).astype("f4"))
        value, bars = jax.eval_shape(step, *args)
    chex.assert_trees_all_equal_shapes_and_dtypes(bars, args[0])
    assert value.shape == ()


@every_network
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_in_a_narrow_dtype_it_is_the_gradient_to_some_units(name, dtype):
    network = NETWORKS[name]
    narrow = jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        network.args,
    )
    hand = gradients(network.function, *narrow)
    hand = {leaf: bar.astype(float) for leaf, bar in hand.items()}
    exact = gradients(network.plain, *_wide(narrow))
    # About a hundred roundings one after another, none made larger than the leaf's
    # largest element but where a norm divides by a deviation of 0.5 or so.
    for leaf, off in differences(
        jax.tree.map(lambda b: b.astype(float), hand), exact
    ).items():
        if leaf not in network.nothing:
            assert off <= 100 * float(jnp.finfo(dtype).eps), leaf


@every_network
def test_jit_and_vmap_give_the_same_gradient(name):
    network = NETWORKS[name]
    params, *data = network.args
    other = jax.tree.map(lambda p: 0.9 * p, params)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, other)
    step = jax.vmap(jax.value_and_grad(network.function), (0, *[None] * len(data)))
    _, bars = jax.jit(step)(both, *data)
    for k, each in enumerate((params, other)):
        alone = gradients(network.function, each, *data)
        paths = jax.tree_util.tree_leaves_with_path((bars,))
        for path, leaf in paths:
            expected = alone[jax.tree_util.keystr(path)]
            # The same arithmetic in another order.
            scale = max(np.abs(expected).max(), 1e-2)
            assert np.abs(leaf[k] - expected).max() <= 1e-13 * scale


def test_every_network_is_right_under_shard_map_with_replicated_parameters():
    script = pathlib.Path(__file__).with_name("sharded.py")
    root = pathlib.Path(__file__).parents[2]
    flags = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _paths(*names):
    return {
        "[0]" + "".join(f"['{part}']" for part in name.split(".")) for name in names
    }


def _layer(name):
    return {f"blocks.{name}.w", f"blocks.{name}.b"}


def _norm(name):
    return {f"{name}.scale", f"{name}.bias"}


BELOW = {"tokens", "positions"}
MIX_IN = _norm("blocks.norm1") | _layer("qkv")
FED_IN = _norm("blocks.norm2") | _layer("up")
BLOCK = MIX_IN | _layer("mix") | FED_IN | _layer("down")
RMS = {name for name in BLOCK if not name.endswith("bias")}
CELL = {"lstm.wx", "lstm.wh", "lstm.b"}
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
    ("gpt, one block", "attention_bwd", (0, 1), missing_path(1), "qkv", MIX_IN | BELOW),
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
    auto, network = _autodiff(name), NETWORKS[name]
    plant(monkeypatch, rule, call, wrong)
    off = differences(gradients(network.function, *network.args), auto)
    zero = network.nothing - _paths(*below)
    spoiled = {leaf for leaf, v in off.items() if leaf not in zero and not v <= 1e-12}
    assert spoiled == _paths(*below)


@pytest.fixture
def _only_the_caller_s_point(monkeypatch):
    """Of a chain of scans, elsewhere costs minutes: there the network is the same."""
    from jaxbp.instrument import _compare

    monkeypatch.setattr(_compare, "look_around", lambda *asked: ())


@pytest.mark.slow
@every_network
@pytest.mark.usefixtures("_only_the_caller_s_point")
def test_the_instrument_finds_the_chain_right(name):
    network = NETWORKS[name]
    comparison = compare(network.function, *network.args)
    assert comparison.verdict == "right", comparison
    audited = audit(network.function, *network.args)
    assert audited.verdict == "right", audited


@pytest.mark.slow
@every_plant
@pytest.mark.usefixtures("_only_the_caller_s_point")
def test_the_instrument_names_the_leaves_and_the_wire(
    monkeypatch, name, rule, call, wrong, wire, below
):
    plant(monkeypatch, rule, call, wrong)
    network = NETWORKS[name]
    comparison = compare(network.function, *network.args)
    bad = {f.argument for f in comparison.findings if f.verdict == "wrong"}
    assert bad == _paths(*below), comparison
    first = audit(network.function, *network.args).first
    assert (first.verdict, first.wire) == ("wrong", wire), first
