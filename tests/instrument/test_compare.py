"""compare: each verdict is reached, by a function that earns it."""

import contextlib
import functools
import json
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import assert_gradients, compare, cost
from jaxbp.instrument._comparison import VERDICTS, worst_of

X = jax.random.normal(jax.random.key(0), (5, 3))
W = jax.random.normal(jax.random.key(1), (3, 3))


def rule(primal, bwd, fwd=None):
    """A hand-written rule whose residuals are its arguments, or its argument."""

    def keep(*args):
        return primal(*args), args if len(args) > 1 else args[0]

    @jax.custom_vjp
    def f(*args):
        return primal(*args)

    f.__name__ = primal.__name__
    f.defvjp(fwd or keep, bwd)
    return f


def product(x, w):
    return jnp.tanh(x @ w)


def product_bwd(res, y_bar):
    x, w = res
    a_bar = (1 - jnp.tanh(x @ w) ** 2) * y_bar
    return a_bar @ w.T, x.T @ a_bar


def spoiled(position, spoil):
    """product's rule with `spoil(bar, res, y_bar)` in one place."""

    def bwd(res, y_bar):
        bars = list(product_bwd(res, y_bar))
        bars[position] = spoil(bars[position], res, y_bar)
        return tuple(bars)

    return rule(product, bwd)


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


def test_an_ill_conditioned_solve_is_not_called_wrong():
    hilbert = 1 / (jnp.arange(8.0)[:, None] + jnp.arange(8.0) + 1)

    def bwd(res, y_bar):
        a, b = res
        b_bar = jnp.linalg.solve(a.T, y_bar)
        return -jnp.outer(b_bar, jnp.linalg.solve(a, b)), b_bar

    comparison = compare(rule(jnp.linalg.solve, bwd), hilbert, jnp.arange(1.0, 9.0))
    assert comparison.verdict in ("right", "unproven")


def test_the_callers_dtype_has_its_own_contract():
    x = jnp.linspace(0.5, 1.5, 5, dtype=jnp.float32)

    def overflows(x, y_bar):
        return (y_bar * jnp.exp(x) / (1 + jnp.exp(x)),)

    softplus = rule(jax.nn.softplus, overflows)
    assert not compare(softplus, x).ok  # which looks at large values too
    assert compare(softplus, x * 100).findings[0].kind == "overflow"

    def only_wide(x, y_bar):
        sign = 1 if x.dtype == jnp.float64 else -1
        return (sign * y_bar * jnp.cos(x),)

    assert compare(rule(jnp.sin, only_wide), x).verdict == "wrong"

    def half(x, y_bar):
        bar = y_bar * jnp.cos(x)
        return (bar.astype(jnp.bfloat16) if x.dtype == jnp.float32 else bar,)

    finding = compare(rule(jnp.sin, half), x).findings[0]
    assert finding.verdict == "broken-contract"
    assert "bfloat16 for float32" in finding.message

    def single(x, y_bar):  # float32 for float32 is right, and float64 is not asked for
        return ((y_bar * jnp.cos(x)).astype(jnp.float32),)

    assert compare(rule(jnp.sin, single), x).ok


def test_a_rule_that_took_no_part_proves_nothing():
    bad = rule(jnp.sin, lambda x, y_bar: (7 * y_bar,))
    for f in (
        lambda x: jax.lax.cond(x.sum() > 1e35, bad, jnp.cos, x),
        lambda x: x * bad(jnp.ones(3, x.dtype)).sum(),
        lambda x: jax.lax.stop_gradient(bad(x)) + x,
        lambda x: 0.0 * bad(x) + x,
    ):
        comparison = compare(f, X)
        assert comparison.verdict == "unproven", comparison
        assert "took part" in comparison.note
    taken = compare(lambda x: jax.lax.cond(x.sum() < 1e9, bad, jnp.cos, x), X)
    assert taken.verdict == "wrong"


