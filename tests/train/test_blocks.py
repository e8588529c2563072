"""Blocks of steps: bits, stops and history are those of steps one by one."""

import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxbp import nets, ops, train
from jaxbp.train import _blocks, _loop

X = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
Y = np.array([[0.0], [1], [1], [0]])
NET = nets.mlp((2, 4, 1), output="sigmoid", loss="binary_cross_entropy")
PARAMS = jax.tree.map(np.float64, NET.init(jax.random.key(1)))
CLIPPED = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01))
BAD = 137  # a step in the middle of a block


@pytest.fixture
def steps_of_blocks(monkeypatch):
    """Of every run, 0 where it has none."""
    found, blocks_for = [], _loop.blocks_for

    def seen(*args):
        blocks = blocks_for(*args)
        found.append(blocks.steps if blocks else 0)
        return blocks

    monkeypatch.setattr(_loop, "blocks_for", seen)
    return found


def losses(result):
    return {entry["step"]: entry["loss"] for entry in result.history}


@pytest.mark.parametrize(
    ("sizes", "optimizer"),
    [
        ((2, 4, 1), optax.sgd(1.0)),
        ((2, 4, 1), CLIPPED),
        ((3, 4, 1), CLIPPED),
        ((8, 16, 4), optax.sgd(0.3)),
    ],
)
def test_bits_do_not_depend_on_blocks(steps_of_blocks, sizes, optimizer):
    net = nets.mlp(sizes)
    rng = np.random.default_rng(0)
    data = tuple(rng.standard_normal((32, n)) for n in (sizes[0], sizes[-1]))
    params = jax.tree.map(np.float64, net.init(jax.random.key(0)))
    runs = [
        train.fit(net.loss, params, data, optimizer, steps=300, log_every=n)
        for n in (1, 7, 100, 300)
    ]
    assert steps_of_blocks == [0, 0, 100, 300]
    for run in runs[1:]:
        chex.assert_trees_all_equal(run.params, runs[0].params)
        chex.assert_trees_all_equal(run.opt_state, runs[0].opt_state)
        assert losses(run).items() <= losses(runs[0]).items()


def test_the_history_of_every_step_is_that_of_chunks_of_one():
    def loss(params, batch):
        value = NET.loss(params, batch)
        return value, {"outputs": NET.forward(params, batch[0])[:, 0]}

    given = loss, PARAMS, (X, Y), optax.sgd(1.0)
    inside = train.fit(*given, steps=90, log_every=1)
    each = []
    train.fit(*given, steps=90, log_every=1, on_log=each.append)
    assert [entry["step"] for entry in each] == list(range(1, 91))
    for a, b in zip(inside.history, each, strict=True):
        assert (a["step"], a["loss"]) == (b["step"], b["loss"])
        np.testing.assert_array_equal(a["outputs"], b["outputs"])
    seconds = [entry["seconds"] for entry in inside.history]
    assert all(a < b for a, b in itertools.pairwise(seconds))
    params, step = PARAMS, jax.jit(jax.value_and_grad(NET.loss))
    for entry in each:
        value, slope = step(params, (X, Y))
        assert entry["loss"] == pytest.approx(float(value), rel=1e-12, abs=0)
        params = jax.tree.map(lambda p, g: p - g, params, slope)


def test_a_low_loss_stops_at_its_own_step_in_a_block(steps_of_blocks):
    given = NET.loss, PARAMS, (X, Y), optax.sgd(2.0)
    each = losses(train.fit(*given, steps=800, log_every=1))
    below = each[BAD + 1] * (1 + 1e-12)  # that of the step after so many
    assert min(loss for step, loss in each.items() if step <= BAD) > below
    result = train.fit(*given, steps=800, log_every=400, loss_below=below)
    assert steps_of_blocks == [0, 400]
    assert result.history[-1]["step"] == BAD
    assert result.stopped_because.endswith(f"at step {BAD:,}")
    before = train.fit(*given, steps=BAD, log_every=1)
    chex.assert_trees_all_equal(result.params, before.params)


def bad_loss(params, batch):
    return ((params - 1) ** 2).sum() + jnp.where(batch == BAD, jnp.nan, 0.0)


def bad_gradient(params, batch):
    root = jnp.sqrt(jnp.where(batch == BAD, 0 * params[0], 1.0))  # not steep at 1
    return ((params - 1) ** 2).sum() + root


