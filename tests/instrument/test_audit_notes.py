"""audit: what was not asked is said, and the table leads with what is wrong."""

import json

import jax
import jax.numpy as jnp
from audited import X, right, rule, wrong
from jax import lax

from jaxbp.instrument._audit import audit


def test_a_rule_in_a_branch_that_is_not_taken_is_told():
    def f(x):
        return lax.cond(x[0] > 0, wrong, jnp.sin, x).sum()

    taken = audit(f, jnp.abs(X))
    assert (taken.verdict, taken.note) == ("wrong", "")
    assert audit(f, -jnp.abs(X)).note.startswith(
        "never taken, though a hand-written rule is there: cond at test_audit_notes.py:"
    )


def test_a_call_without_a_float_has_nothing_to_ask():
    count = rule(lambda k: k + 1, lambda res, y_bar: (None,))
    found = audit(lambda x: right(x).sum() * count(3), X)
    assert [f.rule for f in found.findings] == ["sine"]


def test_nothing_asked_is_unproven():
    assert audit(lambda x: x.sum(), X).verdict == "unproven"
    hidden = audit(lambda x: jax.grad(lambda x: wrong(x).sum())(x), X)
    assert hidden.verdict == "unproven"
    assert "out of reach" in hidden.note
    empty = audit(lambda x: right(x).sum(), X[:0])
    assert empty.verdict == "unproven"


def test_a_rule_inside_what_is_run_whole_is_said_not_to_be_asked():
    def f(x):
        def solve(_, b):
            return b + 0 * wrong(b)

        return lax.custom_linear_solve(lambda y: y, x, solve, solve)

    found = audit(lambda x: right(f(x)).sum(), X)
    assert found.verdict == "unproven"
    assert "rules inside custom_linear_solve" in found.note


def test_the_table_leads_with_the_first_wrong_link_and_the_dict_is_json():
    def f(x):
        return right(wrong(x)).sum()

    found = audit(f, X)
    lines = str(found).splitlines()
    assert lines[0] == "audit(f): wrong, 2 calls of rules"
    assert lines[1].startswith("first wrong link from the loss: faulty, ")
    assert lines[2].split() == ["rule", "verdict", "wire", "calls", "called", "at"]
    assert "hand-written" in str(found)
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["ok"], told["verdict"], told["first"]) == (False, "wrong", 1)
    assert told["findings"][1]["rule"] == "faulty"
    assert told["schema"] == 1


def test_a_branch_is_no_iteration_and_a_cotangent_of_zeros_is_told():
    branch = audit(lambda x: lax.cond(True, wrong, jnp.sin, x).sum(), X)
    assert "in branch 1 of a cond" in branch.findings[0].message
    silent = audit(lambda x: (0.0 * wrong(x)).sum(), X)
    assert silent.findings[0].message.endswith(
        "the cotangent that arrives here is 0: asked with random ones"
    )
