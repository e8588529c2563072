"""effort="full": what ordinary arguments hide is found, and nothing is invented."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ordinary import agrees_with_autodiff

from jaxbp import compare, ops
from jaxbp.instrument._boundaries import boundaries
from jaxbp.instrument._points import points
from jaxbp.instrument._variants import other_lengths, too_large

X = jax.random.normal(jax.random.key(0), (4, 3))


def rule(primal, bwd):
    @jax.custom_vjp
    def f(*args):
        return primal(*args)

    def fwd(*args):
        return primal(*args), args if len(args) > 1 else args[0]

    f.defvjp(fwd, bwd)
    return f


def clipped(x):
    return jnp.where(jnp.abs(x) > 40, 40 * jnp.sign(x), x)


def embed(table, ids):
    return table[ids]


def mean_of_the_first(x, n):
    valid = jnp.arange(x.shape[1], dtype=n.dtype) < n[:, None]
    return jnp.where(valid, x, 0).sum(1) / n.astype(x.dtype)


HIDDEN = {
    "a length written into the rule": (
        rule(lambda x: x.mean(0), lambda x, g: (jnp.broadcast_to(g / 4, x.shape),)),
        (X,),
    ),
    "an arm that ordinary values do not take": (
        rule(clipped, lambda x, g: (g,)),
        (X,),
    ),
    "zero times infinity at zero": (
        rule(
            lambda x: x * jnp.abs(x),
            lambda x, g: (g * 2 * x * x / jnp.abs(x),),
        ),
        (X,),
    ),
    "an overflow far away": (
        rule(
            lambda x: jnp.logaddexp(x, jnp.zeros_like(x)),
            lambda x, g: (g * jnp.exp(x) / (1 + jnp.exp(x)),),
        ),
        (X,),
    ),
    "repeated indices overwrite one another": (
        rule(
            embed,
            lambda res, g: (jnp.zeros_like(res[0]).at[res[1]].set(g), None),
        ),
        (X, jnp.array([0, 2, 3])),
    ),
    "lengths that are all full": (
        rule(
            mean_of_the_first,
            lambda res, g: (
                jnp.broadcast_to((g / res[1].astype(g.dtype))[:, None], (4, 3)),
                None,
            ),
        ),
        (X, jnp.full(4, 3)),
    ),
    "an index out of range, which is filled in for": (
        rule(
            lambda x, i: x.at[i].get(mode="fill", fill_value=0.0),
            lambda res, g: (
                jnp.zeros_like(res[0]).at[jnp.clip(res[1], 0, 3)].add(g),
                None,
            ),
        ),
        (X, jnp.array([0, 2, 3])),
    ),
    "an index out of range, which is clipped": (
        rule(
            lambda x, i: x.at[i].get(mode="clip"),
            lambda res, g: (jnp.zeros_like(res[0]).at[res[1]].add(g), None),
        ),
        (X, jnp.array([0, 2, 3])),
    ),
    "a whole number one more, beyond the shorter axis": (
        rule(
            lambda x, k: x * jnp.where(k < 3, 1, k).astype(x.dtype),
            lambda res, g: (g, None),
        ),
        (X, jnp.array(2)),
    ),
    "negative labels, which are to be ignored": (
        rule(
            lambda x, i: jnp.where(i >= 0, x[i, 0], 0),
            lambda res, g: (jnp.zeros_like(res[0]).at[res[1], 0].add(g), None),
        ),
        (X, jnp.array([0, 2, 3])),
    ),
    "an axis that is told by its length": (
        rule(
            lambda a, b: jnp.tanh(a[:, None] * b),
            lambda res, g: (
                lambda d: (
                    (d * res[1]).sum(1 if d.shape[1] != len(res[0]) else 0),
                    (d * res[0][:, None]).sum(0),
                )
            )(g / jnp.cosh(res[0][:, None] * res[1]) ** 2),
        ),
        (X[0] / 2, X.ravel()[:5] / 2),  # 3 made one more is not 5
    ),
    "a division by 0 at the edge of the domain": (
        rule(
            lambda x: x**2.5,
            lambda x, g: (g * 2.5 * x**2.5 / x,),
        ),
        (jnp.abs(X) + 0.1,),
    ),
    "queries in groups": (
        rule(
            lambda k, q: jnp.repeat(k, len(q) // len(k), 0) * q,
            lambda res, g: (
                (g * res[1]).reshape(-1, *res[0].shape).sum(0),
                g * jnp.repeat(res[0], len(res[1]) // len(res[0]), 0),
            ),
        ),
        (X, X + 1),
    ),
    "a mistake that vmap brings out": (
        rule(
            lambda x: x * 2,
            lambda x, g: (2 * g if type(g).__name__ != "BatchTracer" else 3 * g,),
        ),
        (X,),
    ),
}


def test_a_rule_in_the_callers_own_dtype_is_asked_for_what_that_holds():
    def bwd(x, g):
        y = jnp.exp(x.astype(jnp.float32))
        return ((g.astype(jnp.float32) * y).astype(g.dtype),)

    f = rule(jnp.exp, bwd)
    for effort in ("quick", "full"):  # at 720 e^x is a number in float64 alone
        assert compare(f, X.astype(jnp.float32), effort=effort).ok
    assert not compare(f, X.astype(jnp.float64)).ok


@pytest.mark.parametrize("name", HIDDEN)
def test_what_the_callers_point_hides_is_found(name):
    f, args = HIDDEN[name]
    assert agrees_with_autodiff(f, args)  # hidden indeed
    comparison = compare(f, *args, effort="full")
    assert not comparison.ok, comparison
    assert comparison.findings[0].verdict in ("wrong", "broken-contract")


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


def test_one_number_everywhere_is_no_symmetric_matrix_and_what_is_kept_is_said():
    def product(x, w):
        return x @ w

    forgetful = rule(product, lambda res, g: (g @ res[1], res[0].T @ g))
    for w in (jnp.ones((3, 3)), jnp.zeros((3, 3))):
        assert compare(forgetful, X, w.astype(X.dtype)).verdict == "wrong"
    symmetric = X.T @ X
    kept = compare(forgetful, X, symmetric)
    assert kept.ok
    assert kept.note == "asked as what they seem to be: [1] a symmetric matrix"
    right = rule(product, lambda res, g: (g @ res[1].T, res[0].T @ g))
    assert compare(right, X, X[:3, :3]).note == ""


def test_what_is_left_out_is_said():
    tall = np.broadcast_to(np.float32(0), (2**20, 3))
    longer = ["axes of 3 made 4", "axes of 1048576 made 1048577"]
    assert too_large((tall,), {}) == ["all axes of other lengths", *longer]
    assert not too_large((X,), {})
    f = rule(jnp.sin, lambda x, g: (g * jnp.cos(x),))

    def long(x):
        for _ in range(120):
            x = f(x) * jnp.cos(x)
        return x

    assert "a large program, asked at no other point" in compare(long, X[0]).note
    assert "a large program" not in compare(f, X[0]).note


def test_second_order_is_compared_where_it_is_asked_for():
    @jax.custom_vjp
    def cube(x):
        return x**3

    def bwd(x, g):  # right, but its own derivative is stopped
        return (3 * jax.lax.stop_gradient(x) ** 2 * g,)

    cube.defvjp(lambda x: (cube(x), x), bwd)
    assert compare(cube, X).ok
    comparison = compare(cube, X, order=2)
    assert comparison.findings[0].verdict in ("wrong", "broken-contract")
    assert comparison.findings[0].message.startswith("second order")


def test_second_order_that_cannot_be_asked_is_unproven():
    def slope(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x: np.asarray(2 * x), shape, x)

    f = rule(lambda x: x * x, lambda x, g: (g * slope(x),))
    assert compare(f, X).ok
    comparison = compare(f, X, order=2)
    assert comparison.verdict == "unproven"
    assert "cannot be differentiated again" in comparison.findings[0].message


def test_boundaries_are_read_from_the_program():
    def f(x):
        return jax.jit(lambda x: jnp.where(x > 2.5, x, jnp.clip(x, -7.0, 2.0)))(x)

    found = boundaries(jax.make_jaxpr(f)(X))
    assert {2.5, -7.0, 2.0} <= set(found)


def test_points_keep_what_an_array_evidently_is():
    probabilities = jax.nn.softmax(X)
    flags = jnp.array([0.0, 1.0, 1.0], X.dtype)
    symmetric = X.T @ X
    inputs = [probabilities, flags, symmetric]
    for point in points(inputs, [0.5], [], seed=0):
        p, f, s = map(np.asarray, point.inputs)
        if "inf" in point.name:
            continue
        assert np.allclose(p.sum(-1), 1, atol=1e-6)
        assert point.name == "between zeros and ones" or set(np.unique(f)) <= {0, 1}
        assert np.array_equal(s, s.T)


def test_lengths_change_together_wherever_they_occur():
    variants = list(other_lengths((X, jnp.ones(3)), {}))
    shapes = {tuple(np.shape(leaf) for leaf in v.args) for v in variants}
    assert ((4, 1), (1,)) in shapes
    assert ((1, 3), (3,)) in shapes
    assert ((9, 7), (7,)) in shapes
    assert ((4, 6), (3,)) in shapes  # in one array alone


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


def test_a_finding_elsewhere_holds_the_arguments_to_ask_again():
    def bwd(res, y_bar):
        p, x = res
        ties = (x * p["w"] == jnp.max(x * p["w"])).astype(x.dtype)
        return {"w": y_bar * ties * x}, y_bar * ties * p["w"]

    f = rule(lambda p, x: jnp.max(x * p["w"]), bwd)
    x = jnp.array([0.3, -1.2, 2.0])
    found = compare(f, {"w": x + 3}, x)
    (first, _), told = found.findings, str(found).splitlines()
    assert first.verdict == "wrong"
    assert first.message.startswith("all elements equal")
    assert "  to ask there: args, kwargs = comparison.findings[0].point" in told
    args, kwargs = first.point
    again = compare(f, *args, kwargs=kwargs).findings[0]
    assert (again.verdict, again.point) == ("wrong", None)
    assert "point" not in found.to_dict()["findings"][0]
    assert (
        compare(rule(jnp.sin, lambda x, y_bar: (y_bar,)), x).findings[0].point is None
    )
