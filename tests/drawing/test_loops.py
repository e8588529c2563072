"""Of a loop one iteration is drawn, also inside a rule; of a cond the branch taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxbp import graph

X = np.linspace(-0.7, 0.9, 4)


def looped(length, *, reverse=False):
    def f(x):
        def body(c, y):
            return checkpoint_name(jnp.sin(c) * y + x, "c"), c

        ys = jnp.linspace(0.9, 1.1, length)
        c, cs = lax.scan(body, x, ys, reverse=reverse)
        return (c * cs.sum(0)).sum()

    return f


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("iteration", "shown"), [(0, 0), (1, 1), (3, 3), (5, 5), (-1, 6), (99, 6)]
)
def test_of_a_scan_one_iteration_is_drawn(iteration, shown, reverse):
    g = graph(looped(7, reverse=reverse), X, iteration=iteration)
    places = {n.where for n in g.nodes if n.where}
    shown = 6 - shown if reverse else shown  # it is called by its index
    around = {(0, shown), (shown + 1, 7)}
    spans = {(f"scan[{a}:{b}]",) for a, b in around if b > a}
    assert places == {(f"scan[{shown}]",)} | spans
    np.testing.assert_allclose(
        g.wires["x"].gradient, jax.grad(looped(7, reverse=reverse))(X), rtol=1e-13
    )
    assert g.check.ok


@jax.custom_vjp
def sines(x):
    """sin sin sin sin sin x, every one of them a wire."""
    return sines_fwd(x)[0]


def sines_fwd(x):
    def body(c, _):
        return checkpoint_name(jnp.sin(c), "c"), c

    return lax.scan(body, x, length=5)


def sines_bwd(before, y_bar):
    def body(c_bar, c):
        return checkpoint_name(c_bar, "c_bar") * jnp.cos(c), None

    return (lax.scan(body, y_bar, before, reverse=True)[0],)


sines.defvjp(sines_fwd, sines_bwd)


@pytest.mark.parametrize("iteration", [0, 2, 4])
def test_in_a_loop_of_a_rule_the_cotangent_is_that_of_the_iteration_shown(iteration):
    g = graph(sines, 0.9, iteration=iteration)
    (wire,) = (
        g.wires[name]
        for node in g.flat()
        if node.where[-1:] == (f"scan[{iteration}]",)
        for name in node.outputs
    )

    def rest(c):
        for _ in range(4 - iteration):
            c = jnp.sin(c)
        return c

    slope = float(jax.grad(rest)(float(wire.value)))
    assert wire.gradient == pytest.approx(slope, rel=1e-14)
    assert wire.units < 4  # of a product of four cosines, each rounded once


def test_a_cotangent_of_another_value_with_the_same_name_is_not_that_wires():
    def doubled(x):
        h = checkpoint_name(2 * jnp.sin(x), "h")  # of the primal, h is half of it
        return h**2 / 4, (x, h)

    @jax.custom_vjp
    def squared(x):
        return checkpoint_name(jnp.sin(x), "h") ** 2

    def bwd(res, y_bar):
        x, h = res
        return (2 * checkpoint_name(y_bar * h / 2, "h_bar") * jnp.cos(x),)

    squared.defvjp(doubled, bwd)
    g = graph(squared, 0.9)
    assert g.ok
    assert g.wires["h"].gradient is None
    assert g.wires["h"].autodiff == pytest.approx(2 * np.sin(0.9), rel=1e-14)


def test_of_a_cond_the_branch_taken_is_drawn_a_while_loop_is_one_node():
    def f(x):
        y = lax.cond(x[0] > 0, jnp.sin, jnp.cos, x)
        start = lax.stop_gradient(y)
        z = lax.while_loop(lambda c: c.sum() < 9, lambda c: 2 * c + 1, start)
        return (y * z).sum()

    g = graph(f, X)
    assert ("cond[0]",) in {n.where for n in g.nodes}
    assert [n.label for n in g.nodes].count("while") == 1
    assert g.check.ok
