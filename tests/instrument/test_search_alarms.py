"""effort="full": what is no fault of the rule is not held against it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_written import rule

from jaxbp import audit, compare, ops
from jaxbp.instrument._boundaries import lengths
from jaxbp.instrument._variants import other_lengths

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


def test_an_axis_of_one_that_only_fits_by_broadcasting_is_not_asked():
    # A filter for the real spectrum of 14 numbers; of one it would be broadcast.
    def f(x, h):
        return jnp.fft.irfft(jnp.fft.rfft(x) * jax.lax.complex(h, 0 * h), n=len(x))

    def bwd(res, g):
        x, h = res
        n = x.shape[0]
        weights = jnp.where(
            (jnp.arange(h.size) == 0) | (2 * jnp.arange(h.size) == n), 1, 2
        )
        spectra = jnp.fft.rfft(x) * jnp.conj(jnp.fft.rfft(g))
        return f(g, h), weights.astype(h.dtype) * jnp.real(spectra) / n

    filtered = rule(f, bwd)
    rng = np.random.default_rng(0)
    comparison = compare(
        filtered, rng.standard_normal(14), rng.random(8), effort="full"
    )
    assert comparison.ok, comparison


def test_a_fixed_point_is_not_asked_of_a_larger_matrix_that_has_none():
    # Repeated to 7 × 7, a contraction of 3 × 3 doubles what it should halve.
    def iterated(w, x):
        def moved(state):
            z, _ = state
            return jnp.tanh(w @ z + x), z

        def apart(state):
            return jnp.abs(state[0] - state[1]).max() > 1e-15

        start = jnp.tanh(x), jnp.zeros_like(x)
        counted = lambda s: (moved(s[0]), s[1] + 1)
        (z, _), _ = jax.lax.while_loop(
            lambda s: apart(s[0]) & (s[1] < 200), counted, (start, 0)
        )
        return z

    def bwd(res, g):
        w, x = res
        z = iterated(w, x)
        slope = 1 - jnp.tanh(w @ z + x) ** 2
        u = slope * jnp.linalg.solve(jnp.eye(len(x)) - (slope[:, None] * w).T, g)
        return jnp.outer(u, z), u

    rng = np.random.default_rng(0)
    w, x = rng.uniform(-0.3, -0.2, (3, 3)), rng.standard_normal(3)
    comparison = compare(rule(iterated, bwd), w, x, effort="full")
    assert comparison.ok, comparison


def test_labels_and_probabilities_stay_so_at_other_lengths_and_in_float64():
    def loss(z, labels):
        return -(labels * jax.nn.log_softmax(z)).sum()

    def bwd(res, y_bar):  # right for rows that sum to one
        z, labels = res
        return y_bar * (jax.nn.softmax(z) - labels), -y_bar * jax.nn.log_softmax(z)

    z = jax.random.normal(jax.random.key(0), (4, 10), jnp.float32)
    soft = jax.nn.softmax(2 * z[::-1]).astype(jnp.float32)
    assert not (np.asarray(soft, np.float64).sum(-1) == 1).all()
    for labels in (jax.nn.one_hot(jnp.array([1, 0, 9, 9]), 10, dtype="f4"), soft):
        for ask in (functools.partial(compare, effort="full"), audit):
            assert ask(rule(loss, bwd), z, labels).ok
            doubled = rule(loss, lambda r, g: (2 * bwd(r, g)[0], bwd(r, g)[1]))
            assert not ask(doubled, z, labels).ok


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


@pytest.mark.parametrize("effort", ["quick", "full"])
def test_an_empty_batch_is_held_against_no_rule(effort):
    # With no value to be finite, a negative variance is no variance all the same.
    args = jnp.zeros((0, 3)), jnp.ones(3), jnp.zeros(3), jnp.ones(3), jnp.zeros(3)
    comparison = compare(ops.batch_norm_inference, *args, effort=effort)
    assert {f.verdict for f in comparison.findings} == {"unproven"}, comparison
    assert "rows that sum to one" not in comparison.note


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


def turned(v):
    """Vectors of three components, whose own length nothing asks for."""
    return v * jnp.linalg.norm(v, axis=-1, keepdims=True)


def turned_bwd(v, g):
    size = jnp.linalg.norm(v, axis=-1, keepdims=True)
    outer = jnp.einsum("...i,...j->...ij", v, v) / size[..., None]
    jacobian = size[..., None] * jnp.eye(3) + outer
    return (jnp.einsum("...i,...ij->...j", g, jacobian),)


def test_components_of_a_vector_are_no_length_to_run_at():
    v = jax.random.normal(jax.random.key(1), (5, 3))
    assert compare(rule(turned, turned_bwd), v, effort="full").ok
    assert compare(rule(turned, turned_bwd), v[0], effort="full").ok


def by_rows(values, columns, starts, x):
    """A sparse matrix times a vector."""
    row = jnp.searchsorted(starts, jnp.arange(values.size), side="right") - 1
    return jax.ops.segment_sum(values * x[columns], row, starts.size - 1)


def by_rows_bwd(residuals, y_bar):
    values, columns, starts, x = residuals
    rows = jnp.repeat(y_bar, jnp.diff(starts), total_repeat_length=values.size)
    x_bar = jnp.zeros_like(x).at[columns].add(values * rows)
    return rows * x[columns], None, None, x_bar


def test_where_rows_begin_is_not_changed():
    values, x = X.ravel()[:7], X.ravel()[7:]
    columns, starts = jnp.array([0, 2, 2, 1, 4, 3, 0]), jnp.array([0, 2, 2, 5, 7])
    args = values, columns, starts, x
    for effort in ("quick", "full"):
        comparison = compare(rule(by_rows, by_rows_bwd), *args, effort=effort)
        assert comparison.ok, comparison


def attended(x, counts):
    """The mean of exp over the first `counts` rows, by the plain formula."""
    seen = jnp.arange(len(x)) < counts[:, None]
    weights = jax.nn.softmax(jnp.where(seen, x, -1e30))
    return (weights * jnp.exp(x)).sum(-1)


def test_a_length_of_none_is_not_asked_where_there_was_none():
    def bwd(res, g):
        x, counts = res
        seen = jnp.arange(len(x)) < counts[:, None]
        # Of no row there is no mean, but that of all of them by the plain formula.
        weights = jnp.where(seen, jax.nn.softmax(jnp.where(seen, x, -jnp.inf)), 0)
        y = jnp.exp(x)
        mean = (weights * y).sum(-1, keepdims=True)
        bars = g[:, None] * weights * (2 * y - mean)
        return bars.sum(0), None

    f, x = rule(attended, bwd), jnp.asarray([0.3, -0.5, 0.9, 0.1])
    counts = jnp.array([2, 4, 3])
    assert lengths(jax.make_jaxpr(attended)(x, counts)) == {1}
    assert compare(f, x, counts, effort="full").ok
    # Where there was one, it is.
    assert not compare(f, x, jnp.array([2, 0, 3])).ok


def test_which_integers_are_lengths():
    t, x = jnp.arange(5), jnp.ones(5)
    last = lambda n: jnp.where(t[:, None] <= n - 1, x[:, None], 0)
    turns = lambda n: jax.lax.fori_loop(0, n, lambda _, y: y * 2, 1.0)
    taken = lambda n: x[n] + x.at[n].add(1.0, mode="drop").sum()
    labels = lambda n: jax.nn.one_hot(n, 5) @ x
    n = jnp.array([1, 4])
    found = [lengths(jax.make_jaxpr(f)(n)) for f in (last, taken, labels)]
    assert found == [{0}, set(), set()]
    assert lengths(jax.make_jaxpr(turns)(3)) == {0}


def test_at_another_length_a_length_goes_up_to_it():
    args = jnp.arange(5.0), jnp.array([5, 3, 1])
    (shorter,) = (
        v for v in other_lengths(args, {}, [1]) if v.name == "axes of 5 made 1"
    )
    assert np.array_equal(shorter.args[1], [1, 1, 1])
