"""audit: what a rule closes over, and what is static, belongs to the call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from audited import X, rule, sine

from jaxbp.instrument._audit import audit


def test_static_arguments_that_only_bwd_reads_are_told_apart():
    f = jax.custom_vjp(lambda scale, x: jnp.sin(x), nondiff_argnums=(0,))
    f.defvjp(
        lambda scale, x: (jnp.sin(x), x),
        lambda scale, x, y_bar: (scale * y_bar * jnp.cos(x),),
    )

    def twice(x):
        x = f(1.0, x)
        return f(2.0, x).sum()

    assert [g.verdict for g in audit(twice, X).findings] == ["wrong", "right"]


def test_closed_over_arrays_that_only_bwd_reads_are_told_apart():
    def scaled(scale):
        return rule(sine, lambda res, y_bar: (scale * y_bar * jnp.cos(res[0]),))

    ones, off = np.ones(4), np.array([1, 1, 1 + 1e-9, 1])

    def f(x):
        x = scaled(ones)(x)
        return scaled(off)(x).sum()

    assert [g.verdict for g in audit(f, X).findings] == ["wrong", "right"]


def test_a_rule_that_closes_over_what_f_computes_is_out_of_reach():
    def f(x):
        scale = jnp.ones(4) + x.shape[0]
        g = rule(sine, lambda res, y_bar: (y_bar * jnp.cos(res[0]) * scale,))
        return g(x).sum()

    (finding,) = audit(f, X).findings
    assert finding.verdict == "unproven"
    assert "closes over" in finding.message


@pytest.mark.parametrize("slope", [1.0, 2.0])
@pytest.mark.parametrize("batched", [False, True])
def test_an_array_that_a_rule_closes_over_is_no_argument(slope, batched):
    scale = jnp.arange(1.0, 5.0)

    def scaled(x):
        return scale * jnp.sin(x)

    f = rule(scaled, lambda res, y_bar: (slope * scale * y_bar * jnp.cos(res[0]),))
    f = jax.vmap(f) if batched else f
    x = np.stack([X, 2 * X]) if batched else X
    (finding,) = audit(lambda x: f(x).sum(), x).findings
    assert finding.verdict == ("right" if slope == 1.0 else "wrong"), finding
