"""What autodiff cannot enter: loops that end at a tolerance, callbacks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_written import rule

from jaxbp import audit, compare
from jaxbp.instrument._noise import rounding_noise
from jaxbp.instrument._numeric import ladder, secants
from jaxbp.instrument._tolerance import (
    Rounds,
    ends_at_a_float,
    longer,
)

W = 0.15 * jax.random.normal(jax.random.key(0), (6, 6))
X = jax.random.normal(jax.random.key(1), (6,))


def _settled(w, x, tolerance):
    """z = tanh(w z + x), from 0 until a round changes less than the tolerance."""
    going = lambda z: jnp.max(jnp.abs(z[0] - z[1])) > tolerance
    step = lambda z: (z[1], jnp.tanh(w @ z[1] + x))
    return jax.lax.while_loop(going, step, (jnp.zeros_like(x), jnp.tanh(x)))[1]


def _fixed_point(pull):
    settled = functools.partial(_settled, tolerance=1e-12)
    f = jax.custom_vjp(settled)
    fwd = lambda w, x: (lambda z: (z, (w, z)))(settled(w, x))
    f.defvjp(fwd, lambda res, z_bar: pull(*res, 1 - res[1] ** 2, z_bar))
    return f


def _solved(w, z, slope, z_bar):
    system = jnp.eye(z.size, dtype=z.dtype) - slope[:, None] * w
    x_bar = slope * jnp.linalg.solve(system.T, z_bar)
    return jnp.outer(x_bar, z), x_bar


def _transposed(w, z, slope, z_bar):
    return _solved(w.T, z, slope, z_bar)


def _three_terms(w, z, slope, z_bar):
    u = z_bar
    for _ in range(3):
        u = z_bar + w.T @ (slope * u)
    return jnp.outer(slope * u, z), slope * u


def _outer_swapped(w, z, slope, z_bar):
    w_bar, x_bar = _solved(w, z, slope, z_bar)
    return w_bar.T, x_bar


@pytest.mark.parametrize(
    ("scale", "pull", "verdict"),
    [
        (lambda x: jax.lax.stop_gradient(jnp.abs(x).max()), _solved, "right"),
        (
            jax.jit(lambda x: jax.lax.stop_gradient(x[jnp.arange(6)].max())),
            _solved,
            "right",
        ),
        (lambda x: jnp.abs(x).max(), _solved, "right"),
        (lambda x: jax.lax.stop_gradient(jnp.abs(x).max()), _transposed, "wrong"),
    ],
    ids=["stopped", "stopped in jit", "not stopped", "stopped and wrong"],
)
def test_where_gradients_stop_the_numeric_derivative_does(scale, pull, verdict):
    settled = _fixed_point(pull)
    comparison = compare(lambda w, x: settled(w, x / scale(x)), W, X)
    assert comparison.verdict == verdict, comparison


@pytest.mark.parametrize("effort", ["quick", "full"])
def test_a_fixed_point_is_right_to_its_loops_tolerance(effort):
    c = compare(_fixed_point(_solved), W, X, effort=effort)
    assert c.verdict == "right", c
    assert c.auto is None
    assert all(f.worst.auto is None for f in c.findings)
    np.testing.assert_allclose(c.manual[1], c.numeric[1], rtol=1e-6)
    assert audit(_fixed_point(_solved), W, X).verdict == "right"


@pytest.mark.parametrize("pull", [_transposed, _three_terms, _outer_swapped])
def test_a_wrong_fixed_point_is_told(pull):
    assert compare(_fixed_point(pull), W, X).verdict == "wrong"
    assert audit(_fixed_point(pull), W, X).verdict == "wrong"


def _left_open(f, *args):
    with jax.enable_x64(True):
        args = [np.asarray(x, np.float64) for x in args]
        jaxpr = jax.make_jaxpr(f)(*args)
        return Rounds(jaxpr, longer(jaxpr, ends_at_a_float)).left_open(args)


def test_a_loop_leaves_open_what_a_round_changes():
    # The spectral radius is under 1/2: what is left is less than the last change.
    for tolerance in (1e-6, 1e-9):
        loose = functools.partial(_settled, tolerance=tolerance)
        for f in (loose, jax.jit(loose)):
            (change,) = _left_open(f, W, X)
            assert 0 < change.max() < tolerance


def _iterated(pull):
    """The same by so many rounds that a difference of about 1e-7 is left."""

    def run(w, x):
        return jax.lax.fori_loop(0, 60, lambda _, z: jnp.tanh(w @ z + x), 0 * x)

    f = jax.custom_vjp(run)
    fwd = lambda w, x: (lambda z: (z, (w, z)))(run(w, x))
    f.defvjp(fwd, lambda res, z_bar: pull(*res, 1 - res[1] ** 2, z_bar))
    return f


def test_the_limits_derivative_is_right_where_a_loop_nearly_reaches_it():
    slow = 2.2 * W
    for ask in (compare, audit):
        asked = ask(_iterated(_solved), slow, X)
        assert asked.verdict == "right", asked
        for pull in (_transposed, _three_terms, _outer_swapped):
            assert ask(_iterated(pull), slow, X).verdict == "wrong"


def test_a_loop_that_leads_nowhere_leaves_nothing_open():
    doubled = lambda x: jax.lax.while_loop(lambda x: x < 100, lambda x: 2 * x, x)
    counted = lambda x: jax.lax.fori_loop(0, 9, lambda _, x: x / 2, x)
    for f in (doubled, counted, jnp.sin):
        (change,) = _left_open(f, 3.0)
        assert not np.any(change)


def _called(function, inner, x):
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    call = lambda x: function(np.asarray(x, inner)).astype(like.dtype)
    return jax.pure_callback(call, like, x)


def _callback_sin(inner, factor):
    call = functools.partial(_called, np.sin, inner)
    f = jax.custom_vjp(call)
    cos = functools.partial(_called, np.cos, inner)
    f.defvjp(lambda x: (call(x), x), lambda x, y_bar: (factor * cos(x) * y_bar,))
    return f


@pytest.mark.parametrize("inner", [np.float32, np.float64])
def test_a_callback_is_as_exact_as_it_computes(inner):
    for ask in (compare, audit):
        assert ask(_callback_sin(inner, 1.0), X).ok
        asked = ask(_callback_sin(inner, 1.001), X)
        assert asked.verdict == "wrong", asked


@pytest.mark.parametrize(
    ("inner", "unit"), [(np.float32, 2.0**-23), (np.float16, 2.0**-10)]
)
def test_noise_is_that_of_the_dtype_that_a_callback_answers_in(inner, unit):
    with jax.enable_x64(True):
        x = np.linspace(0.5, 1.5, 9)
        f = functools.partial(_called, np.exp, inner)
        (noise,) = rounding_noise(jax.make_jaxpr(f)(x), [x], seed=0)
    # e^x moves by x times as much as x does, and is rounded itself.
    assert (noise > unit * np.exp(x) / 4).all()
    assert (noise < 4 * unit * (1 + x) * np.exp(x)).all()


def test_steps_across_many_waves_are_not_believed():
    # Where the finest steps are lost in rounding, the widest agree about nothing.
    program = ladder(lambda _, x: jnp.sin(x).sum())
    x = [np.array([-0.5, 1000.0])]
    s = secants(program, (), x, np.array([0]), rounding=1e-4)
    assert not np.isfinite(s.error[0]) or abs(s.central[0] - np.cos(0.5)) < s.error[0]
    s = secants(program, (), x, np.array([0]))
    assert abs(s.central[0] - np.cos(0.5)) < s.error[0] < 1e-6


def test_a_solver_of_its_own_in_the_backward_pass_is_linear_to_its_tolerance():
    """Its tolerance is absolute: of a larger cotangent it solves for more digits."""

    def solved(step, start):
        far = 4 * jnp.finfo(start.dtype).eps

        def goes_on(state):
            new, old, count = state
            return (count < 99) & (jnp.abs(new - old).max() > far)

        once = lambda state: (step(state[0]), state[0], state[2] + 1)
        return jax.lax.while_loop(goes_on, once, (step(start), start, 0))[0]

    def layer(w, x):
        return solved(lambda z: jnp.tanh(z @ w + x), jnp.zeros_like(x))

    def fwd(w, x):
        z = layer(w, x)
        return z, (w, z)

    def bwd(res, g, factor=1.0):
        w, z = res
        slope = 1 - z * z
        v = solved(lambda v: g + (v * slope) @ w.T, jnp.zeros_like(g))
        return z.T @ (v * slope), factor * v * slope

    x = jnp.stack([X, -X])
    assert compare(rule(layer, bwd, fwd), W, x).ok
    cubed = rule(layer, lambda res, g: bwd(res, g, 1 + 1e-6 * jnp.abs(g).max()), fwd)
    assert compare(cubed, W, x).verdict == "broken-contract"


def test_a_solver_is_not_asked_for_digits_that_it_cannot_reach():
    turn = jnp.asarray(
        0.9 * np.linalg.qr(np.asarray(jnp.sin(np.arange(25.0))).reshape(5, 5))[0]
    )

    def solved(step, b):
        """To 1e-13; NaN where rounding is more than that, as if it went on for ever."""
        going = lambda s: (jnp.abs(s[0] - s[1]).max() > 1e-13) & (s[2] < 999)
        once = lambda s: (step(s[0]) + b, s[0], s[2] + 1)
        z, _, count = jax.lax.while_loop(going, once, (step(b), b, 0))
        # Some processors round so that the last two rounds are equal all the same.
        reached = jnp.finfo(z.dtype).eps * jnp.abs(z).max() < 1e-13
        return jnp.where((count < 999) & reached, z, jnp.nan)

    @jax.custom_vjp
    def resolvent(b):
        return jnp.linalg.solve(jnp.eye(5) - turn, b)

    bwd = lambda _, g: (solved(lambda v: turn.T @ v, g),)
    resolvent.defvjp(lambda b: (resolvent(b), None), bwd)
    b = jnp.cos(jnp.arange(5.0))
    assert not jnp.isfinite(bwd(None, 2.0**20 * b)[0]).any()
    assert compare(resolvent, b).ok


def _bisected(sign=1.0):
    """The root of x³ + x = a in (0, 2): beyond, its end."""

    def root(a):
        def halved(_, ends):
            low, high = ends
            middle = (low + high) / 2
            above = middle**3 + middle > a
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        return jax.lax.fori_loop(0, 60, halved, (0 * a, 0 * a + 2))[0]

    f = jax.custom_vjp(root)
    fwd = lambda a: (lambda x: (x, x))(root(a))
    f.defvjp(fwd, lambda x, g: (sign * g / (3 * x**2 + 1),))
    return f


def test_a_search_that_has_ended_is_not_asked_for_what_it_seeks():
    a = jnp.array([0.4, 3.0, 8.5])
    assert compare(_bisected(), a).verdict == "autodiff-wrong"
    assert not compare(_bisected(sign=-1.0), a).ok


def _in_float32_alone(v):
    if v.dtype != np.float32:
        raise TypeError("float32 alone")
    return np.sin(v)


def test_a_callback_that_refuses_float64_is_judged_in_the_callers_dtype():
    def as_it_is(x):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda v: (_in_float32_alone(v), v)[1], like, x)

    x = X.astype(jnp.float32)

    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(lambda x: (jnp.sin(as_it_is(x)), x), lambda x, g: (g * jnp.cos(x),))
    found = compare(f, x)
    assert found.ok, found
    assert found.note.endswith("TypeError: float32 alone")
    f.defvjp(lambda x: (jnp.sin(as_it_is(x)), x), lambda x, g: (g * jnp.sin(x),))
    assert not compare(f, x).ok


def test_no_derivative_and_no_float64_is_an_error_that_says_so():
    def primal(x):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(_in_float32_alone, like, x)

    f = rule(primal, lambda x, g: (g * jnp.cos(x),))
    with pytest.raises(ValueError, match=r"jaxbp.compare: expected f .* audit asks"):
        compare(f, X.astype(jnp.float32))
