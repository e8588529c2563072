"""Convolutions: every option at once, planted mistakes, and the memory of a pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops import _columns, _conv, _windows
from jaxbp.ops.catalogue import CASES

CASE = {c.name: c for c in CASES if c.op in (ops.conv2d, ops.depthwise_conv2d)}
PADDINGS = ["SAME", "VALID", ((6, 5), (0, 4))]


def _normal(*shapes, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(3), len(shapes))
    pairs = zip(keys, shapes, strict=True)
    return [jax.random.normal(k, shape, dtype) for k, shape in pairs]


def _pull(f, *args):
    """In one program: equation by equation JAX would compile as many."""

    def pull(*args):
        y, back = jax.vjp(f, *args)
        return y, *back(jax.random.normal(jax.random.key(4), y.shape, y.dtype))

    return jax.jit(pull)(*args)


def _by_definition(x, w, y, x_bar, w_bar, stride, dilation, low, groups, y_bar):
    """Adds into y, x_bar and w_bar, element by element, in NumPy; one image."""
    each, out = w.shape[2], w.shape[3] // groups
    for p, q, o in np.ndindex(y.shape):
        for k, l, i in np.ndindex(w.shape[:3]):
            r = p * stride[0] + k * dilation[0] - low[0]
            c = q * stride[1] + l * dilation[1] - low[1]
            if 0 <= r < x.shape[0] and 0 <= c < x.shape[1]:
                at = r, c, o // out * each + i
                y[p, q, o] += x[at] * w[k, l, i, o]
                x_bar[at] += y_bar[p, q, o] * w[k, l, i, o]
                w_bar[k, l, i, o] += y_bar[p, q, o] * x[at]


@pytest.mark.parametrize("groups", [1, 2])
def test_value_and_cotangents_are_the_sums_of_the_definition(groups):
    stride, dilation, padding = (2, 3), (3, 1), ((1, 2), (2, 0))
    x, w = _normal((7, 8, 4), (2, 3, 4 // groups, 2))
    f = functools.partial(
        ops.conv2d, stride=stride, dilation=dilation, padding=padding, groups=groups
    )
    y, x_bar, w_bar = _pull(f, x, w)
    y_bar = np.asarray(jax.random.normal(jax.random.key(4), y.shape, y.dtype))
    expected = [np.zeros(a.shape) for a in (y, x, w)]
    arrays = np.asarray(x), np.asarray(w)
    _by_definition(*arrays, *expected, stride, dilation, (1, 2), groups, y_bar)
    for a, b in zip((y, x_bar, w_bar), expected, strict=True):
        # Sums of fewer than a hundred products, in another order.
        np.testing.assert_allclose(a, b, rtol=0, atol=100 * 2.3e-16 * np.abs(b).max())


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("name", ["conv2d", "depthwise_conv2d"])
def test_all_strides_and_dilations_meet_all_paddings(name, padding):
    """Odd sizes, windows that leave a rest, padding wider than the window."""
    plain = CASE[name].plain
    of_conv = name == "conv2d"
    x, w = _normal((2, 8, 7, 2), (3, 2, 2, 3) if of_conv else (3, 2, 2))
    rest = (None,) if of_conv else ()
    for stride, dilation in [((1, 2), (2, 3)), ((3, 1), (1, 1))]:
        options = {"stride": stride, "dilation": dilation, "padding": padding}
        hand = functools.partial(CASE[name].op, **options)
        actual = _pull(hand, x, w)
        auto = functools.partial(plain, **options)
        with_rest = lambda x, w, f=auto: f(x, w, *rest)
        expected = _pull(with_rest, x, w)
        for a, b in zip(actual, expected, strict=True):
            # Sums of fewer than a hundred products, in another order.
            assert np.abs(a - b).max() <= 100 * 2.3e-16 * np.abs(b).max()


def test_on_a_cpu_and_elsewhere_the_weights_cotangent_is_the_same(monkeypatch):
    args = _normal((5, 6, 7, 2), (3, 2, 2, 3))
    f = functools.partial(ops.conv2d, stride=(1, 2), dilation=(2, 1))
    monkeypatch.setattr(_columns, "_BLOCK", 2 * 6 * 4 * 2 * 2)  # two images and a rest
    here = _pull(f, *args)
    monkeypatch.setattr(_conv, "on_cpu", lambda: False)
    elsewhere = _pull(f, *args)
    for a, b in zip(here, elsewhere, strict=True):
        # Sums of 120 products, in another order.
        assert np.abs(a - b).max() <= 120 * 2.3e-16 * np.abs(b).max()


def test_one_number_stands_for_both_axes():
    x, w = _normal((5, 5, 1), (2, 2, 1, 1))
    one = ops.conv2d(x, w, stride=2, dilation=2)
    two = ops.conv2d(x, w, stride=(2, 2), dilation=(2, 2), padding="SAME")
    np.testing.assert_array_equal(one, two)


def test_in_bfloat16_sums_are_wide():
    x, w = (jnp.ones(s, jnp.bfloat16) for s in ((1, 40, 40, 1), (3, 3, 1, 1)))
    _, back = jax.vjp(lambda w: ops.conv2d(x, w, jnp.zeros(1, "bfloat16")), w)
    y, b_back = jax.vjp(lambda b: ops.conv2d(x, w, b), jnp.zeros(1, "bfloat16"))
    # 1,600 ones: a sum in bfloat16 stops at 256.
    (w_bar,), (b_bar,) = back(jnp.ones_like(y)), b_back(jnp.ones_like(y))
    assert w_bar[1, 1, 0, 0] == b_bar[0] == 1600
    _, back = jax.vjp(lambda w: ops.depthwise_conv2d(x, w), w[..., 0])
    assert back(jnp.ones_like(y))[0][1, 1, 0] == 1600


def test_depthwise_goes_by_blocks_of_images_and_a_rest(monkeypatch):
    monkeypatch.setattr(_windows, "_BLOCK", 2 * 4 * 5 * 3)
    x, w = _normal((5, 4, 5, 3), (3, 3, 3))
    actual, expected = (
        _pull(f, x, w) for f in (ops.depthwise_conv2d, CASE["depthwise_conv2d"].plain)
    )
    for a, b in zip(actual, expected, strict=True):
        # Sums of at most a hundred products, in another order.
        assert np.abs(a - b).max() <= 100 * 2.3e-16 * np.abs(b).max()


def _temporary(f, *shapes):
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]

    def step(args, y_bar):
        y, back = jax.vjp(f, *args)
        return y, back(y_bar)

    compiled = jax.jit(step).lower(args, jax.eval_shape(f, *args)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("name", "most", "shapes"),
    [
        ("conv2d", 1.0, [(8, 56, 56, 64), (3, 3, 64, 64), (64,)]),
        ("depthwise_conv2d", 0.3, [(8, 56, 56, 128), (3, 3, 128)]),
    ],
)
@pytest.mark.optimised
def test_temporary_memory_beside_autodiff(name, most, shapes):
    case = CASE[name]
    assert _temporary(case.function, *shapes) <= most * _temporary(case.plain, *shapes)


@pytest.mark.optimised
def test_depthwise_memory_does_not_grow_with_the_batch():
    shapes = lambda n: ((n, 56, 56, 128), (3, 3, 128))
    of = [_temporary(ops.depthwise_conv2d, *shapes(n)) for n in (8, 16)]
    assert of[1] == of[0]


@pytest.mark.parametrize("op", [ops.conv2d, ops.depthwise_conv2d])
def test_inputs_and_weights_are_kept_and_no_more(op):
    shapes = (4, 9, 9, 6), (3, 3, 6, 6) if op is ops.conv2d else (3, 3, 6)
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
    pull = jax.eval_shape(lambda x, w: jax.vjp(op, x, w)[1], x, w)
    assert sum(r.size for r in jax.tree.leaves(pull)) == x.size + w.size


def _faulty(bwd):
    @jax.custom_vjp
    def faulty(x, w):
        return ops.conv2d(x, w)

    fwd = lambda x, w: ops.conv2d_fwd(x, w, None, 1, "SAME", 1, 1)
    faulty.defvjp(fwd, lambda res, y_bar: bwd(res, y_bar))
    return faulty


def _right(x, w, y_bar):
    return ops.conv2d_bwd(1, "SAME", 1, 1, (x, w, None), y_bar)[:2]


@pytest.mark.parametrize(
    ("wrong", "leaf"),
    [
        # The filter not turned round; in and out exchanged twice; a row off.
        (lambda x, w, g: (_right(x, w[::-1, ::-1], g)[0], _right(x, w, g)[1]), 0),
        (lambda x, w, g: (_right(x, w.swapaxes(2, 3), g)[0], _right(x, w, g)[1]), 0),
        (lambda x, w, g: (_right(x, w, g)[0], _right(jnp.roll(x, 1, 1), w, g)[1]), 1),
        # The mean over images where their sum belongs.
        (lambda x, w, g: (_right(x, w, g)[0], _right(x, w, g)[1] / len(x)), 1),
    ],
    ids=["not turned", "channels not exchanged", "shifted", "mean"],
)
def test_a_wrong_rule_is_reported(wrong, leaf):
    x, w = _normal((2, 4, 3, 2), (3, 2, 2, 2))
    comparison = compare(_faulty(lambda res, g: wrong(*res[:2], g)), x, w)
    bad = [f.argument for f in comparison.findings if f.verdict == "wrong"]
    assert bad == [f"[{leaf}]"], comparison


@pytest.mark.parametrize(
    ("shapes", "options", "error", "text"),
    [
        (
            [(5, 5, 3), (3, 3, 2, 4)],
            {},
            ValueError,
            "conv2d: expected w to be of shape (k, l, 3, o): 3 channels in 1 groups; "
            "got shape (3, 3, 2, 4).",
        ),
        (
            [(5, 5, 4), (3, 3, 2, 3)],
            {"groups": 2},
            ValueError,
            "conv2d: expected groups to be an integer that divides 4 and 3 channels; "
            "got 2.",
        ),
        (
            [(5, 5, 1), (3, 3, 1, 2)],
            {"padding": ((1, 1), (0, -1))},
            ValueError,
            'conv2d: expected padding to be "SAME", "VALID" or ((top, bottom), (left, '
            "right)), none negative; got ((1, 1), (0, -1)).",
        ),
        (
            [(5, 5, 1), (3, 3, 1, 2)],
            {"padding": "VALID", "dilation": (1, 3)},
            ValueError,
            "conv2d: expected x to be at least 7 wide; got shape (5, 5, 1): no window "
            "fits.",
        ),
        (
            [(5, 5, 1), (3, 3, 1, 2), (1,)],
            {},
            ValueError,
            "conv2d: expected x (*n, h, w, i), w (k, l, i / groups, o), b (o,); got x "
            "(5, 5, 1), w (3, 3, 1, 2), b (1,): w's last axis is 2, b's last is 1.",
        ),
        (
            [(5, 5, 3), (3, 3, 2)],
            {},
            ValueError,
            "depthwise_conv2d: expected x (*n, h, w, c), w (k, l, c); got x (5, 5, 3), "
            "w (3, 3, 2): x's last axis is 3, w's last is 2.",
        ),
        (
            [(5, 5, 2), (3, 3, 2)],
            {"stride": "2"},
            TypeError,
            "depthwise_conv2d: expected stride to be an integer or two; got '2'.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(shapes, options, error, text):
    op = ops.conv2d if text.startswith("conv2d") else ops.depthwise_conv2d
    with pytest.raises(error) as raised:
        op(*map(jnp.zeros, shapes), **options)
    assert str(raised.value) == f"jaxbp.{text}"
