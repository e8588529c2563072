"""audit: every planted wrong rule is found where it is called, and no right one."""

import re

import jax
import jax.numpy as jnp
import pytest
from audited import WRITTEN_AT, X, right, rule, wrong
from jax import lax

from jaxbp.instrument._audit import audit


def in_primal(inner):
    def outer(x):
        return inner(3 * x)

    return rule(outer, lambda res, y_bar: (3 * y_bar * jnp.cos(3 * res[0]),))


def in_while(inner, x):
    return lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, inner(c[1])), (0, x))


PLACES = {
    "call": lambda inner, x: inner(x).sum(),
    "jit": lambda inner, x: jax.jit(lambda x: inner(x) * 2)(x).sum(),
    "scan": lambda inner, x: lax.scan(
        lambda c, y: (inner(c) * y, c), x, jnp.arange(1.0, 4.0)
    )[0].sum(),
    "long scan": lambda inner, x: lax.scan(
        lambda c, _: (inner(c) * 1.1, None), x, None, length=3000
    )[0].sum(),
    "while": lambda inner, x: in_while(inner, x)[1].sum(),
    "cond": lambda inner, x: lax.cond(x[0] < 9, inner, jnp.cos, x).sum(),
    "remat": lambda inner, x: jax.checkpoint(lambda x: inner(x) * x)(x).sum(),
    "vmap": lambda inner, x: jax.vmap(inner)(jnp.stack([x, 2 * x])).sum(),
    "rule": lambda inner, x: in_primal(inner)(x).sum(),
    "third of five": lambda inner, x: right(right(inner(right(right(x))))).sum(),
}


every_place = pytest.mark.parametrize("place", PLACES)


@every_place
def test_a_wrong_rule_is_found_wherever_it_is_called(place):
    found = audit(lambda x: PLACES[place](wrong, x), X)
    assert not found.ok
    first = found.first
    assert (first.rule, first.verdict, first.kind) == ("faulty", "wrong", "factor")
    assert first.worst.manual == pytest.approx(2 * first.worst.auto, rel=1e-12)
    assert first.worst.numeric == pytest.approx(first.worst.auto, rel=1e-8)
    assert [f.rule for f in found.findings if f.verdict != "right"] == ["faulty"]
    assert first.source == WRITTEN_AT
    assert first.site.startswith(f"{__file__}:")


@every_place
def test_a_right_rule_is_right_wherever_it_is_called(place):
    found = audit(lambda x: PLACES[place](right, x), X)
    assert found.verdict == "right", found
    assert found.first is None


def test_a_while_loop_asks_with_random_cotangents_and_stops_none_after_it():
    found = audit(lambda x: right(in_while(wrong, x)[1]).sum(), X)
    after, inside = found.findings
    assert (after.verdict, inside.verdict) == ("right", "wrong")
    assert "no cotangent arrives" in inside.message
    assert "no cotangent arrives" not in after.message
    assert inside.calls == 4  # iterations 0, 1, 2 and 4 of five


def test_a_loop_under_vmap_ends_when_the_last_example_does():
    def halved(x):
        count = lax.while_loop(
            lambda c: c[1] > 1, lambda c: (c[0] + 1, c[1] / 2), (0, jnp.abs(x))
        )[0]
        return right(x) * count

    found = audit(lambda x: jax.vmap(halved)(x).sum(), jnp.array([0.5, 3.0, 40.0]))
    assert found.verdict == "right", found
    inside = audit(lambda x: jax.vmap(lambda x: in_while(wrong, x)[1])(x).sum(), X)
    assert inside.first.rule == "faulty"


def test_a_rule_wrong_only_for_large_values_is_found_late_in_a_scan():
    def late(x):
        return jnp.sin(x)

    def bwd(res, y_bar):
        (x,) = res
        return (jnp.where(x > 3, 0.5, 1.0) * jnp.cos(x) * y_bar,)

    f = rule(late, bwd)

    def summed(x):
        return lax.scan(lambda c, _: (c + 0.1 + 0 * f(c), None), x, None, 40)[0].sum()

    (finding,) = audit(summed, jnp.zeros(2)).findings
    assert (finding.verdict, finding.calls) == ("wrong", 40)
    assert int(re.search(r"in iteration (\d+) of a scan", finding.message)[1]) >= 29
    (finding,) = audit(summed, -jnp.ones(2) * 9).findings
    assert finding.verdict == "right"


def sharded(f):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    return jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec)


def test_of_the_rules_inside_a_shard_map_the_wrong_one_is_told():
    f = sharded(lambda x: right(wrong(right(x))))
    found = audit(lambda x: right(f(x)).sum(), X)
    told = [(g.rule, g.verdict, g.calls) for g in found.findings]
    assert told == [("sine", "right", 1), ("sine", "right", 2), ("faulty", "wrong", 1)]
    assert found.first.kind == "factor"
    assert found.first.source == WRITTEN_AT


def test_right_rules_inside_a_shard_map_are_right():
    def block(x):
        total = lax.psum(right(x).sum(), "d")  # a collective: it runs nowhere else
        return lax.scan(lambda c, _: (right(c), None), x * total, None, 3)[0]

    found = audit(lambda x: sharded(block)(x).sum(), X)
    assert found.verdict == "right", found
    assert len(found.findings) == 2
    assert "shard_map around it" in found.findings[0].message
