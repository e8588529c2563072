"""autodiff(f): values of f, derivatives of its primals, wherever a rule stands.

Every rule here is wrong on purpose. A case passes only if `jax.grad(f)` shows the
planted mistake and `jax.grad(autodiff(f))` does not.
"""

import inspect
import os
import subprocess
import sys
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxbp._autodiff import autodiff

X = np.array([0.3, 0.5, 0.8])
G = np.array([0.7, -1.3, 0.4])  # a cotangent without symmetry
SCALE = np.array([1.5, -0.5, 2.0])


def with_wrong_rule(primal, plain=None):
    """`primal` under a rule that returns three times the cotangent it should."""
    f = jax.custom_vjp(primal)

    def bwd(x, y_bar):
        (x_bar,) = jax.vjp(plain or primal, x)[1](y_bar)
        return (3 * x_bar,)

    f.defvjp(lambda x: (f(x), x), bwd)
    return f


sine = with_wrong_rule(jnp.sin)
twice = with_wrong_rule(  # a rule inside a rule
    lambda x: 2.0 * sine(x), lambda x: 2.0 * jnp.sin(x)
)
scaled = with_wrong_rule(lambda x: jnp.sin(x) * jnp.asarray(SCALE))  # array constants


@jax.custom_jvp
def square(x):
    return x * x


@square.defjvp
def square_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    return square(x), 7.0 * x_dot


@jax.custom_gradient
def cube(x):
    return x**3, lambda y_bar: 11.0 * y_bar


library_sine = jax.custom_vjp(jnp.sin)  # the user's rule over a primal of JAX's
library_sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, y_bar: (y_bar * x,))
library_cosine = jax.custom_jvp(jnp.cos)
library_cosine.defjvps(lambda x_dot, y, x: 5.0 * x_dot)


def scan(x):
    carry, ys = lax.scan(
        lambda c, a: (sine(c) * a, sine(c)), x, jnp.ones((3, 1)) * x[0]
    )
    return carry + ys.sum(axis=0)


def reversed_scan_dropping_outputs(x):
    return lax.scan(lambda c, a: (sine(c) + a, c), x, jnp.ones((2, 3)), reverse=True)[0]


def cond(x):
    return lax.cond(x.sum() > 1, sine, lambda v: v, x)


def switch(x):
    return lax.switch(jnp.argmax(x), [jnp.cos, jnp.tan, twice], x)


def linear_solve(x):  # JAX differentiates the matvec, where the rule is
    return lax.custom_linear_solve(
        lambda v: sine(x) * v, x * x, lambda _, b: b / jnp.sin(x), symmetric=True
    )


def checkpointed_for_less_memory(x):
    return jax.checkpoint(optimized)(x)


optimized = jax.custom_vjp(lambda x: jnp.sin(x))
optimized.defvjp(
    lambda x: (jnp.sin(x), x), lambda x, y_bar: (9.0 * y_bar,), optimize_remat=True
)

PLACES = {
    "plain": sine,
    "custom_jvp": square,
    "custom_gradient": cube,
    "custom_vjp of jnp.sin": library_sine,
    "custom_jvp of jnp.cos": library_cosine,
    "jit": jax.jit(sine),
    "jit, constants": jax.jit(scaled),
    "remat": jax.checkpoint(sine),
    "remat, constants": jax.checkpoint(scaled),
    "optimize_remat": checkpointed_for_less_memory,
    "vmap": jax.vmap(sine),
    "vmap of vmap": lambda x: jax.vmap(jax.vmap(sine))(x[None])[0],
    "rule in rule": twice,
    "rule in rule in remat in vmap in jit": jax.jit(jax.vmap(jax.checkpoint(twice))),
    "called twice": lambda x: scaled(scaled(x)),
    "scan": scan,
    "reversed scan": reversed_scan_dropping_outputs,
    "fori_loop": lambda x: lax.fori_loop(0, 3, lambda _, c: sine(c), x),
    "map in batches": lambda x: lax.map(sine, x, batch_size=2),
    "associative_scan": lambda x: lax.associative_scan(lambda a, b: sine(a) * b, x),
    "cond": cond,
    "switch": switch,
    "linear solve": linear_solve,
    "named call": jax.named_call(sine, name="wave"),
}


def pullback(f, x, g: Any = G):
    return np.asarray(jax.vjp(f, x)[1](jnp.asarray(g))[0])


