"""Pooling: ties, infinities and NaN, edges, and what is kept of a window."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops.catalogue import CASES

POOLS = {c.name: c for c in CASES if c.op in (ops.max_pool2d, ops.avg_pool2d)}
THREE = functools.partial(ops.max_pool2d, window=3, stride=2, padding="SAME")


def _normal(shape, seed=0, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def _pull(f, x, y_bar=None):
    """In one program: equation by equation JAX would compile as many."""

    def pull(x, y_bar):
        y, back = jax.vjp(f, x)
        return y, back(jnp.ones_like(y) if y_bar is None else y_bar)[0]

    return jax.jit(pull)(x, y_bar)


def _one_by_one(x, window, stride, same, y_bar):
    """Maxima and their cotangents by a loop over windows, in NumPy; a (h, w) image."""
    y, x_bar = np.zeros(y_bar.shape), np.zeros(x.shape)
    rest = (np.array(y.shape) - 1) * stride + window - x.shape
    low = np.maximum(0, rest) // 2 if same else np.zeros(2, int)
    for at in np.ndindex(y.shape):
        cells = [
            tuple(np.array(at) * stride - low + k) for k in np.ndindex(window, window)
        ]
        cells = [c for c in cells if min(c) >= 0 and (np.array(c) < x.shape).all()]
        nan = [c for c in cells if np.isnan(x[c])]
        winner = nan[0] if nan else max(cells, key=lambda c: x[c])  # first of equals
        y[at] = x[winner]
        x_bar[winner] += y_bar[at]
    return y, x_bar


@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [(2, 2, "VALID"), (3, 2, "SAME"), (1, 3, "VALID"), (5, 1, "SAME")],
)
def test_the_first_of_the_highest_gets_it_all(window, stride, padding):
    rng = np.random.default_rng(0)
    values = [0.0, -0.0, 1.0, 2.0, -np.inf, np.inf, np.nan]
    x = rng.choice(values, (9, 8), p=[0.1, 0.1, 0.1, 0.1, 0.5, 0.05, 0.05])
    f = functools.partial(ops.max_pool2d, window=window, stride=stride, padding=padding)
    image = jnp.asarray(x)[..., None]
    y_bar = rng.standard_normal(jax.eval_shape(f, image).shape)
    y, x_bar = _pull(f, image, jnp.asarray(y_bar))
    expected = _one_by_one(x, window, stride, padding == "SAME", y_bar[..., 0])
    np.testing.assert_array_equal(y[..., 0], expected[0])
    # At most 25 windows' cotangents in a sum.
    np.testing.assert_allclose(x_bar[..., 0], expected[1], rtol=0, atol=1e-14)


def test_padding_never_wins():
    y, x_bar = _pull(THREE, jnp.full((3, 3, 1), -jnp.inf))
    assert (y == -jnp.inf).all()
    # Windows begin at -1 and 1; the first real element of each is at 0 and 1.
    np.testing.assert_array_equal(x_bar[..., 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_the_first_nan_of_a_window_is_its_value_and_gets_its_cotangent():
    x = jnp.array([[1.0, jnp.nan, 3.0, 9.0], [jnp.nan, 2.0, 0.0, -1.0]])[..., None]
    y, x_bar = _pull(ops.max_pool2d, x)
    assert np.isnan(y[0, 0, 0])
    np.testing.assert_array_equal(x_bar[..., 0], [[0, 1, 0, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("side", "dtype"), [(1, "uint8"), (16, "uint8"), (17, "uint16"), (257, "uint32")]
)
def test_the_whole_image_is_a_window_and_the_index_as_wide_as_it_needs(side, dtype):
    x = jnp.zeros((side, side, 1)).at[-1, -1].set(1)
    y, res = jax.jit(
        functools.partial(
            ops.max_pool2d_fwd, window=(side, side), stride=None, padding="VALID"
        )
    )(x)
    assert res[0].dtype == dtype
    assert y.shape == (1, 1, 1)
    assert int(res[0][0, 0, 0]) == side**2 - 1
    (x_bar,) = ops.max_pool2d_bwd(side, None, "VALID", res, 2 * y)
    assert x_bar[-1, -1, 0] == 2
    assert x_bar.sum() == 2


def test_of_an_average_the_padding_counts_or_does_not():
    x = jnp.ones((3, 3, 1))
    pool = functools.partial(ops.avg_pool2d, window=3, stride=1, padding="SAME")
    y, x_bar = _pull(pool, x)
    np.testing.assert_allclose(y[..., 0] * 9, [[4, 6, 4], [6, 9, 6], [4, 6, 4]], 1e-15)
    # The windows that hold an element, each a ninth: fewer than 10 roundings.
    np.testing.assert_allclose(x_bar, y, rtol=2e-15)
    y, x_bar = _pull(functools.partial(pool, count_include_pad=False), x)
    np.testing.assert_allclose(y, 1.0, rtol=2e-15)
    corner = 1 / 4 + 2 / 6 + 1 / 9
    assert abs(x_bar[0, 0, 0] - corner) <= 2e-15


@pytest.mark.parametrize("size", [(4, 4), (7, 5)])
def test_a_mean_over_the_whole_image(size):
    x = _normal((2, *size, 3))
    y, x_bar = _pull(functools.partial(ops.avg_pool2d, window=size), x)
    # 35 terms in another order.
    np.testing.assert_allclose(y[:, 0, 0], x.mean((1, 2)), rtol=0, atol=35 * 2.3e-16)
    np.testing.assert_allclose(x_bar, 1 / (size[0] * size[1]), rtol=1e-15)


def _temporary(f, x):
    x = jax.ShapeDtypeStruct(x, jnp.float32)

    def step(x, y_bar):
        y, back = jax.vjp(f, x)
        return y, back(y_bar)

    compiled = jax.jit(step).lower(x, jax.eval_shape(f, x)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("max_pool2d, 2×2", 0.02),
        ("max_pool2d, 3×3/2", 0.08),
        ("avg_pool2d, 2×2", 0.01),
        ("avg_pool2d, 3×3/2", 1.1),
    ],
)
@pytest.mark.optimised
def test_temporary_memory_beside_autodiff(name, most):
    case, shape = POOLS[name], (8, 112, 112, 64)
    assert _temporary(case.function, shape) <= most * _temporary(case.plain, shape)


def test_a_byte_a_window_is_kept():
    x = jax.ShapeDtypeStruct((8, 112, 112, 64), jnp.float32)
    pull = jax.eval_shape(lambda x: jax.vjp(THREE, x)[1], x)
    kept = sum(r.size * r.dtype.itemsize for r in jax.tree.leaves(pull))
    assert kept == 8 * 56 * 56 * 64
    pull = jax.eval_shape(lambda x: jax.vjp(ops.avg_pool2d, x)[1], x)
    assert sum(r.size for r in jax.tree.leaves(pull)) == 0


@pytest.mark.parametrize("name", ["max_pool2d, 3×3/2", "avg_pool2d, 3×3/2"])
def test_it_can_be_differentiated_again(name):
    case = POOLS[name]
    x = _normal((5, 4, 2))

    def twice(f):
        bend = lambda x: jnp.sin(f(jnp.sin(x))).sum()
        return jax.grad(lambda x: jnp.square(jax.grad(bend)(x)).sum())(x)

    of = [twice(f) for f in (case.function, case.plain)]
    # A dozen roundings of numbers below 10.
    np.testing.assert_allclose(*of, rtol=0, atol=12 * 10 * 2.3e-16)


def _faulty(bwd, **options):
    @jax.custom_vjp
    def faulty(x):
        return ops.max_pool2d(x, **options)

    def fwd(x):
        return faulty(x), x

    faulty.defvjp(fwd, lambda x, y_bar: (bwd(x, y_bar),))
    return faulty


def _numbered_by_columns(x, y_bar):
    _, (winner, empty) = ops.max_pool2d_fwd(x, 2, None, "VALID")
    turned = winner % 2 * 2 + winner // 2
    return ops.max_pool2d_bwd(2, None, "VALID", (turned, empty), y_bar)[0]


def test_a_rule_that_takes_rows_for_columns_is_reported():
    comparison = compare(_faulty(_numbered_by_columns), _normal((4, 6, 2)))
    assert comparison.findings[0].verdict == "wrong", comparison


def _later_windows_overwrite(x, y_bar):
    _, (winner, _) = ops.max_pool2d_fwd(x, 2, 1, "VALID")
    x_bar = jnp.zeros_like(x)
    for p, q in np.ndindex(winner.shape[:2]):
        k = winner[p, q, 0]
        x_bar = x_bar.at[p + k // 2, q + k % 2, 0].set(y_bar[p, q, 0])
    return x_bar


def test_a_rule_that_overwrites_where_windows_overlap_is_reported():
    x = jnp.array([[0.0, 1.0, 0.5], [2.0, 7.0, 3.0], [0.1, 0.2, 0.3]])[..., None]
    comparison = compare(_faulty(_later_windows_overwrite, window=2, stride=1), x)
    assert comparison.findings[0].verdict == "wrong", comparison
    assert comparison.findings[0].worst.index == (1, 1, 0)


@pytest.mark.parametrize(
    ("shape", "options", "error", "text"),
    [
        (
            (4, 4),
            {},
            ValueError,
            "expected x to be of shape (*n, h, w, c); got shape (4, 4).",
        ),
        (
            (2, 4, 1),
            {"window": 3},
            ValueError,
            "expected x to be at least 3 high; got shape (2, 4, 1): no window fits.",
        ),
        (
            (4, 4, 1),
            {"window": (2, 0)},
            ValueError,
            "expected window to be one or two of at least 1; got (2, 0).",
        ),
        (
            (4, 4, 1),
            {"stride": 1.5},
            TypeError,
            "expected stride to be an integer or two; got 1.5.",
        ),
        (
            (4, 4, 1),
            {"padding": "FULL"},
            ValueError,
            'expected padding to be "SAME" or "VALID"; got \'FULL\'.',
        ),
    ],
)
@pytest.mark.parametrize("pool", [ops.max_pool2d, ops.avg_pool2d])
def test_what_does_not_fit_is_refused(pool, shape, options, error, text):
    with pytest.raises(error) as raised:
        pool(jnp.zeros(shape), **options)
    assert str(raised.value) == f"jaxbp.{pool.__name__}: {text}"
