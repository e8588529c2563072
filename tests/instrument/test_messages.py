"""compare: what is printed, written as JSON, raised and refused."""

import json

import jax.numpy as jnp
import pytest
from hand_written import W, X, product, product_bwd, rule, spoiled

from jaxbp import assert_gradients, compare


def test_the_table_and_the_json_say_the_same():
    comparison = compare(spoiled(1, lambda bar, res, y_bar: -bar), X, W)
    text, data = str(comparison), comparison.to_dict()
    assert text.splitlines()[0] == "compare(product): wrong"
    assert "hand-written is minus autodiff in every element" in text
    assert json.loads(json.dumps(data)) == data
    assert data["schema"] == 1
    assert [f["verdict"] for f in data["findings"]] == ["right", "wrong"]


def test_non_finite_numbers_are_strings_in_json():
    f = rule(jnp.log, lambda x, g: (g / x,))
    data = compare(f, jnp.zeros(1)).to_dict()
    assert data["findings"][0]["worst"]["manual"] in ("inf", "-inf")
    json.dumps(data, allow_nan=False)


def test_assert_gradients_raises_what_compare_prints():
    assert_gradients(rule(product, product_bwd), X, W)
    wrong = spoiled(1, lambda bar, res, y_bar: -bar)
    with pytest.raises(AssertionError) as caught:
        assert_gradients(wrong, X, W)
    assert str(caught.value) == str(compare(wrong, X, W))


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (
            lambda: compare(jnp.sin, jnp.ones(2), reference=jnp.sum),
            ValueError,
            "jaxbp.compare: expected reference to be a function with f's outputs, "
            "float64[2]; got float64[].",
        ),
        (
            lambda: compare(jnp.sin, 1.0, surrogate="[1]"),
            ValueError,
            "jaxbp.compare: expected surrogate to be among [0]; got [1].",
        ),
        (
            lambda: compare(jnp.sin, 1.0, surrogate=["[1]"]),
            ValueError,
            "jaxbp.compare: expected surrogate to be among [0]; got [1].",
        ),
        (
            lambda: compare(jnp.sin, 1.0, effort="huge"),  # pyright: ignore
            ValueError,
            "jaxbp.compare: expected effort to be 'quick' or 'full'; got 'huge'.",
        ),
    ],
)
def test_bad_input_is_named(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text
