"""Cross-entropy of the softmax: masks, ignored rows, saturation, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops

DENSE = ops.softmax_cross_entropy
INTEGER = ops.softmax_cross_entropy_with_integer_labels
EPS = 1.2e-7  # of float32


def _both(x, classes):
    """The losses and gradients of the two forms, of one-hot labels and of classes."""
    labels = jax.nn.one_hot(classes, x.shape[-1], dtype=x.dtype)
    for loss, t in ((DENSE, labels), (INTEGER, classes)):
        value, back = jax.vjp(lambda x, loss=loss, t=t: loss(x, t), x)
        yield value, back(jnp.ones_like(value))[0]


@pytest.mark.parametrize("gap", [15.0, 30.0, 85.0])
def test_a_loss_of_nearly_nothing_is_accurate_in_float32(gap):
    # ln(1 + e^-gap) far from 0 and far from an origin that would round it off.
    x = jnp.array([[1e4 + gap, 1e4]], "float32")
    for value, bar in _both(x, jnp.array([0])):
        exact, y = np.log1p(np.exp(-gap)), 1 / (1 + np.exp(gap))
        # exp, log1p, expm1 within two ulps each; 1e4 + gap is exact for these gaps.
        assert abs(float(value[0]) / exact - 1) <= 8 * EPS
        np.testing.assert_allclose(np.float64(bar[0]), [-y, y], rtol=8 * EPS)


def test_a_great_loss_is_accurate_in_float32():
    x = jnp.array([[-1e4, 3.0, 3.0]], "float32")
    for value, bar in _both(x, jnp.array([0])):
        assert abs(float(value[0]) / (10003 + np.log(2)) - 1) <= 4 * EPS
        np.testing.assert_allclose(bar[0], [-1, 0.5, 0.5], rtol=8 * EPS)


def test_masked_classes_of_weight_0_are_absent():
    x, t = jnp.array([[0.0, -jnp.inf, 1.0]]), jnp.array([[0.25, 0.0, 0.75]])
    rest = jnp.array([0, 2])
    value, bars = jax.value_and_grad(lambda x, t: DENSE(x, t)[0], (0, 1))(x, t)
    expected, few = jax.value_and_grad(lambda x, t: DENSE(x, t)[0], (0, 1))(
        x[:, rest], t[:, rest]
    )
    assert value == expected
    for bar, expected in zip(bars, few, strict=True):
        assert bar[0, 1] == 0
        np.testing.assert_array_equal(bar[:, rest], expected)
    integer, bar = jax.value_and_grad(lambda x: INTEGER(x, jnp.array([2]))[0])(x)
    assert np.isfinite(integer)
    assert bar[0, 1] == 0
    assert np.isfinite(bar).all()


def test_a_row_of_masked_classes_and_no_weight_gives_0():
    x, t = jnp.full((1, 3), -jnp.inf), jnp.zeros((1, 3))
    value, bars = jax.value_and_grad(lambda x, t: DENSE(x, t)[0], (0, 1))(x, t)
    assert value == 0
    assert not any(bar.any() for bar in bars)


def test_ignored_rows_give_0_whatever_they_hold():
    hostile = jnp.array([[jnp.nan, jnp.inf, 0.0], [0.0, 1.0, 2.0], [-jnp.inf] * 3])
    labels = jnp.array([-100, 1, -100])
    loss = functools.partial(INTEGER, ignore_index=-100)
    value, back = jax.vjp(lambda x: loss(x, labels), hostile)
    (bar,) = back(jnp.array([0.3, -1.2, 2.0]))
    assert value[0] == value[2] == 0
    assert value[1] == INTEGER(hostile[1], labels[1])
    assert not bar[jnp.array([0, 2])].any()
    assert bar[1].all()


def test_a_class_outside_the_logits_gives_nan():
    x = jnp.zeros((3, 2))
    value, back = jax.vjp(lambda x: INTEGER(x, jnp.array([2, -1, 0])), x)
    assert np.isnan(value[:2]).all()
    assert np.isfinite(value[2])
    (bar,) = back(jnp.ones(3))
    assert np.isnan(bar[:2]).all()
    assert np.isfinite(bar[2]).all()


def test_a_mask_and_a_class_in_one():
    # The label itself masked: infinitely surprising, and every weight knows why.
    value = INTEGER(jnp.array([0.0, -jnp.inf]), jnp.array(1))
    assert value == jnp.inf


def _temp_bytes(loss, *shapes):
    def step(x, t, bar):
        y, back = jax.vjp(lambda x: loss(x, t), x)
        return y, back(bar)

    shapes = [jax.ShapeDtypeStruct(*s) for s in shapes]
    return jax.jit(step).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def _picked(x, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], axis=1)[:, 0]


def _dense(x, t):
    return -(t * jax.nn.log_softmax(x)).sum(-1)


@pytest.mark.optimised
def test_memory_beside_the_arguments_is_a_few_numbers_an_example():
    n, k = 8192, 1000
    x, bar = ((n, k), "float32"), ((n,), "float32")
    classes = (x, ((n,), "int32"), bar)
    assert _temp_bytes(INTEGER, *classes) <= 0.005 * _temp_bytes(_picked, *classes)
    dense = (x, x, bar)
    assert _temp_bytes(DENSE, *dense) <= 0.01 * _temp_bytes(_dense, *dense)
    for loss, t in ((INTEGER, jnp.zeros(n, "int32")), (DENSE, jnp.zeros((n, k)))):
        x = jax.ShapeDtypeStruct((n, k), t.dtype if loss is DENSE else "float32")
        kept = jax.eval_shape(
            lambda x, f=loss, t=t: jax.vjp(lambda x: f(x, t), x)[1], x
        )
        assert (
            sum(leaf.size for leaf in jax.tree.leaves(kept)) <= n * k + t.size + 4 * n
        )


@pytest.mark.parametrize("n", [1, 15, 16, 17, 31])
def test_every_number_of_rows_gives_the_same(n):
    # 1000 classes make blocks of 16 rows; 17 and 31 are prime and leave a rest.
    x = jax.random.normal(jax.random.key(n), (n, 1000))
    t = jax.nn.softmax(jax.random.normal(jax.random.key(0), (n, 1000)))
    # Sums of a thousand terms that add up to about 7, in another order.
    assert np.abs(DENSE(x, t) - _dense(x, t)).max() <= 1000 * 2.3e-16 * 7


def _integer(wrong):
    """The smoothed, ignoring rule with a backward pass made wrong."""
    labels, options = jnp.array([2, -1, 0, 1]), (-1, 0.2)

    @jax.custom_vjp
    def loss(x):
        return INTEGER(x, labels, ignore_index=-1, label_smoothing=0.2)

    def fwd(x):
        rule = ops.softmax_cross_entropy_with_integer_labels_fwd
        return rule(x, labels, None, *options)

    def bwd(res, bar):
        rule = ops.softmax_cross_entropy_with_integer_labels_bwd
        return (wrong(functools.partial(rule, res=res, loss_bar=bar)),)

    loss.defvjp(fwd, bwd)
    return loss


def test_wrong_rules_for_classes_are_reported():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    right = _integer(lambda rule: rule(-1, 0.2)[0])
    assert compare(right, x).ok
    wrongs = (
        lambda rule: rule(-1, 0.0)[0],  # not smoothed
        lambda rule: rule(None, 0.2)[0],  # the ignored have a gradient
    )
    for wrong in wrongs:
        comparison = compare(_integer(wrong), x)
        assert not comparison.ok
        assert comparison.findings[0].verdict == "wrong", comparison


def test_a_rule_that_takes_the_labels_to_sum_to_1_is_reported():
    @jax.custom_vjp
    def loss(x, t):
        return DENSE(x, t)

    def bwd(res, bar):
        x, t = res
        y_less_t = jax.nn.softmax(x) - t
        return y_less_t * bar[:, None], -jax.nn.log_softmax(x) * bar[:, None]

    loss.defvjp(lambda x, t: (DENSE(x, t), (x, t)), bwd)
    keys = jax.random.split(jax.random.key(0))
    x, t = (jax.random.normal(k, (4, 3)) for k in keys)
    comparison = compare(loss, x, t)
    bad = {f.argument for f in comparison.findings if f.verdict == "wrong"}
    assert bad == {"[0]"}


def test_classes_given_to_the_dense_form_are_told_where_to_go():
    with pytest.raises(ValueError, match="weights of the classes") as raised:
        DENSE(jnp.zeros((4, 3)), jnp.array([0, 1, 2, 0], "int32"))
    assert str(raised.value) == (
        "jaxbp.softmax_cross_entropy: expected labels to be weights of the classes, of "
        "the logits' shape (4, 3); got int32 (4,): for integer classes use "
        "softmax_cross_entropy_with_integer_labels."
    )


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (
            (np.zeros((4, 3)), np.zeros((4, 3))),
            {},
            TypeError,
            "expected labels to be classes, as integers; got float64 (4, 3): for "
            "weights of the classes use softmax_cross_entropy.",
        ),
        (
            (np.zeros((4, 3)), np.zeros(3, np.int32)),
            {},
            ValueError,
            "expected logits (*n, k), labels (*n); got logits (4, 3), labels (3,): "
            "logits's leading axes are (4,), labels's are (3,).",
        ),
        (
            (np.zeros((4, 0)), np.zeros(4, np.int32)),
            {},
            ValueError,
            "expected logits to be of one class at least; got shape (4, 0).",
        ),
        (
            (np.zeros((4, 3)), np.zeros(4, np.int32)),
            {"label_smoothing": 1.5},
            ValueError,
            "expected label_smoothing to be in [0, 1]; got 1.5.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options, error, text):
    with pytest.raises(error) as raised:
        INTEGER(*arguments, **options)
    name = "jaxbp.softmax_cross_entropy_with_integer_labels"
    assert str(raised.value) == f"{name}: {text}"
