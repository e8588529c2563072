"""Fixed points: tolerance, no convergence, trees, second order, closures, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops._fixed_point import CASES, _at

PLAIN = CASES[0].plain
SOLVE = CASES[0].function


def _arrays(*shape, dtype=jnp.float64):
    return _at(*shape)(jax.random.key(3), jnp.dtype(dtype))


def _root(p, x):
    """Heron's step for the square root of p, a contraction near it."""
    return (x + p / x) / 2


def test_value_and_derivatives_are_those_of_the_root():
    def root(p):
        x, converged = ops.fixed_point(p, jnp.ones(()), f=_root)
        return x, converged

    p = jnp.array(2.0)
    x, converged = root(p)
    assert converged
    first, second = (
        jax.grad(lambda p: root(p)[0]),
        jax.grad(jax.grad(lambda p: root(p)[0])),
    )
    third = jax.grad(second)
    # Here J is 0, and each derivative a few roundings of terms up to 10 times itself.
    exact = np.sqrt(2.0), 0.5 * 2**-0.5, -0.25 * 2**-1.5, 0.375 * 2**-2.5
    actual = x, first(p), second(p), third(p)
    np.testing.assert_allclose(actual, exact, rtol=40 * 2.3e-16)


def test_a_linear_map_has_the_solution_of_linear_equations_as_derivative():
    key = jax.random.key(0)
    a, b, bar = (
        0.2 * jax.random.normal(k, s)
        for k, s in zip(jax.random.split(key, 3), ((4, 4), (4,), (4,)), strict=True)
    )
    f = lambda p, x: p[0] @ x + p[1]
    solve = lambda a, b: ops.fixed_point((a, b), jnp.zeros(4), f=f, steps=200)
    (x, converged), back = jax.vjp(solve, a, b)
    a_bar, b_bar = back((bar, np.zeros((), jax.dtypes.float0)))
    exact = np.linalg.solve(np.eye(4) - a, b)
    w = np.linalg.solve((np.eye(4) - a).T, bar)
    assert converged
    # 8 units of roundoff to the end of the iteration, times 1/(1 - 0.7).
    for one, other in ((x, exact), (b_bar, w), (a_bar, np.outer(w, exact))):
        assert np.abs(one - other).max() <= 4 * 8 * 2.3e-16 * np.abs(other).max()


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_the_tolerance_is_what_the_last_step_may_move(tolerance):
    f = lambda p, x: p * x + 1
    solve = functools.partial(ops.fixed_point, f=f, tolerance=tolerance)
    # In a derivative the iteration stops early; elsewhere it takes all steps.
    (x, converged), _ = jax.vjp(solve, jnp.array(0.4), jnp.array(0.0))
    assert converged
    off = abs(float(x) * 0.6 - 1)
    assert 0.1 * tolerance <= off <= tolerance * 0.4 / 0.6
    x, converged = solve(jnp.array(0.4), jnp.array(0.0))
    assert converged
    assert abs(float(x) * 0.6 - 1) <= 4 * 2.3e-16


def test_where_nothing_converges_it_says_so():
    turn = lambda p, x: p - x
    solve = functools.partial(ops.fixed_point, f=turn, steps=7)
    p, start = jnp.array([1.0, 2.0]), jnp.array([0.3, 0.4])
    x, converged = solve(p, start)
    (same, also), _ = jax.vjp(solve, p, start)
    assert not converged
    assert not also
    assert (x == same).all()
    # Under vmap each member of the batch by itself.
    few = functools.partial(ops.fixed_point, f=_root, steps=5)
    _, each = jax.vmap(few)(jnp.array([1.0, 1e6]), jnp.ones(2))
    assert each.tolist() == [True, False]


def test_a_fixed_point_at_0_is_reached_from_elsewhere():
    x, converged = ops.fixed_point(jnp.array(0.5), jnp.ones(3), f=lambda p, x: p * x)
    assert converged
    assert np.abs(x).max() < 1e-14


def test_the_start_has_gradient_0():
    params, start = _arrays(2, 3)
    bar = jax.grad(lambda start: SOLVE(params, start)[0].sum())(start)
    assert not bar.any()


