"""The fused loss: what it keeps, where it saturates, which examples count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops

LABELS = jnp.array([2, 0, 3, 1, 3], "int32")


def _inputs(n=5, d=3, k=4, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0), 2)
    x, w = (
        jax.random.normal(a, s, dtype)
        for a, s in zip(keys, [(n, d), (d, k)], strict=True)
    )
    return x, w


def _plain(x, w, labels):
    logs = jax.nn.log_softmax(x @ w)
    return -jnp.take_along_axis(logs, labels[:, None], axis=1).mean()


def _temp_bytes(loss, n, d, k):
    """Of a compiled step: value, and the gradient for a cotangent that is given."""

    def step(x, w, labels, bar):
        y, back = jax.vjp(lambda x, w: loss(x, w, labels), x, w)
        return y, back(bar)

    shapes = (
        ((n, d), "float32"),
        ((d, k), "float32"),
        ((n,), "int32"),
        ((), "float32"),
    )
    shapes = [jax.ShapeDtypeStruct(s, dtype) for s, dtype in shapes]
    return jax.jit(step).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def _residual_bytes(loss, n, d, k):
    x, w = (jax.ShapeDtypeStruct(s, "float32") for s in ((n, d), (d, k)))
    labels = jnp.zeros(n, "int32")
    kept = jax.eval_shape(
        lambda x, w: jax.vjp(lambda *a: loss(*a, labels), x, w)[1], x, w
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


@pytest.mark.optimised
def test_memory_is_a_seventh_of_autodiffs():
    size = (2048, 256, 16384)
    loss = ops.linear_softmax_cross_entropy
    assert _temp_bytes(loss, *size) <= 0.14 * _temp_bytes(_plain, *size)
    # x_bar and w_bar, and the labels and scale; the plain form keeps logits as well.
    assert _residual_bytes(loss, *size) <= 4 * (2048 * 256 + 256 * 16384 + 2048 + 2)
    assert _residual_bytes(_plain, *size) >= 4 * 2048 * 16384


@pytest.mark.optimised
def test_temporary_memory_does_not_grow_with_the_examples():
    d, k, chunk = 16, 512, 64
    loss = functools.partial(ops.linear_softmax_cross_entropy, chunk=chunk)
    few, *more = (_temp_bytes(loss, n, d, k) for n in (256, 512, 1024, 2048))
    # One chunk of logits and of their cotangents, the sum of w_bar, and, an example,
    # its row of x_bar and a few numbers: of the logits nothing.
    for n, bytes_ in zip((512, 1024, 2048), more, strict=True):
        assert bytes_ - few <= 4 * (n - 256) * (2 * d + 8)
    assert few <= 4 * (3 * chunk * k + 2 * d * k + 256 * (2 * d + 8))


def _products(f, *args):
    # Of the lowered program: a jaxpr need not show what is inside a rule's primal.
    return jax.jit(f).lower(*args).as_text().count("dot_general")


def test_a_call_that_is_not_differentiated_computes_no_gradient():
    x, w = _inputs()
    loss = lambda x, w: ops.linear_softmax_cross_entropy(x, w, LABELS)
    # The logits, and the sum of weights times losses.
    assert _products(loss, x, w) == 2
    assert _products(jax.value_and_grad(loss, argnums=(0, 1)), x, w) == 4


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 6])
def test_every_remainder_of_the_chunk_gives_the_same(chunk):
    x, w = _inputs()
    loss = functools.partial(ops.linear_softmax_cross_entropy, chunk=chunk)
    step = lambda f: jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(x, w, LABELS)
    # Sums of at most five terms of size 1, in another order.
    for a, b in zip(*map(jax.tree.leaves, (step(loss), step(_plain))), strict=True):
        assert np.abs(a - b).max() <= 20 * 2.3e-16


def test_a_vocabulary_that_fits_no_block_is_not_padded():
    # With logits all of 0 the loss is ln k: a padded class would show at once.
    x, w = jnp.zeros((3, 2)), jnp.zeros((2, 7))
    value = ops.linear_softmax_cross_entropy(x, w, jnp.array([0, 6, 3]), chunk=2)
    assert abs(value - np.log(7)) <= 4 * 2.3e-16


def test_ignored_examples_do_not_count_whatever_they_hold():
    x, w = _inputs()
    labels = LABELS.at[jnp.array([1, 4])].set(-1)
    hostile = x.at[1].set(jnp.nan).at[4].set(jnp.inf)
    loss = functools.partial(ops.linear_softmax_cross_entropy, ignore_index=-1, chunk=2)
    rest = jnp.array([0, 2, 3])
    value, (x_bar, w_bar) = jax.value_and_grad(loss, (0, 1))(hostile, w, labels)
    expected, (rest_bar, w_expected) = jax.value_and_grad(_plain, (0, 1))(
        x[rest], w, LABELS[rest]
    )
    assert abs(value - expected) <= 20 * 2.3e-16
    assert np.abs(x_bar[rest] - rest_bar).max() <= 20 * 2.3e-16
    assert np.abs(w_bar - w_expected).max() <= 20 * 2.3e-16
    assert not x_bar[jnp.array([1, 4])].any()


@pytest.mark.parametrize("weighted", [False, True])
def test_where_nothing_counts_the_mean_and_its_gradient_are_0(weighted):
    x, w = _inputs()
    ignored = jnp.full(5, 2)
    weights = jnp.zeros(5) if weighted else None
    loss = lambda x, w: ops.linear_softmax_cross_entropy(
        x, w, LABELS if weighted else ignored, None, weights, ignore_index=2
    )
    value, bars = jax.value_and_grad(loss, argnums=(0, 1))(x, w)
    assert value == 0
    assert all(not bar.any() for bar in bars)


def test_a_class_outside_the_vocabulary_gives_nan():
    x, w = _inputs()
    for wrong in (-1, 4, -100):
        labels = LABELS.at[0].set(wrong)
        assert np.isnan(ops.linear_softmax_cross_entropy(x, w, labels))
        bar = jax.grad(ops.linear_softmax_cross_entropy)(x, w, labels)
        assert np.isnan(bar[0]).all()


@pytest.mark.parametrize("gap", [20.0, 40.0, 80.0])
def test_a_loss_of_nearly_nothing_is_accurate_in_float32(gap):
    # ln(1 + e^-gap) and its slope are e^-gap to 1e-9, far below the spacing at 1.
    x, w = jnp.array([[gap + 1e4]], "float32"), jnp.array([[1.0, 0.0]], "float32")
    b = jnp.array([0.0, 1e4], "float32")
    value, x_bar = jax.value_and_grad(ops.linear_softmax_cross_entropy)(
        x, w, jnp.array([0]), b
    )
    exact = np.log1p(np.exp(-gap))
    # exp, log1p and expm1 are each off by an ulp or two, exp by gap · eps / 2 at worst
    # were its argument rounded: it is not, gap is exact.
    assert abs(float(value) / exact - 1) <= 8 * 1.2e-7
    assert abs(float(x_bar[0, 0]) / -exact - 1) <= 8 * 1.2e-7


def _twice(reduce):
    """A rule for the weighted mean whose weights' cotangent is made wrong."""

    @jax.custom_vjp
    def loss(x, w, weights):
        return ops.linear_softmax_cross_entropy(x, w, LABELS, None, weights)

    def fwd(x, w, weights):
        args = (x, w, LABELS, None, weights, "mean", None, 2)
        y, res = ops.linear_softmax_cross_entropy_fwd(*args)
        return y, (res, y, weights)

    def bwd(res, y_bar):
        res, y, weights = res
        bars = ops.linear_softmax_cross_entropy_bwd("mean", None, 2, res, y_bar)
        return reduce(bars[0], bars[1], bars[4], y, weights, y_bar)

    loss.defvjp(fwd, bwd)
    return loss


