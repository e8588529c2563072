"""compare: what is printed, written as JSON, raised and refused."""

import functools
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_written import W, X, product, product_bwd, rule, spoiled

from jaxbp import assert_gradients, audit, compare, cost, graph

VJP3 = os.environ.get("JAX_CUSTOM_VJP3") == "1"


def test_the_table_and_the_json_say_the_same():
    comparison = compare(spoiled(1, lambda bar, res, y_bar: -bar), X, W)
    text, data = str(comparison), comparison.to_dict()
    assert text.splitlines()[0] == "compare(product): wrong"
    assert "hand-written is minus autodiff in every element" in text
    assert json.loads(json.dumps(data)) == data
    assert data["schema"] == 1
    assert [f["verdict"] for f in data["findings"]] == ["right", "wrong"]


def test_json_holds_the_arguments_at_which_a_finding_shows():
    f = rule(jnp.abs, lambda x, g: (g * jnp.where(x < 0, -1.0, 1.0001),))
    x, flag = jnp.array([-1.5, -2], jnp.float32), True
    found = compare(lambda x, flag: f(x), x, flag).to_dict()["findings"][0]
    listed = json.loads(json.dumps(found["point"], allow_nan=False))
    assert listed["[1]"] is True
    asked = jnp.asarray(listed["[0]"]["value"], listed["[0]"]["dtype"])
    assert (asked >= 0).any()
    assert not compare(f, asked, effort="quick").ok
    large = compare(lambda x, flag: f(x), jnp.resize(x, 5000), flag).to_dict()
    assert large["findings"][0]["point"] is None


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
        *(
            (
                functools.partial(ask, product, *args),
                TypeError,
                f"jaxbp.{ask.__name__}: expected the arguments of f to be as "
                f"product(x, w) takes them; got {got}.",
            )
            for ask in (compare, audit, cost, graph)
            for args, got in (
                ((X,), "missing a required argument: 'w'"),
                ((X, W, W), "too many positional arguments"),
            )
        ),
    ],
)
def test_bad_input_is_named(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text


def test_numbers_that_look_alike_are_shown_to_the_last_digit():
    f = rule(jnp.sin, lambda x, g: (g * jnp.cos(x) * (1 + 1e-12),))
    line = str(compare(f, X)).splitlines()[2].split()
    assert line[1] == "wrong"
    assert line[-3] != line[-2]


def test_a_reference_has_a_column_of_its_own_name():
    def other(x):
        return jnp.cos(x)

    comparison = compare(lambda x: jnp.sin(x), X, reference=other)
    assert "other" in str(comparison).splitlines()[1]
    assert comparison.to_dict()["against"] == "other"
    assert "autodiff" in str(compare(rule(jnp.sin, lambda x, g: (g,)), X))


def test_what_is_no_function_of_arrays_is_told_apart():
    with pytest.raises(TypeError, match="hands a traced array to NumPy"):
        compare(lambda x: jnp.asarray(np.sin(x)).sum(), X)


@pytest.mark.skipif(VJP3, reason="fwd and bwd are traced together: nothing is outside")
@pytest.mark.parametrize("ask", [compare, cost])
def test_a_residual_that_is_kept_outside_is_refused(ask):
    kept = []

    def fwd(x):
        kept[:] = [x]
        return x * x, None

    f = jax.custom_vjp(lambda x: x * x)
    f.defvjp(fwd, lambda _, g: (2 * kept[0] * g,))
    with pytest.raises(TypeError, match="keeps a traced value outside"):
        ask(f, X)


def test_which_output_shows_it_is_said():
    twice = rule(jnp.sin, lambda x, g: (2 * g * jnp.cos(x),))
    x = jnp.array([0.3, -1.2, 2.0])
    found = compare(lambda x: {"a": jnp.cos(x), "b": twice(x)}, x)
    assert found.findings[0].output == "['b']"
    assert "; seen from output ['b']" in str(found)
    # Where all outputs show it together, none is named.
    assert "seen from" not in str(compare(twice, x))