def truth(f, x, g: Any = G):
    """Central differences, independent of every rule; off by eps / 1e-6 = 2e-10."""
    f, steps = jax.jit(f), 1e-6 * np.eye(x.size)
    return np.array([((f(x + e) - f(x - e)) * g).sum() / 2e-6 for e in steps])


def rule_shows(f, x, expected):
    try:
        return not np.allclose(pullback(f, x), expected, rtol=1e-3)
    except TypeError as error:  # JAX_CUSTOM_VJP3 on jax 0.10, a vmapped rule in remat
        return "forward-mode autodiff (jvp) to a custom_vjp" in str(error)


@pytest.mark.parametrize("place", PLACES)
def test_rule_is_removed_wherever_it_stands(place):
    f, x = PLACES[place], jnp.asarray(X)
    expected = truth(f, x)
    assert rule_shows(f, x, expected)
    for keep in ("jax", None):
        twin = autodiff(f, keep=keep)
        chex.assert_trees_all_equal(twin(x), f(x))
        np.testing.assert_allclose(pullback(twin, x), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("f", [twice, scan, scaled], ids=["rule", "scan", "constants"])
def test_twin_can_be_transformed(f):
    x, twin = jnp.asarray(X), autodiff(f)
    rng = np.random.default_rng(0)
    xs, gs = (jnp.asarray(rng.normal(size=(2, 3))) for _ in range(2))
    pull = partial(pullback, twin)
    jitted = jax.jit(lambda x, g: jax.vjp(twin, x)[1](g)[0])
    chex.assert_trees_all_close(jitted(x, G), pull(x), rtol=1e-12)
    batched = jax.vmap(lambda x, g: jax.vjp(twin, x)[1](g)[0])(xs, gs)
    for k in range(2):
        np.testing.assert_allclose(batched[k], pull(xs[k], gs[k]), rtol=1e-12)
    forward = jnp.asarray(G) @ jax.jacfwd(twin)(x)
    np.testing.assert_allclose(forward, pull(x), rtol=1e-12)
    second = jax.jvp(jax.grad(lambda x: (twin(x) * G).sum()), (x,), (xs[0],))[1]
    numeric = (pull(x + 1e-6 * xs[0]) - pull(x - 1e-6 * xs[0])) / 2e-6
    np.testing.assert_allclose(second, numeric, rtol=1e-5)
    chex.assert_trees_all_close(autodiff(twin)(x), f(x))


def test_while_loop_goes_forward():
    def f(x):
        return lax.while_loop(
            lambda c: c[0] < 3, lambda c: (c[0] + 1, sine(c[1])), (0, x)
        )

    x, v = jnp.asarray(X), jnp.asarray(G)
    y_dot = jax.jvp(autodiff(lambda x: f(x)[1]), (x,), (v,))[1]
    expected = jax.jvp(lambda x: jnp.sin(jnp.sin(jnp.sin(x))), (x,), (v,))[1]
    chex.assert_trees_all_close(y_dot, expected, rtol=1e-12)


def test_named_axis_inside_a_rule():
    summed = with_wrong_rule(lambda x: jnp.sin(x) * lax.psum(x, "batch"), jnp.sin)
    f, x = jax.vmap(summed, axis_name="batch"), jnp.asarray(X)
    np.testing.assert_allclose(pullback(autodiff(f), x), truth(f, x), rtol=1e-8)
    assert not np.allclose(pullback(f, x), truth(f, x), rtol=1e-3)


def test_closed_over_traced_values_stay_differentiable():
    def g(f_of, x):  # the inner function closes over x, and is called with 2x
        return f_of(lambda y: sine(y) * sine(x))(2.0 * x)

    def plain(x):
        return jnp.sin(2.0 * x) * jnp.sin(x)

    x, expected = jnp.asarray(X), pullback(plain, jnp.asarray(X))
    mine = partial(g, autodiff)
    np.testing.assert_allclose(pullback(mine, x), expected, rtol=1e-12)
    np.testing.assert_allclose(pullback(jax.jit(mine), x), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(jax.grad(mine))(x) * G, expected, rtol=1e-12)
    assert not np.allclose(pullback(partial(g, lambda f: f), x), expected, rtol=1e-3)


def test_integer_key_and_nondiff_arguments():
    def primal(power, x, n, key):
        return power(x) * n + jax.random.normal(key, x.shape, x.dtype) * x

    f = jax.custom_vjp(primal, nondiff_argnums=(0,))
    f.defvjp(
        lambda power, x, n, key: (primal(power, x, n, key), n),
        lambda power, n, y_bar: (4.0 * y_bar * n, None, None),
    )
    x, n, key = jnp.asarray(X), jnp.asarray([1.0, 2.0, 3.0]), jax.random.key(0)
    square_of = lambda x: x * x
    at = lambda f: lambda x: f(square_of, x, n, key)
    np.testing.assert_allclose(pullback(at(autodiff(f)), x), truth(at(f), x), rtol=1e-8)
    assert not np.allclose(pullback(at(f), x), truth(at(f), x), rtol=1e-3)


def test_symbolic_zeros():
    f = jax.custom_vjp(lambda x, y: (x * y, x))

    def fwd(x, y):
        return (x.value * y.value, x.value), (x.value, y.value)

    def bwd(res, bars):
        return 5.0 * bars[0], 6.0 * bars[0]

    f.defvjp(fwd, bwd, symbolic_zeros=True)
    x, y = jnp.asarray(X), jnp.asarray(SCALE)
    product = lambda f: lambda x: f(x, y)[0]  # the second output has no cotangent
    np.testing.assert_allclose(pullback(product(autodiff(f)), x), G * SCALE, rtol=1e-12)
    np.testing.assert_allclose(pullback(product(f), x), 5.0 * G, rtol=1e-12)


def test_arguments_reach_f_and_outputs_leave_it_as_they_are():
    seen = {}

    def f(params, n, mask, *, name, activation=None, train=False):
        seen.update(n=n, mask=mask, name=name, train=train)
        y = activation(params["w"]) if activation and train else params["w"]
        for _ in range(n):  # a Python int steers Python
            y = y * 2.0
        picked = y[mask]  # a concrete mask may decide a shape
        return {"y": y, "picked": picked, "n": n, "name": name, "none": None, "pi": 3.1}

    w, mask = jnp.asarray(X), np.array([True, False, True])
    params = {"w": w, "unused": None, "fn": jnp.tan}
    call = {"name": "a", "activation": sine, "train": True}
    got = autodiff(f)(params, 2, mask, **call)
    chex.assert_trees_all_equal_structs(got, f(params, 2, mask, **call))
    np.testing.assert_allclose(got["y"], 4.0 * np.sin(X), rtol=1e-15)
    assert [type(got[k]) for k in ("n", "name", "pi")] == [int, str, float]
    assert (seen["n"], seen["name"], seen["train"]) == (2, "a", True)
    assert seen["mask"] is mask
    grads = jax.grad(
        lambda w: autodiff(f)({"w": w}, 2, mask, **call)["picked"] @ G[:2]
    )(w)
    expected = 4.0 * np.cos(X) * np.array([G[0], 0.0, G[1]])
    np.testing.assert_allclose(grads, expected, rtol=1e-12)


def test_weak_types_integers_and_keys_come_back():
    def f(x, key):
        return sine(x) * 2, jnp.argmax(x), jax.random.split(key)

    x, key = jnp.asarray(X), jax.random.key(1)
    types = lambda out: [jax.typeof(y) for y in out]
    assert types(autodiff(f)(x, key)) == types(f(x, key))
    assert jax.jit(autodiff(sine))(0.5).weak_type == jax.jit(sine)(0.5).weak_type


def test_rules_of_jax_are_kept_unless_asked():
    f = lambda x: jnp.logaddexp(sine(x), 0.0)
    zero = jnp.asarray(0.0)
    assert jax.grad(f)(zero) == 1.5
    assert jax.grad(autodiff(f))(zero) == 0.5
    assert jax.grad(autodiff(f, keep=None))(zero) == 0.0  # 0 times an infinity, dropped


def test_jitted_function_inside_compiles_once():
    traces, events = [], []

    @jax.jit
    def f(x):
        traces.append(1)
        return sine(x)

    def listen(event: str, duration_secs: float, **_: str | int):
        events.append(event)

    twin, x = autodiff(f), jnp.asarray(X)
    twin(x)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        twin(x)
        assert not any("backend_compile" in event for event in events)
        twin(x[:2])
        assert any("backend_compile" in event for event in events)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(traces) == 2  # one per shape


def test_signature_name_and_errors():
    def f(x, *, scale=2.0):
        "Doc."
        return sine(x) * scale

    twin = autodiff(f)
    assert twin.__name__ == "f"
    assert twin.__doc__ == "Doc."
    assert inspect.signature(twin) == inspect.signature(f)
    with pytest.raises(
        ValueError, match=r"autodiff: expected keep to be \"jax\" or None"
    ):
        autodiff(f, keep="user")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="autodiff: expected f to be a function"):
        autodiff(3)  # pyright: ignore[reportArgumentType]


