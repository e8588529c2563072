"""GPT: causality, labels that do not count, what is kept, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import nets
from jaxbp.nets import _plain
from tests.nets.memory import residual_bytes, shapes_of, temp_bytes
from tests.nets.networks import NETWORKS
from tests.nets.planted import evaluated, gradients

KEY = jax.random.key(0)
SIZES = {"context": 4, "width": 4, "layers": 2, "heads": 2}
NET = nets.gpt(5, **SIZES)
TOKENS = jnp.array([[1, 2, 0], [3, 3, 4]])


def test_the_loss_is_the_cross_entropy_of_the_logits():
    params, (tokens, labels) = NETWORKS["gpt, kept"].args
    net = nets.gpt(5, **SIZES, hidden=6, recompute=False)
    (logits,) = evaluated(net.forward, params, tokens)
    (loss,) = evaluated(net.loss, params, (tokens, labels))
    # A few roundings of numbers below 4.
    assert abs(loss - _plain.cross_entropy(logits, labels)) <= 20 * 2.3e-16


def test_no_step_sees_those_after_it():
    params = NET.init(KEY)
    (logits,) = evaluated(NET.forward, params, TOKENS)
    (changed,) = evaluated(NET.forward, params, TOKENS.at[:, 2].set(4))
    assert np.array_equal(logits[:, :2], changed[:, :2])
    assert (logits[:, 2] != changed[:, 2]).any()


def test_steps_of_label_minus_one_do_not_count():
    # Nor can what stands after the last one that counts.
    params = NET.init(KEY)
    labels = jnp.array([[0, 1, -1], [2, 0, -1]])
    whole = gradients(lambda p: NET.loss(p, (TOKENS, labels)), params)
    short = gradients(lambda p: NET.loss(p, (TOKENS[:, :2], labels[:, :2])), params)
    for leaf, bar in short.items():
        assert np.abs(whole[leaf] - bar).max() <= 1e-14


def test_both_settings_are_one_function_and_one_gradient():
    params, batch = NETWORKS["gpt, kept"].args
    both = [nets.gpt(5, **SIZES, hidden=6, recompute=r) for r in (True, False)]
    one, other = (gradients(lambda p, n=net: n.loss(p, batch), params) for net in both)
    assert all(np.array_equal(one[leaf], other[leaf]) for leaf in one)


def test_a_token_outside_the_vocabulary_gives_nan():
    params = NET.init(KEY)
    (logits,) = evaluated(NET.forward, params, TOKENS.at[0, 0].set(5))
    assert np.isnan(logits[0]).all()
    assert np.isfinite(logits[1]).all()


def test_init_is_gpt_2_s():
    params = jax.jit(nets.gpt(50, context=20, width=64, layers=8, heads=2).init)(KEY)
    blocks = params["blocks"]
    for name, std in (("qkv", 0.02), ("up", 0.02), ("mix", 0.005), ("down", 0.005)):
        # Of 32,768 draws at least: their deviation is within 2 % by five of its own.
        assert abs(blocks[name]["w"].std() / std - 1) <= 0.02
        assert not blocks[name]["b"].any()
    assert abs(params["head"].std() / 0.02 - 1) <= 0.07  # 3,200 draws
    assert (blocks["norm1"]["scale"] == 1).all()


def _at(layers, length, **options):
    sizes = {"context": length, "width": 64, "layers": layers, "heads": 2}
    net = nets.gpt(1024, **sizes, **options)
    return net.loss, *shapes_of(net, (2, length), (2, length))


@pytest.mark.optimised
def test_memory_beside_autodiff_of_the_plain_model():
    loss, *shapes = _at(4, 256)
    plain = functools.partial(_plain.gpt, heads=2)
    assert temp_bytes(loss, *shapes) <= 0.35 * temp_bytes(plain, *shapes)


def test_residuals_are_those_that_the_docstring_names():
    n, t, d, h, v = 2, 256, 64, 256, 1024
    of_loss = n * t * d + d * v + 1  # x_bar, w_bar and a scale
    last = n * t * (d + 2)  # the last norm's input and two numbers a row
    kept = {True: d, False: 6 * d + 4 + h}  # x, q, k, v, y, u, a; two numbers a head
    for recompute, number in kept.items():
        loss, params, batch = _at(4, t, recompute=recompute)
        at_hand = sum(p.size for p in jax.tree.leaves(params["blocks"])) + d
        most = of_loss + last + 4 * n * t * number + at_hand + n * t
        assert residual_bytes(loss, params, batch) <= 4 * (most + 8)


@pytest.mark.slow
@pytest.mark.optimised
def test_temporary_memory_is_linear_in_the_length_and_hardly_grows_with_depth():
    lengths = 256, 512, 1024, 2048
    at = [temp_bytes(*_at(2, t)) for t in lengths]
    steps = np.diff(at)
    # Equal slopes: twice the length, twice the difference.
    assert np.allclose(steps[1:], 2 * steps[:-1], rtol=0.05)
    depths = [temp_bytes(*_at(n, 256)) for n in (2, 4, 8, 16)]
    # A block's input, and what autodiff would keep of it: more than ten times that.
    assert (np.diff(depths) <= 1.1 * 4 * 2 * 256 * 64 * np.array([2, 4, 8])).all()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"layers": 0}, ValueError, "expected layers to be at least 1; got 0."),
        (
            {"heads": 3},
            ValueError,
            "expected width to be a multiple of heads, 3; got 4.",
        ),
        (
            {"width": 4.0},
            TypeError,
            "expected width to be an integer; got float 4.0.",
        ),
        (
            {"norm": "batch"},
            ValueError,
            "expected norm to be one of layer, rms; got batch.",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, error, text):
    with pytest.raises(error) as raised:
        nets.gpt(5, **SIZES | change)
    assert str(raised.value) == f"jaxbp.gpt: {text}"


def _without(params, *names):
    return {k: v for k, v in params.items() if k not in names}


@pytest.mark.parametrize(
    ("change", "batch", "error", "text"),
    [
        (
            lambda p: _without(p, "head"),
            (TOKENS, TOKENS),
            ValueError,
            "expected params to be a dict with tokens, positions, blocks, norm, head; "
            "got blocks, norm, positions, tokens.",
        ),
        (
            lambda p: p | {"head": p["head"].T},
            (TOKENS, TOKENS),
            ValueError,
            "expected params['head'] to be of shape (4, 5); got float64 (5, 4).",
        ),
        (
            lambda p: p | {"head": p["head"].astype("float32")},
            (TOKENS, TOKENS),
            TypeError,
            "expected params['tokens'], params['head'] of one dtype; got "
            "params['tokens'] float64 (5, 4), params['head'] float32 (4, 5): cast them "
            "to one, a rule never changes dtype.",
        ),
        (
            lambda p: p,
            (TOKENS, TOKENS[:, :2]),
            ValueError,
            "expected tokens (*n, t), labels (*n, t); got tokens (2, 3), labels "
            "(2, 2): tokens's last axis is 3, labels's last is 2.",
        ),
        (
            lambda p: p,
            (jnp.zeros((1, 5), int), jnp.zeros((1, 5), int)),
            ValueError,
            "expected tokens to be at most 4 steps long; got 5 steps.",
        ),
        (
            lambda p: p,
            (jnp.zeros((0, 3), int), jnp.zeros((0, 3), int)),
            ValueError,
            "expected tokens to be at least one example; got shape (0, 3).",
        ),
        (
            lambda p: p,
            (TOKENS * 1.0, TOKENS),
            TypeError,
            "expected tokens to be integers; got float32 (2, 3).",
        ),
        (
            lambda p: p,
            TOKENS,
            TypeError,
            "expected batch to be a pair (tokens, labels); got int32 (2, 3).",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, batch, error, text):
    with pytest.raises(error) as raised:
        NET.loss(change(NET.init(KEY)), batch)
    assert str(raised.value) == f"jaxbp.gpt.loss: {text}"
