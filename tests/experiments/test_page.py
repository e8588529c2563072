"""results/index.html: every row is in it; it reads on a phone and from a keyboard."""

import base64
import importlib.util
import math
import os
import re
import sys
from html import unescape

import jax.numpy as jnp
import pytest

from experiments import __main__ as cli
from experiments import _page, _systems
from experiments._results import Report
from experiments._rows import SYSTEMS, Claim, Witness, tabulate
from experiments._systems import System, draw
from experiments._told import LEGEND, number, published
from experiments.errata import wrong
from jaxbp import ops
from tests.browser import look, needs_chromium, on_a_phone

for _module in ("jinja2", "pygraphviz", "matplotlib"):
    pytest.importorskip(_module)

MOST = 5_000_000  # bytes
SCRIPT = "<script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def whole(ran, tmp_path_factory):
    """The page of T1 to T12, and the reports that it is of."""
    reports = {name: ran(name).report for name in SYSTEMS}
    titles = {name: cli.summary(name) for name in SYSTEMS}
    path = _page.write(tmp_path_factory.mktemp("page"), reports, titles)
    return path.read_text(encoding="utf-8"), reports


def page_of(tmp_path, reports):
    titles = {name: f"{name.upper()}: of a test" for name in reports}
    return _page.write(tmp_path, reports, titles).read_text(encoding="utf-8")


def cells(page):
    """The lines of all tables, cell by cell, as text."""
    for line in re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL):
        found = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL)
        yield tuple(unescape(re.sub("<[^>]+>", "", cell)) for cell in found)


def test_every_row_of_every_report_is_in_it_with_its_verdict(whole):
    page, reports = whole
    shown = set(cells(page))
    for report in reports.values():
        for row in report.rows:
            values = [number(v, 7) for v in (row.manual, row.auto, row.numeric)]
            verdict = f"{row.verdict} {row.erratum}".strip()
            line = row.quantity, published(row, 7), *values, verdict, row.note
            assert line in shown


def test_errata_stand_together_and_lead_to_their_graphs(whole):
    page, reports = whole
    found = [row for report in reports.values() for row in wrong(report.rows)]
    errata = page.split('id="errata"')[1].split("</section>")[0]
    lines = [line[0] for line in cells(errata)][1:]
    each = {f"{row.system}  {row.quantity}" for row in found}
    more = [int(n) for line in lines for n in re.findall(r"… and (\d+) more", line)]
    assert len(each) == len(set(lines) & each) + sum(more)
    assert len(more) == len(set(lines) - each) > 0
    assert {row.erratum for row in found} == {
        label for line in cells(errata) for label in re.findall(r"^E\d+", line[3])
    }
    assert set(re.findall(r'href="#([^"]+)"', errata)) <= set(
        re.findall(r'id="([^"]+)"', page)
    )
    assert '<a href="#t12-graph-1">the link a2 → yhat</a>' in errata
    assert page.count(">✗ E1 is made here<") == 3
    (line,) = [k for k in cells(errata) if k[0] == "T12  w212 after the update"]
    assert line[-1] == "no link of the graph"


def test_every_system_has_its_graph_worksheet_and_figures(whole):
    page, reports = whole
    for name, report in reports.items():
        assert report.systems
        section = page.split(f'<section id="{name}"')[1].split("</section>")[0]
        said = unescape(section)
        assert section.count("NOT FAITHFUL") == 0
        assert section.count("faithful: value") == 3 * len(report.systems)
        assert section.count("Backward, from ∂") == len(report.systems)
        images = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)"', section)
        assert len(images) == len(report.figures)
        assert all(b"<svg" in base64.b64decode(data) for data in images)
        for line in filter(None, report.text.splitlines()):
            assert line in said


@pytest.mark.parametrize(
    "size", [(625, 235), (1568, 686), (874, 1790), (5000, 700), (300, 2500), (90, 80)]
)
def test_on_paper_a_picture_is_cut_into_parts_that_fit_and_overlap(size):
    parts = _page._parts(*size)
    for x, y, width, height in parts:
        assert width <= _page._WIDEST
        scale = min(1, _page._PAGE_WIDTH / width)
        assert scale * height <= _page._PAGE_HEIGHT + 1e-9
        beside = [p for p in parts if p[:2] != (x, y) and (p[0] == x or p[1] == y)]
        ends = {0: x + width, 1: y + height}
        for k, end in ends.items():
            others = [p for p in beside if p[1 - k] == (x, y)[1 - k]]
            following = [p[k] for p in others if p[k] > (x, y)[k]]
            if following:
                shared = (_page._WIDTH_SHARED, _page._HEIGHT_SHARED)[k]
                assert end - min(following) == pytest.approx(shared)
            else:
                assert end == pytest.approx(size[k])
    assert parts[0][:2] == (0, 0)