def test_a_state_may_be_a_tree_and_integers_are_data():
    def f(params, x):
        w, shift = params
        a = 0.4 * jnp.sin(x["b"] + w)
        return {"a": a, "b": 0.4 * jnp.cos(jnp.roll(x["a"], 1)) + shift.astype(w.dtype)}

    def of(solve):
        return lambda w: sum(jax.tree.leaves(jax.tree.map(jnp.sum, solve(w)))).sum()

    start = {"a": jnp.zeros(3), "b": jnp.zeros(3)}
    shift = jnp.arange(3)
    ours = lambda w: ops.fixed_point((w, shift), start, f=f)[0]
    step = lambda w: lambda x, _: (f((w, shift), x), None)
    plain = lambda w: jax.lax.scan(step(w), start, None, length=100)[0]
    w = jnp.array([0.3, -1.0, 2.0])
    a, b = (jax.grad(of(solve))(w) for solve in (ours, plain))
    assert np.abs(a - b).max() <= 100 * 2.3e-16 * np.abs(b).max()


def test_what_the_function_closes_over_gets_its_gradient():
    def of(solve):
        return lambda w: solve(lambda x: 0.4 * jnp.sin(x + w)).sum()

    start = jnp.zeros(3)
    ours = lambda f: ops.fixed_point((), start, f=lambda p, x: f(x))[0]
    plain = lambda f: jax.lax.scan(lambda x, _: (f(x), None), start, None, length=60)[0]
    w = jnp.array([0.3, -1.0, 2.0])
    a, b = (jax.jit(jax.grad(of(solve)))(w) for solve in (ours, plain))
    assert np.abs(a - b).max() <= 100 * 2.3e-16 * np.abs(b).max()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"f": lambda p, x: x[:1]},
            ValueError,
            "jaxbp.fixed_point: expected f(params, start) to be float64 (3,); got "
            "float64 (1,).",
        ),
        (
            {"steps": 0},
            ValueError,
            "jaxbp.fixed_point: expected steps to be 1 or more; got 0.",
        ),
        (
            {"tolerance": -1e-3},
            ValueError,
            "jaxbp.fixed_point: expected tolerance to be from 0, and below 1; got "
            "-0.001.",
        ),
        (
            {"f": 3},
            TypeError,
            "jaxbp.fixed_point: expected f to be a function; got int 3.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, error, message):
    with pytest.raises(error) as caught:
        ops.fixed_point(jnp.ones(3), jnp.ones(3), **({"f": _root} | given))
    assert str(caught.value) == message


def _temp_bytes(f, steps):
    args = jax.eval_shape(lambda: _arrays(512, 256, dtype=jnp.float32))

    def step(args, x_bar):
        (x, converged), back = jax.vjp(lambda *a: f(*a, steps), *args)
        return x, converged, back((x_bar, np.zeros((), jax.dtypes.float0)))

    compiled = jax.jit(step).lower(args, args[1]).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.optimised
def test_temporary_memory_beside_autodiff_whatever_the_steps():
    layer = SOLVE.keywords["f"]

    def ours(params, start, steps):
        return ops.fixed_point(params, start, f=layer, steps=steps)

    def plain(params, start, steps):
        step = lambda x, _: (layer(params, x), None)
        return jax.lax.scan(step, start, None, length=steps)[0], jnp.array(True)

    # Four arrays like the state, where autodiff keeps three of each step; three, where
    # it keeps two, on jax 0.12.
    assert _temp_bytes(ours, 60) <= 0.025 * _temp_bytes(plain, 60)
    assert _temp_bytes(ours, 60) == _temp_bytes(ours, 240) == _temp_bytes(ours, 960)


def test_a_rule_that_takes_one_step_back_is_reported():
    """What backpropagation through the last step alone would give: w is x_bar."""
    f = SOLVE.keywords["f"]

    @jax.custom_vjp
    def faulty(params, start):
        return ops.fixed_point(params, start, f=f, steps=4)[0]

    def bwd(res, x_bar):
        params, x = res
        (params_bar,) = jax.vjp(lambda params: f(params, x), params)[1](x_bar)
        return params_bar, jnp.zeros_like(x)

    def fwd(params, start):
        x = faulty(params, start)
        return x, (params, x)

    faulty.defvjp(fwd, bwd)
    comparison = compare(faulty, *_arrays(2, 3))
    wrong = {f.argument for f in comparison.findings if f.verdict == "wrong"}
    assert wrong == {"[0][0]", "[0][1]"}, comparison
