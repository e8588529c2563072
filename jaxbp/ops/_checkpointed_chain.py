"""A chain of blocks of which every few states are kept, and the others made again."""

import functools
import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxbp._errors import argument_error
from jaxbp.ops import _functions as functions
from jaxbp.ops._case import Case, normal
from jaxbp.ops._sharding import alike


def checkpointed_chain(
    params: PyTree, x: PyTree, *, f: Callable[..., PyTree], every: int | None = None
) -> PyTree:
    r"""A chain of blocks $x_{k+1} = f(p_k, x_k)$ of which every few states are kept.

    VJP, from the last segment to the first: its blocks are run again from the state
    kept before it, then, from its last block to its first,
    $\bar x_k = \partial_x f^\top\bar x_{k+1}$,
    $\bar p_k = \partial_p f^\top\bar x_{k+1}$ (`jax.vjp` of the segment).

    With n blocks and a state kept before every k-th, memory is that of n/k states and
    of what autodiff keeps of k blocks: least, and growing as $\sqrt n$, for k near
    $\sqrt n$. Time is that of one more forward pass. `every=1` keeps all states, and
    makes again only what a block itself has inside.

    Args:
        params: trees of arrays whose first axis is that of the blocks. Integers and
            keys among them, such as a key for each block, have no cotangent.
        x: state before the first block, a tree of floats.
        f: `f(p, x)` of one block's p: the next state, with the shapes and dtypes of x.
            Traced arrays that it closes over get their cotangents. The same arguments
            must give the same value.
        every: k, blocks in a segment; if None a length near $\sqrt n$, one that divides
            n where there is one: what is left over is compiled by itself.
    Returns:
        the state after the last block. Residuals kept: `params`, and the state before
        each segment. Its second derivative is autodiff's of the rule.
    Raises:
        ValueError: the first axes of the parameters differ; f returns something of
            another shape or dtype; `every` below 1.
        TypeError: `f` is no function; a state that is not floating.
    Source: Griewank and Walther, *Evaluating Derivatives* (2008), ch. 12; Chen et al.,
        "Training deep nets with sublinear memory cost" (2016), arXiv 1604.06174.
    """
    name = "checkpointed_chain"
    functions.check_callable(name, f=f)
    if every is not None and every < 1:
        raise argument_error(name, "every", "1 or more", every)
    x = functions.as_state(name, "x", x)
    functions.blocks_of(name, "params", params)
    params, x = alike(params, x)
    first = functions.first_of(params)
    functions.check_output(name, "f(params, x)", jax.eval_shape(f, first, x), x)
    f, params = functions.hoisted(f, params, first, x)
    return _checkpointed_chain(params, x, f, every)


@functools.partial(jax.custom_vjp, nondiff_argnames=("f", "every"))
def _checkpointed_chain(params, x, f, every):
    del every
    own, closed = functions.parts(params)
    return _run(f)(own, x, *closed)


def _run(f):
    """Many blocks as one function of their stacked parameters."""

    def run(params, x, *closed):
        block = lambda x, params: (f(params, x, *closed), None)
        return jax.lax.scan(block, x, params)[0]

    return run


def _segments(own, every):
    """The length of a segment, how many there are, and of the shorter last one."""
    n = jax.tree.leaves(own)[0].shape[0]
    if not n:
        return 0, 0, 0
    if every is None:
        root = max(1, math.isqrt(n))
        # One that divides n leaves no shorter segment, to be compiled by itself.
        near = sorted(range((root + 1) // 2, 2 * root + 1), key=lambda k: abs(k - root))
        every = next((k for k in near if n % k == 0), root)
    every = min(every, n)
    return every, *divmod(n, every)


def _cut(own, start, size):
    cut = lambda a: jax.lax.dynamic_slice_in_dim(a, start, size)
    return jax.tree.map(cut, own)


def checkpointed_chain_fwd(params, x, f, every):
    own, closed = functions.parts(params)
    every, segments, rest = _segments(own, every)
    run = _run(f)

    def segment(x, start):
        return run(_cut(own, start, every), x, *closed), x

    y, states = jax.lax.scan(segment, x, jnp.arange(segments) * every)
    if not rest:
        return y, (params, states, None)
    return run(_cut(own, segments * every, rest), y, *closed), (params, states, y)


def checkpointed_chain_bwd(f, every, res, y_bar):
    params, states, last = res
    chex.assert_trees_all_equal_dtypes(states, y_bar)
    chex.assert_trees_all_equal_structs(states, y_bar)
    own, closed = functions.parts(params)
    every, segments, rest = _segments(own, every)
    run = _run(f)

    def segment(carry, start, size, x):
        y_bar, bars, sums = carry
        _, back = functions.local_vjp(run, _cut(own, start, size), x, closed)
        own_bar, closed_bar, x_bar = back(y_bar)
        put = lambda a, new: jax.lax.dynamic_update_slice_in_dim(a, new, start, 0)
        return (
            x_bar,
            jax.tree.map(put, bars, own_bar),
            functions.added(sums, closed_bar),
        )

    floats, _ = functions.floats_and_others(own)
    carry = y_bar, jax.tree.map(jnp.zeros_like, floats), functions.sums_of(closed)
    if rest:
        carry = segment(carry, segments * every, rest, last)
    step = lambda carry, at: (segment(carry, at[0], every, at[1]), None)
    starts = jnp.arange(segments) * every
    carry, _ = jax.lax.scan(step, carry, (starts, states), reverse=True)
    x_bar, own_bar, sums = carry
    return functions.like(params, own_bar, functions.narrowed(sums, closed)), x_bar


_checkpointed_chain.defvjp(checkpointed_chain_fwd, checkpointed_chain_bwd)


def _residual(params, x):
    w, b = params
    return x + jnp.tanh(x @ w + b)


def _plain(params, x):
    block = lambda x, p: (x + jnp.tanh(x @ p[0] + p[1]), None)
    return jax.lax.scan(block, x, params)[0]


def _checkpointed(every):
    """Autodiff of nested scans, the inner one under `jax.checkpoint`."""

    def f(params, x):
        rows = lambda a: a.reshape(-1, every, *a.shape[1:])
        segment = jax.checkpoint(lambda x, params: (_plain(params, x), None))
        return jax.lax.scan(segment, x, jax.tree.map(rows, params))[0]

    return f


def _at(blocks, *shape):
    """Layers as wide as the state."""
    d = shape[-1]

    def make(key, dtype):
        w, b, x = normal((blocks, d, d), (blocks, d), shape)(key, dtype)
        return (0.5 * d**-0.5 * w, 0.5 * d**-0.5 * b), x

    return make


_cost = {"256 blocks, B=512, 128 units": _at(256, 512, 128)}
_source = "Chen et al. (2016)"
CASES = (
    Case(
        functools.partial(checkpointed_chain, f=_residual),
        _plain,
        {
            "ordinary": _at(4, 3, 2),
            "one block": _at(1, 2, 2),
            "a segment and a rest": _at(11, 2, 1),
            "no leading axis": _at(3, 2),
            "empty batch": _at(2, 0, 2),
            "no blocks": _at(0, 2, 2),
        },
        _cost,
        _source,
        4 * 6 + 2 * 6,
        rivals={"jax.checkpoint": _checkpointed(16)},
    ),
    Case(
        functools.partial(checkpointed_chain, f=_residual, every=1),
        _plain,
        {"ordinary": _at(3, 3, 2), "empty batch": _at(2, 0, 2)},
        _cost,
        _source,
        3 * 6 + 3 * 6,
        variant="every state",
        rivals={"jax.checkpoint": _checkpointed(1)},
    ),
)
