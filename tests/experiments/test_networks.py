"""T9, T10, T12: right values, sums over paths, what enumeration costs."""

import itertools
import math

import pytest

from experiments import t9, t10, t12


def close(row, value, rel=1e-13):
    assert row.manual == pytest.approx(value, rel=rel, abs=0)
    assert row.auto == pytest.approx(value, rel=rel, abs=0)
    if row.numeric is not None:
        assert row.numeric == pytest.approx(value, rel=1e-9, abs=0)


@pytest.mark.parametrize("loss", t9.LOSSES)
def test_t9_weight_gradients_are_products_of_links(ran, loss):
    rows = ran("t9")
    m = lambda name: rows[name].manual
    down = m(f"∂L/∂ŷ ({loss})")
    expected = {
        "w3": down * m("∂ŷ/∂w3"),
        "w2": down * m("∂ŷ/∂h2") * m("∂h2/∂w2"),
        "w1": down * m("∂ŷ/∂h2") * m("∂h2/∂h1") * m("∂h1/∂w1"),
    }
    for weight, value in expected.items():
        close(rows[f"∂L/∂{weight} ({loss})"], value)
        assert f"{value:.6g}" in rows.report.text


def test_t9_by_the_formulas_of_calculus(ran):
    w1, w2, w3 = t9.WEIGHTS
    s = lambda x: 1 / (1 + math.exp(-x))
    h1 = s(w1 * t9.X)
    h2 = s(w2 * h1)
    y = s(w3 * h2)
    unit = y * (1 - y) * w3 * h2 * (1 - h2) * h1
    close(ran("t9")["ŷ"], y)
    close(ran("t9")["∂L/∂w2 (squared error)"], 2 * (y - t9.TARGET) * unit)
    close(ran("t9")["∂L/∂w2 (cross-entropy)"], -unit / y)


def test_t10_three_paths_make_the_gradient(ran):
    rows = [r for r in ran("t10").report.rows if r.quantity.startswith("w121 →")]
    assert len(rows) == ran("t10")["number of paths from w121"].manual == 3
    whole = ran("t10")["∂L/∂w121"]
    for witness in ("manual", "auto", "numeric"):
        total = sum(getattr(row, witness) for row in rows)
        assert total == pytest.approx(getattr(whole, witness), rel=1e-9)
    assert sum(row.manual for row in rows) == pytest.approx(whole.auto, rel=1e-13)


def paths_from(sizes, layer, unit):
    """Every way from a unit to an output, by counting on one's fingers."""
    later = [range(size) for size in sizes[layer + 1 :]]
    return [(unit, *rest) for rest in itertools.product(*later)]


@pytest.mark.parametrize("sizes", [(2, 3, 3, 1), (2, 1), (2, 2, 4, 1), (2, 1, 1, 1, 1)])
def test_t10_counts_are_those_of_the_enumeration(sizes):
    total = number = shared = 0
    for layer in range(1, len(sizes)):
        for unit in range(sizes[layer]):
            for path in paths_from(sizes, layer, unit):
                # ∂a/∂w, then an activation a unit, a weight between two, the loss.
                factors = 1 + len(path) + (len(path) - 1) + 1
                total += sizes[layer - 1] * (factors - 1)
                number += sizes[layer - 1]
        # A cotangent times its activation's slope, its inputs, and its weights.
        weights = sizes[layer - 1] * sizes[layer]
        shared += sizes[layer] + weights + (weights if layer > 1 else 0)
    found = t10.count(sizes)
    assert (found.count, found.by_paths) == (number, total)
    assert found.by_backpropagation == shared


def test_t10_backpropagation_shares_and_grows_slowly():
    assert t10.count((2, 3, 3, 1)).by_paths == 150
    # From the loss: 1 + 3 + 3, then 3 + 9 + 9, then 3 + 6.
    assert t10.count((2, 3, 3, 1)).by_backpropagation == 37
    by_paths = [t10.count(s).by_paths for s in t10.DEPTHS]
    shared = [t10.count(s).by_backpropagation for s in t10.DEPTHS]
    assert all(b > 2.5 * a for a, b in itertools.pairwise(by_paths[1:]))
    assert len({b - a for a, b in itertools.pairwise(shared)}) == 1


