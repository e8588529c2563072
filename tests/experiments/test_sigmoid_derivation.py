"""T4: the derivation's lines against autodiff, and the two plots."""

import argparse
import dataclasses

import numpy as np
import pytest

from experiments import t4
from experiments._rows import Witness, tabulate


@pytest.fixture(scope="module")
def report():
    import jax

    with jax.enable_x64(True):
        return t4.run(argparse.Namespace())


def test_right_lines_equal_autodiff_over_the_plotted_range():
    for line, worst in t4.deviations(t4.PLOTTED):
        assert (worst < 1e-14) == (not line.erratum), (line.text, worst)


def test_lines_printed_wrong_are_unequal_everywhere():
    for line in t4.LINES:
        if line.erratum == "E6":
            for x in t4.PLOTTED:
                right = np.exp(-x) / (1 + np.exp(-x)) ** 2
                assert abs(line.formula(x, lambda name: 1.0) - right) > 1e-3 * right


def test_labels_are_what_the_numbers_say(report):
    claims = {claim.quantity: claim for claim in t4.claims()}
    wrong = {row.quantity for row in report.rows if row.verdict == "erratum"}
    assert wrong == {name for name, claim in claims.items() if claim.erratum}
    assert {claim.erratum for claim in claims.values()} == {"", "E6", "E9"}


def test_three_witnesses_agree(report):
    differences = [row for row in report.rows if "largest difference" in row.quantity]
    assert len(differences) == 9  # a line of the derivation each
    for row in report.rows:
        if row in differences:
            continue
        assert row.auto == pytest.approx(row.manual, rel=1e-13)
        if row.numeric is not None:
            assert abs(row.numeric - row.manual) <= row.error <= 1e-9 * row.scale


def test_a_lost_sign_becomes_an_erratum_and_a_mended_line_does_not(report):
    witnesses = {
        row.quantity.split(",")[0]: Witness(row.manual, row.auto) for row in report.rows
    }
    claims = t4.claims()
    right = next(c for c in claims if c.note == "e^(−x)/(1+e^(−x))²")
    value = -np.exp(2.0) / (1 + np.exp(2.0)) ** 2
    lost = dataclasses.replace(right, formula=lambda v: value)
    mended = dataclasses.replace(
        next(c for c in claims if c.erratum == "E9"),
        formula=lambda v: np.exp(2.0) * v["d/dx (−x) at −2"],
    )
    rows = tabulate("T4", witnesses, [lost, mended])
    assert [row.verdict for row in rows[:2]] == ["erratum", "met"]


def test_plots_are_as_described(report):
    (axes,) = report.figures["t4_sigmoid"].axes
    assert axes.get_title() == "Sigmoid"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    x, y = axes.lines[0].get_data()
    np.testing.assert_allclose(x, -10 + 0.2 * np.arange(100), atol=1e-13)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-x)), rtol=1e-14)

    (axes,) = report.figures["t4_derivative"].axes
    assert axes.get_title() == "Derivative of the Sigmoid Function"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["Derivative of Sigmoid", "Sigmoid"]
    assert [line.get_color() for line in axes.lines] == ["red", "blue"]
    assert axes.get_legend()._loc == 7  # centre right
