"""train.fit: what it computes, when it stops, and what it says where it cannot."""

import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxbp import autodiff, nets, ops, train

X = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
Y = np.array([[0.0], [1], [1], [0]])
NET = nets.mlp((2, 4, 1), output="sigmoid", loss="binary_cross_entropy")
PARAMS = jax.tree.map(np.float64, NET.init(jax.random.key(1)))


def silent(entry):
    pass


def fit(*args, **options):
    return train.fit(*args, **{"on_log": silent} | options)


def by_the_loop(loss, params, batches, optimizer):
    """Steps one by one, the gradient autodiff's."""
    opt_state = optimizer.init(params)
    for batch in batches:
        grads = jax.grad(autodiff(loss))(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("gradient", [None, "manual", "auto", "both"])
def test_steps_are_those_of_a_plain_loop(gradient):
    optimizer = optax.adam(0.05)
    result = fit(NET.loss, PARAMS, (X, Y), optimizer, steps=60, gradient=gradient)
    expected = by_the_loop(NET.loss, PARAMS, [(X, Y)] * 60, optimizer)
    # Sixty steps, in which adam divides by what may be small.
    chex.assert_trees_all_close(result.params, expected, rtol=1e-9)
    assert result.stopped_because == "steps"
    chex.assert_trees_all_equal_shapes_and_dtypes(result.params, PARAMS)


def test_a_low_loss_stops_before_its_own_step():
    options = {"loss_below": 0.3, "steps": 5000}
    result = fit(NET.loss, PARAMS, (X, Y), optax.sgd(2.0), **options)
    assert result.stopped_because.startswith("loss_below: ")
    step = result.history[-1]["step"]
    assert NET.loss(result.params, (X, Y)).mean() < 0.3
    before = fit(NET.loss, PARAMS, (X, Y), optax.sgd(2.0), steps=step - 1)
    assert NET.loss(before.params, (X, Y)) >= 0.3
    again = fit(NET.loss, PARAMS, (X, Y), optax.sgd(2.0), steps=step)
    chex.assert_trees_all_equal(result.params, again.params)


def test_an_epoch_holds_every_row_once_but_for_the_rest():
    rows = np.arange(7.0)

    def loss(params, batch):  # its gradient tells which rows there were
        return (params * 10.0**batch).sum()

    seen = []
    for steps in range(1, 7):
        result = fit(
            loss, np.zeros(()), rows, optax.sgd(1.0), steps=steps, batch_size=2
        )
        seen.append(-float(result.params))
    drawn = np.diff([0, *seen]).round().astype(int)
    for epoch in (drawn[:3], drawn[3:]):
        digits = sum(epoch)
        assert set(str(digits)) <= {"0", "1"}
        assert str(digits).count("1") == 6
    assert list(drawn[:3]) != list(drawn[3:])
    key, _ = jax.random.split(jax.random.key(0))  # as the docstring says
    for e, epoch in enumerate((drawn[:3], drawn[3:])):
        order = jax.random.permutation(jax.random.fold_in(key, e), 7)[:6]
        assert list(epoch) == [10**i + 10**j for i, j in order.reshape(3, 2).tolist()]
    epochs = fit(loss, np.zeros(()), rows, optax.sgd(1.0), epochs=2, batch_size=2)
    assert float(epochs.params) == -seen[-1]
    assert epochs.stopped_because == "epochs"


def test_data_may_be_made_in_the_program():
    def batch(step, key):
        return jax.random.normal(key, (8,)) + step

    def loss(params, batch):
        return ((params - batch) ** 2).mean()

    result = fit(loss, np.zeros(()), batch, optax.sgd(0.5), steps=20)
    assert abs(float(result.params) - 18.5) < 2
    other = fit(loss, np.zeros(()), batch, optax.sgd(0.5), steps=20, seed=1)
    assert result.params != other.params


def test_the_same_seed_gives_the_same_bits_however_it_is_cut():
    def run(**options):
        data = X[jnp.arange(12) % 4], Y[jnp.arange(12) % 4]
        return fit(
            NET.loss, PARAMS, data, optax.adam(0.1), steps=50, batch_size=5, **options
        )

    once = run()
    chex.assert_trees_all_equal(once.params, run().params)
    chex.assert_trees_all_equal(once.params, run(log_every=7).params)
    assert [e["step"] for e in run(log_every=20).history] == [20, 40, 50]


def test_one_program_serves_all_chunks():
    traces = []

    def loss(params, batch):
        traces.append(None)
        return ((params - batch) ** 2).mean()

    fit(loss, np.zeros(()), np.ones(3), optax.sgd(0.1), steps=3, log_every=3)
    few = len(traces)
    traces.clear()
    fit(loss, np.zeros(()), np.ones(3), optax.sgd(0.1), steps=97, log_every=4)
    assert len(traces) == few


def test_both_tells_how_far_apart_they_were():
    result = fit(NET.loss, PARAMS, (X, Y), optax.sgd(1.0), steps=200, gradient="both")
    assert result.stopped_because == "steps"
    apart = result.history[-1]["apart"]
    assert sorted(apart) == ["[0]['b']", "[0]['w']", "[1]['b']", "[1]['w']"]
    assert all(0 <= off < 1e-9 for off in apart.values())


def test_state_key_and_metrics():
    def loss(params, batch, *, state, key):
        noise = jax.random.normal(key, batch.shape)
        value = ((params - batch - 0.01 * noise) ** 2).mean()
        return value, state + 1, {"twice": 2 * value}

    options = {"has_state": True, "state": jnp.int32(3), "steps": 10}
    result = fit(loss, np.zeros(()), np.ones(4), optax.sgd(0.1), **options)
    assert int(result.state) == 13
    entry = result.history[-1]
    assert entry["twice"] == pytest.approx(2 * entry["loss"])


def test_narrow_floats_are_trained_as_float32():
    def loss(params, batch):
        assert params.dtype == jnp.bfloat16
        return ((params.astype("f4") - batch) ** 2).mean()

    start = jnp.full((3,), 256, jnp.bfloat16)
    # A step is a sixteenth of bfloat16's spacing at 256: rounded, none would be made.
    result = fit(loss, start, jnp.full((3,), 512, "f4"), optax.sgd(1e-3), steps=400)
    assert result.params.dtype == jnp.bfloat16
    assert (result.params > 256).all()


def test_modules_and_trees_of_other_libraries_are_parameters():
    equinox = pytest.importorskip("equinox")
    flax = pytest.importorskip("flax.linen")

    module = equinox.nn.MLP(2, 1, 8, 1, key=jax.random.key(0))

    def loss(module, batch):
        x, y = batch
        return ((jax.vmap(module)(x) - y) ** 2).mean()

    result = fit(loss, module, (X, Y), optax.adam(0.02), steps=600, loss_below=0.01)
    assert result.stopped_because.startswith("loss_below")
    assert result.params.activation is module.activation

    dense = flax.Dense(1)
    params = dense.init(jax.random.key(0), X)

    def squared(params, batch):
        x, y = batch
        return ops.squared_error(dense.apply(params, x), y).mean()

    result = fit(
        squared, params, (X, X.sum(1, keepdims=True)), optax.sgd(0.3), steps=400
    )
    chex.assert_trees_all_equal_structs(result.params, params)
    np.testing.assert_allclose(result.params["params"]["kernel"], 1, atol=1e-3)


def test_evaluation_has_entries_of_its_own():
    def right(params):
        return {"accuracy": ((NET.forward(params, X) > 0.5) == (Y > 0.5)).mean()}

    options = {"steps": 20, "log_every": 8, "evaluate": (5, right)}
    history = fit(NET.loss, PARAMS, (X, Y), optax.sgd(1.0), **options).history
    assert [e["step"] for e in history] == [5, 8, 10, 15, 16, 20]
    assert ["accuracy" in e for e in history] == [True, False, True, True, False, True]


def test_a_key_pressed_ends_the_run_after_its_chunk():
    def press(entry):
        if entry["step"] == 20:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    options = {"steps": 1000, "log_every": 10, "on_log": press}
    result = fit(NET.loss, PARAMS, (X, Y), optax.sgd(1.0), **options)
    assert result.stopped_because == "interrupted after 30 steps"
    assert signal.getsignal(signal.SIGINT) is before
    whole = fit(NET.loss, PARAMS, (X, Y), optax.sgd(1.0), steps=30)
    chex.assert_trees_all_equal(result.params, whole.params)


def test_lines_are_printed_where_there_is_no_terminal(capsys):
    train.fit(NET.loss, PARAMS, (X, Y), optax.sgd(1.0), steps=20)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train.fit: compiling …"
    assert lines[-1].startswith("train.fit: step 20 of 20, loss ")
    assert lines[-1].endswith(" steps/s")


def plain(params, batch):
    return ((params - batch) ** 2).mean()


W = np.zeros(())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ValueError, "conditions to stop by to be at least one; got none"),
        ({"loss": 3}, TypeError, "loss to be a function; got int 3"),
        ({"optimizer": 3}, TypeError, "optimizer to be an optax transformation"),
        ({"steps": -1}, ValueError, "steps to be an integer from 0 on; got -1"),
        ({"batch_size": 4}, ValueError, "batch_size to be at most 3; got 4 of data"),
        ({"data": ()}, ValueError, "data to be arrays with a leading axis"),
        ({"data": np.zeros((0, 2))}, ValueError, "an array with rows along its first"),
        (
            {"data": (np.zeros(3), np.zeros(4))},
            ValueError,
            "data[1] to be of as many rows as data[0], 3; got float64 (4,)",
        ),
        ({"params": np.int32(3)}, ValueError, "params to be a tree with floating arr"),
        ({"gradient": "hand"}, ValueError, "gradient to be 'manual', 'auto', 'both'"),
        ({"gradient": "both"}, ValueError, "'both' for plain, which holds none"),
        ({"loss": lambda p, b: p - b}, ValueError, "the loss to be a real scalar; got"),
        ({"has_state": True, "loss": lambda p, b, state: p}, ValueError, "(scalar, st"),
        ({"evaluate": 3}, TypeError, "evaluate to be (every, function); got int 3"),
        ({"log_every": 0}, ValueError, "log_every to be an integer from 1 on; got 0"),
        (
            {"data": lambda step, key: W, "epochs": 1},
            ValueError,
            "data to be arrays, with epochs=",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(given, error, message):
    start = {
        "loss": plain,
        "params": W,
        "data": np.ones(3),
        "optimizer": optax.sgd(1.0),
    }
    options = start | ({"steps": 1} if given and "epochs" not in given else {}) | given
    loss, params, data, optimizer = (options.pop(name) for name in start)
    with pytest.raises(error) as caught:
        fit(loss, params, data, optimizer, **options)
    assert str(caught.value).startswith("jaxbp.fit: expected ")
    assert message in str(caught.value)
