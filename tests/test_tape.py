"""Named wires: their values, and what is added on them."""

import jax
import jax.numpy as jnp
import pytest
from jax.ad_checkpoint import checkpoint_name

from jaxbp import autodiff, nets
from jaxbp._tape import tap, wires


def test_values_and_cotangents_stand_on_the_wires():
    a, b, c = 1.0, -2.0, -3.0
    found = wires(jax.grad(nets.three_gates), a, b, c)
    assert found["d"] == a + b
    assert found["e"] == c * (a + b)
    slope = found["f"] * (1 - found["f"])
    assert found["e_bar"] == slope
    assert found["d_bar"] == slope * c


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
