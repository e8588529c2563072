"""What is no fault of the rule is not held against it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_written import rule

from jaxbp import compare, ops
from jaxbp.instrument._boundaries import takes_infinities

X = jax.random.normal(jax.random.key(0), (4, 3))


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (ops.softmax_cross_entropy, (X, jax.nn.one_hot(jnp.array([0, 1, 2, 0]), 3))),
        (ops.binary_cross_entropy, (jax.nn.sigmoid(X), jax.nn.sigmoid(-X))),
        (ops.sigmoid, (X,)),
    ],
    ids=["softmax cross-entropy", "binary cross-entropy", "sigmoid"],
)
def test_a_right_rule_stays_right(f, args):
    assert compare(f, *args, effort="full", order=2).ok


# A thousand times 64, and a cotangent, is too much for a float16.
DETOUR = rule(lambda x: x * x, lambda x, g: (g * (x * 1e3) * 2e-3,))


@pytest.mark.parametrize(
    ("f", "args"),
    [
        # Nobody asked for a float16.
        (DETOUR, (X.astype(jnp.float32),)),
        # JAX counts what the mapped calls share once a call.
        (
            rule(
                lambda b, w: (b * w, w * w),
                lambda res, g: (
                    g[0] * res[1],
                    g[0] * res[0] + 2 * g[1] * res[1],
                ),
            ),
            (X, X + 1),
        ),
        # At 1e19 the square in the slope overflows; the slope is 1e-20.
        (
            rule(
                lambda x: jnp.sin(x) / x,
                lambda x, g: (g * (x * jnp.cos(x) - jnp.sin(x)) / x**2,),
            ),
            (X.astype(jnp.float32) + 4,),
        ),
    ],
    ids=[
        "overflow in another dtype",
        "an output that is shared under vmap",
        "a slope that is lost where squares overflow",
    ],
)
def test_what_is_no_fault_of_the_rule_is_not_held_against_it(f, args):
    assert compare(f, *args, effort="full").ok


def test_a_value_that_another_dtype_loses_is_not_held_either():
    f = jax.custom_vjp(lambda x: x + 1)
    f.defvjp(lambda x: (x * 512 / 512 + 1, None), lambda _, g: (g,))
    assert compare(f, X.astype(jnp.float32), effort="full").ok
    comparison = compare(f, X.astype(jnp.float16), effort="full")
    assert comparison.findings[0].argument == "value"


def test_an_overflow_in_the_callers_own_dtype_is():
    comparison = compare(DETOUR, X.astype(jnp.float16), effort="full")
    assert comparison.findings[0].kind == "overflow", comparison
    assert comparison.verdict == "wrong"


def test_a_rule_in_the_callers_own_dtype_is_asked_for_what_that_holds():
    def bwd(x, g):
        y = jnp.exp(x.astype(jnp.float32))
        return ((g.astype(jnp.float32) * y).astype(g.dtype),)

    f = rule(jnp.exp, bwd)
    for effort in ("quick", "full"):  # at 720 e^x is a number in float64 alone
        assert compare(f, X.astype(jnp.float32), effort=effort).ok
    assert not compare(f, X.astype(jnp.float64)).ok


def test_what_a_tiny_argument_divides_by_in_the_callers_dtype_is_seen():
    def of(bwd):
        return rule(lambda x: jnp.log(jnp.expm1(x)), bwd)

    x = jnp.array([0.5, 1, 2], jnp.float32)
    careful = of(lambda x, g: (g * (1 + 1 / jnp.expm1(x)),))
    assert compare(careful, x, effort="full").ok
    careless = of(lambda x, g: (g * jnp.exp(x) / (jnp.exp(x) - 1),))
    assert compare(careless, x).ok
    (finding,) = compare(careless, x, effort="full").findings
    assert (finding.verdict, finding.kind) == ("wrong", "overflow"), finding
    assert finding.message.startswith("float32, an eighth of its unit")


def test_where_autodiff_keeps_no_digit_none_is_asked_for():
    """At 3e7 a float32 has lost the angle: sine and slope are anybody's."""

    def by_parts(x, g):  # right, and rounds otherwise than autodiff
        return (g * (jnp.cos(x) * jnp.cos(1e4 * x) - jnp.sin(x) * jnp.sin(1e4 * x)),)

    f = rule(lambda x: jnp.sin(10_001 * x) / 10_001, by_parts)
    assert compare(f, jnp.float32(3000.25)).ok


