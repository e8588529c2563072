"""compare: a finding names the mistake, the element and the output that show it."""

import jax.numpy as jnp
import pytest
from hand_written import W, X, product, product_bwd, rule, spoiled

from jaxbp import compare


def test_the_worst_element_is_named_with_its_three_values():
    (_, finding) = compare(
        spoiled(1, lambda bar, res, y_bar: bar.at[1, 2].multiply(1.01)), X, W
    ).findings
    worst = finding.worst
    assert worst.index == (1, 2)
    assert worst.manual == pytest.approx(1.01 * worst.auto, rel=1e-12)
    assert worst.numeric == pytest.approx(worst.auto, rel=1e-9)
    assert "1 of 9 elements differ" in finding.message


def test_swapped_and_ignored_cotangents_are_named():
    def swapped(res, g):
        x, y = res
        return x**2 * g, 2 * x * y * g

    finding = compare(rule(lambda x, y: x**2 * y, swapped), W, W + 1.0).findings[1]
    assert finding.kind == "swapped"
    assert "[0]" in finding.message

    def ignores(x, y_bar):
        return (jnp.where(y_bar == 0, 0, jnp.cos(x)),)

    assert compare(rule(jnp.sin, ignores), W).findings[0].kind == "ignored cotangent"


def test_a_mean_where_a_sum_belongs_is_named():
    def bwd(x, y_bar):
        return (jnp.full_like(x, y_bar / 8),)

    f = rule(jnp.sum, bwd)
    (finding,) = compare(f, jnp.arange(8.0)).findings
    assert finding.kind == "factor"
    assert "1/8" in finding.message
    assert "mean where a sum belongs" in finding.message


def test_a_mean_over_many_elements_is_not_hidden_by_its_size():
    x = jnp.ones(10_000, jnp.float32)
    f = rule(jnp.mean, lambda x, y_bar: (jnp.zeros_like(x),))
    assert compare(f, x).verdict == "broken-contract"


def test_a_value_that_fwd_changes_is_reported():
    f = rule(product, product_bwd, lambda *args: (1.001 * product(*args), args))
    finding = compare(f, X, W).findings[0]
    assert (finding.verdict, finding.argument) == ("broken-contract", "value")


def test_a_backward_pass_that_is_not_linear_is_reported():
    for bwd in (
        lambda x, y_bar: (jnp.clip(y_bar, -100, 100) * jnp.cos(x),),
        lambda x, y_bar: (y_bar * jnp.abs(y_bar) * jnp.cos(x),),
    ):
        finding = compare(rule(jnp.sin, bwd), X).findings[0]
        assert finding.verdict == "broken-contract"
        assert finding.kind == "not linear"


def test_a_wrong_leaf_names_the_output_that_shows_it():
    def parts(x, y):
        return {"sine": jnp.sin(x), "product": x * y, "n": 3}

    def one_wrong(res, g):
        x, y = res
        sine, product = g["sine"], g["product"]
        return jnp.cos(x) * sine + y * product, 1.5 * x * product

    def first_wrong(res, g):
        x, y = res
        return -jnp.cos(x) * g["sine"] + y * g["product"], x * g["product"]

    def both_wrong(res, g):
        x, y = res
        return -jnp.cos(x) * g["sine"] - y * g["product"], x * g["product"]

    for bwd, leaf, output in (
        (one_wrong, 1, "['product']"),
        (first_wrong, 0, "['sine']"),
        (both_wrong, 0, ""),
    ):
        finding = compare(rule(parts, bwd), W, W + 1).findings[leaf]
        assert (finding.verdict, finding.output) == ("wrong", output)
    assert compare(spoiled(0, lambda bar, *_: -bar), X, W).findings[0].output == ""
