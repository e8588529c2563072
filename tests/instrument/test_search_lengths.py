"""effort="full": at other lengths of axes no right rule fails."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_written import rule

from jaxbp import audit, compare, ops
from jaxbp.instrument._boundaries import lengths
from jaxbp.instrument._variants import other_lengths

X = jax.random.normal(jax.random.key(0), (4, 3))


def test_an_axis_of_one_that_only_fits_by_broadcasting_is_not_asked():
    # A filter for the real spectrum of 14 numbers; of one it would be broadcast.
    def f(x, h):
        return jnp.fft.irfft(jnp.fft.rfft(x) * jax.lax.complex(h, 0 * h), n=len(x))

    def bwd(res, g):
        x, h = res
        n = x.shape[0]
        weights = jnp.where(
            (jnp.arange(h.size) == 0) | (2 * jnp.arange(h.size) == n), 1, 2
        )
        spectra = jnp.fft.rfft(x) * jnp.conj(jnp.fft.rfft(g))
        return f(g, h), weights.astype(h.dtype) * jnp.real(spectra) / n

    filtered = rule(f, bwd)
    rng = np.random.default_rng(0)
    comparison = compare(
        filtered, rng.standard_normal(14), rng.random(8), effort="full"
    )
    assert comparison.ok, comparison


def test_a_fixed_point_is_not_asked_of_a_larger_matrix_that_has_none():
    # Repeated to 7 × 7, a contraction of 3 × 3 doubles what it should halve.
    def iterated(w, x):
        def moved(state):
            z, _ = state
            return jnp.tanh(w @ z + x), z

        def apart(state):
            return jnp.abs(state[0] - state[1]).max() > 1e-15

        start = jnp.tanh(x), jnp.zeros_like(x)
        counted = lambda s: (moved(s[0]), s[1] + 1)
        (z, _), _ = jax.lax.while_loop(
            lambda s: apart(s[0]) & (s[1] < 200), counted, (start, 0)
        )
        return z

    def bwd(res, g):
        w, x = res
        z = iterated(w, x)
        slope = 1 - jnp.tanh(w @ z + x) ** 2
        u = slope * jnp.linalg.solve(jnp.eye(len(x)) - (slope[:, None] * w).T, g)
        return jnp.outer(u, z), u

    rng = np.random.default_rng(0)
    w, x = rng.uniform(-0.3, -0.2, (3, 3)), rng.standard_normal(3)
    comparison = compare(rule(iterated, bwd), w, x, effort="full")
    assert comparison.ok, comparison


def test_labels_and_probabilities_stay_so_at_other_lengths_and_in_float64():
    def loss(z, labels):
        return -(labels * jax.nn.log_softmax(z)).sum()

    def bwd(res, y_bar):  # right for rows that sum to one
        z, labels = res
        return y_bar * (jax.nn.softmax(z) - labels), -y_bar * jax.nn.log_softmax(z)

    z = jax.random.normal(jax.random.key(0), (4, 10), jnp.float32)
    soft = jax.nn.softmax(2 * z[::-1]).astype(jnp.float32)
    assert not (np.asarray(soft, np.float64).sum(-1) == 1).all()
    for labels in (jax.nn.one_hot(jnp.array([1, 0, 9, 9]), 10, dtype="f4"), soft):
        for ask in (functools.partial(compare, effort="full"), audit):
            assert ask(rule(loss, bwd), z, labels).ok
            doubled = rule(loss, lambda r, g: (2 * bwd(r, g)[0], bwd(r, g)[1]))
            assert not ask(doubled, z, labels).ok


@pytest.mark.parametrize("effort", ["quick", "full"])
def test_an_empty_batch_is_held_against_no_rule(effort):
    # With no value to be finite, a negative variance is no variance all the same.
    args = jnp.zeros((0, 3)), jnp.ones(3), jnp.zeros(3), jnp.ones(3), jnp.zeros(3)
    comparison = compare(ops.batch_norm_inference, *args, effort=effort)
    assert {f.verdict for f in comparison.findings} == {"unproven"}, comparison
    assert "rows that sum to one" not in comparison.note


def turned(v):
    """Vectors of three components, whose own length nothing asks for."""
    return v * jnp.linalg.norm(v, axis=-1, keepdims=True)


def turned_bwd(v, g):
    size = jnp.linalg.norm(v, axis=-1, keepdims=True)
    outer = jnp.einsum("...i,...j->...ij", v, v) / size[..., None]
    jacobian = size[..., None] * jnp.eye(3) + outer
    return (jnp.einsum("...i,...ij->...j", g, jacobian),)


def test_components_of_a_vector_are_no_length_to_run_at():
    v = jax.random.normal(jax.random.key(1), (5, 3))
    assert compare(rule(turned, turned_bwd), v, effort="full").ok
    assert compare(rule(turned, turned_bwd), v[0], effort="full").ok


def by_rows(values, columns, starts, x):
    """A sparse matrix times a vector."""
    row = jnp.searchsorted(starts, jnp.arange(values.size), side="right") - 1
    return jax.ops.segment_sum(values * x[columns], row, starts.size - 1)


def by_rows_bwd(residuals, y_bar):
    values, columns, starts, x = residuals
    rows = jnp.repeat(y_bar, jnp.diff(starts), total_repeat_length=values.size)
    x_bar = jnp.zeros_like(x).at[columns].add(values * rows)
    return rows * x[columns], None, None, x_bar


def test_where_rows_begin_is_not_changed():
    values, x = X.ravel()[:7], X.ravel()[7:]
    columns, starts = jnp.array([0, 2, 2, 1, 4, 3, 0]), jnp.array([0, 2, 2, 5, 7])
    args = values, columns, starts, x
    for effort in ("quick", "full"):
        comparison = compare(rule(by_rows, by_rows_bwd), *args, effort=effort)
        assert comparison.ok, comparison


def attended(x, counts):
    """The mean of exp over the first `counts` rows, by the plain formula."""
    seen = jnp.arange(len(x)) < counts[:, None]
    weights = jax.nn.softmax(jnp.where(seen, x, -1e30))
    return (weights * jnp.exp(x)).sum(-1)


def test_a_length_of_none_is_not_asked_where_there_was_none():
    def bwd(res, g):
        x, counts = res
        seen = jnp.arange(len(x)) < counts[:, None]
        # Of no row there is no mean, but that of all of them by the plain formula.
        weights = jnp.where(seen, jax.nn.softmax(jnp.where(seen, x, -jnp.inf)), 0)
        y = jnp.exp(x)
        mean = (weights * y).sum(-1, keepdims=True)
        bars = g[:, None] * weights * (2 * y - mean)
        return bars.sum(0), None

    f, x = rule(attended, bwd), jnp.asarray([0.3, -0.5, 0.9, 0.1])
    counts = jnp.array([2, 4, 3])
    assert lengths(jax.make_jaxpr(attended)(x, counts)) == {1}
    assert compare(f, x, counts, effort="full").ok
    # Where there was one, it is.
    assert not compare(f, x, jnp.array([2, 0, 3])).ok


def test_a_length_is_not_marked_with_none_either():
    # A first step is made whatever the length is: of none the rule knows nothing.
    def primal(x, length):
        steps = jnp.arange(1, x.size)
        return jnp.sin(x[0]) + jnp.where(steps < length, jnp.sin(x[1:]), 0.0).sum()

    def bwd(least):
        def bwd(res, g):
            x, length = res
            live = jnp.arange(x.size) < jnp.where(length == 0, least, length)
            return jnp.where(live, g * jnp.cos(x), 0.0), None

        return bwd

    x = jnp.linspace(0.1, 1.0, 5)
    assert compare(rule(primal, bwd(0)), x, jnp.array(4)).ok
    assert not compare(rule(primal, bwd(0)), x, jnp.array(0)).ok
    assert compare(rule(primal, bwd(1)), x, jnp.array(0)).ok


def test_which_integers_are_lengths():
    t, x = jnp.arange(5), jnp.ones(5)
    last = lambda n: jnp.where(t[:, None] <= n - 1, x[:, None], 0)
    turns = lambda n: jax.lax.fori_loop(0, n, lambda _, y: y * 2, 1.0)
    taken = lambda n: x[n] + x.at[n].add(1.0, mode="drop").sum()
    labels = lambda n: jax.nn.one_hot(n, 5) @ x
    n = jnp.array([1, 4])
    found = [lengths(jax.make_jaxpr(f)(n)) for f in (last, taken, labels)]
    assert found == [{0}, set(), set()]
    assert lengths(jax.make_jaxpr(turns)(3)) == {0}


def test_at_another_length_a_length_goes_up_to_it():
    args = jnp.arange(5.0), jnp.array([5, 3, 1])
    (shorter,) = (
        v for v in other_lengths(args, {}, [1]) if v.name == "axes of 5 made 1"
    )
    assert np.array_equal(shorter.args[1], [1, 1, 1])


@pytest.mark.parametrize(
    "backward",
    [
        lambda p, g: (g[jnp.argsort(p)], None),
        lambda p, g: (jnp.zeros_like(g).at[p].set(g), None),
    ],
    ids=["argsort", "set"],
)
def test_a_permutation_stays_one_at_every_length(backward):
    permuted = jax.custom_vjp(lambda x, p: x[p])
    permuted.defvjp(lambda x, p: (x[p], p), backward)
    x = jax.random.normal(jax.random.key(0), (5, 3))
    assert compare(permuted, x, np.array([3, 0, 4, 1, 2]), effort="full").ok
    # Of four rows one is asked for twice: these are indices as any others. And so are
    # positions, from 0 up in order.
    for places in ([3, 0, 4, 1, 1], [0, 1, 2, 3, 4]):
        found = compare(permuted, x, np.array(places), effort="full")
        assert found.verdict == "wrong"


def curvature(last):
    """The second difference, mirrored at the ends: it means two numbers or more."""

    def primal(x):
        padded = jnp.concatenate([x[1][None], x, x[-2][None]])
        return padded[2:] - 2 * x + padded[:-2]

    def bwd(_, g):
        padded = jnp.pad(g, 1)
        inside = padded[2:] - 2 * g + padded[:-2]
        return (inside.at[1].add(g[0]).at[last].add(g[-1]),)

    return rule(primal, bwd)


def test_where_an_index_leaves_the_array_no_rule_is_held():
    x = jnp.array([0.2, 1.0, -0.4, 0.7, 0.1])
    assert compare(curvature(last=-2), x, effort="full").ok
    # Where it does not, it is: the last but one is the fourth of five alone.
    assert not compare(curvature(last=3), x, effort="full").ok


def test_nor_where_its_cotangent_does_not_fit_then():
    """Of a pair: an axis of 1 has no second element, and JAX takes the first."""

    def primal(pair, x):
        return pair[1] * jnp.tanh(pair[0] * x)

    def bwd(res, g):
        pair, x = res
        y = jnp.tanh(pair[0] * x)
        a_bar = g * pair[1] * (1 - y * y)
        pair_bar = jnp.stack([(a_bar * x).sum(0), (g * y).sum(0)])
        return pair_bar, a_bar * pair[0]

    pair = jax.random.normal(jax.random.key(1), (2, 3), X.dtype)
    found = compare(rule(primal, bwd), pair, X, effort="full")
    assert found.ok, found


def _polar(part):
    """The nearest matrix with orthonormal columns, of independent columns."""

    def primal(a):
        u, _, vt = jnp.linalg.svd(a, full_matrices=False)
        return u @ vt

    def bwd(a, g):
        u, s, vt = jnp.linalg.svd(a, full_matrices=False)
        w = u.T @ g @ vt.T
        inside = u @ ((w - w.T) / (s[:, None] + s)) @ vt
        return (inside + part * (g - u @ (u.T @ g)) @ (vt.T / s) @ vt,)

    return rule(primal, bwd)


def test_a_tall_matrix_that_is_factored_stays_tall():
    a = jax.random.normal(jax.random.key(2), (5, 3))
    found = compare(_polar(1.0), a, effort="full")
    assert found.ok, found
    assert not compare(_polar(0.9), a).ok


@pytest.mark.slow
def test_a_solver_that_runs_out_of_rounds_at_other_lengths_is_not_asked_there():
    def solved(a, b):
        def moved(state):
            x, _, k = state
            return a @ x + b, x, k + 1

        def apart(state):
            x, before, k = state
            return (jnp.abs(x - before).max() > 1e-15) & (k < 100)

        return jax.lax.while_loop(apart, moved, (b, 0 * b, 0))[0]

    def bwd(sign):
        def bwd(res, g):
            a, x = res
            x_bar = jnp.linalg.solve(jnp.eye(len(x)) - a.T, g)
            return sign * jnp.outer(x_bar, x), x_bar

        return bwd

    def of(sign):
        fwd = lambda a, b: (solved(a, b), (a, solved(a, b)))
        return rule(solved, bwd(sign), fwd)

    # Of the first number alone there is no limit.
    a, b = jnp.array([[1.0, -0.6], [0.3, 0.2]]), jnp.array([1.0, 2.0])
    assert compare(of(1), a, b, effort="full").ok
    assert compare(of(-1), a, b).verdict == "wrong"


def test_arrays_of_jax_stay_arrays_of_jax():
    # NumPy raises where JAX clamps an index, and has no `.at`.
    args = jnp.ones((4, 3)), jnp.array([0, 3]), np.array([0, 3])
    kinds = {tuple(map(type, variant.args)) for variant in other_lengths(args, {})}
    assert kinds == {tuple(map(type, args))}
