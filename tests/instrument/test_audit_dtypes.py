"""audit: float32 is asked in float64 where it can be, and no setting is changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from audited import X, rule, sine, wrong
from jax import lax

from jaxbp.instrument._audit import audit

W = jnp.array([1.0, 2.0, 3.0, -1.5], jnp.float32)


def test_float32_arguments_are_asked_in_float64_and_nothing_is_left_changed():
    with jax.enable_x64(False):
        x = X.astype(np.float32)
        tiny = rule(sine, lambda res, y_bar: (y_bar * jnp.cos(res[0]) * (1 + 1e-9),))
        found = audit(lambda x: tiny(x).sum() + wrong(x).sum(), x)
        assert [f.verdict for f in found.findings] == ["wrong", "wrong"]
        assert found.findings[1].worst.manual == pytest.approx(
            found.findings[1].worst.auto, rel=1e-8
        )
        assert not jax.config.jax_enable_x64


def test_what_does_not_trace_in_float64_is_asked_in_its_own_dtype():
    def f(x):
        start = jnp.zeros(4, jnp.float32)
        return lax.scan(lambda c, _: (c + wrong(x), None), start, None, 2)[0].sum()

    found = audit(f, X.astype(np.float32))
    assert found.first.rule == "faulty"
    assert "float64 does not trace" in found.note


def test_a_rule_that_raises_is_not_blamed_on_float64():
    def bwd(res, y_bar):
        raise RuntimeError("in bwd")

    stops = rule(sine, bwd)
    found = audit(lambda x: stops(x).sum(), X.astype(np.float32))
    assert (found.verdict, found.note) == ("broken-contract", "")


@pytest.mark.parametrize("x64", [False, True])
def test_what_jax_is_set_to_is_left_alone_also_by_what_raises(x64):
    def raises(x):
        raise RuntimeError("in f")

    def bwd(res, y_bar):
        raise RuntimeError("in bwd")

    stops = rule(sine, bwd)
    with jax.enable_x64(x64):
        before = dict(jax.config.values)
        audit(lambda x: wrong(x).sum(), X.astype(np.float32))
        found = audit(lambda x: stops(x).sum(), X.astype(np.float32))
        assert "raises RuntimeError: in bwd" in found.first.message
        with pytest.raises(RuntimeError, match="in f"):
            audit(raises, X)
        assert dict(jax.config.values) == before
        assert jax.config.jax_enable_x64 is x64
        assert jnp.zeros(1).dtype == (np.float64 if x64 else np.float32)


def test_a_rule_for_the_callers_narrower_dtype_may_answer_in_that():
    def of(factor):
        def bwd(res, g):
            return (factor * g * jnp.cos(res[0].astype(jnp.float32)),)

        return rule(lambda x: jnp.sin(x.astype(jnp.float32)), bwd)

    x = jnp.array([0.3, -1.2, 2.0], jnp.float32)
    assert audit(of(1), x).verdict == "right"
    assert audit(of(1.001), x).verdict == "wrong"
    (finding,) = audit(of(1), x.astype(jnp.float64)).findings
    assert finding.message == "a cotangent of dtype float32 for float64"


def test_a_cotangent_that_is_narrower_than_the_callers_breaks_the_contract():
    half = rule(sine, lambda r, g: ((g * jnp.cos(r[0])).astype(jnp.bfloat16),))
    own = rule(sine, lambda r, g: ((g * jnp.cos(r[0])).astype(jnp.float32),))
    x = X.astype(np.float32)
    found = audit(lambda x: half(x).sum(), x)
    assert found.verdict == "broken-contract"
    assert "a cotangent of dtype bfloat16" in found.findings[0].message
    assert "dtype" not in audit(lambda x: own(x).sum(), x).findings[0].message


@pytest.mark.parametrize(
    "made",
    [
        lambda x: W,
        lambda x: jnp.exp(W),
        lambda x: W.astype(jnp.bfloat16),
        lambda x: jnp.arange(4, dtype=jnp.float32),
    ],
    ids=["closed over", "computed", "narrower", "made"],
)
def test_what_f_makes_itself_stays_narrow_and_no_rule_is_blamed(made):
    def product(times=1):
        bwd = lambda res, g: (times * g * res[1], g * res[0])
        return rule(lambda w, x: w * x, bwd)

    x = X.astype(np.float32)
    with jax.numpy_dtype_promotion("standard"):
        good, bad = product(), product(-1)
        assert audit(lambda x: good(made(x), x).sum(), x).verdict == "right"
        assert audit(lambda x: bad(made(x), x).sum(), x).verdict == "wrong"
        found = audit(lambda x: good(made(x), wrong(x)).sum(), x)
        assert found.first.rule == "faulty"
