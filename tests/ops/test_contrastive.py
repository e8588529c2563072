"""The contrastive loss: chunks, saturation, memory, what is refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops


def _pairs(n, d):
    keys = jax.random.split(jax.random.key(0))
    x, y = (jax.random.normal(k, (n, d)) for k in keys)
    unit = lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True)
    return unit(x), unit(y), jnp.array(5.0)


def _plain(x, y, scale):
    z = scale * x @ y.T
    rows, columns = (jax.nn.log_softmax(z, axis=k) for k in (1, 0))
    return -(jnp.diagonal(rows) + jnp.diagonal(columns)).mean() / 2


def _temp_bytes(loss, n, d):
    def step(x, y, scale, bar):
        value, back = jax.vjp(loss, x, y, scale)
        return value, back(bar)

    shapes = [jax.ShapeDtypeStruct(s, "float32") for s in ((n, d), (n, d), (), ())]
    return jax.jit(step).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.optimised
def test_memory_is_a_twenty_fifth_of_autodiffs():
    mine = _temp_bytes(ops.contrastive_loss, 4096, 128)
    assert mine <= 0.04 * _temp_bytes(_plain, 4096, 128)


@pytest.mark.optimised
def test_memory_grows_with_the_pairs_and_not_with_their_square():
    loss = functools.partial(ops.contrastive_loss, chunk=64)
    bytes_ = [_temp_bytes(loss, n, 16) for n in (256, 512, 1024, 2048)]
    for a, b in itertools.pairwise(bytes_):
        assert b <= 2.1 * a
    plain = [_temp_bytes(_plain, n, 16) for n in (256, 512)]
    assert plain[1] >= 3 * plain[0]


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5])
def test_every_remainder_of_the_chunk_gives_the_same(chunk):
    args = _pairs(5, 3)
    loss = functools.partial(ops.contrastive_loss, chunk=chunk)
    steps = [
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(*args) for f in (loss, _plain)
    ]
    # Fewer than fifty sums and products of numbers of size 5 at most.
    for a, b in zip(*map(jax.tree.leaves, steps), strict=True):
        assert np.abs(a - b).max() <= 50 * 2.3e-16 * 5


def test_a_solved_task_keeps_its_digits_in_float32():
    x, scale = jnp.eye(2, dtype="float32"), jnp.array(40.0, "float32")
    value, bars = jax.value_and_grad(ops.contrastive_loss, (0, 2))(x, x, scale)
    # Every row and column: ln(1 + e^-40), with slope -e^-40 in the own logit and e^-40
    # in the other; exp, log1p, expm1 within two ulps each, a product and a mean.
    exact = np.log1p(np.exp(-40.0))
    assert abs(float(value) / exact - 1) <= 12 * 1.2e-7
    assert abs(float(bars[1]) / -exact - 1) <= 12 * 1.2e-7
    np.testing.assert_allclose(
        bars[0] / jnp.float32(20 * exact), [[-1, 1], [1, -1]], rtol=12 * 1.2e-7
    )


def test_wrong_rules_are_reported():
    def rule(wrong):
        @jax.custom_vjp
        def loss(x, y, scale):
            return ops.contrastive_loss(x, y, scale)

        def bwd(res, bar):
            return wrong(res, ops.contrastive_loss_bwd(2, res, bar))

        loss.defvjp(lambda *args: ops.contrastive_loss_fwd(*args, 2), bwd)
        return loss

    args = _pairs(5, 3)
    assert compare(rule(lambda res, bars: bars), *args).ok
    wrongs = {
        "[1]": lambda res, bars: (bars[0], bars[1][::-1], bars[2]),
        # The scale taken for a constant of the loss; for its own logarithm.
        "[2]": lambda res, bars: (*bars[:2], bars[2] * res[2]),
        # The columns' half forgotten.
        "[0]": lambda res, bars: (bars[0] / 2, *bars[1:]),
    }
    for argument, wrong in wrongs.items():
        comparison = compare(rule(wrong), *args)
        bad = {f.argument for f in comparison.findings if f.verdict == "wrong"}
        assert bad == {argument}, comparison


@pytest.mark.parametrize(
    ("shapes", "options", "text"),
    [
        (
            ((4, 3), (5, 3), ()),
            {},
            "expected x (n, d), y (n, d), scale (); got x (4, 3), y (5, 3), scale (): "
            "x's first axis is 4, y's first is 5.",
        ),
        (
            ((0, 3), (0, 3), ()),
            {},
            "expected x to be of one row at least; got shape (0, 3).",
        ),
        (
            ((4, 3), (4, 3), ()),
            {"chunk": 0},
            "expected chunk to be an integer of 1 at least; got int 0.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(shapes, options, text):
    with pytest.raises(ValueError, match="expected") as raised:
        ops.contrastive_loss(*map(jnp.zeros, shapes), **options)
    assert str(raised.value) == f"jaxbp.contrastive_loss: {text}"