def test_dynamic_loop_in_a_primal_raises_jaxs_own_error():
    looped = with_wrong_rule(
        lambda x: lax.while_loop(lambda v: v.sum() < 4, lambda v: v * 2, x)
    )
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        pullback(autodiff(looped), jnp.asarray(X))


def shard_map_cases(n):
    """(name, function) pairs on a mesh of n devices."""
    kinds = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((n,), ("d",), axis_types=kinds)
    rows, whole = jax.P("d"), jax.P()
    sharded = partial(jax.shard_map, mesh=mesh, in_specs=rows, out_specs=rows)
    summed = with_wrong_rule(lambda x: lax.psum(jnp.sin(x).sum(), "d") * x)

    def collective_under_vmap(x, w):
        rule = with_wrong_rule(lambda v: lax.psum(jnp.sin(v), "d"))
        return jax.vmap(rule)(x * w).sum(axis=0, keepdims=True)

    two = {"in_specs": (rows, whole), "out_specs": whole}
    reduced = jax.shard_map(collective_under_vmap, mesh=mesh, **two)
    return {
        "elementwise": sharded(sine),
        "constants": sharded(with_wrong_rule(lambda x: jnp.sin(x) * np.float64(2.0))),
        "vmap": sharded(jax.vmap(sine)),
        "scan": sharded(lambda x: lax.scan(lambda c, _: (sine(c), c), x, None, 2)[0]),
        "jit": jax.jit(sharded(jax.checkpoint(twice))),
        "collective": sharded(summed, check_vma=False),
        "collective under vmap": lambda x: reduced(x, jnp.asarray(1.0)) + 0.0 * x,
    }