def test_a_callback_that_refuses_values_of_ours_is_not_asked_there():
    def inverse(x):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        of = lambda x: np.linalg.inv(np.asarray(x)).astype(like.dtype)
        return jax.pure_callback(of, like, x)

    def bwd(x, y_bar):
        y = inverse(x).T
        return (-y @ y_bar @ y,)

    x = jnp.array([[2.0, 0.3], [-0.4, 1.5]])
    assert compare(rule(inverse, bwd), x).ok
    assert not compare(rule(inverse, lambda x, g: (-bwd(x, g)[0],)), x).ok


def only_eight(x, g):
    if x.shape != (8,):
        raise ValueError("eight")
    return (jnp.full((8,), g),)


def test_what_a_rule_refuses_on_purpose_or_by_its_own_number_is_not_held():
    x = jax.random.normal(jax.random.key(1), (8,))
    assert compare(rule(jnp.sum, only_eight), x, effort="full").ok

    def mean(x, n):
        return x.sum() / n

    f = jax.custom_vjp(mean, nondiff_argnums=(1,))
    f.defvjp(lambda x, n: (mean(x, n), None), lambda n, _, g: (jnp.full((n,), g / n),))
    assert compare(f, x, 8, effort="full").ok
    assert compare(functools.partial(f, n=8), x, effort="full").ok


def test_a_clipped_cotangent_is_its_own_affair_where_it_is_declared():
    def clipped(lo, hi, x):
        return x

    clip = rule(
        clipped, lambda r, g: (jnp.zeros(()), jnp.zeros(()), jnp.clip(g, *r[:2]))
    )
    for effort in ("quick", "full"):
        options = {"surrogate": True, "effort": effort}
        comparison = compare(clip, -1.0, 1.0, 3 * X[0], **options)
        assert comparison.verdict == "surrogate", comparison
    batched = rule(jnp.round, lambda x, g: (g[::-1] if g.ndim > 1 else g,))
    assert compare(batched, X[0], surrogate=True, effort="full").ok


def coarse_outside(error):
    """sin, and outside [-1, 1] an approximation of it that is as far off as told."""
    primal = lambda x: jnp.sin(x) * jnp.where(jnp.abs(x) > 1, 1 + error, 1)
    return rule(primal, lambda x, g: (g * jnp.cos(x),))


def test_away_from_the_caller_f_may_be_as_coarse_as_float32():
    x = np.array([0.3, -0.2, 0.9])
    assert compare(coarse_outside(2.0**-26), x, effort="full").ok
    assert not compare(coarse_outside(2.0**-20), x).ok
    # Asked there by the caller, it is what f computes that counts.
    assert not compare(coarse_outside(2.0**-26), x + 2).ok


def scaled_by(factor):
    """Told which of its inputs vary, it keeps what those need, and no more."""
    f = jax.custom_vjp(lambda x, s: jnp.sin(x) * s)

    def fwd(x, s):
        slope = jnp.cos(x.value) * s.value if x.perturbed else None
        return f(x.value, s.value), (slope, jnp.sin(x.value))

    def bwd(res, g):
        slope, sine = res
        return None if slope is None else g * slope, factor * (g * sine).sum()

    f.defvjp(fwd, bwd, symbolic_zeros=True)
    return f


@pytest.mark.parametrize("order", [1, 2])
def test_a_rule_that_is_told_what_varies_is_asked_as_it_is_called(order):
    right, wrong, s = scaled_by(1), scaled_by(2), jnp.array(0.7)
    of_one = compare(lambda s: right(X.astype(s.dtype), s), s, order=order)
    assert of_one.ok, of_one
    of_both = compare(right, X.astype(s.dtype), s, order=order)
    assert of_both.ok, of_both
    assert not compare(lambda s: wrong(X.astype(s.dtype), s), s, order=order).ok


def gated(x, b):
    return jnp.maximum(x * x + b, 0) * x


def gated_bwd(res, g):
    x, b = res
    on = (x * x + b > 0).astype(x.dtype)
    return (g * on * (3 * x * x + b)).sum(), g * on * x


def test_an_infinity_is_asked_where_f_has_an_answer_to_it():
    masked = lambda x: jnp.where(x > 0, x, -jnp.inf).max()
    asked = [jax.nn.softmax, jnp.tanh, masked, lambda x: jnp.sort(x)[1:]]
    taken = [takes_infinities(jax.make_jaxpr(f)(X)) for f in (*asked, jnp.square)]
    assert taken == [True] * 4 + [False]
    # 0 times an infinite bias: nobody has one.
    assert compare(rule(gated, gated_bwd), X[0, 0], X[1]).ok


