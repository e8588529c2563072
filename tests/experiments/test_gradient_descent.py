"""T11: the loop stops for the right reason; its first step holds the page's claims."""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import t11
from experiments._rows import tabulate

SIZES = (2, 3, 3, 1)


@pytest.fixture(scope="module")
def start():
    with jax.enable_x64(True):
        net = t11.network(SIZES)
        return net, jax.jit(net.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def report():
    with jax.enable_x64(True):
        return t11.run(_options())


def test_the_loop_is_the_algorithm_written_out(start):
    net, params = start
    step = jax.jit(jax.value_and_grad(net.loss))
    batch = (jnp.asarray(t11.X), jnp.asarray(t11.Y))
    run = t11.descend(net, params, 1.0, 0.0, 40)
    for expected in run.losses:
        loss, slope = step(params, batch)
        assert float(loss) == pytest.approx(expected, rel=1e-13)
        params = jax.tree.map(lambda p, g: p - g, params, slope)


@pytest.mark.parametrize(
    ("below", "epochs", "done", "reason"),
    [
        (0.0, 40, 40, "40 epochs are reached, at loss 0.692"),
        (0.7, 1000, 2, "is below 0.7 after 2 epochs"),
        (10.0, 1000, 0, "is below 10 after 0 epochs"),
        (0.05, 0, 0, "0 epochs are reached, at loss 0.723"),
    ],
)
def test_it_stops_at_whichever_comes_first(start, below, epochs, done, reason):
    net, params = start
    run = t11.descend(net, params, 1.0, below, epochs)
    assert run.epochs == done == len(run.losses) - 1
    assert reason in run.reason(below)
    assert not (run.losses[:-1] < below).any()


def test_the_default_run_reaches_the_loss(report):
    known = {row.quantity: row for row in report.rows}
    assert known["epochs done"].manual == known["epochs done"].auto == 765
    assert known["loss at the end"].manual < 0.05
    assert "stopped: loss 0.049972 is below 0.05 after 765 epochs." in report.text
    (axes,) = report.figures["t11_loss"].axes
    assert len(axes.lines) == 3


def test_descents_by_either_gradient_agree(start):
    net, params = start
    runs = [
        t11.descend(net, params, 1.0, 0.05, 1000, gradient)
        for gradient in ("manual", "auto")
    ]
    np.testing.assert_allclose(runs[0].losses, runs[1].losses, rtol=1e-11)


def test_labels_are_what_the_numbers_say(report):
    claims = {claim.quantity: claim for claim in t11.claims(SIZES, 1.0)}
    wrong = {row.quantity for row in report.rows if row.verdict == "erratum"}
    assert wrong == {name for name, claim in claims.items() if claim.erratum}
    labels = {row.quantity: row.erratum for row in report.rows if row.erratum}
    assert labels.pop("new w112") == "E10"
    assert set(labels.values()) == {"E4"}
    assert len(labels) == 7


def test_mended_claims_vanish_and_a_lost_sign_appears(start):
    net, params = start
    known, given = t11.first_step(net, SIZES, params, 1.0)
    claims = {claim.quantity: claim for claim in t11.claims(SIZES, 1.0)}
    changed = []
    for name, sign in (("w112", -1), ("b1[2]", -1), ("w111", 1)):
        formula = lambda v, n=name, s=sign: v[n] + s * v[f"Δ{n}"]
        claim = claims[f"new {name}"]
        changed.append(dataclasses.replace(claim, formula=formula))
    rows = tabulate("T11", known, changed, given)
    assert [row.verdict for row in rows[:3]] == ["met", "met", "erratum"]


def test_three_witnesses_agree(report):
    for row in report.rows:
        if row.numeric is not None:
            assert abs(row.auto - row.manual) <= 1e-13 * row.scale
            assert abs(row.numeric - row.manual) <= row.error <= 1e-9 * row.scale


def test_the_chain_is_the_gradient_of_one_example(report):
    known = {row.quantity: row for row in report.rows}
    row = known["∂L/∂w222, one example"]
    assert row.verdict == "met"
    assert row.published_formula == pytest.approx(row.manual, rel=1e-14)


@pytest.mark.parametrize("sizes", [(2, 1), (2, 11, 1)])
def test_other_sizes_have_the_updates_but_not_the_chain(sizes):
    report = t11.run(_options(sizes=list(sizes), epochs=3))
    names = [row.quantity for row in report.rows]
    assert not any("w222, one example" in name for name in names)
    assert len(names) == len(set(names))
    second = [row for row in report.rows if row.erratum == "E10"]
    assert [row.quantity for row in second] == ["new w112"]
    assert "3 epochs are reached" in report.text


def _options(**changed):
    options = {"sizes": list(SIZES), "learning_rate": 1.0, "loss_below": 0.05}
    options |= {"epochs": 1000, "seed": 0}
    return argparse.Namespace(**options | changed)
