"""Attention in blocks: remainders, masks, blind queries, and memory by its length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops._attention import CASES

PLAIN = CASES[0].plain


def _arrays(*shapes, dtype=jnp.float64, scale=1.0):
    keys = jax.random.split(jax.random.key(3), len(shapes))
    pairs = zip(keys, shapes, strict=True)
    return [scale * jax.random.normal(k, shape, dtype) for k, shape in pairs]


def _pull(f, *args):
    """In one program: equation by equation JAX would compile as many."""

    def pull(q, k, v, y_bar):
        y, back = jax.vjp(f, q, k, v)
        return y, *back(y_bar)

    return jax.jit(pull)(*args)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("t", "s"), [(6, 6), (7, 5), (5, 7)])
@pytest.mark.parametrize("masked", [False, True])
def test_lengths_need_not_be_multiples_of_the_block(causal, t, s, masked):
    *args, y_bar = _arrays((2, t, 3), (2, s, 3), (2, s, 2), (2, t, 2))
    mask = np.random.default_rng(0).random((t, s)) < 0.6 if masked else None
    plain = functools.partial(PLAIN, mask=mask, causal=causal)
    expected = _pull(plain, *args, y_bar)
    for block in (2, 3):
        in_blocks = functools.partial(
            ops.attention, mask=mask, causal=causal, block=block
        )
        actual = _pull(in_blocks, *args, y_bar)
        for a, b in zip(actual, expected, strict=True):
            # Fewer than a hundred roundings on the way to each element.
            assert np.abs(a - b).max() <= 100 * 2.3e-16 * np.abs(b).max()


def test_it_can_be_differentiated_again_in_blocks():
    args = _arrays((5, 2), (5, 2), (5, 2))
    in_blocks = functools.partial(ops.attention, causal=True, block=2)
    plain = functools.partial(PLAIN, causal=True)
    comparison = compare(in_blocks, *args, reference=plain, order=2)
    assert comparison.verdict == "right", comparison


@pytest.mark.parametrize("block", [1, 2, None])
def test_a_query_that_sees_nothing_gives_0_with_gradient_0(block):
    *args, y_bar = _arrays((3, 2), (4, 2), (4, 2), (3, 2))
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], bool)
    y, q_bar, k_bar, v_bar = _pull(
        functools.partial(ops.attention, mask=mask, block=block), *args, y_bar
    )
    assert not y[1].any()
    assert not q_bar[1].any()
    assert not (k_bar[2].any())
    assert not (v_bar[2].any())
    assert not q_bar[2].any()  # the only key has weight 1, whatever the score
    assert all(np.isfinite(x).all() for x in (y, q_bar, k_bar, v_bar))


def test_weights_keep_their_last_place_at_high_scores():
    """Scores near 1e4, whose log-sum-exp is rounded to 1e-3 in float32."""
    q, k, v, y_bar = _arrays((6, 3), (5, 3), (5, 2), (6, 2))
    highest = jnp.ones((6, 1)) * 100
    q, k = (
        jnp.concatenate([x, one], -1) for x, one in ((q, highest), (k, highest[:5]))
    )
    q, k = (x.astype(jnp.float32).astype(jnp.float64) for x in (q, k))
    in_blocks = functools.partial(ops.attention, block=2)
    expected = _pull(PLAIN, q, k, v, y_bar)
    narrow = [x.astype(jnp.float32) for x in (q, k, v, y_bar)]
    plain = _pull(PLAIN, *narrow)
    actual = _pull(in_blocks, *narrow)
    for a, p, b in zip(actual, plain, expected, strict=True):
        error, floor = (jnp.abs(x.astype(jnp.float64) - b).max() for x in (a, p))
        # A score is rounded to 2^-11: both see that, neither may see much more.
        assert error <= 2 * floor + 1e-6 * jnp.abs(b).max()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"mask": jnp.ones((3, 5), bool)},
            ValueError,
            "jaxbp.attention: expected mask to be of a shape that broadcasts to the "
            "scores' (3, 4); got shape (3, 5).",
        ),
        (
            {"mask": np.ones((3, 4), int)},
            TypeError,
            "jaxbp.attention: expected mask to be boolean, True where a query may look;"
            " got int64 (3, 4).",
        ),
        (
            {"block": 0},
            ValueError,
            "jaxbp.attention: expected block to be 1 or more; got 0.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, error, message):
    with pytest.raises(error) as caught:
        ops.attention(*_arrays((3, 2), (4, 2), (4, 2)), **given)
    assert str(caught.value) == message


def test_axes_must_chain():
    with pytest.raises(ValueError, match=r"k's first axis is 4, v's first is 5\.$"):
        ops.attention(*_arrays((3, 2), (4, 2), (5, 2)))


def _temp_bytes(f, *shape):
    def step(args, y_bar):
        y, back = jax.vjp(f, *args)
        return y, back(y_bar)

    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    compiled = jax.jit(step).lower((x, x, x), x).compile()
    return compiled.memory_analysis().temp_size_in_bytes


CAUSAL = functools.partial(ops.attention, causal=True)
PLAIN_CAUSAL = functools.partial(PLAIN, causal=True)


@pytest.mark.parametrize(
    ("shape", "most"), [((4096, 64), 0.05), ((4, 1024, 64), 0.15)], ids=str
)
@pytest.mark.optimised
def test_temporary_memory_beside_autodiff(shape, most):
    assert _temp_bytes(CAUSAL, *shape) <= most * _temp_bytes(PLAIN_CAUSAL, *shape)


@pytest.mark.optimised
def test_temporary_memory_is_linear_in_the_length():
    bytes_at = [_temp_bytes(CAUSAL, t, 64) for t in (1024, 2048, 4096, 8192)]
    steps = np.diff(bytes_at)
    # Equal slopes: twice the length, twice the difference.
    assert np.allclose(steps[1:], 2 * steps[:-1], rtol=0.01)


def test_residuals_are_linear_in_the_length():
    q = jax.ShapeDtypeStruct((4096, 64), jnp.float32)
    pull = jax.eval_shape(lambda *a: jax.vjp(CAUSAL, *a)[1], q, q, q)
    assert sum(x.size for x in jax.tree.leaves(pull)) == 4096 * (4 * 64 + 2)


def test_a_rule_that_forgets_the_later_blocks_is_reported():
    @jax.custom_vjp
    def faulty(q, k, v):
        return ops.attention(q, k, v)

    def forgets(res, y_bar):
        q_bar, k_bar, v_bar, _ = ops.attention_bwd(False, None, 2, res, y_bar)
        return q_bar, k_bar.at[2:].set(0), v_bar

    fwd = lambda q, k, v: ops.attention_fwd(q, k, v, None, False, None, 2)
    faulty.defvjp(fwd, forgets)
    comparison = compare(faulty, *_arrays((5, 2), (5, 2), (5, 2)))
    wrong = [f.argument for f in comparison.findings if f.verdict == "wrong"]
    assert wrong == ["[1]"]