def test_a_backward_pass_that_is_not_linear_is_reported():
    for bwd in (
        lambda x, y_bar: (jnp.clip(y_bar, -100, 100) * jnp.cos(x),),
        lambda x, y_bar: (y_bar * jnp.abs(y_bar) * jnp.cos(x),),
    ):
        finding = compare(rule(jnp.sin, bwd), X).findings[0]
        assert finding.verdict == "broken-contract"
        assert finding.kind == "not linear"


def test_a_backward_pass_that_needs_its_dtype_is_judged_in_it():
    def bwd(x, y_bar):
        total, _ = jax.lax.scan(lambda c, v: (c + v, None), jnp.float32(0), y_bar)
        return (jnp.full_like(x, total) * 0 + y_bar * jnp.cos(x),)

    comparison = compare(rule(jnp.sin, bwd), jnp.linspace(0, 1, 4, dtype=jnp.float32))
    assert comparison.ok, comparison
    assert "float64 does not trace" in comparison.note
    assert len(comparison.note.splitlines()) == 1


def test_without_autodiff_the_numeric_derivative_judges():
    def root(a):  # Newton's iteration for the square root
        def step(s):
            return s[0] / 2 + a / (2 * s[0]), s[0]

        return jax.lax.while_loop(lambda s: abs(s[0] - s[1]) > 1e-12, step, (a, 0 * a))[
            0
        ]

    right = compare(rule(root, lambda a, y_bar: (y_bar / (2 * jnp.sqrt(a)),)), 2.0)
    assert right.verdict == "right", right
    assert "no autodiff" in right.note
    wrong = compare(rule(root, lambda a, y_bar: (y_bar / jnp.sqrt(a),)), 2.0)
    assert wrong.verdict == "wrong"


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


def test_a_reference_stands_in_autodiffs_place():
    f = rule(product, product_bwd)
    assert compare(f, X, W, reference=product).ok
    assert not compare(f, X, W, reference=lambda x, w: product(x, 2 * w)).ok


def test_pytrees_data_and_static_arguments_stay_in_place():
    @jax.custom_vjp
    def f(params, n, x):
        return {"y": params["w"] * x[n], "n": n}

    def fwd(params, n, x):
        return f(params, n, x), (params["w"], x, n)

    def bwd(res, out_bar):
        w, x, n = res
        y_bar = out_bar["y"]
        return {"w": x[n] * y_bar}, None, jnp.zeros_like(x).at[n].set(w * y_bar)

    f.defvjp(fwd, bwd)

    def g(params, n, *, x, mode, skip):
        assert (mode, skip) == ("on", None)
        return f(params, n, x)

    options = {"x": X[0], "mode": "on", "skip": None}
    comparison = compare(g, {"w": 2.0}, 1, kwargs=options)
    assert comparison.verdict == "right", comparison
    assert [f.argument for f in comparison.findings] == ["[0]['w']", "['x']"]
    assert comparison.manual[1] is None
    assert comparison.manual[0]["w"].shape == ()


def test_a_scalar_functions_pullback_is_its_gradient():
    def cubes(x):
        return jnp.sum(x**3)

    x = X.astype(jnp.float64)
    comparison = compare(rule(cubes, lambda x, g: (3 * x**2 * g,)), x, numeric=True)
    np.testing.assert_allclose(comparison.manual[0], 3 * x**2, rtol=1e-15)
    np.testing.assert_allclose(comparison.numeric[0], 3 * x**2, rtol=1e-9)


def test_rounding_is_no_mistake_and_a_mistake_no_rounding():
    def variance(x):
        return jnp.mean((x - x.mean()) ** 2)

    def bwd(x, y_bar):  # the same in exact arithmetic, far apart in rounding
        return (2 * (x / x.size - x.mean() / x.size) * y_bar,)

    x = 1e6 + jnp.arange(50.0) * 1e-3
    assert compare(rule(variance, bwd), x).verdict == "right"
    wrong = rule(variance, lambda x, y_bar: (bwd(x, y_bar)[0] * 1.001,))
    assert compare(wrong, x).verdict == "wrong"


