"""scripts/audit_public: the rules of a library, and a list that is out of date."""

import pathlib
import sys

import jax.numpy as jnp
import optax
import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def public(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from public_rules import _asked, _report, _sources

    yield _asked.Asked, _report, _sources
    for name in [name for name in sys.modules if name.startswith("public_rules")]:
        del sys.modules[name]


def test_rules_are_found_in_the_source(public):
    names = {rule.name for rule in public[2].rules_written("optax")}
    assert names == {
        "_scale_gradient",
        "weighted_logsoftmax",
        "_projection_unit_simplex",
    }


def halved(x):
    return optax.scale_gradient(x, 0.5)


PURPOSE = {"_scale_gradient": ("wrong", "on purpose")}


@pytest.mark.parametrize(
    ("f", "differs", "stale"),
    [
        (halved, PURPOSE, ""),
        (halved, {}, "the list says right"),
        (halved, {"_scale_gradient": ("kink", "no")}, "the list says kink"),
        (jnp.sin, {}, "no rule of this library is met here"),
    ],
    ids=["as it says", "another verdict", "a third", "nothing met"],
)
def test_an_answer_that_is_not_the_explained_one_is_said(public, f, differs, stale):
    asked, report, _ = public
    rows = [asked("scale_gradient", f, (jnp.ones(3),), differs)]
    said = []
    library = report.ask("optax", rows, {"weighted_logsoftmax": "why"}, said.append)
    (line,) = said
    assert line.stale == stale
    assert line.why == ("" if stale else "on purpose")
    missed = {rule.name for rule in library.missed}
    assert "weighted_logsoftmax" not in missed
    assert ("_scale_gradient" in missed) == (f is jnp.sin)
    assert "neither met nor given a reason" in report.summary(library)