def test_t10_draws_its_figure(ran):
    (figure,) = ran("t10").report.figures.values()
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert figure.axes[0].get_legend() is not None


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        ("∂L/∂w212", -0.1303767061801734),
        ("∂L/∂w131", 0.003159356763654178),
        ("∂L/∂w212, cross-entropy", -0.18423276934074642),
        ("∂L/∂w131, cross-entropy", 0.004464425148914683),
        ("w212 after the update", 0.9303767061801734),
        ("∂h13/∂a13", 0.09719470480062539),
    ],
)
def test_t12_right_values(ran, quantity, value):
    rows = [r for r in ran("t12").report.rows if r.quantity == quantity]
    close(rows[0], value, rel=1e-12)


def test_t12_published_formulas(ran):
    rows = ran("t12")
    assert rows["∂L/∂w131"].published_formula == pytest.approx(1.5797e-3, abs=5e-8)
    assert rows["∂L/∂w131"].published_formula == pytest.approx(
        rows["∂L/∂w131"].manual / 2, rel=1e-12
    )
    update = rows["∂L/∂w212 in the update"]
    assert update.published_formula == pytest.approx(-0.06519, abs=5e-6)
    assert update.published_formula == pytest.approx(update.manual / 2, rel=1e-12)
    assert rows["∂L/∂w212"].published_formula == pytest.approx(0.029, abs=5e-4)
    assert rows["∂L/∂w212"].published == -0.029


def test_t12_faults_are_at_their_links(ran):
    note = lambda quantity: ran("t12")[quantity].note
    assert note("∂ŷ1/∂a21").startswith("E2: the formula itself; step 5")
    assert "its operand ∂ŷ1/∂a21" in note("∂L/∂w212")
    assert "the page's own factors give +0.029" in note("∂L/∂w212")
    assert note("w212 after the update") == "E2: its operand ∂L/∂w212 in the update"
    assert ran("t12")["∂h13/∂a13"].verdict == "rounded-inputs"
    steps = [r for r in ran("t12").report.rows if "step" in r.quantity]
    wrong = [r.erratum for r in steps if r.verdict == "erratum"]
    assert len(steps) == 4
    assert wrong == ["E11"]


def test_t12_the_cross_terms_are_the_missing_half(ran):
    m = lambda name: ran("t12")[name].manual
    through = lambda unit: m(f"∂L/∂{unit}") * m(f"∂{unit}/∂a21") * m("∂a21/∂w212")
    assert through("ŷ1") == pytest.approx(through("ŷ2"), rel=1e-12)
    total = through("ŷ1") + through("ŷ2")
    assert total == pytest.approx(m("∂L/∂w212"), rel=1e-12)


def test_t12_every_wire_and_parameter_has_its_row(ran):
    quantities = {row.quantity for row in ran("t12").report.rows}
    weights = [f"w1{u}{i}" for u in range(1, 5) for i in range(1, 5)]
    weights += [f"w2{u}{i}" for u in (1, 2) for i in range(1, 5)]
    biases = [f"b1{u}" for u in range(1, 5)] + ["b21", "b22"]
    units = [f"{wire}1{u}" for wire in "ah" for u in range(1, 5)]
    wires = [*units, "a21", "a22", "ŷ1", "ŷ2"]
    for suffix in ("", ", cross-entropy"):
        wanted = {f"∂L/∂{name}{suffix}" for name in (*weights, *biases, *wires)}
        assert wanted <= quantities
    assert set(wires) <= quantities
    assert {f"∂ŷ{i}/∂a2{j}" for i in (1, 2) for j in (1, 2)} <= quantities


def test_t12_weights_are_the_page_s(ran):
    assert t12.GIVEN["w212"] == 0.8
    assert t12.GIVEN["w223"] == 0.3
    assert t12.GIVEN["w131"] == -0.3