def test_a_less_accurate_rule_is_told_in_the_callers_dtype():
    def softplus(x):
        return jnp.log1p(jnp.exp(x))

    def cancels(x, y_bar):
        return (y_bar * (1 - 1 / (1 + jnp.exp(x))),)

    f = rule(softplus, cancels)
    comparison = compare(f, jnp.linspace(-14, -10, 7, dtype=jnp.float32))
    assert comparison.verdict == "less-accurate", comparison
    assert comparison.ok
    far = jnp.linspace(-14, -10, 7, dtype=jnp.float32)
    assert not compare(f, far, accuracy=True).ok
    assert compare(f, jnp.linspace(1, 2, 7, dtype=jnp.float32)).verdict == "right"


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_low_precision_neither_hides_a_mistake_nor_invents_one(dtype):
    x, w = X.astype(dtype), W.astype(dtype)
    assert compare(rule(product, product_bwd), x, w).ok
    one_percent = spoiled(0, lambda bar, res, g: bar.at[0, 0].multiply(1.01))
    assert compare(one_percent, x, w).findings[0].verdict == "wrong"


def test_a_function_that_casts_down_is_judged_by_the_precision_it_uses():
    def low(x):
        return jnp.tanh(x.astype(jnp.float32)).astype(x.dtype)

    def bwd(x, y_bar):
        y = jnp.tanh(x.astype(jnp.float32))
        return (((1 - y) * (1 + y)).astype(x.dtype) * y_bar,)

    x = X[0].astype(jnp.float32)
    assert compare(rule(low, bwd), x).ok


def test_complex_leaves_are_compared():
    z = jax.lax.complex(X[0], X[1])
    right = rule(jnp.square, lambda z, g: (2 * z * g,))
    wrong = rule(jnp.square, lambda z, g: (2 * jnp.conj(z) * g,))
    assert compare(right, z).ok
    assert not compare(wrong, z).ok


def test_another_function_for_a_reference_is_told_as_that():
    def one_more(x, w):
        return product(x, w) + 1

    found = compare(rule(product, product_bwd), X, W, reference=one_more)
    assert found.findings[0].message == "f's value is not the reference's"
    assert [f.verdict for f in found.findings] == ["broken-contract", "right", "right"]


def test_what_is_cast_down_inside_is_no_less_accurate_than_autodiff():
    def slope(x):  # of tanh(x) e^x, by another formula than autodiff's
        t = jnp.tanh(x)
        return jnp.exp(x) * ((1 - t) * (1 + t) + t)

    def primal(x):
        y = x.astype(jnp.float32)
        return (jnp.tanh(y) * jnp.exp(y)).astype(x.dtype)

    def bwd(x, y_bar, off=0.0):
        y, y_bar = x.astype(jnp.float32), y_bar.astype(jnp.float32)
        return ((slope(y) * y_bar * (1 + off)).astype(x.dtype),)

    x = jnp.linspace(-9, 9, 300)
    for dtype in (jnp.float32, jnp.bfloat16):
        assert compare(rule(primal, bwd), x.astype(dtype), accuracy=True).ok
    # A thousand units of float32, where rounding makes some ten.
    wrong = rule(primal, functools.partial(bwd, off=1e-4))
    assert not compare(wrong, x.astype(jnp.float32)).ok


def test_seeds_do_not_change_a_verdict():
    wrong = spoiled(0, lambda bar, res, g: bar.at[2, 1].multiply(1.01))
    for seed in range(3):
        assert compare(rule(product, product_bwd), X, W, seed=seed).ok
        assert compare(wrong, X, W, seed=seed).findings[0].verdict == "wrong"


@pytest.mark.parametrize("ask", [compare, cost])
def test_jaxs_configuration_is_left_as_it_was(ask):
    def raises(x):
        raise RuntimeError("of its own")

    def bwd(x, y_bar):
        raise RuntimeError("of its own")

    def settings():
        return {name: getattr(jax.config, name, None) for name in jax.config.values}

    for wide in (False, True):
        with jax.enable_x64(wide):
            before = settings()
            ask(rule(product, product_bwd), X.astype("f4"), W.astype("f4"))
            assert settings() == before
            with pytest.raises(RuntimeError, match="of its own"):
                ask(raises, jnp.float32(1))
            assert settings() == before
            with contextlib.suppress(ValueError):  # to compare it is a finding
                ask(rule(jnp.sin, bwd), jnp.float32(1))
            assert settings() == before