def test_it_is_small_and_alone(whole):
    page, _ = whole
    size = len(page.encode())
    print(f"index.html of T1 to T12: {size / 1e6:.2f} MB")
    assert size < MOST
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    assert "default-src 'none'" in page


def test_the_faulty_link_is_marked_with_both_numbers():
    claims = [Claim("∂y/∂a", "5"), Claim("a", "1.5"), Claim("no such thing", "7")]
    known = {"∂y/∂a": Witness(2.0), "a": Witness(3.0), "no such thing": Witness(1.0)}
    rows = tabulate("T0", known, claims)
    system = System("a·2", lambda a: ops.multiply(a, 2.0 * jnp.ones_like(a)), (3.0,))
    found = draw(system, rows)
    assert found.shown == {"∂y/∂a": "the link a → y", "a": "the value of a"}
    assert "published 5, right 2<" in found.svg
    assert "published 1.5, right 3<" in found.svg
    assert found.svg.count(_shapes_wrong()) > 0
    clean = draw(system, [])
    assert "published" not in clean.svg
    assert _shapes_wrong() not in clean.svg


def test_the_link_in_which_an_erratum_is_made_is_marked_besides():
    claims = [Claim("delta[0]", "5", erratum="E1"), Claim("a", "1.5")]
    rows = tabulate("T0", {"delta[0]": Witness(-2.0), "a": Witness(3.0)}, claims)

    def squared(a):
        return ops.square(ops.multiply(a, 2.0 * jnp.ones_like(a)))

    drawn = draw(System("(2a)²", squared, (3.0,)), [])
    middle = next(n for n in drawn.graph.wires if n not in ("a", "y"))
    called = {"delta": "−∂y/∂a"}
    system = System("(2a)²", squared, (3.0,), None, called, {"E1": (f"∂{middle}/∂a",)})
    found = draw(system, rows)
    assert found.svg.count(">✗ E1 is made here<") == 1
    assert found.shown["delta[0]"] == "the gradient of a (−∂y/∂a)"
    assert "made here" not in draw(system, rows[1:]).svg


def _shapes_wrong():
    from jaxbp.drawing import _shapes

    return f'stroke="{_shapes.WRONG}"'


def test_the_marks_of_t12_are_where_its_page_is_wrong(ran):
    report = ran("t12").report
    shown = draw(report.systems[0], wrong(report.rows)).shown
    assert shown["∂ŷ1/∂a21"] == "the link a2 → yhat"
    assert shown["∂L/∂w212"] == "the gradient of w2"
    assert shown["∂h13/∂a13"] == "the link a1 → h1"
    assert shown["ŷ1, step 2: e^(−a21)/(e^(−a21)+e^a22)"] == "the value of yhat"


def test_a_changed_number_shows(tmp_path):
    claim = [Claim("f", "0.1192", note="of a test")]
    right = page_of(
        tmp_path, {"t1": Report(tabulate("T1", {"f": Witness(0.1192)}, claim))}
    )
    moved = page_of(
        tmp_path, {"t1": Report(tabulate("T1", {"f": Witness(0.1292)}, claim))}
    )
    assert "0.1292" in moved
    assert "0.1292" not in right
    assert 'id="errata"' in moved
    assert 'id="errata"' not in right
    assert "1 claims: 0 met, 0 from rounded inputs, 1 wrong" in moved


def test_it_says_what_its_marks_mean_and_counts_its_rows(tmp_path):
    for count, said in ((1, "1 row<"), (2, "2 rows<")):
        known = {f"d{k}": Witness(1.0) for k in range(count)}
        page = page_of(tmp_path, {"t1": Report(tabulate("T1", known))})
        assert f"what was found besides: {said}" in page
        assert f"<li>{LEGEND}</li>" in unescape(page)


