"""compare: each verdict is reached, by a function that earns it."""

import jax
import jax.numpy as jnp
import pytest
from hand_written import W, X, product, product_bwd, rule, spoiled

from jaxbp import audit, compare
from jaxbp.instrument._comparison import VERDICTS, worst_of


def test_a_right_rule_is_right():
    comparison = compare(rule(product, product_bwd), X, W)
    assert comparison.ok
    assert comparison.verdict == "right"
    assert [f.argument for f in comparison.findings] == ["[0]", "[1]"]


@pytest.mark.parametrize(
    ("spoil", "verdict", "kind"),
    [
        (lambda bar, res, y_bar: -bar, "wrong", "sign"),
        (lambda bar, res, y_bar: 1.5 * bar, "wrong", "factor"),
        (lambda bar, res, y_bar: bar.T, "wrong", "transposed"),
        (lambda bar, res, y_bar: bar.at[1, 2].multiply(1.01), "wrong", ""),
        (lambda bar, res, y_bar: bar.at[1, 2].multiply(1 + 1e-9), "wrong", ""),
        (lambda bar, res, y_bar: bar + y_bar[:3], "wrong", ""),
        (lambda bar, res, y_bar: res[1] * 0.3, "broken-contract", None),
        (lambda bar, res, y_bar: jnp.zeros_like(bar), "broken-contract", "missing"),
        (lambda bar, res, y_bar: None, "broken-contract", "missing"),
        (lambda bar, res, y_bar: bar + 1, "broken-contract", None),
    ],
    ids=[
        "sign",
        "factor",
        "transposed",
        "1 % of one element",
        "1e-9 of one element",
        "stray term",
        "ignores its cotangent",
        "zeros",
        "None",
        "not zero at zero",
    ],
)
def test_a_wrong_rule_is_reported_at_its_leaf_as_what_it_is(spoil, verdict, kind):
    comparison = compare(spoiled(1, spoil), X, W)
    assert not comparison.ok
    x_finding, w_finding = comparison.findings
    assert x_finding.verdict == "right"
    assert w_finding.verdict == comparison.verdict == verdict
    if kind is not None:
        assert w_finding.kind == kind


def test_a_rule_that_took_no_part_proves_nothing():
    bad = rule(jnp.sin, lambda x, y_bar: (7 * y_bar,))
    for f in (
        lambda x: jax.lax.cond(x.sum() > 1e35, bad, jnp.cos, x),
        lambda x: x * bad(jnp.ones(3, x.dtype)).sum(),
        lambda x: jax.lax.stop_gradient(bad(x)) + x,
        lambda x: 0.0 * bad(x) + x,
        lambda x: bad(x[:0]).sum() + x,
    ):
        comparison = compare(f, X)
        assert comparison.verdict == "unproven", comparison
        assert "took part" in comparison.note
    taken = compare(lambda x: jax.lax.cond(x.sum() < 1e9, bad, jnp.cos, x), X)
    assert taken.verdict == "wrong"


def test_a_session_without_jit_is_asked_with_it():
    seen, sine = [], rule(jnp.sin, lambda x, y_bar: (jnp.cos(x) * y_bar,))

    def told(x):
        seen.append(jax.config.jax_disable_jit)
        return sine(x)

    with jax.disable_jit():
        assert compare(told, X).ok
        assert audit(told, X).ok
        assert jax.config.jax_disable_jit
    assert not any(seen)


def test_a_helper_of_jax_that_a_backward_pass_needed_first_is_no_rule():
    """JAX traces it once, with the lines of that rule's call (0.12)."""
    relu = rule(
        lambda x: jnp.maximum(x, 0), lambda x, g: (jnp.where(x > 0, g, jnp.zeros(())),)
    )
    sine = rule(jnp.sin, lambda x, g: (jnp.cos(x) * g,))
    x = jnp.linspace(-1, 2, 23)
    jax.clear_caches()
    assert compare(relu, x).ok
    found = compare(lambda x: sine(x) + jnp.where(x > 0, x, jnp.zeros(())), x)
    assert found.verdict == "right", found


def test_a_rule_that_rescues_a_bad_point_of_autodiff_is_told_from_a_wrong_one():
    def energy(x):
        return jnp.linalg.norm(x) ** 2

    assert jnp.isnan(jax.grad(energy)(jnp.zeros(3))).all()
    rescued = rule(energy, lambda x, y_bar: (2 * x * y_bar,))
    comparison = compare(rescued, jnp.zeros(3))
    assert comparison.ok
    assert comparison.verdict == "autodiff-wrong"
    wrong = rule(energy, lambda x, y_bar: (jnp.ones_like(x) * y_bar,))
    assert compare(wrong, jnp.zeros(3)).verdict == "wrong"


def test_a_declared_surrogate_is_held_to_its_contract_only():
    def rounded(x):
        return jnp.round(x)

    f = rule(rounded, lambda x, y_bar: (y_bar,))
    assert not compare(f, X).ok
    assert compare(f, X, surrogate=True).verdict == "surrogate"
    assert compare(f, X, surrogate=["[0]"]).ok
    broken = rule(rounded, lambda x, y_bar: (y_bar + 1,))
    assert compare(broken, X, surrogate=True).verdict == "broken-contract"


def test_a_comparison_of_nothing_is_unproven():
    f = rule(product, product_bwd)
    empty = jnp.ones((0, 3))
    for comparison in (
        compare(jnp.sin, 1.0),
        compare(lambda: 1.0),
        compare(lambda n: n + 1, 3),
        compare(lambda x: jnp.argmax(x), X),
        compare(rule(jnp.sin, lambda x, g: (g * jnp.cos(x),)), empty),
        compare(lambda x: jax.grad(lambda x: f(x, W).sum())(x), X),
    ):
        assert comparison.verdict == "unproven"
        assert not comparison.ok
        assert comparison.note


def test_a_point_where_both_gradients_are_undefined_is_unproven():
    f = rule(jnp.log, lambda x, g: (g / x,))
    assert compare(f, jnp.zeros(2)).verdict == "unproven"


def test_seeds_do_not_change_a_verdict():
    wrong = spoiled(0, lambda bar, res, g: bar.at[2, 1].multiply(1.01))
    for seed in range(3):
        assert compare(rule(product, product_bwd), X, W, seed=seed).ok
        assert compare(wrong, X, W, seed=seed).findings[0].verdict == "wrong"


def test_the_verdict_of_the_whole_is_the_worst():
    assert worst_of(list(reversed(VERDICTS))) == "broken-contract"
    assert worst_of(["right", "kink"]) == "kink"
    assert worst_of([]) == "unproven"
