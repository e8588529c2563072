"""compare: at a kink or a tie a rule may choose, and elsewhere it may not."""

import jax.numpy as jnp
import pytest
from hand_written import rule

from jaxbp import compare


def relu(x):
    return jnp.maximum(x, 0)


def test_a_choice_at_a_kink_is_no_mistake():
    x = jnp.array([0.0, 1.0, -1.0])
    one_at_zero = rule(relu, lambda x, y_bar: (jnp.where(x >= 0, y_bar, 0),))
    comparison = compare(one_at_zero, x)
    assert comparison.ok
    assert comparison.verdict == "kink"
    beside_infinity = jnp.array([0.0, -jnp.inf, 2.0])
    assert compare(one_at_zero, beside_infinity).verdict == "kink"
    three_at_zero = rule(relu, lambda x, y_bar: (jnp.where(x > 0, 1, 3.0) * y_bar,))
    assert compare(three_at_zero, x[:1]).verdict == "wrong"


def test_choices_at_a_tie_have_to_fit_together():
    tied = jnp.array([2.0, 1.0, 2.0])

    def largest(share):
        def bwd(x, y_bar):
            ties = (x == x.max()).astype(x.dtype)
            return (y_bar * share(ties),)

        return rule(jnp.max, bwd)

    first = largest(lambda ties: jnp.where(jnp.cumsum(ties) == 1, ties, 0))
    for dtype in (jnp.float64, jnp.float32):
        assert compare(first, tied.astype(dtype)).verdict == "kink"
    assert compare(largest(lambda t: t), tied).verdict == "wrong"
    assert compare(largest(lambda t: t / t.sum()), tied).verdict == "right"


def test_where_many_tie_a_share_for_each_is_a_choice():
    # Of a median: each of three alone may move and change nothing.
    def shared(x, g):
        tied = x == jnp.median(x)
        return (jnp.where(tied, g / tied.sum().astype(g.dtype), 0),)

    x = jnp.array([1.0, 1.0, 1.0, 0.0, 3.0])
    (finding,) = compare(rule(jnp.median, shared), x).findings
    assert finding.verdict == "kink", finding
    # All of them together move it by as much.
    whole = rule(jnp.median, lambda x, g: (jnp.where(x == jnp.median(x), g, 0),))
    assert compare(whole, x).verdict == "wrong"


def test_many_kinks_hide_no_mistake_among_them():
    x = jnp.concatenate([jnp.zeros(20), jnp.arange(1.0, 6.0)])
    off = rule(relu, lambda x, y_bar: (jnp.where(x > 0, 1.01 * y_bar, 0),))
    assert compare(off, x).verdict == "wrong"

    def root(x):
        return jnp.where(x > 0, jnp.sqrt(x) * x, 0)

    def minus(x, y_bar):
        return (jnp.where(x > 0, -1.5 * jnp.sqrt(jnp.abs(x)) * y_bar, 0),)

    assert compare(rule(root, minus), x - 1.0).verdict == "wrong"


@pytest.mark.parametrize("relative", [1e-6, 1e-9, 1e-11])
def test_a_smooth_function_has_no_kink(relative):
    x = jnp.linspace(0.3, 2.0, 50)

    def bwd(x, y_bar):
        return ((jnp.cos(x) * y_bar).at[7].multiply(1 + relative),)

    comparison = compare(rule(jnp.sin, bwd), x)
    assert not comparison.ok
    assert comparison.verdict in ("wrong", "unproven")