def test_trained_networks_show_what_rounding_explains(tmp_path):
    known = {"loss at step 10": Witness(0.5, 0.5 + 1e-9, rounding=3e-8)}
    page = page_of(tmp_path, {"digits": Report(tabulate("digits", known))})
    assert ("loss at step 10", "0.5", "0.5", "1e-09", "3e-08") in set(cells(page))
    assert "1 of 1 trained by both gradients" in page


def hostile():
    known = {SCRIPT: Witness(2.0, math.nan), "x" * 400: Witness(1.0)}
    rows = tabulate(SCRIPT, known, [Claim(SCRIPT, "1", note=SCRIPT)])
    system = System(SCRIPT, lambda v: jnp.sin(v[SCRIPT]), ({SCRIPT: 0.5},))
    return {"t1": Report(rows, text=f"</pre>{SCRIPT}", systems=(system,))}


def test_hostile_names_are_text(tmp_path):
    page = page_of(tmp_path, hostile())
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "</pre><" not in page
    assert (
        SCRIPT,
        "1",
        "2",
        "nan",
        "·",
        "erratum",
        f"the printed number; {SCRIPT}",
    ) in (set(cells(page)))


@pytest.mark.parametrize("module", ["jinja2", "pygraphviz"])
def test_without_what_it_needs_a_run_goes_on_and_says_so(
    capsys, tmp_path, monkeypatch, module
):
    monkeypatch.setitem(sys.modules, module, None)
    assert importlib.util.find_spec(module) is None
    assert cli.main(["t1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"no index.html without {module}: pip install 'jaxbp[report]'\n" in out
    assert os.listdir(tmp_path) == ["t1.json"]


def test_a_place_that_is_not_there_is_no_place():
    system = System("σ", ops.sigmoid, (0.5,), called={"delta": "−∂y/∂x"})
    drawn = _systems.graph(system.function, *system.arguments)
    place = lambda about: _systems._place(system, drawn, about)
    assert place("delta[3]").place == "link"
    assert [place(n) for n in ("∂y/∂z", "w after the update", "∂x/∂y")] == [None] * 3


@needs_chromium
def test_on_a_phone_nothing_overflows_and_all_is_named(tmp_path, whole):
    page, reports = whole
    found = on_a_phone(tmp_path, page)
    assert found["heads"].count(2) == len(reports) + 2


@needs_chromium
def test_hostile_names_on_a_phone(tmp_path):
    on_a_phone(tmp_path, page_of(tmp_path, hostile()))


@needs_chromium
def test_a_keyboard_reaches_everything_and_paper_has_the_worksheets(tmp_path, whole):
    page, reports = whole
    script = """
    const skip = doc.querySelector("a.skip");
    skip.focus();
    const shown = skip.getBoundingClientRect().left >= 0;
    const target = doc.querySelector(skip.getAttribute("href")).tagName;
    const sheets = [...doc.querySelectorAll("details.sheet")];
    const open = () => sheets.filter((s) => s.open).length;
    const before = open();
    sheets[0].open = true;
    win.dispatchEvent(new win.Event("beforeprint"));
    const printed = open();
    win.dispatchEvent(new win.Event("afterprint"));
    const first = doc.querySelector("body a, body button, body [tabindex]");
    return {shown, target, before, printed, after: open(), sheets: sheets.length,
      first: first.className};"""
    found, console = look(tmp_path, page, script)
    assert console == []
    count = sum(len(report.systems) for report in reports.values())
    assert (found["shown"], found["target"], found["first"]) == (True, "MAIN", "skip")
    assert (found["sheets"], found["before"], found["printed"]) == (count, 0, count)
    assert found["after"] == 1


@needs_chromium
def test_what_is_looked_for_would_be_seen(tmp_path):
    page = page_of(tmp_path, hostile())
    for planted in (
        page.replace("<main ", '<p style="width: 600px">x</p><main '),
        page.replace("--muted: #57606a", "--muted: #aaaaaa"),
        page.replace('scope="row"', ""),
        page.replace('class="wide" tabindex="0"', 'class="wide"'),
        page.replace("<h2", "<h4"),
        page.replace('href="#t1"', 'href="#t99"'),
        page.replace('"use strict";', "throw new Error('planted');"),
    ):
        assert planted != page
        with pytest.raises(AssertionError):
            on_a_phone(tmp_path, planted)
