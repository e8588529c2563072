"""The points that effort="full" asks at: what hides from ordinary arguments shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ordinary import agrees_with_autodiff

from jaxbp import compare
from jaxbp.instrument._boundaries import boundaries
from jaxbp.instrument._points import points
from jaxbp.instrument._structure import keeping, keeping_data
from jaxbp.instrument._variants import other_lengths

_rng = np.random.default_rng(3)
X, Y = _rng.standard_normal((2, 4, 3))
V, U = _rng.standard_normal((2, 5))
P = np.abs(V) + 0.2


def rule(primal, bwd):
    @jax.custom_vjp
    def f(*args):
        return primal(*args)

    def fwd(*args):
        return primal(*args), args if len(args) > 1 else args[0]

    f.defvjp(fwd, bwd)
    return f


def masked_mean(x, mask):
    count = jnp.maximum(mask.sum(-1), 1)
    return (x * mask).sum(-1) / count


def masked_mean_bwd(res, g):  # the guard is forgotten: 0/0 in a row without any
    x, mask = res
    x_bar = g[:, None] * mask / mask.sum(-1, keepdims=True)
    return x_bar, jax.vjp(lambda m: masked_mean(x, m), mask)[1](g)[0]


def gathered(table, ids):
    return table[ids]


def gathered_bwd(res, g):  # the last row is taken for padding
    table, ids = res
    last = (ids == table.shape[0] - 1)[:, None]
    return jnp.zeros_like(table).at[ids].add(jnp.where(last, 0, g)), None


def off_above(value):
    """Wrong where only the backward pass knows of."""

    def bwd(x, g):
        return (jnp.where(x > value, 1.5, 1.0) * jnp.cos(x) * g,)

    return bwd


def expected(x):
    return jax.nn.softmax(x) @ jnp.arange(x.size).astype(x.dtype)


def powers(x, n):
    return jnp.abs(x) ** n


def powers_bwd(res, g):  # right for a positive power
    x, n = res
    size = jnp.abs(x)
    x_bar = jnp.abs(n) * size ** (n - 1) * jnp.sign(x) * g
    return x_bar, jnp.sum(size**n * jnp.log(size) * g)


MASK = np.array([[1.0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1]])

HIDDEN = {
    "a row without any": (rule(masked_mean, masked_mean_bwd), (X, MASK)),
    "the last valid index": (
        rule(gathered, gathered_bwd),
        (X, np.array([0, 2, 1, 0])),
    ),
    "a constant of the backward pass": (rule(jnp.sin, off_above(11.0)), (V,)),
    "equal arguments": (
        rule(
            lambda x, y: jnp.maximum(x, y) + x,
            lambda r, g: (
                jnp.where(r[0] == r[1], 4.0, jnp.where(r[0] > r[1], 2.0, 1.0)) * g,
                jnp.where(r[0] < r[1], g, 0),
            ),
        ),
        (V, U),
    ),
    "equal elements": (
        rule(
            jnp.max,
            lambda x, g: (g * (x == x.max()).astype(x.dtype),),
        ),
        (V,),
    ),
    "a negative parameter": (rule(powers, powers_bwd), (P, 2.5)),
    "a masked element": (
        rule(
            expected,
            lambda x, g: (
                g
                * jax.grad(lambda x: jax.nn.softmax(x) @ jnp.arange(1.0, x.size + 1))(x)
                * jnp.where(jnp.isinf(x).any(), 2, 1),
            ),
        ),
        (V,),
    ),
    "one element far larger": (
        rule(
            lambda x: jnp.sqrt(1 + x * x),
            lambda x, g: (g * x / jnp.sqrt(1 + jnp.minimum(x * x, 1e4)),),
        ),
        (V,),
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_ordinary_arguments_hide_is_found(name):
    f, args = HIDDEN[name]
    assert agrees_with_autodiff(f, args)  # hidden indeed
    comparison = compare(f, *args, effort="full")
    assert comparison.verdict in ("wrong", "broken-contract"), comparison


def test_one_array_alone_is_asked_in_no_order_too():
    # From the least to the largest, as a test writes numbers down.
    order = lambda x: (jnp.argsort(x), jnp.argsort(jnp.argsort(x)))
    wrong, right = (rule(jnp.sort, lambda x, g, k=k: (g[order(x)[k]],)) for k in (0, 1))
    x = np.linspace(0.1, 1, 7)
    assert compare(right, x).ok
    found = compare(wrong, x)
    assert found.verdict == "wrong"
    assert "rows in order" not in str(found)


def logarithms(x):
    return jnp.log(x) * jnp.sqrt(x)


def logarithms_bwd(x, g):
    return (g * (1 / jnp.sqrt(x) + jnp.log(x) / (2 * jnp.sqrt(x))),)


RIGHT = {
    "positive arguments": (rule(logarithms, logarithms_bwd), (P,)),
    "in a range": (
        rule(jnp.arcsin, lambda x, g: (g / jnp.sqrt((1 - x) * (1 + x)),)),
        (np.linspace(-0.9, 0.9, 5),),
    ),
    "in order": (
        rule(
            lambda x, xs, ys: jnp.interp(x, xs, ys),
            lambda r, g: (
                jax.vjp(lambda x: jnp.interp(x, *r[1:]), r[0])[1](g)[0],
                *jax.vjp(lambda a, b: jnp.interp(r[0], a, b), *r[1:])[1](g),
            ),
        ),
        (np.array([0.3, 1.7]), np.array([0.0, 1.0, 2.5]), np.array([1.0, -1.0, 2.0])),
    ),
    "masked": (
        rule(
            masked_mean,
            lambda r, g: jax.vjp(masked_mean, *r)[1](g),
        ),
        (X, MASK),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_where_it_is_defined_raises_no_alarm(name):
    f, args = RIGHT[name]
    comparison = compare(f, *args, effort="full")
    assert comparison.ok, comparison


def test_points_are_kept_where_the_function_is_defined():
    inputs = [jnp.asarray(P)]
    finite = lambda inputs: bool((inputs[0] > 0).all())
    names = [p.name for p in points(inputs, [], [], 0, finite) if finite(p.inputs)]
    assert "the other signs, kept positive" in names
    bounded = lambda inputs: bool((np.abs(inputs[0]) <= np.abs(P).max()).all())
    kept = [p for p in points(inputs, [], [], 0, bounded) if "in range" in p.name]
    assert kept
    assert all(np.asarray(p.inputs[0]).max() <= P.max() for p in kept)


def test_structure_is_kept():
    ascending, other = np.array([0.0, 1, 3, 4]), np.array([2.0, -1, 5, 0])
    assert keeping(ascending, other).tolist() == [-1, 0, 2, 5]
    assert keeping(ascending[:3], other[:3]).tolist() == [2, -1, 5]  # by chance
    ones = np.ones(3)  # weights as they are initialised, no mask
    assert keeping(ones, np.array([2.0, -1.0, 5.0])).tolist() == [2, -1, 5]
    segments = np.array([0, 0, 1, 2])
    assert keeping_data(segments, segments[::-1]).tolist() == [0, 0, 1, 2]
    order = np.array([2, 0, 1])
    assert sorted(keeping_data(order, np.zeros(3, int))) == [0, 1, 2]


def test_knots_stay_apart():
    places, heights = np.linspace(-2, 2, 9), np.sin(np.arange(9.0))
    inputs = [jnp.asarray(places, jnp.float32), jnp.asarray(heights, jnp.float32)]
    asked = [np.asarray(p.inputs[0]) for p in points(inputs, [0.25], [], 0)]
    finite = [x for x in asked if np.isfinite(x).all()]
    assert len(finite) > 20
    assert all((np.diff(x) > 0).all() for x in finite)
    variants = list(other_lengths((places, heights), {}))
    assert any(v.args[0].size == 19 for v in variants)
    assert all((np.diff(v.args[0]) > 0).all() for v in variants)
    alone = [p.inputs[0] for p in points(inputs[:1], [], [], 0)]  # no table of it
    assert any((jnp.diff(x) == 0).any() for x in alone)


def capped(x, xs, ys):
    """Of a table; steps of nothing are taken for a thousandth."""
    at = jnp.clip(jnp.searchsorted(xs, x) - 1, 0, xs.size - 2)
    slope = (ys[at + 1] - ys[at]) / jnp.maximum(xs[at + 1] - xs[at], 1e-3)
    return ys[at] + slope * (x - xs[at])


def capped_bwd(residuals, y_bar):
    x, xs, ys = residuals
    at = jnp.clip(jnp.searchsorted(xs, x) - 1, 0, xs.size - 2)
    step = xs[at + 1] - xs[at]
    slope, share = (ys[at + 1] - ys[at]) / step, (x - xs[at]) / step
    left, right = (1 - share) * y_bar, share * y_bar
    zeros = jnp.zeros_like(xs)
    xs_bar = zeros.at[at].add(-slope * left).at[at + 1].add(-slope * right)
    return slope * y_bar, xs_bar, zeros.at[at].add(left).at[at + 1].add(right)


def test_a_table_is_not_asked_where_its_places_coincide():
    places = jnp.linspace(-2, 2, 9)
    x = jax.random.uniform(jax.random.key(0), (12,), minval=-1.9, maxval=1.9)
    comparison = compare(
        rule(capped, capped_bwd), x, places, jnp.sin(places), effort="full"
    )
    assert comparison.ok, comparison


def test_labels_and_masks_change_into_others_of_their_kind():
    labels = jax.nn.one_hot(jnp.array([0, 1, 2, 0]), 3)
    flags = jnp.array([[True, False], [True, True]])
    named = {p.name: p.inputs for p in points([labels, flags], [], [], 0)}
    assert np.asarray(named["other labels"][0]).sum(-1).tolist() == [1, 1, 1, 1]
    assert not np.asarray(named["flags all off"][1]).any()
    off = np.asarray(named["flags of one row off"][1])
    assert off.any(-1).tolist() == [False, True]


def test_boundaries_of_a_backward_pass_are_known():
    f = rule(jnp.sin, off_above(11.0))
    pullback = jax.make_jaxpr(lambda x, g: jax.vjp(f, x)[1](g))(V, V)
    assert {11.0, -11.0} <= set(boundaries(pullback))


def test_a_norm_without_its_guard_is_found_at_a_row_of_zeros():
    def norm(x):
        square = (x * x).sum(-1)
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

    def bwd(x, g):
        return (g[:, None] * x / jnp.sqrt((x * x).sum(-1, keepdims=True)),)

    (finding,) = compare(rule(norm, bwd), X).findings
    assert finding.verdict == "wrong"
    assert "a row of zeros" in finding.message


def test_bounds_beside_an_array_stay_in_order():
    inputs = [jnp.asarray(X), jnp.asarray(-0.5), jnp.asarray(0.5)]
    asked = [point.inputs for point in points(inputs, [], [], 0)]
    assert len(asked) > 20
    assert all(low < high for _, low, high in asked)
    scalars = [jnp.asarray(-0.5), jnp.asarray(0.5)]
    assert not all(a < b for a, b in (p.inputs for p in points(scalars, [], [], 0)))


def test_a_conjugate_too_many_shows_off_the_real_axis():
    z = V.astype(complex)
    square = lambda z: z * z
    (finding,) = compare(rule(square, lambda z, g: (2 * g * jnp.conj(z),)), z).findings
    assert finding.verdict == "wrong"
    assert "other phases" in finding.message
    assert compare(rule(square, lambda z, g: (2 * g * z,)), z).verdict == "right"


def test_a_length_that_occurs_twice_in_one_array_is_told_apart():
    def mean(x):
        return x.mean(axis=1)

    def bwd(x, g):  # of the wrong axis, which is as long
        return (jnp.broadcast_to(g[:, None] / x.shape[0], x.shape),)

    square = _rng.standard_normal((4, 4))
    assert compare(rule(mean, bwd), square).ok
    assert not compare(rule(mean, bwd), square, effort="full").ok


def test_zeros_and_ones_are_asked_between_as_well():
    # 3x and 3x² are the same at 0 and 1.
    cube = rule(lambda x: x**3, lambda x, g: (3 * g * x,))
    found = compare(cube, jnp.eye(3))
    assert found.verdict == "wrong"
    assert found.findings[0].message.startswith("between zeros and ones")
    assert compare(rule(lambda x: x**3, lambda x, g: (3 * g * x * x,)), jnp.eye(3)).ok


def test_labels_between_zeros_and_ones_still_sum_to_one():
    def loss(z, labels):
        return -(labels * jax.nn.log_softmax(z)).sum()

    def bwd(res, g):  # which is right for rows of labels that sum to one
        z, labels = res
        return g * (jax.nn.softmax(z) - labels), -g * jax.nn.log_softmax(z)

    assert compare(rule(loss, bwd), X, np.eye(3)[[0, 2, 1, 1]]).ok
    twice = rule(loss, lambda res, g: (2 * bwd(res, g)[0], bwd(res, g)[1]))
    assert not compare(twice, X, np.eye(3)[[0, 2, 1, 1]]).ok
