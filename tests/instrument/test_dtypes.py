"""compare: a rule is judged in float64, and held to the caller's dtype too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_written import W, X, product, product_bwd, rule, spoiled

from jaxbp import compare
from jaxbp.instrument._variants import other_dtypes


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


def test_a_backward_pass_that_needs_its_dtype_is_judged_in_it():
    def bwd(x, y_bar):
        total, _ = jax.lax.scan(lambda c, v: (c + v, None), jnp.float32(0), y_bar)
        return (jnp.full_like(x, total) * 0 + y_bar * jnp.cos(x),)

    comparison = compare(rule(jnp.sin, bwd), jnp.linspace(0, 1, 4, dtype=jnp.float32))
    assert comparison.ok, comparison
    assert "float64 does not trace" in comparison.note
    assert len(comparison.note.splitlines()) == 1


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


def test_a_gradient_that_is_lost_where_squares_overflow_is_held_unless_it_is_little():
    def wide(x):
        return x if x.dtype == jnp.float64 else x.astype(jnp.float32)

    def scale(x):
        return jax.lax.rsqrt((wide(x) ** 2).mean() + 1e-5)

    def normed(x, w):
        return (wide(x) * scale(x) * wide(w)).astype(x.dtype)

    def bwd(of_squares, res, g):
        x, w = res
        x_bar = jax.vjp(normed, x, w)[1](g)[0]
        return x_bar, (wide(g) * wide(x) * of_squares(x)).astype(w.dtype)

    x, w = X.astype(jnp.float16)[0], X.astype(jnp.float16)[1] + 2
    careful = rule(normed, functools.partial(bwd, scale))
    assert compare(careful, x, w, effort="full").ok
    in_half = lambda x: jax.lax.rsqrt(wide((x * x).sum()) / x.size + 1e-5)
    careless = rule(normed, functools.partial(bwd, in_half))
    assert compare(careless, x, w).ok
    finding = compare(careless, x, w, effort="full").findings[1]
    assert (finding.verdict, finding.kind) == ("wrong", "dtype"), finding
    assert finding.worst.manual == 0


def test_where_arguments_leave_no_digit_none_is_asked_for():
    """At 1e19 a float32 is off by 1e12: what its exponential is, nobody knows."""

    def bwd(x, g):
        top = jnp.max(jnp.where(jnp.isfinite(x), jnp.abs(x), 0))
        shift = jnp.linspace(-5, 5, 32, dtype=x.dtype)[:, None] * top
        ways = jnp.exp((x - shift + 2 * shift) - (jax.nn.logsumexp(x) + shift))
        return (g * ways.mean(axis=0),)

    f = rule(jax.nn.logsumexp, bwd)
    x = X.astype(jnp.float32)[0]
    with np.errstate(over="ignore"):
        assert not jnp.isfinite(bwd(x * 1e19, jnp.float32(1))[0]).all()
    assert compare(f, x, effort="full").ok


def test_what_is_less_accurate_is_shown_where_it_is_and_counted_there():
    # What a sum of 97 leaves of 0.001 is a thousand units off, of 100 one.
    f = rule(jnp.square, lambda x, g: (2 * g * ((x + x.sum()) - x.sum()),))
    x = jnp.array([100.1, 1e-3, -3.3], jnp.float32)
    (finding,) = compare(f, x).findings
    assert finding.verdict == "less-accurate", finding
    worst = finding.worst
    assert worst.index == (1,)
    off = abs(worst.manual / worst.auto - 1) / jnp.finfo("f4").eps
    said = float(finding.message.split("off by ")[1].split()[0])
    assert said == pytest.approx(float(off), rel=0.01)


def test_below_the_smallest_normal_number_no_digits_are_asked_for():
    f = rule(jnp.exp, lambda x, g: (g / jnp.exp(-x),))
    x = jnp.array([-1.0, -96.0], jnp.float32)
    assert jnp.exp(-x)[1] == jnp.inf
    assert compare(f, x, effort="full").verdict == "right"


def test_probabilities_and_flags_stay_so_in_every_dtype_and_size():
    args = jax.nn.softmax(X), np.array([0.0, 1.0, 1.0])
    for dtype in other_dtypes(args, {}):
        for _, (labels, flags), _, _ in dtype:
            # Three numbers, each rounded to bfloat16: by up to 2⁻⁹ of itself.
            assert np.allclose(labels.sum(-1), 1, atol=3 * 2**-9)
            assert np.array_equal(flags, args[1])


def test_a_sum_that_stops_in_a_narrow_dtype_is_wrong_and_not_just_inaccurate():
    def counted(wide):
        def bwd(n, g):
            ones = jnp.ones(n, g.dtype)
            add = lambda total, x: (total + x.astype(total.dtype), None)
            total = jax.lax.scan(add, jnp.zeros((), wide or g.dtype), ones)[0]
            return ((g * total.astype(g.dtype)),)

        f = jax.custom_vjp(lambda b: jnp.broadcast_to(b, (1200,)).sum())
        f.defvjp(lambda b: (f(b), 1200), bwd)
        return f

    b = jnp.array(0.5, jnp.bfloat16)
    assert compare(counted(jnp.float32), b).ok
    found = compare(counted(None), b)
    assert (found.verdict, found.findings[0].kind) == ("wrong", "dtype"), found


def test_a_loop_that_counts_no_rounds_has_an_end_in_the_callers_dtype_alone():
    """By halves until they are nearer than one unit of bfloat16's last place."""

    def root(a):
        def halved(state):
            low, high = state
            middle = (low + high) / 2
            above = middle**3 + a * middle > 1
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        going = lambda state: (state[1] - state[0]).max() > 1e-5
        return jax.lax.while_loop(going, halved, (0 * a, 0 * a + 2))[0]

    def bwd(a, g):
        x = root(a)
        return (-g * x / (3 * x**2 + a),)

    assert compare(rule(root, bwd), jnp.array([0.3, 2.5]), effort="full").ok


def test_what_cancels_between_one_and_overflow_is_seen():
    """1 - exp(-exp(x)), of which float32 leaves nothing from -17 on down."""
    event = jnp.arange(24) % 3 == 0

    def hazard_nll(x):
        return -jnp.log(-jnp.expm1(-jnp.exp(x)))

    def pulled_back(hazard):
        def bwd(x, g):
            rate = jnp.exp(x)
            return (-g * rate * jnp.exp(-rate) / hazard(rate),)

        f = rule(hazard_nll, bwd)
        return lambda x: jnp.where(event, f(x), jnp.exp(x)).sum()

    x = 0.7 * jax.random.normal(jax.random.key(0), (24,), jnp.float32)
    right = pulled_back(lambda rate: -jnp.expm1(-rate))
    assert compare(right, x, effort="full").ok
    cancels = pulled_back(lambda rate: 1 - jnp.exp(-rate))
    found = compare(cancels, x, effort="full")
    assert found.findings[0].verdict == "wrong", found
