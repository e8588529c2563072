"""Each network's chain is the gradient, in every dtype and under every transformation.

Gradients are run by NumPy, equation by equation: a network of scans takes seconds to
compile. What is compiled, and what asks the instrument, is few or slow.
"""

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

from jaxbp import audit, compare
from jaxbp._steps import holds, wire_name
from tests.nets.networks import NETWORKS, by_autodiff
from tests.nets.planted import differences, gradients

every_network = pytest.mark.parametrize("name", NETWORKS)


@every_network
def test_the_chain_is_the_gradient(name):
    network = NETWORKS[name]
    hand, auto = gradients(network.function, *network.args), by_autodiff(name)
    plain = gradients(network.plain, *network.args)
    for other in (auto, plain):
        assert max(differences(hand, other).values()) <= 1e-13


@every_network
def test_every_wire_is_named_once_on_each_side(name):
    network, found = NETWORKS[name], []
    jaxpr = jax.make_jaxpr(jax.grad(network.function))(*network.args)
    holds(jaxpr, lambda eqn: found.append(wire_name(eqn)))
    names = Counter(name for name in found if name)
    forward = {name for name in names if not name.endswith("_bar")}
    assert len(forward) >= 3
    bars = {f"{name}_bar" for name in forward}
    assert set(names) - {"x_bar"} == forward | bars  # the input has no wire before it
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
        assert off <= 100 * float(jnp.finfo(dtype).eps), leaf


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "gpt, recomputed"])
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


@pytest.mark.parametrize(
    "names",
    [["characters", "images"], pytest.param([], marks=pytest.mark.slow)],
    ids=["those without loops", "all"],
)
def test_it_is_right_under_shard_map_with_replicated_parameters(names):
    script = pathlib.Path(__file__).with_name("sharded.py")
    root = pathlib.Path(__file__).parents[2]
    flags = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, script, *names],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@every_network
@pytest.mark.usefixtures("only_the_caller_s_point")
def test_the_instrument_finds_the_chain_right(name):
    network = NETWORKS[name]
    comparison = compare(network.function, *network.args)
    assert comparison.verdict == "right", comparison
    audited = audit(network.function, *network.args)
    assert audited.verdict == "right", audited
