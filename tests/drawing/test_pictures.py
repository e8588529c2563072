"""The pictures, read back from their SVG: nothing overlaps, leaves, or is small."""

import io
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jaxbp import graph, ops
from jaxbp.drawing import Mark, _draw, _plates, _shapes
from tests.drawing.read_back import SVG, faults, parsed, rects, texts
from tests.drawing.systems import SCRIPT, SYSTEMS, drawn, t12_of
from tests.drawing.wrong import tripled


@pytest.mark.parametrize("name", SYSTEMS)
def test_nothing_overlaps_overflows_or_is_too_small(name):
    svg = drawn(name).svg()
    if name == "hostile":  # letters of East Asia are in no font here
        svg = re.sub("[漢字かな名前]", "nn", svg)
    assert list(faults(svg)) == []
    tree = parsed(svg)
    assert (tree.get("width"), tree.get("height")) == tuple(
        tree.get("viewBox").split()[2:]
    )


def test_remarks_frame_their_places_and_stay_inside():
    marks = [
        Mark(("✗ a link", "published −0.079, right 0.1769"), "yhat", "link", "a2"),
        Mark(("✗ a gradient", "r" * 90), "w2", "gradient"),
        Mark(("✗ a value & <b>",), "yhat", "value"),
    ]
    svg = drawn("t12").svg(marks=marks)
    assert list(faults(svg)) == []
    assert {"✗ a link", "✗ a gradient", "✗ a value & <b>"} <= set(texts(svg))
    framed = svg.count(f'stroke="{_shapes.WRONG}"')
    assert (framed, drawn("t12").svg().count(f'stroke="{_shapes.WRONG}"')) == (3, 0)


@pytest.mark.parametrize("mark", [Mark((), "nope"), Mark((), "yhat", "link", "a1")])
def test_a_remark_on_nothing_is_refused(mark):
    with pytest.raises(ValueError, match=r"Graph\.svg: expected marks to be on wires"):
        drawn("t12").svg(marks=[mark])


@pytest.mark.parametrize(
    ("marks", "error", "message"),
    [
        ([3], TypeError, "jaxbp.drawing.Mark's, in a list; got int 3"),
        (Mark((), "yhat"), TypeError, r"jaxbp.drawing.Mark's, in a list; got tuple"),
        ([Mark((), "yhat", "nowhere")], ValueError, "at one of .*; got one at nowhere"),  # pyright: ignore
    ],
)
def test_what_is_no_remark_is_refused(marks, error, message):
    with pytest.raises(error, match=rf"Graph\.svg: expected marks to be {message}"):
        drawn("t12").svg(marks=marks)


@pytest.mark.parametrize(
    ("scale", "error"),
    [(0, ValueError), (-1, ValueError), (np.nan, ValueError), ("a", TypeError)],
)
def test_a_scale_that_is_none_is_refused(scale, error):
    with pytest.raises(error, match=r"Graph\.png: expected scale to be a number above"):
        drawn("t2").png(scale=scale)


def test_a_node_that_is_not_there_is_a_key_error():
    with pytest.raises(KeyError, match="nope"):
        drawn("t2").node("nope")


def test_each_fault_would_be_seen(monkeypatch):
    svg = drawn("t2").svg()
    moved = re.sub(r'(class="box" x=")[\d.]+', r"\g<1>100.0", svg)
    assert any("intersect" in fault for fault in faults(moved))
    longer = re.sub(">◆ a . b<", f">{'a' * 40}<", svg)
    assert any("leaves its box" in fault for fault in faults(longer))
    small = svg.replace('font-size="10"', 'font-size="8.9"')
    assert any("is small" in fault for fault in faults(small))
    monkeypatch.setattr(_shapes, "_ADVANCE", 0.5)
    assert any("leaves" in fault for fault in faults(drawn("multilayer").svg()))