@pytest.mark.parametrize("loss", [bad_loss, bad_gradient])
@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [
        (optax.sgd(0.01), 200),
        (CLIPPED, 200),
        (optax.chain(optax.zero_nans(), optax.sgd(0.01)), 0),
        (optax.apply_if_finite(optax.sgd(0.01), 5), 0),
    ],
    ids=["sgd", "clipped adam", "NaN made 0", "NaN passed over"],
)
def test_what_is_not_finite_in_a_block_stops_at_its_step(
    steps_of_blocks, loss, optimizer, steps
):
    given = loss, np.zeros(3), lambda step, key: step, optimizer
    result = train.fit(*given, steps=1000, log_every=200)
    assert steps_of_blocks == [steps]
    assert result.history[-1]["step"] == BAD
    assert result.stopped_because.startswith("not finite: ")
    assert f"at step {BAD}" in result.stopped_because
    before = train.fit(*given, steps=BAD, log_every=1)
    chex.assert_trees_all_equal(result.params, before.params)
    chex.assert_trees_all_equal(result.opt_state, before.opt_state)


@pytest.mark.parametrize(
    ("optimizer", "kept"),
    [
        (optax.sgd(0.1), [0, 1]),
        (optax.sgd(optax.cosine_decay_schedule(0.1, 9), momentum=0.9), [0, 1]),
        (optax.adamw(0.1), [0, 1]),
        (optax.clip(1.0), None),  # an infinity becomes 1
        (optax.chain(optax.clip(1.0), optax.sgd(0.1)), None),
        (optax.sign_sgd(0.1), None),
        (optax.chain(optax.zero_nans(), optax.adam(0.1)), None),
        (optax.masked(optax.set_to_zero(), {"w": True, "b": False}), None),
    ],
)
def test_which_optimisers_keep_what_is_not_finite(optimizer, kept):
    params = {"b": jnp.ones(2), "w": jnp.ones((3, 2))}
    found = _blocks.keepers(optimizer, params, optimizer.init(params))
    assert found == kept


def test_a_large_state_and_loops_are_stepped_through(steps_of_blocks):
    def looping(params, batch):
        more = jax.lax.scan(lambda c, _: (c * params, None), params, length=3)[0]
        return ((more - batch) ** 2).mean()

    given = {"steps": 64, "log_every": 64}
    train.fit(looping, np.float64(0.5), np.ones(3), optax.sgd(0.1), **given)
    large = nets.mlp((100, 100))
    params = jax.tree.map(np.float64, large.init(jax.random.key(0)))
    data = np.ones((2, 100)), np.ones((2, 100))
    train.fit(large.loss, params, data, optax.sgd(0.1), **given)
    assert steps_of_blocks == [0, 0]


def test_many_restarts_are_one_run_of_the_sum_of_their_losses():
    starts = jax.vmap(NET.init)(jax.random.split(jax.random.key(0), 3))
    starts = jax.tree.map(np.float64, starts)

    def loss(params, batch):
        losses = jax.vmap(NET.loss, (0, None))(params, batch)
        return losses.sum(), {"losses": losses}

    given = (X, Y), optax.adam(0.05)
    many = train.fit(loss, starts, *given, steps=64)
    for k in range(3):
        nth = functools.partial(jax.tree.map, lambda p, k=k: p[k])
        start, end = nth(starts), nth(many.params)
        one = train.fit(NET.loss, start, *given, steps=64)
        chex.assert_trees_all_close(end, one.params, rtol=1e-9)
        own = many.history[-1]["losses"][k]
        assert own == pytest.approx(one.history[-1]["loss"], rel=1e-12, abs=0)


def test_a_step_is_one_call_into_which_xla_fuses_nothing():
    def step(x):
        return x - 0.1 * jax.grad(lambda x: ops.sigmoid(x).sum())(x)

    x = jnp.linspace(-1.0, 1.0, 4)
    apart = _blocks._compiled_apart(step, x)
    twice = jax.jit(lambda x: apart(apart(x))).lower(x).compile().as_text()
    # A rule within it, as the sigmoid's slope has one, would be a call of its own.
    assert len(re.findall(r"= \S+ call\(", twice)) == 2
