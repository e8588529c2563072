"""T5, T6: the printed errors to the last digit, and what they depend on."""

import argparse
import dataclasses

import jax
import numpy as np
import pytest

from experiments import _descent, _runs, t5, t6
from experiments._descent import errors, first
from experiments._rows import tabulate

TRUE_GRADIENT = {  # TUTORIALS.md, T6
    0: 0.4964100319027255,
    10_000: 0.008584525653247157,
    20_000: 0.0057894598625078085,
    30_000: 0.004629176776769985,
    40_000: 0.0039587652802736475,
    50_000: 0.003510122567861678,
    60_000: 0.00318350238587483,
    70_000: 0.0029323063422830725,
}


@pytest.fixture(scope="module")
def one():
    with jax.enable_x64(True):
        net, (start, _) = _runs.network(3, 1), _descent.starts()
        return _runs.run_all(_descent.one_layer, net, start, t5.Y, t5.ITERATIONS)


@pytest.fixture(scope="module")
def two():
    with jax.enable_x64(True):
        net, (_, start) = _runs.network(3, 4, 1), _descent.starts()
        return _runs.run_all(_descent.two_layers, net, start, t6.Y, t6.ITERATIONS)


@pytest.fixture(scope="module")
def parting(two):
    with jax.enable_x64(True):
        return t6.part(two, _runs.network(3, 4, 1), _descent.starts()[1])


def test_one_layer_meets_every_printed_digit(one):
    history = errors(one.page, t5.Y)
    for i, printed in t5.PRINTED_ERRORS.items():
        assert history[i] == float(printed)
    for output, printed in zip(one.page[-1], t5.PRINTED_O, strict=True):
        assert round(output, 8) == float(printed)


def test_the_printed_weights_allow_the_printed_errors():
    (w,), _ = _descent.starts()
    assert [f"{v:.8f}".rstrip("0") for v in w[:, 0]] == list(t5.PRINTED_W)
    history, width = t5.from_printed_weights([w])
    for i, printed in t5.PRINTED_ERRORS.items():
        # Beside the interval, rounding: this machine's NumPy is not the page's.
        assert abs(float(printed) - history[i]) <= width[i] + 1e-14
        assert abs(float(printed) / history[i] - 1) < 2e-9


def test_two_layers_meet_every_printed_digit(two):
    history = errors(two.page, t6.Y)
    for i, printed in t6.PRINTED_ERRORS.items():
        assert history[i] == float(printed)
    for output, printed in zip(two.page[-1], t6.PRINTED_O, strict=True):
        assert round(output, 8) == float(printed)


def test_the_true_gradient_has_the_recorded_errors(two):
    for outputs in (two.manual, two.auto, two.true):
        history = errors(outputs, t6.Y)
        for i, value in TRUE_GRADIENT.items():
            assert history[i] == pytest.approx(value, rel=1e-12, abs=0)


def test_loops_agree_with_numpy_throughout_down_the_true_gradient(one, two):
    for runs in (one, two):
        np.testing.assert_allclose(runs.manual, runs.true, rtol=0, atol=1e-12)
        np.testing.assert_allclose(runs.auto, runs.true, rtol=0, atol=1e-12)


def test_one_layer_loop_agrees_with_numpy_by_the_published_rule(one):
    np.testing.assert_allclose(one.loop, one.page, rtol=0, atol=1e-12)


def test_the_published_rule_parts_where_one_unit_in_the_last_place_does(parting):
    when = first(parting.page > 1e-10)
    assert when is not None
    assert 4_900 < when < 5_100
    # From there on another arithmetic parts like another start, and not before it.
    for other in (parting.loop, parting.here):
        assert other[: when - 50].max() < 1e-12
        then = first(other > 1e-10)
        # This machine's NumPy may be the page's: then the two never part.
        assert abs(then - when) < 50 if then else not other.any()
    assert parting.page[10_000:].max() > 1e-3


def test_the_true_gradient_amplifies_nothing(parting):
    assert parting.true.max() < 1e-14


def test_iterations_to_an_error_below_a_hundredth(one, two):
    assert _runs.until(errors(one.page, t5.Y)) == 562
    assert _runs.until(errors(one.manual, t5.Y)) == float("inf")
    assert _runs.until(errors(two.page, t6.Y)) == 29_748
    assert _runs.until(errors(two.manual, t6.Y)) == 7_715


def test_fused_multiply_add_rounds_once():
    a, tiny = 1 + 2.0**-52, 2.0**-104
    assert _descent._fma(a, a, -(1 + 2.0**-51)) == tiny


@pytest.mark.parametrize("system", [t5, t6])
def test_labels_are_what_the_numbers_say(system, one, two):
    runs = one if system is t5 else two
    rows = _rows(system, runs)
    claims = {claim.quantity: claim for claim in system.claims(runs)}
    wrong = {row.quantity for row in rows if row.verdict == "erratum"}
    assert wrong == {name for name, claim in claims.items() if claim.erratum}
    assert {claim.erratum for claim in claims.values()} == {"", "E1"}
    assert all("the formula itself" in row.note for row in rows if row.erratum)
    assert sum(row.numeric is not None for row in rows) >= 7
    for row in rows:
        if row.numeric is not None and row.error is not None:
            scale = row.scale or 0.0
            assert abs((row.auto or 0.0) - row.manual) <= 1e-13 * scale
            assert abs(row.numeric - row.manual) <= row.error <= 1e-9 * scale


def test_the_true_derivative_mends_e1_and_a_lost_digit_is_found(one):
    claims = {claim.quantity: claim for claim in t5.claims(one)}
    slope = lambda v, n: v[f"E[{n}]"] * v[f"O[{n}]"] * (1 - v[f"O[{n}]"])
    mended = dataclasses.replace(claims["delta[2]"], formula=lambda v: slope(v, 2))
    name = "error at iteration 500, page's rule"
    assert claims[name].published == "0.011244556807545731"
    perturbed = dataclasses.replace(claims[name], published="0.011244556807545733")
    claims |= {"delta[2]": mended, name: perturbed}
    verdicts = {row.quantity: row.verdict for row in _rows(t5, one, claims.values())}
    assert verdicts["delta[2]"] == "met"
    assert verdicts["delta[1]"] == "erratum"
    assert verdicts[name] == "erratum"


def test_reports_draw_and_tell(monkeypatch, one, two, parting):
    monkeypatch.setattr(t6, "part", lambda *_: parting)
    for system, runs, figures in (
        (t5, one, {"t5_errors"}),
        (t6, two, {"t6_errors", "t6_growth"}),
    ):
        monkeypatch.setattr(_runs, "run_all", lambda *_, runs=runs: runs)
        report = system.run(argparse.Namespace())
        assert set(report.figures) == figures
        (axes,) = next(iter(report.figures.values())).axes
        assert axes.get_yscale() == "log"
        assert "iterations to error < 0.01" in report.text


def _rows(system, runs, claims=None):
    start = _descent.starts()[0 if system is t5 else 1]
    sizes = (3, 1) if system is t5 else (3, 4, 1)
    known = system.first_iteration(_runs.network(*sizes), start)
    known |= _runs.witnesses(runs, system.Y, system.PRINTED_ERRORS)
    given = {} if system is t5 else t6.given(start)
    return tabulate("", known, claims or system.claims(runs), given)