def test_where_autodiff_has_no_number_the_rules_own_rounding_counts():
    # sqrt(1 + x²) - x; what the where leaves out makes autodiff's NaN beyond 700.
    def f(x):
        t = jnp.where(x > 700, x, jnp.exp(x) * 0 + x)
        return 1 / (t + jnp.sqrt(1 + t * t))

    def bwd(x, g):  # of two that are nearly equal where x is large
        return (g * (x / jnp.sqrt(1 + x * x) - 1),)

    x = jnp.array([1.0, 2.0, 1.0])
    assert compare(rule(f, bwd), x).ok
    wrong = rule(f, lambda x, g: (bwd(x, g)[0] * jnp.where(x > 700, 1.001, 1),))
    assert compare(wrong, x).verdict == "wrong"


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


def test_an_overflow_of_autodiff_lets_no_other_element_off():
    scale = np.array([1e25, 1.0, 2.0, 3.0])  # its square overflows float32
    x = jnp.array([1e-20, 1.0, 1.0, 1.0], "f4")

    def square(x):
        by = jnp.asarray(scale, x.dtype)
        return x * by * by

    def of(off):
        def bwd(x, g):
            return (square(g) * (off if g.dtype == jnp.float32 else 1),)

        return rule(square, bwd)

    right = jnp.ones(4, "f4")
    assert compare(of(right), x).ok
    comparison = compare(of(right.at[2].set(1.001)), x)
    (finding,) = comparison.findings
    assert (finding.verdict, finding.kind) == ("wrong", "dtype"), comparison


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


def test_a_large_program_is_judged_like_a_small_one(monkeypatch):
    from jaxbp.instrument import _answers, _testimony, _witnesses

    functions = {
        "right": rule(product, product_bwd),
        "transposed": spoiled(1, lambda bar, res, g: bar.T),
        "not linear": spoiled(0, lambda bar, res, g: jnp.clip(bar, -99, 99)),
        "overflow": rule(
            jax.nn.softplus, lambda x, g: (g * jnp.exp(x) / (1 + jnp.exp(x)),)
        ),
    }
    arguments = dict.fromkeys(functions, (X.astype("f4"), W.astype("f4")))
    arguments["overflow"] = (100 * X.astype("f4"),)
    for name, value in (("LARGE", 4), ("_BLOCK", 7), ("_SAMPLE", 5)):
        for module in (_answers, _testimony, _witnesses):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    for name, f in functions.items():
        for effort in ("quick", "full"):
            comparison = compare(f, *arguments[name], effort=effort)
            kinds = [f.kind for f in comparison.findings]
            assert comparison.ok if name == "right" else name in kinds, comparison


def test_a_large_program_lets_go_of_its_answers(monkeypatch):
    from jaxbp.instrument import _answers, _program
    from jaxbp.instrument._testimony import Testimony

    for large in (1, 2**20):
        for module in (_answers, _program):
            monkeypatch.setattr(module, "LARGE", large)
        program = _program.traced(rule(product, product_bwd), (X, W), {}, None)
        answers = Testimony(program, program.inputs, ["[0]", "[1]"], 0)
        kept = weakref.ref(answers.manual[-1].cotangents[0])
        before = np.array(kept())
        answers.let_go()
        assert (kept() is None) == (large == 1)
        np.testing.assert_array_equal(answers.manual[-1].cotangents[0], before)


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


def test_the_verdict_of_the_whole_is_the_worst():
    assert worst_of(list(reversed(VERDICTS))) == "broken-contract"
    assert worst_of(["right", "kink"]) == "kink"
    assert worst_of([]) == "unproven"


def test_nothing_of_a_comparison_is_kept():
    import gc

    from jaxbp.instrument._testimony import Testimony

    compare(spoiled(1, lambda bar, res, y_bar: -bar), X, W)
    gc.collect()
    assert not [x for x in gc.get_objects() if type(x) is Testimony]