def check_shard_map(n):
    for name, f in shard_map_cases(n).items():
        x = jnp.linspace(0.2, 0.9, 8)
        g = np.random.default_rng(3).normal(size=8)
        expected = truth(f, x, g)
        close = lambda a, b: np.allclose(a, b, rtol=1e-5, atol=1e-8)
        assert close(pullback(autodiff(f), x, g), expected), name
        assert name == "collective" or not close(pullback(f, x, g), expected), name


def test_shard_map_on_one_device():
    check_shard_map(1)


def test_shard_map_on_eight_devices():
    flags = "--xla_force_host_platform_device_count=8"
    _in_subprocess("check_shard_map(8)", XLA_FLAGS=flags)


def test_other_representation_of_rules():
    other = "0" if os.environ.get("JAX_CUSTOM_VJP3") == "1" else "1"
    # One place for each way in which an equation holds a jaxpr.
    code = """
for place in (
    "custom_gradient", "custom_vjp of jnp.sin", "jit, constants", "remat, constants",
    "optimize_remat", "rule in rule in remat in vmap in jit", "scan", "switch",
):
    test_rule_is_removed_wherever_it_stands(place)
check_shard_map(1)
test_closed_over_traced_values_stay_differentiable()
test_integer_key_and_nondiff_arguments()
test_symbolic_zeros()
test_named_axis_inside_a_rule()
"""
    _in_subprocess(code, JAX_CUSTOM_VJP3=other)


def _in_subprocess(code, **env):
    setup = f"""
import importlib.util, sys, jax
from tests import unoptimised
unoptimised.switch(True)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
spec = importlib.util.spec_from_file_location("cases", {__file__!r})
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
globals().update(vars(cases))
"""
    path = os.pathsep.join(p for p in sys.path if p)
    cache = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"]
    }

    def run():
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", setup + code],
            env=os.environ | {"PYTHONPATH": path} | cache | env,
            capture_output=True,
            text=True,
            timeout=120,
        )

    done = run()
    if "rendezvous" in done.stderr:  # XLA's own threads, more than cores, wait for ever
        done = run()
    assert done.returncode == 0, done.stderr[-3000:]
