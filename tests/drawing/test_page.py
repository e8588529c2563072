"""The page of one graph: stepped, chosen from, small, read aloud, and on its own."""

import re
import sys
from html.parser import HTMLParser

import pytest

from jaxbp import graph, ops
from tests.browser import CONTRAST, look, needs_chromium, on_a_phone
from tests.drawing.systems import SCRIPT, drawn
from tests.drawing.wrong import tripled


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the page."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_hostile_names_are_text():
    page = Elements(drawn("hostile").html())
    assert [tag for tag, _ in page.found].count("script") == 1  # its own
    assert not any(tag in ("img", "b") for tag, _ in page.found)
    assert not any(key.startswith("on") for _, a in page.found for key in a)
    assert any("<script>alert(1)</script>" in text for text in page.text)
    keys = [a["data-key"] for _, a in page.found if "data-key" in a]
    assert any(SCRIPT[:40].split("\n")[0] in key or "script" in key for key in keys)


def test_it_asks_nothing_of_the_network():
    page = Elements(drawn("t3").html())
    for _, attributes in page.found:
        for key in ("src", "href", "data", "action"):
            value = attributes.get(key) or ""
            assert value.startswith(("#", "data:,")) or not value
    (policy,) = (
        a["content"] for t, a in page.found if t == "meta" and "http-equiv" in a
    )
    assert "default-src 'none'" in policy


def test_a_notebook_gets_it_in_a_frame_and_falls_back(monkeypatch):
    g = drawn("t2")
    frame = g._repr_html_()
    ((tag, attributes),) = Elements(frame).found
    assert (tag, attributes["srcdoc"]) == ("iframe", g.html())
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert g._repr_html_() is None
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    assert g._repr_svg_() is None


def test_without_jinja2_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxbp\[report\]'"):
        drawn("t2").html()


def test_the_wrong_link_and_a_rules_two_passes_are_told():
    g = graph(lambda x: ops.sigmoid(tripled(x)), 0.5)
    page = g.html()
    text = "\n".join(Elements(page).text)
    assert "← the first wrong link" in text
    assert "The rule's backward pass" in text
    back = g.nodes[0].backward
    assert back is not None
    (equation,) = back.nodes
    assert f"{equation.outputs[0]} = {equation.expression} = " in text
    assert re.search(r'<li class="wrong">first wrong link from the loss: tripled', page)


STEPS = """
const press = (name) => doc.querySelector(`[data-do="${name}"]`).click();
const key = (target, key) =>
  target.dispatchEvent(new win.KeyboardEvent("keydown", {key, bubbles: true}));
const state = () => ({
  said: doc.getElementById("said").textContent,
  hidden: [...doc.querySelectorAll("g.wire")]
    .filter((w) => "hidden" ===
      win.getComputedStyle(w.querySelector(".gradient")).visibility)
    .map((w) => w.dataset.key),
  now: [...doc.querySelectorAll("g.node.now")].map((n) => n.dataset.key),
});
"""


@needs_chromium
def test_the_sweep_is_stepped_with_buttons_and_keys(tmp_path):
    script = f"""{STEPS}
    const stage = doc.querySelector(".stage");
    const found = {{}};
    found.whole = state();
    press("first"); found.first = state();
    press("back"); found.before = state();
    press("next"); found.one = state();
    key(stage, "n"); found.two = state();
    key(stage, "p"); found.back = state();
    key(stage, "End"); found.end = state();
    key(stage, "Home"); found.home = state();
    press("last"); found.last = state();
    return found;"""
    found, console = look(tmp_path, drawn("t2").html(), script)
    assert console == []
    wires = set(drawn("t2").wires)
    assert found["whole"]["hidden"] == []
    assert set(found["first"]["hidden"]) == wires - {"f"}
    assert found["before"] == found["first"] == found["home"]
    assert set(found["one"]["hidden"]) == wires - {"f", "e"}
    assert found["one"]["now"] == ["1.3"]
    assert found["one"]["said"].startswith("1 of 5: ∂f/∂e = f(1 − f) = 0.04517666")
    assert set(found["two"]["hidden"]) == {"a", "b", "d"}
    assert found["back"] == found["one"]
    assert found["end"]["hidden"] == found["last"]["hidden"] == []


