"""T1, T2, T3, T7, T8: the right values, every link, where it overflows."""

import math

import numpy as np
import pytest

from experiments import t1, t2, t3, t7, t8
from experiments._witnesses import Link, measure
from jaxbp import nets, ops


def close(row, value):
    assert row.manual == pytest.approx(value, rel=1e-13, abs=0)
    if row.auto is not None:
        assert row.auto == pytest.approx(value, rel=1e-13, abs=0)
    if row.numeric is not None:
        assert row.numeric == pytest.approx(value, rel=1e-10, abs=0)


@pytest.mark.parametrize(
    ("name", "quantity", "value"),
    [
        ("t1", "f", 0.11920292202211755),
        ("t1", "f after one step", 0.12030970219797313),
        ("t2", "f", 0.9525741268224334),
        ("t2", "∂f/∂a", -0.135529979192736),
        ("t2", "∂f/∂b", -0.135529979192736),
        ("t2", "∂f/∂c", -0.045176659730912),
        ("t2", "∂e/∂d", -3.0),
        ("t2", "∂e/∂c", -1.0),
        ("t2", "f after one step", 0.9563098004533307),
        ("t3", "f", 1.5456448841066441),
        ("t3", "dx", 2.0595697955721652),
        ("t3", "dy", 1.5922327514838093),
        ("t7", "f", -12.0),
        ("t7", "∂f/∂x", -4.0),
        ("t7", "∂f/∂y", -4.0),
        ("t7", "∂f/∂z", 3.0),
        ("t8", "d/dx e^(x²) at 1.0", 2 * math.e),
        ("t8", "e^(e^(x²)) at 1.0: y", math.exp(math.e)),
        ("t8", "e^(e^(x²)) at 1.0: ∂y/∂h2", math.exp(math.e)),
        ("t8", "e^(e^(x²)) at 0.5: ∂h1/∂x", 1.0),
        ("t8", "d/dx 1/e^(x²) at 1.0", -2 / math.e),
    ],
)
def test_right_values(ran, name, quantity, value):
    close(ran(name)[quantity], value)


def test_t3_sigmoids_are_what_the_code_says(ran):
    rows = ran("t3")
    assert f"{rows['sigx'].manual:.4f}" == "0.9526"
    assert f"{rows['sigy'].manual:.4f}" == "0.0180"


def test_t3_branches_add_up(ran):
    rows = ran("t3")
    for total, parts in (("dx", ("dx1", "dx2", "dx3")), ("dy", ("dy1", "dy2"))):
        assert rows[total].manual == pytest.approx(
            sum(rows[part].manual for part in parts), rel=1e-15
        )


@pytest.mark.parametrize("module", [t1, t2, t3, t7], ids=lambda m: m.__name__[-2:])
def test_every_link_has_its_row(ran, module):
    name = module.__name__.split(".")[-1]
    quantities = {row.quantity for row in ran(name).report.rows}
    for link in module.LINKS:
        assert link.output in quantities
        text = ran(name).report.text
        for source in link.inputs:
            assert f"{source} → {link.output} ({link.op.__name__})" in text
            if link.output != "f":
                assert f"∂{link.output}/∂{source}" in quantities


def test_t7_says_which_way_to_go(ran):
    assert ran("t7").report.text.endswith("to raise f, x must fall: ∂f/∂x = -4")


@pytest.mark.parametrize("f", t8.FUNCTIONS, ids=lambda f: f.function.__name__)
@pytest.mark.parametrize("x", t8.POINTS)
def test_t8_local_derivatives_multiply_to_the_whole(ran, f, x):
    local = lambda link: f"{f.name} at {x}: ∂{link.output}/∂{link.inputs[0]}"
    product = math.prod(ran("t8")[local(link)].manual for link in f.links)
    assert ran("t8")[f"d/dx {f.name} at {x}"].manual == pytest.approx(
        product, rel=1e-14
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_t8_overflow_is_found_to_the_last_bit(ran, dtype):
    name = np.dtype(dtype).name
    row = ran("t8")[f"largest x with finite e^(e^(x²)), {name}"]
    last = dtype(row.manual)
    beyond = np.nextafter(last, dtype(9))
    assert last == row.manual
    assert np.isfinite(nets.exp_exp_square(last))
    assert np.isinf(nets.exp_exp_square(beyond))
    limit = math.sqrt(math.log(math.log(np.finfo(dtype).max)))
    assert row.manual == pytest.approx(limit, rel=1e-5)
    # 2x·e^(x²) on top of it overflows earlier.
    assert ran("t8")[f"largest x with finite d/dx e^(e^(x²)), {name}"].manual < limit
    assert repr(row.manual) in ran("t8").report.text


def test_jacobians_have_the_output_s_axes_first():
    links = (Link("yhat", ops.softmax, ("a1",)), Link("a1", ops.dense, ("x", "w", "b")))
    net = nets.mlp((2, 3), output="softmax")
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=2), "w": rng.normal(size=(2, 3)), "b": np.ones(3)}

    def loss(v):
        return net.loss(({"w": v["w"], "b": v["b"]},), (v["x"], np.array([1.0, 0, 0])))

    found = measure(loss, inputs, links)
    y = found.values["yhat"].manual
    expected = np.diag(y) - np.outer(y, y)
    local = found.local["yhat", "a1"]
    for part in (local.manual, local.auto, local.numeric):
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-12)
    assert found.local["a1", "w"].manual.shape == (3, 2, 3)
    np.testing.assert_array_equal(found.local["a1", "x"].manual, inputs["w"].T)
    for name, cotangent in found.cotangents.items():
        gap = np.abs(cotangent.numeric - cotangent.manual)
        assert np.all(gap <= cotangent.error), name
