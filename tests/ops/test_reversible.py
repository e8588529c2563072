"""Reversible chains: memory by depth, what rounding costs, closures, keys, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops._reversible import CASES, _at, _layer

PLAIN = CASES[0].plain
CHAIN = CASES[0].function


def _arrays(*sizes, dtype=jnp.float64, **options):
    return _at(*sizes, **options)(jax.random.key(3), jnp.dtype(dtype))


def _pull(f, *args):
    """In one program: equation by equation JAX would compile as many."""

    def pull(params, x):
        y, back = jax.vjp(f, params, x)
        keys = jax.random.split(jax.random.key(1))
        pairs = zip(keys, y, strict=True)
        return y, back(tuple(jax.random.normal(k, a.shape, a.dtype) for k, a in pairs))

    return jax.jit(pull)(*args)


def _worst(actual, expected):
    """The largest difference, as a fraction of the largest element of its array."""
    off = lambda a, b: float(np.abs(a - b).max() / np.abs(b).max())
    return max(jax.tree.leaves(jax.tree.map(off, actual, expected)))


def _wide(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float64), tree)


def test_a_hundred_blocks_near_the_identity_lose_two_digits():
    args = _arrays(128, (4,), 3, 3, dtype=jnp.float32, scale=0.1)
    exact = _pull(PLAIN, *_wide(args))
    hand, auto = (_worst(_wide(_pull(f, *args)), exact) for f in (CHAIN, PLAIN))
    # 2 × 128 roundings of the state on the way back, where autodiff has kept it.
    assert hand <= auto + 256 * 6e-8


def test_blocks_that_spread_enlarge_their_roundings_as_the_docstring_says():
    """[[1, c], [c, 1 + c²]] stretches by s and shrinks by 1/s in each block."""
    c, blocks = 0.5, 10
    times = lambda p, x: p * x
    chain = functools.partial(ops.reversible, f=times, g=times)
    p = jnp.full((blocks,), c, jnp.float32)
    x = jnp.float32(0.3), jnp.float32(-0.4)
    _, res = ops.reversible_fwd((p, p), x, times, times)
    bars = ops.reversible_bwd(times, times, res, (jnp.float32(1), jnp.float32(1)))[0]
    exact = jax.vjp(chain, *_wide(((p, p), x)))[1]((jnp.array(1.0), jnp.array(1.0)))[0]
    s = 1 + c * c / 2 + c * (1 + c * c / 4) ** 0.5
    off = _worst(_wide(bars), exact)
    # The last state is up to s^blocks as large as the first. Its roundings, half a unit
    # each, come back s^blocks as large again; the least would be a thousandth of that.
    most = 6e-8 * s ** (2 * blocks)
    assert 1e-3 * most <= off <= blocks * most


def test_a_bfloat16_state_is_carried_and_kept_in_float32():
    args = _arrays(40, (4,), 3, 3, dtype=jnp.bfloat16, scale=0.5)
    y, res = ops.reversible_fwd(*args, _layer, _layer)
    assert {a.dtype for a in y} == {jnp.dtype(jnp.bfloat16)}
    assert {a.dtype for a in res[1]} == {jnp.dtype(jnp.float32)}
    exact = _pull(PLAIN, *_wide(args))
    hand, auto = (_worst(_wide(_pull(f, *args)), exact) for f in (CHAIN, PLAIN))
    assert hand <= auto


def test_a_key_for_each_block_is_data():
    """The same noise is drawn again on the way back."""

    def dropped(params, x):
        p, key = params
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), _layer(p, x), 0)

    def plain(params, x):
        def block(x, params):
            y1 = x[0] + dropped(params[0], x[1])
            return (y1, x[1] + _layer(params[1], y1)), None

        return jax.lax.scan(block, x, params)[0]

    (p, q), x = _arrays(3, (4,), 2, 2)
    keys = jax.random.split(jax.random.key(0), 3)
    chain = functools.partial(ops.reversible, f=dropped, g=_layer)
    pull = lambda f: _pull(lambda pq, x: f(((pq[0], keys), pq[1]), x), (p, q), x)
    assert _worst(pull(chain), pull(plain)) <= 100 * 2.3e-16
    y, res = ops.reversible_fwd(((p, keys), q), x, dropped, _layer)
    params_bar, _ = ops.reversible_bwd(dropped, _layer, res, y)
    assert params_bar[0][1] is None


def test_what_a_function_closes_over_gets_its_gradient():
    params, x = _arrays(3, (4,), 2, 2)

    def loss(f):
        def of(scale, shift, params, x):
            half = lambda p, x: scale * _layer(p, x)
            other = lambda p, x: shift + _layer(p, x)
            return f(half, other, params, x)[0].sum()

        return of

    def plain(f, g, params, x):
        def block(x, params):
            y1 = x[0] + f(params[0], x[1])
            return (y1, x[1] + g(params[1], y1)), None

        return jax.lax.scan(block, x, params)[0]

    chain = lambda f, g, params, x: ops.reversible(params, x, f=f, g=g)
    args = jnp.array(0.7), jnp.array([0.1, -0.2]), params, x
    gradients = [
        jax.jit(jax.grad(loss(f), (0, 1, 2, 3)))(*args) for f in (chain, plain)
    ]
    assert _worst(*gradients) <= 100 * 2.3e-16


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"f": lambda p, x: x[..., :1]},
            ValueError,
            "jaxbp.reversible: expected f(params[0], x2) to be float64 (2, 2); got "
            "float64 (2, 1).",
        ),
        (
            {"g": lambda p, x: x.astype(jnp.float32)},
            ValueError,
            "jaxbp.reversible: expected g(params[1], x1) to be float64 (2, 2); got "
            "float32 (2, 2).",
        ),
        (
            {"f": None},
            TypeError,
            "jaxbp.reversible: expected f to be a function; got None.",
        ),
        (
            {"params": ((jnp.ones((3, 2)),), (jnp.ones((2, 2)),))},
            ValueError,
            "jaxbp.reversible: expected params[1][0] to be of shape (3, …); got shape "
            "(2, 2): its first axis is that of the blocks.",
        ),
        (
            {"params": ((), ())},
            ValueError,
            "jaxbp.reversible: expected params[0] to be arrays with one row for each "
            "block; got no array.",
        ),
        (
            {"x": np.ones((2, 4))},
            TypeError,
            "jaxbp.reversible: expected x to be a pair; got float64 (2, 4).",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, error, message):
    params, x = _arrays(3, (2,), 2, 2)
    given = {"params": params, "x": x, "f": _layer, "g": _layer} | given
    with pytest.raises(error) as caught:
        ops.reversible(given.pop("params"), given.pop("x"), **given)
    assert str(caught.value) == message


def _temp_bytes(f, *sizes):
    args = jax.eval_shape(lambda: _arrays(*sizes, dtype=jnp.float32))

    def step(args, y_bar):
        y, back = jax.vjp(f, *args)
        return y, back(y_bar)

    compiled = jax.jit(step).lower(args, args[1]).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.optimised
def test_temporary_memory_beside_autodiff():
    # Autodiff keeps six halves of the state a block with jax 0.10, four with 0.12; the
    # carry and what one block needs are six in all.
    blocks, rows, width, _ = sizes = 128, (512,), 128, 128
    half = 4 * rows[0] * width
    assert _temp_bytes(CHAIN, *sizes) <= 6 * half
    assert _temp_bytes(PLAIN, *sizes) >= 4 * blocks * half


@pytest.mark.optimised
def test_temporary_memory_does_not_grow_with_depth():
    of = [_temp_bytes(CHAIN, blocks, (32,), 16, 16) for blocks in (64, 128, 256, 512)]
    assert len(set(of)) == 1


def test_a_rule_that_stays_at_the_last_state_is_reported():
    @jax.custom_vjp
    def faulty(params, x):
        return ops.reversible(params, x, f=_layer, g=_layer)

    def bwd(res, y_bar):
        params, y = res
        params_bar, x_bar = ops.reversible_bwd(_layer, _layer, res, y_bar)
        last = jax.tree.map(lambda a: a[-1:], params)
        # Never goes back: the first block's at the input of the last.
        _, at_last = jax.vjp(
            lambda p: PLAIN(p, y), jax.tree.map(lambda a: a[:1], params)
        )
        (wrong,) = at_last(jax.vjp(lambda y: PLAIN(last, y), y)[1](y_bar)[0])
        put = lambda a, b: a.at[:1].set(b)
        return jax.tree.map(put, params_bar, wrong), x_bar

    faulty.defvjp(lambda params, x: ops.reversible_fwd(params, x, _layer, _layer), bwd)
    comparison = compare(faulty, *_arrays(2, (2,), 2, 2))
    wrong = {f.argument for f in comparison.findings if f.verdict == "wrong"}
    assert wrong == {f"[0][{i}][{j}]" for i in (0, 1) for j in (0, 1)}, comparison