def test_wrong_rules_are_reported():
    x, w = _inputs()
    weights = jnp.array([0.5, 1.0, 2.0, 0.25, 1.5])
    right = _twice(lambda x, w, s, *_: (x, w, s))
    assert compare(right, x, w, weights).ok
    wrongs = {
        # The mean's own dependence on the weights left out.
        "[2]": lambda x, w, s, y, weights, bar: (x, w, s + bar * y / weights.sum()),
        # Divided by the number of examples, not by their weight.
        "[0]": lambda x, w, s, y, weights, bar: (x * weights.sum() / 5, w, s),
        # The cotangent that arrives is taken for 1.
        "[1]": lambda x, w, s, y, weights, bar: (x, w / bar, s),
    }
    for argument, wrong in wrongs.items():
        comparison = compare(_twice(wrong), x, w, weights)
        bad = {f.argument for f in comparison.findings if f.verdict != "right"}
        assert not comparison.ok
        assert bad == {argument}, comparison


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"labels": np.ones(5)},
            TypeError,
            "expected labels to be classes, as integers; got float64 (5,): for weights "
            "of the classes use softmax_cross_entropy.",
        ),
        (
            {"w": np.ones((2, 4))},
            ValueError,
            "expected x (*n, d), w (d, k), labels (*n); got x (5, 3), w (2, 4), "
            "labels (5,): x's last axis is 3, w's first is 2.",
        ),
        (
            {"b": np.ones(3)},
            ValueError,
            "expected x (*n, d), w (d, k), labels (*n), b (k); got x (5, 3), w (3, 4), "
            "b (3,), labels (5,): w's last axis is 4, b's last is 3.",
        ),
        (
            {"w": np.ones((3, 0))},
            ValueError,
            "expected w to be of one class at least; got shape (3, 0).",
        ),
        (
            {"reduction": "none"},
            ValueError,
            "expected reduction to be 'mean' or 'sum'; got 'none': for one loss an "
            "example use softmax_cross_entropy_with_integer_labels.",
        ),
        (
            {"chunk": 0},
            ValueError,
            "expected chunk to be an integer of 1 at least; got int 0.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, error, text):
    x, w = _inputs()
    with pytest.raises(error) as raised:
        ops.linear_softmax_cross_entropy(**{"x": x, "w": w, "labels": LABELS} | change)
    assert str(raised.value) == f"jaxbp.linear_softmax_cross_entropy: {text}"