def mixture(x, log_scale):
    z = x[:, None] * jnp.exp(-log_scale)
    return jax.nn.logsumexp(-z * z / 2 - log_scale, axis=1)


def mixture_bwd(power):
    def bwd(res, g):
        z = res[0][:, None] * jnp.exp(-res[1])
        share = g[:, None] * jax.nn.softmax(-z * z / 2 - res[1], axis=1)
        x_bar = -(share * z * jnp.exp(-res[1])).sum(1)
        return x_bar, (share * (z**power - 1)).sum(0)

    return bwd


def test_where_f_itself_overflows_a_rule_may():
    args = X[:, 0], jnp.array([-0.9, 0.3, 0.1], X.dtype)
    found = compare(rule(mixture, mixture_bwd(2)), *args, effort="full")
    assert found.verdict == "less-accurate", found
    assert "f itself overflows there" in str(found)
    assert compare(rule(mixture, mixture_bwd(1)), *args).verdict == "wrong"
    # Where it does not, a rule may not.
    slope = lambda x, g: (g * jnp.exp(x) / (1 + jnp.exp(x)),)
    assert compare(rule(jax.nn.softplus, slope), X).verdict == "wrong"


def weighed(scores, values):
    return jax.nn.softmax(scores) @ values


def weighed_bwd(res, g):
    scores, values = res
    p = jax.nn.softmax(scores)
    means = ((p @ values) * g).sum(1, keepdims=True)
    return p * (g @ values.T - means), p.T @ g


def test_digits_of_a_gradient_next_to_none_are_not_asked_of_a_sum():
    # At 64 times the scores one weight is 1, and a difference of equals rounding alone.
    args = 20 * X @ X.T, X
    assert X.dtype == jnp.float32
    assert compare(rule(weighed, weighed_bwd), *args, effort="full").ok


def test_a_mask_of_infinities_raises_no_warning():
    # Which the tests take for errors.
    allowed = jnp.tril(jnp.ones((4, 4), bool))
    mask = jnp.where(allowed, 0, -jnp.inf).astype(X.dtype)
    shown = lambda x, mask: jax.nn.softmax(x + mask) @ x
    given = rule(shown, lambda res, g: jax.vjp(shown, *res)[1](g))
    assert compare(given, X @ X.T, mask, effort="full").ok


def _woodbury(spoil=1.0):
    """Of A = diag(exp d) + u uᵀ, b⊤A⁻¹b + log det A, by a rule that shares A⁻¹."""

    def solve(e, u, b):
        k = jnp.eye(u.shape[1], dtype=u.dtype) + u.T @ (u / e[:, None])
        return b / e - u @ jnp.linalg.solve(k, u.T @ (b / e)) / e, k

    def both(e, u, b):
        x, k = solve(e, u, b)
        return x, jnp.log(e).sum() + jnp.linalg.slogdet(k)[1]

    def bwd(res, bars):
        e, u, b = res
        g, h = bars
        x, k = solve(e, u, b)
        w, _ = solve(e, u, g)
        z = jnp.linalg.solve(k, (u / e[:, None]).T).T
        e_bar = h * (1 / e - (z * u).sum(1) / e) - w * x
        u_bar = 2 * h * z - jnp.outer(w, x @ u) - jnp.outer(x, w @ u)
        return e_bar, spoil * u_bar, w

    inner = rule(both, bwd)

    def f(b, d, u):
        x, log_det = inner(jnp.exp(d), u, b)
        return b @ x + log_det

    return f


# In float32 without a digit at 64 times the arguments; in float64 at 100 times.
@pytest.mark.parametrize("seed", [25, 13])
def test_outputs_that_calls_share_and_a_point_without_digits_are_not_held(seed):
    """log det A is the same for every b; exp of 64 d spans all of float32."""
    rng = np.random.default_rng(seed)
    args = rng.normal(size=9), 0.4 * rng.normal(size=9), rng.normal(size=(9, 2))
    args = jax.tree.map(jnp.float32, args)
    found = compare(_woodbury(), *args, effort="full")
    assert found.ok, found
    assert not compare(_woodbury(spoil=1.01), *args).ok