def test_the_value_is_above_the_wire_and_the_gradient_below():
    g = drawn("t2")
    for part, _ in rects(parsed(g.svg()), "plate"):
        wire = g.wires[part.get("data-key")]
        (line,) = part.findall(f"{SVG}path")
        level = float(line.get("d").split("C")[0].split()[1])
        for kind, above, sign, value in (
            ("value", True, "▶", wire.value),
            ("gradient", False, "◀", wire.gradient),
        ):
            (half,) = (p for p in part if p.get("class") == kind)
            mark, number = half.findall(f"{SVG}text")
            assert mark.text == sign
            assert (float(number.get("y")) < level) is above
            shown = float(number.text.replace("−", "-"))
            assert shown == pytest.approx(float(value), rel=1e-5)


def test_edges_have_their_local_derivative_and_a_missing_gradient_is_a_dash():
    svg = drawn("t2").svg()
    assert "∂e/∂d = c = −3" in texts(svg)
    assert "∂f/∂e = f(1 − f) = 0.045177" in texts(svg)
    plates = rects(parsed(drawn("t12").svg()), "plate")
    (target,) = (p for p, _ in plates if p.get("data-key") == "c2")
    assert [t.text for t in target.iter(f"{SVG}text")][-2:] == ["◀", "–"]


def test_arrays_are_summed_up_and_drawn():
    g = drawn("multilayer")
    plates = {p.get("data-key"): p for p, _ in rects(parsed(g.svg()), "plate")}
    said = [t.text for t in plates["w1"].iter(f"{SVG}text")]
    rms = float(np.sqrt(np.mean(g.wires["w1"].value ** 2)))
    assert said[:2] == ["w1", "8×16"]
    assert f"rms {rms:.3g}" in said
    bars = [
        r for r in plates["w1"].iter(f"{SVG}rect") if r.get("fill") == _shapes.MUTED
    ]
    assert len(bars) == 2 * _plates._BARS  # a histogram of each
    cells = [p for p, _ in rects(parsed(drawn("t12").svg()), "plate")]
    (w2,) = (p for p in cells if p.get("data-key") == "w2")
    shades = [r.get("fill") for r in w2.iter(f"{SVG}rect")]
    found = drawn("t12").wires["w2"].value
    shaded = [_plates._shade(float(v) / float(np.abs(found).max())) for v in found.flat]
    assert shades[1 : 1 + found.size] == shaded


@pytest.mark.parametrize(
    "values",
    [
        np.r_[np.ones(12), 1.7e308, -1.7e308],  # whose range is no number
        np.arange(12) * 5e-324,  # whose bars are narrower than a number
        np.repeat([1.0, np.nextafter(1.0, 2)], 6),
    ],
)
def test_a_histogram_of_the_largest_and_of_the_nearest_numbers(values):
    svg = graph(lambda x: (x * 0.0).sum(), values).svg()
    (plate,) = (p for p, _ in rects(parsed(svg), "plate") if p.get("data-key") == "x")
    bars = [r for r in plate.iter(f"{SVG}rect") if r.get("fill") == _shapes.MUTED]
    heights = [float(r.get("height")) for r in bars][: _plates._BARS]
    assert max(heights) > 20
    assert sum(height > 0 for height in heights) > 1


