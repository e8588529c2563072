"""audit: of a chain of links, the first wrong one from the loss is named."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from audited import X, right, rule, wrong
from jax.ad_checkpoint import checkpoint_name

from jaxbp import nets, ops
from jaxbp.instrument._audit import audit


def test_the_first_wrong_link_is_the_wrong_rule_nearest_to_the_loss():
    def f(x):
        a = right(x)
        b = wrong(a)
        c = right(b)
        d = wrong(c)
        return right(d).sum()

    found = audit(f, X)
    line = f.__code__.co_firstlineno
    assert found.first.site == f"{__file__}:{line + 4}"
    sites = [int(f.site.split(":")[-1]) - line for f in found.findings]
    assert sites == [5, 4, 3, 2, 1]
    verdicts = [f.verdict for f in found.findings]
    assert verdicts == ["right", "wrong", "right", "wrong", "right"]


def test_of_links_that_fail_the_first_wrong_one_comes_first():
    unknown = rule(jnp.sqrt, lambda res, y_bar: (y_bar / (2 * jnp.sqrt(res[0])),))
    found = audit(lambda x: unknown(-2 - wrong(x)).sum(), X)
    assert [f.verdict for f in found.findings] == ["unproven", "wrong"], found
    assert found.first is found.findings[1]
    only = audit(lambda x: unknown(-2 - x**2).sum(), X)
    assert str(only).splitlines()[1].startswith("first unproven link from the loss: ")


# A chain with its wires named on both sides

NET = nets.mlp((3, 4, 4, 2), output="sigmoid")
PARAMS = jax.tree.map(lambda p: p + 0.1, NET.init(jax.random.key(0)))
BATCH = (
    jax.random.normal(jax.random.key(1), (5, 3)),
    jax.random.uniform(jax.random.key(2), (5, 2)),
)


def twice(position):
    return lambda bars: tuple(
        2 * bar if k == position else bar for k, bar in enumerate(bars)
    )


@pytest.mark.parametrize(
    ("op", "call", "of", "position", "wire", "argument"),
    [
        ("squared_error", 0, 1, 0, "yhat", ""),
        ("sigmoid", 0, 3, 0, "a3", ""),
        ("dense", 0, 3, 0, "h2", ""),
        ("sigmoid", 1, 3, 0, "a2", ""),
        ("dense", 1, 3, 0, "h1", ""),
        ("dense", 1, 3, 1, "", "params[1]['w']"),
        ("dense", 2, 3, 0, "", "x"),
    ],
)
def test_the_wrong_link_of_a_chain_is_named(
    monkeypatch, op, call, of, position, wire, argument
):
    bwd, calls = getattr(ops, f"{op}_bwd"), itertools.count()

    def spoiled(res, y_bar):
        bars = bwd(res, y_bar)
        return twice(position)(bars) if next(calls) % of == call else bars

    monkeypatch.setattr(ops, f"{op}_bwd", spoiled)
    found = audit(NET.loss, PARAMS, BATCH)
    assert found.first is found.findings[0]
    assert (found.first.verdict, found.first.wire) == ("wrong", wire)
    if wire:
        assert f"{wire}_bar is the first wrong cotangent" in found.first.message
    else:
        assert found.first.argument == argument
        assert "every named wire is right" in found.first.message
    # The ops' own rules are called in the chain's primal, and are right.
    assert {f.verdict for f in found.findings[1:]} == {"right"}


def test_a_right_chain_is_right_and_its_rules_stand_on_named_wires():
    found = audit(NET.loss, PARAMS, BATCH)
    assert found.verdict == "right", found
    assert [f.wire for f in found.findings] == [
        "", "losses", "yhat", "a3", "h2", "a2", "h1", "a1",
    ]  # fmt: skip
    assert all(f.within == "_loss" for f in found.findings[1:])


def test_wires_named_in_a_loop_pair_in_the_opposite_order():
    def powers(x):
        a = x
        for _ in range(3):
            a = checkpoint_name(a * x, "a")
        return a

    def bwd(res, y_bar):
        (x,) = res
        a_bar, x_bar = y_bar, 0.0
        for k in (3, 2, 1):
            a_bar = checkpoint_name(a_bar, "a_bar")
            x_bar = x_bar + a_bar * x**k
            a_bar = a_bar * x * (1.5 if k == 3 else 1.0)
        return (x_bar + a_bar,)

    (finding,) = audit(lambda x: rule(powers, bwd)(x).sum(), X).findings
    assert (finding.verdict, finding.wire) == ("wrong", "a[1]")
