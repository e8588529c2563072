"""What arguments evidently are, they stay: magnitudes, the parents of a tree."""

import jax
import jax.numpy as jnp
import pytest
from hand_written import rule

from jaxbp import compare
from jaxbp.instrument._boundaries import magnitudes

X = jax.random.normal(jax.random.key(0), (4, 3))


def _huber(d_bar):
    """Of r with a scale d > 0, which a magnitude is held against."""

    def cost(r, d):
        inside = jnp.abs(r) <= d
        return jnp.where(inside, r * r / 2, d * (jnp.abs(r) - d / 2))

    def bwd(res, g):
        r, d = res
        bar = d_bar(jnp.maximum(jnp.abs(r) - d, 0))
        return g * jnp.clip(r, -d, d), jnp.sum(g * bar)

    return rule(cost, bwd)


def test_what_a_magnitude_is_held_against_stays_one():
    right, wrong = _huber(lambda bar: bar), _huber(lambda bar: bar / 2)
    found = compare(right, X, 1.0, effort="full")
    assert found.ok, found
    assert "asked as what they seem to be: [1] positive" in str(found)
    assert not compare(wrong, X, 1.0).ok


@pytest.mark.parametrize(
    ("f", "found"),
    [
        (lambda r, d: jnp.where(jnp.abs(r) < d, r, 0), {1}),
        (lambda r, d: jnp.where(d * r < r, r, 0), set()),
        (lambda r, d: r / jnp.maximum(jnp.linalg.norm(r), d), {1}),
        (lambda r, d: jnp.minimum((r * r).sum(), d), {1}),
        (lambda r, d: jnp.minimum((r * r).sum(), jnp.tanh(d)), set()),
        (lambda r, d: jnp.minimum(r.sum(), d), set()),
        (lambda r, d: jax.jit(lambda r, d: jnp.minimum(r**2, d))(r, d), {1}),
    ],
)
def test_magnitudes_are_found(f, found):
    assert magnitudes(jax.make_jaxpr(f)(X, 1.0)) == found


def _down_a_tree(spoil=1.0):
    """h of each node from that of its parent, which stands before it."""

    def hidden(x, parent):
        down = lambda h, i: (h.at[i].add(jnp.tanh(h[parent[i]])), None)
        return jax.lax.scan(down, x, jnp.arange(1, len(x)))[0]

    def bwd(res, g):
        h, parent = res

        def up(bar, i):
            slope = 1 - jnp.tanh(h[parent[i]]) ** 2
            return bar.at[parent[i]].add(spoil * slope * bar[i]), None

        return jax.lax.scan(up, g, jnp.arange(1, len(h)), reverse=True)[0], None

    return rule(hidden, bwd, lambda x, p: (hidden(x, p), (hidden(x, p), p)))


def test_parents_stay_before_their_children():
    parent = jnp.array([0, 0, 0, 1, 1, 2, 3, 3, 6, 2], jnp.int32)
    x = jax.random.normal(jax.random.key(6), parent.shape)
    found = compare(_down_a_tree(), x, parent, effort="full")
    assert found.ok, found
    assert not compare(_down_a_tree(spoil=0.9), x, parent).ok