def luminance(colour):
    rgb = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(a, b):
    light, dark = sorted(map(luminance, (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_stands_out_from_every_ground():
    grounds = (_shapes.PAPER, _shapes.GROUND, _shapes.GROUP, _shapes.RULE_GROUND)
    inks = (_shapes.INK, _shapes.MUTED, _shapes.VALUE, _shapes.GRADIENT, _shapes.WRONG)
    for ground in (*grounds, _shapes.WRONG_GROUND):
        assert all(contrast(ink, ground) >= 4.5 for ink in inks)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#999999", "#ffffff") < 4.5


@pytest.mark.parametrize("name", ["t12", "multilayer"])
def test_a_planted_wrong_link_is_the_marked_node(name, monkeypatch):
    op, made = {"t12": ("softmax_bwd", "yhat"), "multilayer": ("sigmoid_bwd", "h2")}[
        name
    ]
    real = getattr(ops, op)
    monkeypatch.setattr(ops, op, lambda res, y_bar: (-real(res, y_bar)[0],))
    f, args = SYSTEMS[name]()
    g = graph(f, *args)
    svg = g.svg()
    marked = [
        part.get("data-key")
        for part, _ in rects(parsed(svg), "box")
        if any(t.text == _draw._FLAG for t in part.iter(f"{SVG}text"))
    ]
    (node,) = map(g.node, marked)
    assert made in node.outputs
    assert _draw._FLAG not in texts(drawn(name).svg())
    assert list(faults(svg)) == []


def test_a_difference_is_on_every_node_in_units_of_rounding():
    g = graph(lambda x: ops.sigmoid(tripled(x)), 0.5)
    boxes = {p.get("data-key"): p for p, _ in rects(parsed(g.svg()), "box")}
    units = [
        [t.text for t in boxes[k].iter(f"{SVG}text") if "Δ" in t.text] for k in "12"
    ]
    assert float(units[0][0].split()[1]) == pytest.approx(g.nodes[0].units, rel=0.01)
    assert units[1] == ["Δ 0 units"]
    x = [t.text for t in parsed(g.svg()).iter(f"{SVG}text") if "autodiff " in t.text]
    assert f"autodiff {float(g.wires['x'].autodiff):.6g}" in x


def test_hostile_names_are_text():
    g = drawn("hostile")
    svg = g.svg()
    tree = parsed(svg)  # well-formed, whatever it is called
    assert {e.tag.removeprefix(SVG) for e in tree.iter()} <= {
        *("svg", "g", "rect", "text", "path", "polygon", "title", "desc")
    }
    assert not any(a.startswith("on") for e in tree.iter() for a in e.attrib)
    assert any("<script>alert(1)" in text for text in texts(svg))
    assert any(SCRIPT[:20] in (t.text or "") for t in tree.iter(f"{SVG}title"))
    assert max(map(len, texts(svg))) < 120


def test_the_png_is_the_same_picture():
    g = drawn("t3")
    tree = parsed(g.svg())
    size = [int(float(tree.get(k))) for k in ("width", "height")]
    once, twice = (Image.open(io.BytesIO(g.png(scale=s))) for s in (1, 2))
    assert np.allclose(once.size, size, atol=1)
    assert np.allclose(twice.size, np.multiply(2, size), atol=2)
    dots = np.asarray(once.convert("RGB"))
    for part, (x0, y0, x1, y1) in rects(tree, "box"):
        del part
        inside = dots[int(y0) + 3, int((x0 + x1) / 2)]
        np.testing.assert_array_equal(inside, (0xE9, 0xF1, 0xFB))  # a rule's ground
        assert dots[int(y0) : int(y1), int(x0) : int(x1)].min() < 0x40  # and ink


def test_a_notebook_shows_it():
    assert drawn("t2")._repr_svg_() == drawn("t2").svg()


@pytest.mark.parametrize(("name", "limit"), [("multilayer", 1), ("deep", 5)])
def test_it_is_drawn_in_time(name, limit):
    """Several times what it takes on a machine with nothing else to do."""
    g = drawn(name)
    g.svg()
    start = time.perf_counter()
    g.svg()
    assert time.perf_counter() - start < limit


@pytest.mark.parametrize(
    ("missing", "call"), [("pygraphviz", "svg"), ("matplotlib", "png")]
)
def test_without_a_package_it_says_what_to_install(missing, call):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from jaxbp import graph, nets\n"
        "g = graph(nets.gate_circuit, -2.0, 5.0, -4.0)\n"
        "assert g.text() and g.worksheet() and g.to_dict() and g.paths('x', 'f')\n"
        f"try:\n    g.{call}()\nexcept ModuleNotFoundError as e:\n    print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"expected {missing} to be installed" in done.stdout
    assert "pip install 'jaxbp[report]'" in done.stdout


def test_the_loss_of_the_page_is_drawn_with_either_error():
    f, inputs = t12_of("cross_entropy")
    assert "◆ −Σ c2 ln yhat" in texts(graph(f, inputs).svg())
