"""train.fit(checkpoint=): what is saved, what goes on, and what is refused."""

import os
import pathlib
import resource
import warnings

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from jaxbp import nets, train

NET, WIDER = (
    nets.mlp((3, n, 2), output="softmax", loss="softmax_cross_entropy") for n in (8, 9)
)
PARAMS = NET.init(jax.random.key(0))
X = jax.random.normal(jax.random.key(1), (40, 3))
DATA = (X, jax.nn.one_hot(jnp.arange(40) % 2, 2))
ROOT = pathlib.Path(__file__).parents[2]


def fit(steps, folder=None, *, loss=NET.loss, data=DATA, params=PARAMS, **options):
    options = {"batch_size": 8, "on_log": lambda entry: None, "seed": 3} | options
    optimizer = options.pop("optimizer", optax.adam(1e-2))
    return train.fit(
        loss, params, data, optimizer, steps=steps, checkpoint=folder, **options
    )


def without_times(history):
    timed = ("seconds", "steps_per_second")
    return [{k: v for k, v in e.items() if k not in timed} for e in history]


def saved_steps(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


@pytest.mark.parametrize("gradient", ["manual", "both"])
def test_a_run_goes_on_with_the_same_bits(tmp_path, gradient):
    options = {"gradient": gradient, "log_every": 4}
    whole = fit(20, **options)
    fit(11, tmp_path, **options)  # in the middle of an epoch
    result = fit(20, tmp_path, resume=True, **options)
    chex.assert_trees_all_equal(result.params, whole.params)
    chex.assert_trees_all_equal(result.opt_state, whole.opt_state)
    entries = without_times(result.history)
    assert [e["step"] for e in entries] == [4, 8, 11, 12, 16, 20]
    assert [e for e in entries if e["step"] != 11] == without_times(whole.history)
    seconds = [e["seconds"] for e in result.history]
    assert seconds == sorted(seconds)


def test_state_and_keys_are_saved(tmp_path):
    def loss(params, batch, *, state, key):
        noise = jax.random.normal(key, ())
        count, mean, own = state
        mean = 0.9 * mean + 0.1 * params.mean()
        own = jax.random.split(own)[0]
        drawn = jax.random.normal(own, ())
        return ((params - noise - drawn) ** 2).sum(), (count + 1, mean, own)

    def run(steps, folder=None, **options):
        state = (jnp.int32(0), jnp.zeros(()), jax.random.key(5))
        options |= {"has_state": True, "state": state, "on_log": lambda entry: None}
        data, sgd = jnp.zeros((4, 1)), optax.sgd(0.1)
        params = jnp.arange(3.0)
        return train.fit(
            loss, params, data, sgd, steps=steps, checkpoint=folder, **options
        )

    whole = run(9)
    run(5, tmp_path)
    result = run(9, tmp_path, resume=True)
    chex.assert_trees_all_equal(result.params, whole.params)
    assert int(result.state[0]) == 9
    assert result.state[1] == whole.state[1]
    assert result.state[2] == whole.state[2]


def test_the_newest_three_are_kept_every_so_often(tmp_path):
    fit(25, (5, tmp_path), log_every=2)
    assert saved_steps(tmp_path) == [15, 20, 25]


def test_resume_of_an_empty_folder_begins(tmp_path):
    result = fit(5, tmp_path / "new", resume=True)
    chex.assert_trees_all_equal(result.params, fit(5).params)


def test_what_is_done_already_is_not_done_again(tmp_path):
    first = fit(5, tmp_path)
    again = fit(5, tmp_path, resume=True)
    chex.assert_trees_all_equal(again.params, first.params)
    assert without_times(again.history) == without_times(first.history)
    assert again.stopped_because == "steps"


def spoil(path):
    """Half of every file: as after a crash of the machine."""
    for file in path.rglob("*"):
        if file.is_file() and (size := file.stat().st_size):
            os.truncate(file, size // 2)


def test_a_torn_checkpoint_is_passed_over(tmp_path, capsys):
    whole = fit(20, log_every=5)
    fit(15, tmp_path, log_every=5)
    spoil(tmp_path / "15")
    result = fit(20, tmp_path, resume=True, log_every=5)
    said = capsys.readouterr().err
    assert "the checkpoint of step 15 is torn" in said
    assert "resumed after step 10" in said
    chex.assert_trees_all_equal(result.params, whole.params)
    assert saved_steps(tmp_path) == [10, 15, 20]
    assert (tmp_path / "torn-15").is_dir()


def test_nothing_but_torn_ones_is_an_error(tmp_path):
    fit(5, tmp_path, log_every=5)
    spoil(tmp_path / "5")
    with pytest.raises(ValueError, match="all of them torn: begin anew"):
        fit(9, tmp_path, resume=True)
    assert saved_steps(tmp_path)[-1] == 5


def test_a_function_among_the_parameters_is_known_by_its_name(tmp_path):
    def loss(params, batch):
        return ((params["f"](params["w"]) - batch) ** 2).mean()

    def given():  # as another process has it, at another address
        return {"w": jnp.zeros(3), "f": lambda x: jnp.tanh(x)}

    options = {"loss": loss, "data": jnp.ones(3), "batch_size": None}
    fit(5, tmp_path, params=given(), **options)
    result = fit(9, tmp_path, params=given(), resume=True, **options)
    whole = fit(9, params=given(), **options)
    chex.assert_trees_all_equal(result.params["w"], whole.params["w"])


def other_data():
    return (X.at[3, 1].add(1e-3), DATA[1])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (
            {"loss": WIDER.loss, "params": WIDER.init(jax.random.key(0))},
            r"params\[0\]\['b'\].*\(8,\).*\(9,\)",
        ),
        ({"optimizer": optax.sgd(0.1, momentum=0.9)}, "the optimizer's state"),
        ({"optimizer": optax.adam(2e-2)}, "optimizer to be one whose .* are 0.0"),
        ({"optimizer": optax.adam(1e-2, b2=0.9)}, "optimizer to be one whose"),
        ({"data": other_data()}, r"data\[0\].*checksum"),
        ({"data": (X[:32], DATA[1][:32])}, r"data\[0\].*\(40, 3\).*\(32, 3\)"),
        ({"data": lambda step, key: DATA, "batch_size": None}, "a function"),
        ({"batch_size": 4}, "batch_size to be 8"),
        ({"seed": 4}, "seed to be 3"),
        ({"gradient": "auto"}, "gradient to be manual"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_another_run_is_refused_by_name(tmp_path, given, named):
    fit(5, tmp_path)
    with pytest.raises(ValueError, match=named):
        fit(9, tmp_path, resume=True, **given)
    assert saved_steps(tmp_path)[-1] == 5


@pytest.mark.parametrize(
    ("checkpoint", "options", "error", "message"),
    [
        (None, {"resume": True}, ValueError, "checkpoint to be a folder"),
        (3, {}, TypeError, "a folder or"),
        ((0, "x"), {}, ValueError, r"checkpoint\[0\] to be an integer from 1"),
        ("/dev/null/folder", {}, ValueError, "a folder that can be written"),
    ],
)
def test_what_is_no_folder_is_refused(checkpoint, options, error, message):
    with pytest.raises(error, match=message):
        fit(5, checkpoint, **options)


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    fit(5, tmp_path)
    with pytest.raises(ValueError, match="resume=True goes on"):
        fit(5, tmp_path)
    assert saved_steps(tmp_path)[-1] == 5


def test_a_full_disk_is_said_and_the_older_one_stands(tmp_path):
    seen = []

    def full(entry):  # after the first is written
        seen.append(entry["step"])
        most = 100 if len(seen) == 2 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    try:
        with pytest.warns(RuntimeWarning, match="step 10: .*; step 5's stands"):
            fit(15, tmp_path, log_every=5, on_log=full)
    finally:
        infinity = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (infinity, infinity))
    assert saved_steps(tmp_path) == [5, 15]
    assert not list(tmp_path.glob("*tmp*"))
    chex.assert_trees_all_equal(fit(20, tmp_path, resume=True).params, fit(20).params)


def test_other_metrics_are_refused_by_name(tmp_path):
    def loss(params, batch):
        return NET.loss(params, batch), {"n": jnp.zeros(3)}

    fit(4, tmp_path, loss=loss)
    for other in (NET.loss, lambda *a: (NET.loss(*a), {"n": jnp.zeros(4)})):
        with pytest.raises(ValueError, match=r"the loss's metrics\['n'\] to be float"):
            fit(8, tmp_path, loss=other, resume=True)
    assert fit(8, tmp_path, loss=loss, resume=True).history[-1]["step"] == 8


@pytest.mark.parametrize("log_every", [4, 7])  # 385 is no entry of its own, and one
def test_what_stopped_a_run_is_tried_again_and_told_once(tmp_path, log_every):
    stop = {"loss_below": 0.64, "log_every": log_every}
    stopped = fit(400, tmp_path, **stop)
    assert stopped.stopped_because.endswith("< 0.64 at step 385")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = fit(400, tmp_path, resume=True, **stop)
        on = fit(400, tmp_path, resume=True, **stop | {"loss_below": 0.635})
    assert again.stopped_because == stopped.stopped_because
    assert without_times(again.history) == without_times(stopped.history)
    alone = fit(400, **stop | {"loss_below": 0.635})
    assert without_times(on.history) == without_times(alone.history)
