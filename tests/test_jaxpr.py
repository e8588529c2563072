"""The jaxpr toolbox: finding rules, what is out of reach, interpreting."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxbp import _interpret, _jaxpr

X = np.array([0.3, 0.5, 0.8])
G = np.array([0.7, -1.3, 0.4])


def primal_sine(x):
    return jnp.sin(x)


sine: Any = jax.custom_vjp(primal_sine)


def sine_fwd(x):
    return jnp.sin(x), x


def sine_bwd(x, y_bar):
    return (3.0 * y_bar * jnp.cos(x),)


sine.defvjp(sine_fwd, sine_bwd)


@jax.custom_jvp
def square(x):
    return x * x


@square.defjvp
def square_jvp(primals, tangents):
    return square(*primals), 7.0 * tangents[0]


def cube_and_pullback(x):
    return x**3, lambda y_bar: y_bar


cube: Any = jax.custom_gradient(cube_and_pullback)


library_sine = jax.custom_vjp(jnp.sin)
library_sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, y_bar: (y_bar * x,))
library_cosine = jax.custom_jvp(jnp.cos)
library_cosine.defjvps(lambda x_dot, y, x: 5.0 * x_dot)


@jax.custom_vjp
def outer(x):
    return 2.0 * sine(x)


outer.defvjp(lambda x: (outer(x), x), lambda x, y_bar: (y_bar,))


def closed(f, *args):
    return _jaxpr.trace(f, args).jaxpr


def line_of(function):
    return f"{__file__}:{function.__code__.co_firstlineno}"


def watched(f, *args, **options):
    """Outputs of the interpreter and the names of the equations it showed."""
    seen = []
    program = _jaxpr.trace(f, args)

    def visit(eqn, ins, outs):
        seen.append(eqn.primitive.name)
        return outs

    outs = _interpret.interpret(program.jaxpr, program.inputs, visit, **options)
    return program.merge(outs), seen


# Finding rules


def test_rules_are_found_in_order_with_name_kind_and_owner():
    @jax.jit
    def body(x):
        return outer(x) + square(x)

    def f(x):
        x = lax.scan(lambda c, _: (jax.checkpoint(body)(c), None), x, None, 2)[0]
        return jax.nn.relu(cube(x)) + jax.vmap(library_sine)(x) + library_cosine(x)

    rules = _jaxpr.find_rules(closed(f, X))
    assert [(r.name, r.kind, r.from_jax) for r in rules] == [
        ("outer", "custom_vjp", False),
        ("primal_sine", "custom_vjp", False),
        ("square", "custom_jvp", False),
        ("cube_and_pullback", "custom_vjp", False),
        ("relu", "custom_jvp", True),
        ("sin", "custom_vjp", False),
        ("cos", "custom_jvp", False),
    ]
    assert rules[1].outer == rules[0]
    assert [r.outer for r in rules[2:]] == [None] * 5


def test_rule_knows_where_it_is_defined_and_called():
    def f(x):
        return sine(x)

    (rule,) = _jaxpr.find_rules(closed(f, X))
    assert rule.source == line_of(primal_sine)
    assert rule.site == f"{__file__}:{f.__code__.co_firstlineno + 1}"
    (jitted,) = _jaxpr.find_rules(closed(lambda x: jax.jit(sine)(x), X))
    assert jitted.site.startswith(
        f"{__file__}:"
    )  # of the call of jit: JAX has no other
    (library,) = _jaxpr.find_rules(closed(lambda x: library_sine(x), X))
    assert library.source.startswith(f"{__file__}:")


def test_primal_takes_the_rules_inputs():
    scale = jnp.asarray(G)
    f = jax.custom_vjp(lambda n, x: jnp.sin(x) * scale * n, nondiff_argnums=(0,))
    f.defvjp(lambda n, x: (f(n, x), None), lambda n, res, y_bar: (y_bar,))
    batched = jax.vmap(lambda x: f(2.0, x))
    for call, x in ((lambda x: f(2.0, x), X), (batched, np.stack([X, G]))):
        jaxpr = closed(call, x)
        (rule,) = _jaxpr.find_rules(jaxpr)
        # The call is the jaxpr's last equation, its inputs the constants and x.
        env = dict(zip(jaxpr.constvars, jaxpr.consts, strict=True)) | {
            jaxpr.invars[0]: x
        }
        body, ins = _jaxpr.primal(rule.eqn, [env[v] for v in rule.eqn.invars])
        (y,) = _jaxpr.evaluate(body, ins)
        np.testing.assert_allclose(y, np.sin(x) * G * 2.0, rtol=1e-15)


# What is out of reach

jitted_loss = jax.jit(lambda x: sine(x).sum())

REACH = {
    "a rule": (lambda x: sine(x) + jax.jit(square)(x), []),
    "grad without rules": (jax.grad(lambda x: jnp.tanh(x).sum()), []),
    "grad of JAX's rule": (jax.grad(lambda x: jax.nn.relu(x).sum()), []),
    "grad": (jax.grad(lambda x: sine(x).sum()), ["sine_fwd"]),
    "vmap of grad": (jax.vmap(jax.grad(sine)), ["sine_fwd"]),
    "jvp": (lambda x: jax.jvp(square, (x,), (x,))[1], ["square_jvp"]),
    "grad in scan": (
        lambda x: lax.scan(lambda c, _: (jax.vmap(jax.grad(sine))(c), 0), x, None, 2)[
            0
        ],
        ["sine_fwd"],
    ),
    "grad of jit": (jax.grad(jitted_loss), [f"called at {__file__}"]),
    "jit of grad of jit": (jax.jit(jax.grad(jitted_loss)), [f"called at {__file__}"]),
    "grad of scan": (
        jax.grad(lambda x: lax.scan(lambda c, _: (sine(c), 0), x, None, 2)[0].sum()),
        [f"called at {__file__}"],
    ),
    "grad of remat": (
        jax.grad(lambda x: jax.checkpoint(lambda v: square(sine(v)))(x).sum()),
        [f"called at {__file__}"],
    ),
}


@pytest.mark.parametrize("case", REACH)
def test_rules_that_f_differentiated_itself_are_told(case):
    f, expected = REACH[case]
    found = " ".join(_jaxpr.differentiated(closed(f, X)))
    assert bool(found) == bool(expected), found
    for words in expected:
        assert words in found


def test_cached_helper_of_a_rule_is_not_mistaken_for_it():
    helper = jax.jit(lambda x: jnp.tanh(x) * 2.0)
    f = jax.custom_vjp(lambda x: helper(x))
    f.defvjp(lambda x: (helper(x), x), lambda x, y_bar: (helper(x) * y_bar,))
    inside = closed(jax.grad(lambda x: f(x).sum()), X)  # traces helper inside the rule
    assert _jaxpr.differentiated(inside)
    assert _jaxpr.differentiated(closed(helper, X)) == []


def test_what_a_scatter_adds_with_is_no_rule():
    # JAX traces it once: its lines are those of the first call, here in a rule's bwd.
    places = jnp.array([0, 1, 0])
    added = lambda x: jnp.zeros(2).at[places].add(x)
    rule = jax.custom_vjp(lambda x: x[places].sum())
    rule.defvjp(lambda x: (rule(x), None), lambda _, g: (added(g * X),))
    jax.clear_caches()
    closed(lambda x: jax.vjp(rule, x)[1](1.0), X[:2])
    assert _jaxpr.out_of_reach(closed(added, X)) == []


def test_rule_inside_a_kept_rule_of_jax_is_told():
    def f(a):
        newton = lambda g, x: lax.fori_loop(
            0, 20, lambda _, x: x - g(x) / (3 * x * x), x
        )
        solve = lambda g, y: y / g(1.0)
        return lax.custom_root(lambda x: x**3 - sine(a), 1.0, newton, solve)

    (told,) = _jaxpr.out_of_reach(closed(f, 0.5))
    assert told.startswith("primal_sine at ")
    assert "inside JAX's" in told
    assert _jaxpr.out_of_reach(closed(outer, X)) == []


# Tracing and removing


def test_only_differentiable_leaves_are_traced():
    tree = {
        "w": X,
        "n": 3,
        "p": 0.5,
        "dtype": "float32",
        "kind": np.float32,
        "i": X > 0.4,
    }
    program = _jaxpr.trace(lambda t: (t["w"] * t["p"], t["dtype"], t["n"]), (tree,))
    assert len(program.inputs) == 2
    y, dtype, n = program.merge(_jaxpr.evaluate(program.jaxpr, program.inputs))
    np.testing.assert_allclose(y, X * 0.5)
    assert (dtype, n) == ("float32", 3)


def test_jaxpr_without_rules_to_remove_is_the_same_object():
    jaxpr = closed(lambda x: jax.jit(jax.nn.relu)(x), X)
    assert _jaxpr.without_rules(jaxpr) is jaxpr
    assert _jaxpr.without_rules(jaxpr, keep_jax=False) is not jaxpr
    mine = closed(lambda x: jax.jit(sine)(x), X)
    assert _jaxpr.without_rules(mine) is _jaxpr.without_rules(mine)
    assert _jaxpr.find_rules(mine)
    assert _jaxpr.find_rules(_jaxpr.without_rules(mine)) == []


# Interpreting


def everything(x):
    def body(c, a):
        return lax.cond(c.sum() > 2.0, jnp.cos, sine, c * a), c

    y = checkpoint_name(jax.checkpoint(jax.jit(sine))(x), "h")
    c, ys = lax.scan(body, y, jnp.asarray([2.0, 1.5, 3.0]), reverse=True)
    i, c = lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, outer(s[1])), (0, c))
    return c + ys[0] - ys[-1] * i, i


def test_interpreting_is_evaluating():
    (y, i), seen = watched(everything, X)
    expected, trips = everything(X)
    np.testing.assert_allclose(y, expected, rtol=1e-14)
    assert i == trips == 2
    assert {"name", "sin"} <= set(seen)
    assert not {"jit", "remat2", "cond", "scan", "while"} & set(seen)
    assert seen.count("cos") == 1  # the branch that one of three steps takes
    assert seen.count("sin") == 1 + 2 + 2  # remat, the other steps, two trips
    assert not any("custom" in name or "hi_prim" in name for name in seen)


def test_rules_stay_whole_on_request():
    def f(x):
        return lax.scan(lambda c, _: (sine(c), None), x, None, 2)[0]

    program = _jaxpr.trace(f, (jnp.asarray(X),))
    run = functools.partial(_interpret.interpret, program.jaxpr, visit=_unchanged)
    whole = jax.vjp(lambda x: run([x], descend_rules=False)[0], X)[1](G)[0]
    inlined = jax.vjp(lambda x: run([x])[0], X)[1](G)[0]
    truth = jax.vjp(lambda x: jnp.sin(jnp.sin(x)), X)[1](G)[0]
    np.testing.assert_allclose(inlined, truth, rtol=1e-14)
    np.testing.assert_allclose(whole, 9.0 * truth, rtol=1e-14)
    assert watched(f, X, descend_rules=False)[1].count("sin") == 0


def _unchanged(eqn, ins, outs):
    return outs


def test_visitor_replaces_values_and_collects_wires():
    wires = {}

    def visit(eqn, ins, outs):
        if eqn.primitive.name == "name":
            wires[eqn.params["name"]] = outs[0]
            return [outs[0] + 10.0]
        return outs

    program = _jaxpr.trace(lambda x: checkpoint_name(x * 2.0, "a") * 3.0, (X,))
    (y,) = _interpret.interpret(program.jaxpr, program.inputs, visit)
    np.testing.assert_allclose(y, (2.0 * X + 10.0) * 3.0, rtol=1e-15)
    np.testing.assert_allclose(wires["a"], 2.0 * X)


@pytest.mark.parametrize(
    "f", [everything, lambda x: (outer(x), 0)], ids=["all", "rule"]
)
def test_interpreter_runs_under_grad_jit_and_vmap(f):
    program = _jaxpr.trace(lambda x: f(x)[0], (jnp.asarray(X),))
    plain = _jaxpr.without_rules(program.jaxpr)

    def run(x):
        return _interpret.interpret(plain, [x], _unchanged)[0]

    pull = lambda h: lambda x: jax.vjp(h, x)[1](jnp.asarray(G))[0]
    steps = 1e-6 * np.eye(3)
    numeric = [(f(X + e)[0] - f(X - e)[0]) @ G / 2e-6 for e in steps]
    # Under grad alone values are concrete, so that even the while loop is unrolled.
    np.testing.assert_allclose(pull(run)(X), numeric, rtol=1e-7)
    np.testing.assert_allclose(jax.jit(run)(X), run(X), rtol=1e-14)
    np.testing.assert_allclose(jax.vmap(run)(np.stack([X, G]))[0], run(X), rtol=1e-14)
    forward = jax.jit(jax.jacfwd(run))(jnp.asarray(X))
    np.testing.assert_allclose(G @ forward, numeric, rtol=1e-7)


def test_traced_control_runs_whole_and_scan_unrolls():
    seen = []

    def visit(eqn, ins, outs):
        seen.append(eqn.primitive.name)
        return outs

    jaxpr = closed(lambda x: everything(x)[0], jnp.asarray(X))
    y = jax.jit(lambda x: _interpret.interpret(jaxpr, [x], visit))(X)[0]
    np.testing.assert_allclose(y, everything(X)[0], rtol=1e-14)
    assert seen.count("cond") == 3  # one per unrolled iteration
    assert "scan" not in seen


def test_while_loop_that_becomes_traced_goes_on_from_where_it_is():
    def f(n, x):
        return lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1.0, 2.0 * s[1]), x)

    jaxpr = closed(f, 3.0, (0.0, 1.0))
    run = lambda n: _interpret.interpret(jaxpr, [n, 0.0, 1.0], _unchanged)[1]
    assert run(3.0) == jax.jit(run)(3.0) == 8.0
    grown = closed(lambda x: lax.while_loop(lambda v: v < 9.0, lambda v: v * v, x), 2.0)
    run = lambda x: _interpret.interpret(grown, [x], _unchanged)[0]
    assert jax.grad(run)(2.0) == 4 * 2.0**3  # four factors: unrolled under grad


def test_one_equation_is_changed_wherever_it_sits():
    def f(x):
        y = jax.jit(lambda x: 2 * x + 1)(x)
        y = jax.lax.cond(x.sum() > 0, lambda y: 3 * y, lambda y: y, y)
        return jax.lax.scan(lambda c, _: (c * x, ()), y, None, length=2)[0]

    program = _jaxpr.trace(f, (X,))
    seen = []

    def subtract(eqn, ins, scope):
        seen.append((eqn.primitive.name, len(scope)))
        return [ins[0] - ins[1]]

    def path_to(name, *within):
        eqns = program.jaxpr.eqns
        k = next(k for k, eqn in enumerate(eqns) if eqn.primitive.name == name)
        body = list(_jaxpr.bodies(eqns[k]))[within[0]]
        return k, *within, len(body.eqns) - 1

    expected = {
        path_to("jit", 0): 3 * (2 * X - 1) * X**2,
        path_to("cond", 1): (3 - (2 * X + 1)) * X**2,
        path_to("scan", 0): (3 * (2 * X + 1) - X) - X,
    }
    for path, value in expected.items():
        run = functools.partial(
            _interpret.evaluate_changed, program.jaxpr, path=path, change=subtract
        )
        chex.assert_trees_all_close(run([X])[0], value, rtol=1e-15)
        chex.assert_trees_all_close(jax.jit(run)([X])[0], value, rtol=1e-14)
    assert seen[0] == ("add", 2)
    wider = lambda eqn, ins, scope: [jnp.stack([ins[0] - ins[1]] * 2)]
    with pytest.raises(
        TypeError, match=r"mul gives float64\[3\], changed float64 \(2, 3\)"
    ):
        _interpret.evaluate_changed(program.jaxpr, [X], path_to("scan", 0), wider)


def test_opaque_equations_are_seen_as_one():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.P("d")
    f = jax.shard_map(lambda x: sine(x) * 2.0, mesh=mesh, in_specs=rows, out_specs=rows)
    y, seen = watched(f, X)
    np.testing.assert_allclose(y, 2.0 * np.sin(X), rtol=1e-15)
    assert seen == ["shard_map"]


def test_scan_of_keys_and_of_no_steps():
    def f(x):
        keys = jax.random.split(jax.random.key(0), 3)
        draw = lambda c, key: (c + jax.random.normal(key, c.shape, c.dtype), key)
        c, keys = lax.scan(draw, x, keys)
        return lax.scan(lambda c, a: (c * a, c), c, jnp.zeros((0, 3)))[0], keys

    (y, keys), _ = watched(f, X)
    expected, same_keys = f(X)
    chex.assert_trees_all_close(y, expected, rtol=1e-14)
    assert (jax.random.key_data(keys) == jax.random.key_data(same_keys)).all()


def test_remat_with_array_constants():
    scale = jnp.asarray(G)
    y, seen = watched(jax.checkpoint(lambda x: sine(x * scale)), X)
    np.testing.assert_allclose(y, np.sin(X * G), rtol=1e-15)
    assert seen[-2:] == ["mul", "sin"]
