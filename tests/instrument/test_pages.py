"""`compare(…).to_html()` and `audit(…).to_html()`: what the tables say, as pages."""

import sys
from html import escape

import jax
import jax.numpy as jnp
import pytest

from jaxbp import audit, compare, graph, ops
from tests.browser import needs_chromium, on_a_phone

SCRIPT = "<script>alert(1)</script>"


@jax.custom_vjp
def double(x):
    return {"y": 2 * x[SCRIPT]}


double.defvjp(lambda x: (double(x), None), lambda _, bar: ({SCRIPT: 3 * bar["y"]},))


def loss(x):
    return double(x)["y"].sum()


def _pages():
    args = ({SCRIPT: jnp.array([0.1, -0.4])},)
    return {"compare": compare(loss, *args), "audit": audit(loss, *args)}


@pytest.mark.parametrize("name", ["compare", "audit"])
def test_a_page_says_what_the_table_says(name):
    found = _pages()[name]
    page = found.to_html()
    cells = [str(part) for f in found.findings for part in (f.verdict, f.message)]
    for text in (f"{name}(loss): wrong", *cells):
        assert escape(text) in page
    assert page.count('<tr class="wrong">') == len(found.findings) == 1
    assert SCRIPT not in page
    if name == "compare":
        assert escape(SCRIPT) in page
        assert "hand-written" in page
        assert "of 1 argument 1 wrong" in page


def test_one_style_for_all():
    style = graph(jnp.sin, 0.5).html().split("<style>")[1].split("</style>")[0]
    for found in _pages().values():
        assert found.to_html().count(style) == 1


def test_what_is_right_is_not_marked():
    found = compare(ops.sigmoid, 0.5)
    assert found.ok
    assert 'class="wrong"' not in found.to_html()


def test_without_jinja2_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for name, found in _pages().items():
        kind = {"compare": "Comparison", "audit": "Audit"}[name]
        with pytest.raises(ModuleNotFoundError, match=rf"jaxbp\.{kind}\.to_html: .*"):
            found.to_html()


@needs_chromium
@pytest.mark.parametrize("name", ["compare", "audit"])
def test_on_a_phone(tmp_path, name):
    assert on_a_phone(tmp_path, _pages()[name].to_html())["heads"] == [1, 2]
