"""Training by both routes: one curve where the rule is right, two where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import _figures, _terminal, _told, _training
from experiments._results import Report
from experiments._rows import Witness, tabulate
from jaxbp import nets

NET = nets.mlp((2, 4, 1), output="sigmoid", loss="binary_cross_entropy")
X = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
Y = np.array([[0.0], [1], [1], [0]])


def bent(by):
    """The network's loss with one cotangent a little off: that of the first bias."""

    @jax.custom_vjp
    def loss(params, x, y):
        return NET.loss(params, (x, y))

    def bwd(res, bar):
        (first, *others), x_bar, y_bar = NET.loss_bwd(res, bar)
        first = {**first, "b": first["b"].at[0].multiply(1 + by)}
        return (first, *others), x_bar, y_bar

    loss.defvjp(NET.loss_fwd, bwd)
    return lambda params, batch: loss(params, *batch)


def trained(loss, steps=200, evaluate=None):
    start = NET.init(jax.random.key(3))
    evaluate = evaluate or (lambda p: {"test loss": NET.loss(p, (X, Y))})
    optimizer = optax.sgd(1.0, momentum=0.5)
    return _training.train_twice(
        "XOR", loss, start, (X, Y), optimizer, steps=steps, evaluate=evaluate
    )


def disagreeing(found):
    rows = tabulate("XOR", found.witnesses("network"))
    return _told.disagreements(rows)


def test_a_right_rule_is_one_curve():
    found = trained(NET.loss)
    assert found.manual.curves["loss"][-1] < 0.5 * found.manual.curves["loss"][0]
    assert disagreeing(found) == []
    assert "PARTED" not in _training.said(found)
    assert list(found.manual.steps) == list(range(5, 201, 5))
    # Both routes and the unsettled one are three runs: none is another's history.
    assert any(found.gap("loss") > 0) or any(found.gap("test loss") > 0)


@pytest.mark.parametrize("by", [1e-2, 1e-6, 1e-10])
def test_a_rule_a_little_wrong_in_one_element_parts_the_curves(by):
    found = trained(bent(by))
    assert len(disagreeing(found)) > 20
    assert "PARTED from step " in _training.said(found)


def test_a_run_that_ends_early_is_parted():
    right = trained(NET.loss, steps=10)
    short = right.manual.result.history[:4]
    curves = _training._curves(short, list(right.manual.steps))
    assert np.isnan(curves["loss"][4:]).all()
    stopped = right._replace(manual=right.manual._replace(curves=curves))
    assert len(disagreeing(stopped)) == 12
    assert "PARTED from step 5 on" in _training.said(stopped)


def test_an_unsettled_parameter_is_one_unit_of_roundoff_off():
    params = {"w": jnp.linspace(-3, 1, 40), "b": jnp.array([1e-9])}
    seen = []

    def loss(moved, batch, state):
        seen.append((moved, state))
        return batch

    for draw in range(2):
        key = jax.random.key(draw)
        assert _training.unsettled(loss)(params, 7, key=key, state="s") == 7
    for moved, state in seen:
        assert state == "s"
        for name, p in params.items():
            off = np.abs(np.asarray(moved[name] / p - 1))
            assert (off > 0).all()
            assert (off <= 2 * np.finfo(float).eps).all()
    assert any(a != b for a, b in zip(seen[0][0]["w"], seen[1][0]["w"], strict=True))


def test_what_rounding_explains_never_shrinks_and_starts_at_some_units():
    curve, rough = np.ones(4), np.array([1.0, 1 + 1e-9, 1 + 1e-12, 1])
    allowed = _training._rounding(curve, rough)
    assert allowed[0] == 8 * np.finfo(float).eps
    assert allowed[1:] == pytest.approx([1.6e-8] * 3)


def test_where_rounding_explains_too_much_nothing_is_shown(capsys):
    known = {"loss at step 9": Witness(1.0, 1.0, rounding=0.01)}
    report = Report(tabulate("XOR", known), text="it says")
    console = _terminal.Console(width=80)
    assert not _terminal.print_summary(console, {"xor": report})
    _terminal.print_report(console, "XOR: a title", report, "a path")
    out = capsys.readouterr().out
    assert "0 of 1 trained by both gradients" in out
    assert "the witnesses disagree on loss at step 9" in out
    assert "it says" in out


def test_as_good_is_within_two_standard_errors():
    theirs = np.zeros(100)
    theirs[:10] = 1
    worse = theirs.copy()
    worse[50:53] = 1  # 3 ± 1.7 errors more
    assert _training.as_good(worse, theirs)
    worse[50:56] = 1  # 6 ± 2.4
    assert not _training.as_good(worse, theirs)
    assert _training.as_good(theirs, worse)
    assert _training.as_good(theirs, theirs)
    assert _training.as_good(theirs + 1e-9, theirs)
    assert not _training.as_good(theirs + 1e-6, theirs)


def test_ctrl_c_in_a_run_ends_all(monkeypatch):
    def pressed(*_, **__):
        return _training.train.Result({}, (), None, [], "interrupted after 3 steps")

    monkeypatch.setattr(_training.train, "fit", pressed)
    with pytest.raises(KeyboardInterrupt):
        trained(NET.loss)


def test_curves_are_drawn_with_what_rounding_explains():
    pytest.importorskip("matplotlib")
    found = trained(NET.loss, steps=40)
    loss, apart = _figures.curves("XOR", found).axes
    drawn = {line.get_label(): line for line in loss.lines}
    for run, name in zip(found[:2], ("hand-written", "autodiff"), strict=True):
        assert (drawn[f"batch, {name}"].get_ydata() == run.curves["loss"]).all()
        assert (drawn[f"test, {name}"].get_ydata() == run.curves["test loss"]).all()
    dots, bound, *_ = apart.lines
    gap = found.gap("loss")
    assert (dots.get_ydata()[gap > 0] == gap[gap > 0]).all()
    assert (bound.get_ydata() == found.allowed["loss"]).all()
    assert apart.get_yscale() == "log"


def test_confusions_are_counted():
    pytest.importorskip("matplotlib")
    y, guess = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 0])
    (axes,) = _figures.confusion("three", y, guess).axes
    said = {t.get_position()[::-1]: t.get_text() for t in axes.texts}
    assert said == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 2): "1", (2, 0): "2"}


def test_weights_and_letters_are_drawn():
    pytest.importorskip("matplotlib")
    units = np.arange(70 * 6.0).reshape(70, 2, 3)
    made = _figures.weights("units", units)
    images = [axes.images[0] for axes in made.axes if axes.images]
    assert len(images) == 64 + 1 or len(images) == 64  # a colour bar may be one
    assert (images[3].get_array() == units[3]).all()
    rows = np.random.default_rng(0).normal(size=(27, 5))
    (axes,) = _figures.letters({"net": rows}, ".abcdefghijklmnopqrstuvwxyz").axes
    assert [t.get_text() for t in axes.texts][:3] == [".", "a", "b"]
