"""Named wires: their values, and what is added on them. The tape of a whole sweep."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxbp import autodiff, nets
from jaxbp._tape import record, tap, wires


def test_values_and_cotangents_stand_on_the_wires():
    a, b, c = 1.0, -2.0, -3.0
    found = wires(jax.grad(nets.three_gates), a, b, c)
    assert found["d"] == a + b
    assert found["e"] == c * (a + b)
    slope = found["f"] * (1 - found["f"])
    # The rule makes 1 - f without subtracting: here it is off by what f is, up to four
    # roundings, and so is the slope.
    assert abs(found["e_bar"] - slope) <= 4 * 2.3e-16 * found["f"]
    # One more rounding: a compiler may or may not fuse the product.
    assert abs(found["d_bar"] - found["e_bar"] * c) <= 2.3e-16 * abs(found["d_bar"])


def test_the_gradient_in_a_tap_is_the_wires_cotangent():
    args = (3.0, -4.0)
    names = ("numer", "xandy", "denom", "sigx")
    taps = dict.fromkeys(names, 0.0)
    cotangents = jax.grad(tap(autodiff(nets.staged_rational)))(taps, *args)
    by_hand = wires(jax.grad(nets.staged_rational), *args)
    for name in names:
        # Up to five links, each rounded once or twice.
        error = abs(cotangents[name] - by_hand[f"{name}_bar"])
        assert error <= 10 * 2.3e-16 * abs(cotangents[name])


def test_taps_work_in_jit_remat_and_scan():
    def f(x):
        def body(carry, _):
            return checkpoint_name(carry * x, "carry"), None

        return jax.checkpoint(lambda x: jax.lax.scan(body, x, None, length=3)[0])(x)

    tapped = jax.jit(tap(f))
    # d(x⁴)/dt of carry·x + t in each of three steps: x² + x + 1 at x = 2.
    assert jax.grad(tapped)({"carry": 0.0}, 2.0)["carry"] == 7.0
    assert wires(f, 2.0)["carry"] == 16.0


def test_a_tap_on_no_wire_is_refused_by_name():
    with pytest.raises(ValueError, match="names among d, e, f; got g"):
        tap(autodiff(nets.three_gates))({"g": 0.0}, 1.0, 2.0, 3.0)


def test_an_array_is_tapped_whole():
    net = nets.mlp((2, 3, 1), output="sigmoid")
    params, batch = net.init(jax.random.key(0)), (jnp.ones((4, 2)), jnp.ones((4, 1)))
    taps = {"h1": jnp.zeros((4, 3))}
    (h1_bar,) = jax.grad(tap(autodiff(net.loss)))(taps, params, batch).values()
    by_hand = wires(jax.grad(net.loss), params, batch)["h1_bar"]
    assert jnp.abs(h1_bar - by_hand).max() < 1e-15


# record

X = np.random.default_rng(5).standard_normal(4)


@jax.custom_vjp
def sine(x):
    return jnp.sin(x)


def sine_fwd(x):
    return checkpoint_name(jnp.sin(x), "s"), x


def sine_bwd(x, s_bar):
    return (3 * checkpoint_name(s_bar, "s_bar") * jnp.cos(x),)


sine.defvjp(sine_fwd, sine_bwd)


def looped(length, reverse=False):
    def f(x):
        def body(carry, y):
            return sine(carry) / 3 * y + x, carry * y

        ys = jnp.linspace(0.9, 1.1, length)
        carry, rows = lax.scan(body, x, ys, reverse=reverse)
        return (carry * rows[length // 2]).sum()

    return f


def straight(x):
    y = sine(x) * x + x / 3
    return (y * y * jnp.exp(-x)).sum()


def through_calls(x):
    y = lax.cond(x[0] < 9, sine, jnp.cos, x)
    y = jax.checkpoint(lambda x, y: lax.mul(lax.sin(x), y))(x, y)
    return lax.reduce_sum(y * jax.vmap(sine)(x), axes=(0,))


@pytest.mark.parametrize("f", [straight, through_calls])
def test_the_gradient_is_that_of_jax_grad_bit_for_bit(f):
    tape = record(f, X)
    (gradient,) = tape.gradient
    assert np.array_equal(gradient, jax.grad(f)(X))
    assert tape.value == f(X)
    assert gradient is tape.inputs[0].cotangent


@pytest.mark.parametrize(
    "f",
    [looped(5), looped(5, True), looped(3000), looped(3000, True)],
    ids=["scan", "reverse scan", "long scan", "long reverse scan"],
)
def test_the_gradient_through_a_scan_is_that_of_jax_grad_but_for_rounding(f):
    (gradient,) = record(f, X).gradient  # compiled, a scan's body rounds otherwise
    np.testing.assert_allclose(gradient, jax.grad(f)(X), rtol=1e-13)


def test_a_networks_gradient_is_that_of_jax_grad_bit_for_bit():
    net = nets.mlp((2, 3, 1), output="sigmoid")
    params, batch = net.init(jax.random.key(0)), (jnp.ones((4, 2)), jnp.ones((4, 1)))
    tape = record(net.loss, params, batch)
    by_jax = jax.grad(net.loss, argnums=(0, 1))(params, batch)
    same = jax.tree.map(np.array_equal, tape.gradient, by_jax)
    assert all(jax.tree.leaves(same))
    named = wires(jax.grad(net.loss), params, batch)
    assert set(tape.wires) == {"a1", "h1", "a2", "yhat", "losses"}
    for name, wire in tape.wires.items():
        assert np.array_equal(wire.value, named[name])
        assert np.array_equal(wire.cotangent, named[f"{name}_bar"])


def test_every_step_has_its_values_and_cotangents():
    def f(x, w):
        return (w * jnp.sin(x)).sum()

    tape = record(f, X, 2.0)
    steps = {step.name: step for step in tape.steps}
    assert {"sin", "mul", "reduce_sum"} <= set(steps)
    assert steps["sin"].outs[0] in steps["mul"].ins  # one Value on both sides
    assert np.array_equal(steps["sin"].outs[0].value, np.sin(X))
    assert np.array_equal(steps["sin"].outs[0].cotangent, np.full(4, 2.0))
    assert tape.outputs[0].cotangent == 1.0
    assert steps["sin"].site.startswith(__file__)


def test_what_has_no_cotangent_has_none_and_never_zero():
    def f(x, y, z, n):
        unused = jnp.exp(z)
        return (x * lax.stop_gradient(y) * n).sum() + 0 * x.sum(), unused

    one = (jnp.ones(()), None)
    tape = record(f, X, 2 * X, 3 * X, 2, cotangent=one)
    x_bar, y_bar, z_bar, n_bar = tape.gradient
    assert np.array_equal(x_bar, 4 * X)
    assert y_bar is z_bar is n_bar is None
    (exp,) = (s for s in tape.steps if s.name == "exp")
    assert exp.ins[0].cotangent is exp.outs[0].cotangent is None


def test_a_while_loop_shows_values_and_lets_no_cotangent_through():
    def f(x):
        def body(c):
            return c[0] + 1, checkpoint_name(jnp.sin(c[1]), "turn")

        return sine(lax.while_loop(lambda c: c[0] < 20, body, (0, x))[1]).sum()

    tape = record(f, X)
    assert tape.gradient == (None,)
    shown = [s.where for s in tape.steps if s.name == "sin"]
    assert shown == [(f"while[{k}]",) for k in (0, 1, 2, 4, 8, 16, 19)]
    assert tape.wires["turn"].cotangent is None
    (loop,) = (s for s in tape.steps if s.name == "while")
    assert loop.outs[1].cotangent is not None
    assert "while loop" in loop.note


def test_a_scan_is_shown_by_iterations_a_long_one_by_a_few():
    def shown(length):
        steps = record(looped(length), X).steps
        return [s.where for s in steps if s.name == "sine"]

    assert shown(3) == [("scan[0]",), ("scan[1]",), ("scan[2]",)]
    assert shown(3000)[0] == ("scan[0]",)
    assert shown(3000)[-1] == ("scan[2999]",)
    assert len(shown(3000)) == 6


def test_a_rule_stays_whole_and_names_its_wires():
    tape = record(lambda x: sine(x).sum(), X)
    (step,) = (s for s in tape.steps if s.rule)
    assert (step.name, step.rule.name) == ("sine", "sine")
    assert [name for name, _ in step.wires] == ["s", "s_bar"]
    assert np.array_equal(tape.wires["s"].value, np.sin(X))
    assert np.array_equal(tape.wires["s"].cotangent, np.ones(4))


def test_a_cotangent_is_pulled_back_through_a_tree():
    def f(x, scale=1.0):
        return {"a": x * scale, "n": 3, "b": x.sum()}

    given = {"a": 5 * X, "n": None, "b": None}
    tape = record(f, X, kwargs={"scale": 2.0}, cotangent=given)
    assert np.array_equal(tape.gradient[0], 10 * X)
    assert tape.value["n"] == 3
    assert len(tape.inputs) == 2


def test_a_step_that_raises_on_the_way_back_says_why():
    def f(x):
        aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
        y = jax.pure_callback(lambda x: np.sin(x), aval, x)
        return (y * x).sum()

    tape = record(f, X)
    assert np.array_equal(tape.gradient[0], np.sin(X))
    (step,) = (s for s in tape.steps if s.note)
    assert step.name == "pure_callback"
    assert "JVP" in step.note


def test_a_cotangent_that_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match=r"got None, for float64 \(4,\): give it, or l"
    ):
        record(jnp.sin, X)
    with pytest.raises(ValueError, match=r"got None, for float64 .*, bool"):
        record(lambda x: (x, x > 0), X)
    for text in ("a", [[1.0], [1.0, 2.0]]):
        with pytest.raises(ValueError, match=r"like the output, float64 \(\); got "):
            record(jnp.sum, X, cotangent=text)
    with pytest.raises(ValueError, match=r"float64 \(4,\); got float64 \(2,\)"):
        record(jnp.sin, X, cotangent=X[:2])
    with pytest.raises(ValueError, match="a tree like the output"):
        record(lambda x: (x, x), X, cotangent=[X, X, X])
    with pytest.raises(TypeError, match="expected f to be a function"):
        record(3.0)


@pytest.mark.parametrize("output", [3.0, None, "text", {}])
def test_a_function_that_returns_no_array_is_refused(output):
    message = "expected f to be a function that returns an array; got one that returns"
    with pytest.raises(ValueError, match=rf"jaxbp\.record: {message} none: compute"):
        record(lambda x: output, X)


def test_five_hundred_equations_are_a_matter_of_seconds():
    def f(x):
        for _ in range(125):
            x = jnp.sin(x) * x + jnp.cos(x)
        return x.sum()

    start = time.perf_counter()
    tape = record(f, X)
    assert time.perf_counter() - start < 30  # 1 s where nothing else runs
    assert len(tape.steps) == 501
    assert np.array_equal(tape.gradient[0], jax.grad(f)(X))
