"""Groups drawn closed: too many nodes, or because they are asked for."""

import re

import jax
import pytest

from jaxbp import graph
from tests.drawing.read_back import faults, parsed, rects, texts
from tests.drawing.systems import drawn


def test_more_than_150_nodes_are_closed_and_the_picture_says_so():
    for name, said in (("deep", "20 boxes"), ("without groups", "125 boxes")):
        g = drawn(name)
        svg = g.svg()
        boxes = [p for p, _ in rects(parsed(svg), "box")]
        assert len(list(g.flat())) == 500
        assert any(said in text and "500 nodes" in text for text in texts(svg))
        assert len(boxes) == int(said.split()[0])
    assert "layer 7: 25 equations" in texts(drawn("deep").svg())
    assert "are closed" not in drawn("multilayer").svg()


def test_no_wire_leads_out_of_a_closed_box_and_back():
    def f(x):
        y = x
        for k in range(120):
            with jax.named_scope("a" if k % 2 else "b"):
                y = jax.numpy.sin(y) * y
        return y

    svg = graph(f, 0.5).svg()
    assert any("are closed" in text for text in texts(svg))
    assert list(faults(svg)) == []


def layers(x):
    layer = jax.jit(_layer)
    return layer(layer(x))


def _layer(x):
    with jax.named_scope("inside"):
        x = x * x
    return jax.numpy.sin(x)


def test_a_group_that_is_asked_for_is_one_box():
    g = graph(layers, 0.5)
    assert g.groups == ("_layer", "inside", "_layer #2")
    boxes = lambda g: [p for p, _ in rects(parsed(g.svg()), "box")]
    assert len(boxes(g)) == 4
    closed = g.close("_layer")
    assert len(boxes(closed)) == 2
    said = texts(closed.svg())
    assert "_layer #2: 2 equations" in said
    assert "4 nodes drawn as 2 boxes: closed are _layer" in said
    assert len(boxes(g.close("_layer #2"))) == 3
    assert len(boxes(closed.close())) == 4
    assert "_layer #2: 2 equations" in closed.html()
    assert closed.text() == g.text()
    assert list(faults(closed.svg())) == []


@pytest.mark.parametrize(("name", "got"), [("lay", "'lay'"), ("", "''"), (3, "int 3")])
def test_a_group_that_is_not_there_is_refused_by_name(name, got):
    said = f"names of groups (_layer, inside, _layer #2); got {got}."
    with pytest.raises(
        ValueError, match=re.escape(f"Graph.close: expected groups to be {said}")
    ):
        graph(layers, 0.5).close(name)
