"""A chain of reversible blocks, whose inputs are computed from their outputs."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats, describe
from jaxbp.ops import _functions as functions
from jaxbp.ops._case import Case, normal
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike


def reversible(
    params: tuple[Any, Any],
    x: tuple[Float[Array, "*n"], Float[Array, "*m"]],
    *,
    f: Callable[..., Array],
    g: Callable[..., Array],
) -> tuple[Float[Array, "*n"], Float[Array, "*m"]]:
    r"""A chain of blocks $y_1 = x_1 + f(p, x_2)$, $y_2 = x_2 + g(q, y_1)$.

    VJP, from the last block to the first: its inputs are $x_2 = y_2 - g(q, y_1)$,
    $x_1 = y_1 - f(p, x_2)$, and with the Jacobians of f and g at them
    $\bar x_1 = \bar y_1 + \partial_y g^\top\bar y_2$,
    $\bar q = \partial_q g^\top\bar y_2$,
    $\bar x_2 = \bar y_2 + \partial_x f^\top\bar x_1$,
    $\bar p = \partial_p f^\top\bar x_1$: f and g are evaluated once, for the input
    and for the product with their Jacobian (`jax.vjp` of one call).

    Memory beside arguments and results does not grow with the number of blocks; time is
    that of one more forward pass. The inputs come back but for rounding: a block rounds
    its state twice more, and enlarges what is off already by up to
    $(1 + L_f)(1 + L_g)$, $L$ the Lipschitz constants. Blocks that are near the identity
    lose a digit or two in a hundred; where each doubles a difference, float32 has lost
    everything after 24, and sooner where the state itself grows. There
    `checkpointed_chain` serves.

    Args:
        params: p and q, trees of arrays whose first axis is that of the blocks.
            Integers and keys among them, such as a key for each block, have no
            cotangent.
        x: the two halves of the state, which may have different shapes.
        f: `f(p, x2)` of one block's p, with the shape and dtype of `x1`. Traced arrays
            that it closes over get their cotangents. The same arguments must give the
            same value.
        g: `g(q, y1)`, with those of `x2`.
    Returns:
        the halves after the last block. Residuals kept: `params` and the result; the
        halves in float32 at least, as they are carried from block to block. Its second
        derivative is autodiff's of the rule, and grows with the number of blocks.
    Raises:
        ValueError: the first axes of the parameters differ; f or g returns something
            of another shape or dtype.
        TypeError: `f` or `g` is no function, `params` or `x` no pair; halves that are
            not floating, or of two dtypes.
    Source: Gomez, Ren, Urtasun and Grosse, "The reversible residual network" (2017),
        arXiv 1707.04585, algorithm 1.
    """
    name = "reversible"
    functions.check_callable(name, f=f, g=g)
    (p, q), (x1, x2) = _pair("params", params), _pair("x", x)
    x1, x2 = as_floats(name, x1=x1, x2=x2)
    length = functions.blocks_of(name, "params[0]", p)
    functions.blocks_of(name, "params[1]", q, length)
    p, q, x1, x2 = alike(p, q, x1, x2)
    first_p, first_q = map(functions.first_of, (p, q))
    y1, y2 = jax.eval_shape(f, first_p, x2), jax.eval_shape(g, first_q, x1)
    functions.check_output(name, "f(params[0], x2)", y1, x1)
    functions.check_output(name, "g(params[1], x1)", y2, x2)
    f, p = functions.hoisted(f, p, first_p, x2)
    g, q = functions.hoisted(g, q, first_q, x1)
    return _reversible((p, q), (x1, x2), f, g)


def _pair(name, value):
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        got = (
            f"{type(value).__name__} of {len(value)}"
            if isinstance(value, (tuple, list))
            else describe(value)
        )
        raise argument_error("reversible", name, "a pair", got, kind=TypeError)
    return value


@functools.partial(jax.custom_vjp, nondiff_argnames=("f", "g"))
def _reversible(params, x, f, g):
    return reversible_fwd(params, x, f, g)[0]


def reversible_fwd(params, x, f, g):
    (p, of_f), (q, of_g) = map(functions.parts, params)

    def block(x, params):
        p, q = params
        x1, x2 = x
        y1 = x1 + _wide(f(p, _as(x2, dtype), *of_f))
        y2 = x2 + _wide(g(q, _as(y1, dtype), *of_g))
        return (y1, y2), None

    dtype = x[0].dtype
    y, _ = jax.lax.scan(block, tuple(map(_wide, x)), (p, q))
    return tuple(_as(a, dtype) for a in y), (params, y)


def reversible_bwd(f, g, res, y_bar):
    params, y = res
    chex.assert_trees_all_equal_shapes(y, y_bar)
    (p, of_f), (q, of_g) = map(functions.parts, params)
    dtype = y_bar[0].dtype

    def block(carry, params):
        (y1, y2), (y1_bar, y2_bar), sums = carry
        p, q = params
        of_y1, back = functions.local_vjp(g, q, _as(y1, dtype), of_g)
        q_bar, of_g_bar, more = back(_as(y2_bar, dtype))
        x2, y1_bar = y2 - _wide(of_y1), y1_bar + _wide(more)
        of_x2, back = functions.local_vjp(f, p, _as(x2, dtype), of_f)
        p_bar, of_f_bar, more = back(_as(y1_bar, dtype))
        x1, y2_bar = y1 - _wide(of_x2), y2_bar + _wide(more)
        sums = functions.added(sums, (of_f_bar, of_g_bar))
        return ((x1, x2), (y1_bar, y2_bar), sums), (p_bar, q_bar)

    bars = tuple(map(_wide, y_bar))
    carry = y, bars, functions.sums_of((of_f, of_g))
    (_, x_bar, sums), bars = jax.lax.scan(block, carry, (p, q), reverse=True)
    sums = functions.narrowed(sums, (of_f, of_g))
    params_bar = map(functions.like, params, bars, sums)
    return tuple(params_bar), tuple(_as(a, dtype) for a in x_bar)


_reversible.defvjp(reversible_fwd, reversible_bwd)


def _wide(x):
    return x.astype(accumulator(x.dtype))


def _as(x, dtype):
    return x.astype(dtype)


def _layer(params, x):
    w, b = params
    return jnp.tanh(x @ w + b)


def _plain(params, x):
    def block(x, params):
        (w, b), (v, c) = params
        y1 = x[0] + jnp.tanh(x[1] @ w + b)
        return (y1, x[1] + jnp.tanh(y1 @ v + c)), None

    return jax.lax.scan(block, x, params)[0]


def _checkpointed(params, x):
    """Autodiff that keeps the state before each block, by `jax.checkpoint`."""

    @jax.checkpoint
    def block(x, params):
        p, q = params
        y1 = x[0] + _layer(p, x[1])
        return (y1, x[1] + _layer(q, y1)), None

    return jax.lax.scan(block, x, params)[0]


def _at(blocks, lead, i, j, scale=0.5):
    """Layers between i and j units, and the halves of the state."""

    def make(key, dtype):
        shapes = (j, i), (i,), (i, j), (j,)
        make = normal(*[(blocks, *s) for s in shapes], (*lead, i), (*lead, j))
        w, b, v, c, *x = make(key, dtype)
        w, b, v, c = (scale * max(i, j) ** -0.5 * a for a in (w, b, v, c))
        return ((w, b), (v, c)), tuple(x)

    return make


CASES = (
    Case(
        functools.partial(reversible, f=_layer, g=_layer),
        _plain,
        {
            "ordinary": _at(3, (2,), 2, 3),
            "one block": _at(1, (2,), 2, 2),
            "no leading axis": _at(2, (), 1, 2),
            "two leading axes": _at(2, (2, 1), 2, 2),
            "saturated": _at(3, (2,), 2, 2, scale=100.0),
            "empty batch": _at(2, (0,), 2, 2),
            "no blocks": _at(0, (2,), 2, 2),
        },
        {"128 blocks, B=512, 2×128 units": _at(128, (512,), 128, 128)},
        "Gomez et al. (2017), algorithm 1",
        3 * (8 + 9) + 4 + 6,
        rivals={"checkpointed blocks": _checkpointed},
    ),
)
