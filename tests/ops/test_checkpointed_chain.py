"""Checkpointed chains: segments and their rest, memory by depth, closures, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops._checkpointed_chain import CASES, _at, _residual, _segments

PLAIN = CASES[0].plain


def _arrays(*sizes, dtype=jnp.float64):
    return _at(*sizes)(jax.random.key(3), jnp.dtype(dtype))


def _pull(f, *args):
    """In one program: equation by equation JAX would compile as many."""

    def pull(params, x):
        y, back = jax.vjp(f, params, x)
        return y, back(jax.random.normal(jax.random.key(1), y.shape, y.dtype))

    return jax.jit(pull)(*args)


def _assert_close(actual, expected):
    def close(a, b):
        # The same operations but for the order of a few sums.
        assert np.abs(a - b).max() <= 100 * 2.3e-16 * np.abs(b).max()

    jax.tree.map(close, actual, expected)


@pytest.mark.parametrize("every", [1, 2, 3, 4, 5, 6, 9])
def test_segments_and_their_rest_are_one_chain(every):
    args = _arrays(6, 3, 2)
    chain = functools.partial(ops.checkpointed_chain, f=_residual, every=every)
    _assert_close(_pull(chain, *args), _pull(PLAIN, *args))


def test_it_can_be_differentiated_again_with_a_rest():
    chain = functools.partial(ops.checkpointed_chain, f=_residual, every=2)
    comparison = compare(chain, *_arrays(3, 1, 2), reference=PLAIN, order=2)
    assert comparison.ok, comparison


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [(1, (1, 1, 0)), (11, (3, 3, 2)), (250, (10, 25, 0)), (256, (16, 16, 0))],
)
def test_a_segment_is_near_the_root_and_divides_the_chain_if_it_can(blocks, expected):
    assert _segments(jnp.zeros((blocks,)), None) == expected


def test_a_state_may_be_a_tree_and_a_key_data():
    def block(params, x):
        w, key = params
        noise = jax.random.normal(key, x["h"].shape)
        return {"h": jnp.tanh(x["h"] @ w) + 0.1 * noise, "sum": x["sum"] + x["h"]}

    def of(f):
        def loss(w, x):
            y = f((w, keys), x)
            return (y["h"] * y["sum"]).sum()

        return loss

    plain = lambda params, x: jax.lax.scan(lambda x, p: (block(p, x), None), x, params)[
        0
    ]
    chain = functools.partial(ops.checkpointed_chain, f=block, every=2)
    (w, _), x = _arrays(5, 3, 2)
    keys = jax.random.split(jax.random.key(0), 5)
    args = w, {"h": x, "sum": x}
    _assert_close(*(jax.grad(of(f), (0, 1))(*args) for f in (chain, plain)))


def test_what_the_function_closes_over_gets_its_gradient():
    params, x = _arrays(5, 3, 2)

    def loss(chain):
        def of(scale, params, x):
            return chain(lambda p, x: x + scale * _residual(p, x), params, x).sum()

        return of

    def plain(f, params, x):
        return jax.lax.scan(lambda x, p: (f(p, x), None), x, params)[0]

    ours = lambda f, params, x: ops.checkpointed_chain(params, x, f=f, every=2)
    args = jnp.array([0.7, -0.2]), params, x
    _assert_close(
        *(jax.jit(jax.grad(loss(f), (0, 1, 2)))(*args) for f in (ours, plain))
    )


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"f": lambda p, x: (x, x)},
            ValueError,
            "jaxbp.checkpointed_chain: expected f(params, x) to be of the structure "
            "PyTreeDef(*); got PyTreeDef((*, *)).",
        ),
        (
            {"f": lambda p, x: x[0]},
            ValueError,
            "jaxbp.checkpointed_chain: expected f(params, x) to be float64 (3, 2); got "
            "float64 (2,).",
        ),
        (
            {"every": 0},
            ValueError,
            "jaxbp.checkpointed_chain: expected every to be 1 or more; got 0.",
        ),
        (
            {"x": {"k": np.arange(2)}},
            TypeError,
            "jaxbp.checkpointed_chain: expected x['k'] to be floating-point numbers; "
            "got int64 (2,).",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, error, message):
    params, x = _arrays(4, 3, 2)
    given = {"params": params, "x": x, "f": _residual} | given
    with pytest.raises(error) as caught:
        ops.checkpointed_chain(given.pop("params"), given.pop("x"), **given)
    assert str(caught.value) == message


def _temp_bytes(f, *sizes):
    args = jax.eval_shape(lambda: _arrays(*sizes, dtype=jnp.float32))

    def step(args, y_bar):
        y, back = jax.vjp(f, *args)
        return y, back(y_bar)

    compiled = jax.jit(step).lower(args, args[1]).compile()
    return compiled.memory_analysis().temp_size_in_bytes


# Autodiff keeps three states a block with jax 0.10, two with 0.12. Of 256 blocks in 16
# segments the first needs 16 states and one segment's blocks again: 0.1 and 0.12.
@pytest.mark.parametrize(("case", "most"), [(CASES[0], 0.12), (CASES[1], 0.55)])
@pytest.mark.optimised
def test_temporary_memory_beside_autodiff(case, most):
    sizes = 256, 512, 128
    assert _temp_bytes(case.function, *sizes) <= most * _temp_bytes(PLAIN, *sizes)


@pytest.mark.optimised
def test_temporary_memory_grows_as_the_root_of_the_depth():
    of = [_temp_bytes(CASES[0].function, n, 64, 16) for n in (64, 256, 1024, 4096)]
    steps = np.diff(of)
    # Four times the blocks, twice the states and twice the segment.
    assert np.allclose(steps[1:], 2 * steps[:-1], rtol=0.02)


def test_a_rule_that_starts_a_segment_from_the_wrong_state_is_reported():
    @jax.custom_vjp
    def faulty(params, x):
        return ops.checkpointed_chain(params, x, f=_residual, every=2)

    def bwd(res, y_bar):
        params, states, rest = res
        return ops.checkpointed_chain_bwd(
            _residual, 2, (params, states[::-1], rest), y_bar
        )

    faulty.defvjp(lambda *a: ops.checkpointed_chain_fwd(*a, _residual, 2), bwd)
    comparison = compare(faulty, *_arrays(4, 3, 2))
    assert "wrong" in {f.verdict for f in comparison.findings}, comparison