@needs_chromium
def test_where_gradients_add_up_the_sum_is_there_after_the_last_term(tmp_path):
    script = f"""{STEPS}
    press("first");
    const at = [];
    for (let k = 0; k < 12; k++) {{
      press("next");
      at.push(state().hidden.includes("x"));
    }}
    return at;"""
    at, _ = look(tmp_path, drawn("t3").html(), script)
    assert at.index(False) == 9  # the third of its three terms
    assert at == [True] * 9 + [False] * 3


@needs_chromium
def test_a_chosen_node_tells_its_chain_rule(tmp_path):
    script = """
    const shown = () => [...doc.querySelectorAll(".detail")].filter((d) => !d.hidden)
      .map((d) => [d.dataset.for, d.innerText]);
    const part = (key) => doc.querySelector(`g[data-key="${key}"]`);
    const before = shown();
    part("1.1").dispatchEvent(new win.MouseEvent("click", {bubbles: true}));
    const clicked = shown(), title = doc.getElementById("chosen-title").textContent;
    const key = (name) => part("c").dispatchEvent(
      new win.KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
    part("c").focus();
    const focused = doc.activeElement.dataset.key;
    key("Enter");
    return {before, clicked, title, focused, keyed: shown(),
      chosen: [...doc.querySelectorAll(".chosen")].map((p) => p.dataset.key)};"""
    found, console = look(tmp_path, drawn("t2").html(), script)
    assert console == []
    assert found["before"] == []
    ((key, text),) = found["clicked"]
    assert (key, found["title"]) == ("node 1.1", "a + b")
    chain = text.split("The chain rule, from the end to here")[1]
    lines = [line for line in chain.splitlines() if "_bar" in line]
    assert [line.split(" = ")[0] for line in lines] == ["∂f/∂e", "∂e/∂d"]
    ((key, text),) = found["keyed"]
    assert (found["focused"], found["chosen"]) == ("c", ["c"])
    assert key == "wire c"
    assert "value −3" in text


@needs_chromium
def test_it_is_zoomed_and_dragged(tmp_path):
    script = """
    const stage = doc.querySelector(".stage"), svg = stage.querySelector("svg");
    const width = () => svg.getBoundingClientRect().width;
    const start = width();
    doc.querySelector('[data-do="zoom-in"]').click();
    const larger = width();
    stage.dispatchEvent(new win.KeyboardEvent("keydown", {key: "0", bubbles: true}));
    const whole = width();
    for (let k = 0; k < 6; k++) doc.querySelector('[data-do="zoom-in"]').click();
    stage.scrollTo(0, 0);
    const event = (type, x) => new win.PointerEvent(type,
      {pointerType: "mouse", button: 0, clientX: x, clientY: 300, bubbles: true});
    stage.dispatchEvent(event("pointerdown", 400));
    win.dispatchEvent(event("pointermove", 300));
    win.dispatchEvent(event("pointerup", 300));
    const dragged = stage.scrollLeft;
    return {start, larger, whole, stage: stage.clientWidth, dragged};"""
    found, _ = look(tmp_path, drawn("t3").html(), script)
    assert found["larger"] == pytest.approx(1.25 * found["start"], rel=1e-3)
    assert found["whole"] <= found["stage"]
    assert found["dragged"] == pytest.approx(100, abs=1)


@needs_chromium
@pytest.mark.parametrize("name", ["t12", "hostile", "transformer block"])
def test_on_a_phone_nothing_overflows_and_all_is_named(tmp_path, name):
    found = on_a_phone(tmp_path, drawn(name).html())
    assert found["heads"].count(2) == 4
    assert found["parts"] >= len(drawn(name).nodes)


@needs_chromium
def test_what_is_looked_for_would_be_seen(tmp_path):
    page = drawn("t2").html()
    page = page.replace("--muted: #57606a", "--muted: #aaaaaa")
    page = page.replace('<h2 id="sweep-title">', '<p style="width: 600px">x</p><h2>')
    page = page.replace('"use strict";', '"use strict"; console.warn("said");')
    found, console = look(
        tmp_path,
        page,
        f"{CONTRAST} return [low.length, doc.documentElement.scrollWidth];",
        width=400,
    )
    assert found[0] > 0
    assert found[1] > 400
    assert len(console) == 1
    assert "said" in console[0]
