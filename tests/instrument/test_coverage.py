"""Which arms were taken is said; a hand-written one that was not proves nothing."""

import json

import jax
import jax.numpy as jnp

from jaxbp import compare

X = jax.random.normal(jax.random.key(0), (4, 3))


def rule(primal, bwd):
    @jax.custom_vjp
    def f(*args):
        return primal(*args)

    def fwd(*args):
        return primal(*args), args if len(args) > 1 else args[0]

    f.defvjp(fwd, bwd)
    return f


sine = rule(jnp.sin, lambda x, g: (jnp.cos(x) * g,))
cosine = rule(jnp.cos, lambda x, g: (-jnp.sin(x) * g,))


def taken(comparison):
    return [(b.kind, b.taken) for b in comparison.coverage]


def test_the_arms_of_every_branch_are_told():
    def f(x):
        x = jnp.where(jnp.sin(x) > 2, x * x, sine(x))
        x = jnp.maximum(x, -1e35)
        x = jax.lax.clamp(-7.0, x, 0.5)
        return jax.lax.cond(x[0, 0] > 9, jnp.exp, jnp.negative, x)

    comparison = compare(f, X.astype(jnp.float64))
    assert comparison.ok
    assert taken(comparison) == [
        ("where", (True, False)),
        ("max", (True, False)),
        ("clip", (False, True, True)),
        ("cond", (True, False)),
    ]
    last = str(comparison).splitlines()[-1]
    assert last.startswith("  5 of 9 arms taken; never: where at test_coverage.py:")
    assert last.endswith("arm 1")
    data = json.loads(json.dumps(comparison.to_dict()))
    assert data["coverage"][0]["taken"] == [True, False]


def test_branches_in_loops_rules_and_backward_passes_are_told():
    def step(c, x):
        return jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, c) + x, None

    def f(x):
        y = jax.lax.scan(step, x[0], x)[0]
        go_on = lambda s: s[0] < 3
        k = jnp.zeros((), jnp.int32)
        more = jax.lax.while_loop(
            go_on,
            lambda s: (s[0] + 1, jnp.where(s[0] > 1, s[1], 2 * s[1])),
            (k, jax.lax.stop_gradient(y)),
        )[1]
        return guarded(y) + more

    def bwd(x, g):
        return (jnp.where(x > 1e35, g, jnp.cos(x) * g),)

    guarded = rule(lambda x: jnp.where(x > 1e35, x, jnp.sin(x)), bwd)
    comparison = compare(f, jnp.concatenate([X, -X]))
    assert comparison.ok, comparison
    assert taken(comparison) == [
        ("cond", (True, True)),
        ("where", (True, True)),
        ("where", (True, False)),
        ("where in bwd", (True, False)),
    ]


def test_no_branch_no_line():
    comparison = compare(sine, X)
    assert comparison.coverage == ()
    assert "arms" not in str(comparison)


def test_a_hand_written_arm_that_is_never_taken_leaves_it_unproven():
    def f(x):
        return jax.lax.cond(x.sum() > 1e35, sine, cosine, x)

    comparison = compare(f, X)
    assert comparison.verdict == "unproven"
    assert "never taken, though a hand-written rule is there: cond" in comparison.note
    assert "arm 1" in comparison.note

    def plain(x):
        return jax.lax.cond(x.sum() > 1e35, jnp.exp, cosine, x)

    assert compare(plain, X).ok


def test_a_hand_written_arm_that_another_point_takes_is_proven():
    def f(x):
        return jax.lax.cond(x.sum() > 40, sine, cosine, x)

    comparison = compare(f, X)
    assert comparison.ok, comparison
    assert taken(comparison) == [("cond", (True, True))]


def test_an_arm_inside_a_rule_is_said_and_no_more():
    def primal(x):
        return jax.lax.cond(x.sum() > 1e35, sine, jnp.cos, x)

    f = rule(primal, lambda x, g: jax.vjp(primal, x)[1](g))
    comparison = compare(f, X)
    assert comparison.ok, comparison
    assert ("cond", (True, False)) in taken(comparison)


def test_a_rule_that_calls_itself_going_back_is_walked_once():
    """Without end otherwise: the backward pass of its backward pass, and so on."""

    @jax.custom_vjp
    def double(x):
        return jnp.where(x > 0, 2 * x, 2 * x)

    double.defvjp(lambda x: (double(x), None), lambda _, g: (double(g),))
    comparison = compare(double, X)
    assert comparison.ok, comparison
    assert [kind for kind, _ in taken(comparison)] == ["where", "where in bwd"]
