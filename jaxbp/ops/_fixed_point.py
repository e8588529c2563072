"""The fixed point of a map; its VJP is another fixed point."""

import functools
import operator
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from jaxbp._errors import argument_error
from jaxbp.ops import _functions as functions
from jaxbp.ops._case import Case, normal
from jaxbp.ops._sharding import alike


def fixed_point(
    params: PyTree,
    start: PyTree,
    *,
    f: Callable[..., PyTree],
    steps: int = 100,
    tolerance: float | None = None,
) -> tuple[PyTree, Bool[Array, ""]]:
    r"""The fixed point of a contraction, $x = f(p, x)$, by iteration from `start`.

    VJP, by the implicit function theorem: with $J = \partial_x f$ at the fixed point,
    $w = \bar x + J^\top w$, $\bar p = \partial_p f^\top w$. The equation for w is
    solved as x's is, by as many steps at most and to the same tolerance. The start has
    cotangent 0, as the fixed point does not depend on it.

    Iteration ends when no element has moved by more than the tolerance, as a fraction
    of the largest. Outside of a derivative all steps are taken: there time does not
    depend on the data. Memory does not grow with the number of steps.

    Args:
        params: p, a tree of arrays. Integers and keys among them have no cotangent.
        start: where to begin, a tree of floats.
        f: `f(p, x)`, with the shapes and dtypes of `start`. Traced arrays that it
            closes over get their cotangents.
        steps: the most evaluations of f.
        tolerance: of each array of x, from 0 and below 1; 8 units of roundoff if None.
            By the end x is off by it times $L/(1 - L)$, L the contraction's factor.
    Returns:
        x, and whether its last step was within the tolerance. Where it was not, x is
        the last iterate, and neither it nor its gradient is that of a fixed point.
        Residuals kept: `params`, x.
    Raises:
        ValueError: f returns something of another shape or dtype; `steps` below 1, or
            a tolerance out of its range.
        TypeError: `f` is no function; a start that is not floating.
    Source: Christianson, "Reverse accumulation and attractive fixed points" (1994);
        Bai, Kolter and Koltun, "Deep equilibrium models" (2019), theorem 1.
    """
    name = "fixed_point"
    functions.check_callable(name, f=f)
    if steps < 1:
        raise argument_error(name, "steps", "1 or more", steps)
    if tolerance is not None and not 0 <= tolerance < 1:
        raise argument_error(name, "tolerance", "from 0, and below 1", tolerance)
    start = functions.as_state(name, "start", start)
    params, start = alike(params, start)
    y = jax.eval_shape(f, params, start)
    functions.check_output(name, "f(params, start)", y, start)
    f, params = functions.hoisted(f, params, params, start)
    return _fixed_point(params, start, f, steps, tolerance)


@functools.partial(jax.custom_vjp, nondiff_argnames=("f", "steps", "tolerance"))
def _fixed_point(params, start, f, steps, tolerance):
    own, closed = functions.parts(params)
    start = jax.lax.stop_gradient(start)
    step = lambda pair, _: ((pair[1], f(own, pair[1], *closed)), None)
    (before, x), _ = jax.lax.scan(step, (start, start), None, length=steps)
    return x, _is_near(before, x, start, tolerance)


def _is_near(before, x, start, tolerance):
    """Nothing moved by more than the tolerance of the largest, in any leaf."""

    def near(before, x, start):
        largest = lambda a: jnp.max(jnp.abs(a), initial=0.0)
        most = 8 * jnp.finfo(x.dtype).eps if tolerance is None else tolerance
        moved, scale = largest(x - before), jnp.maximum(largest(x), largest(start))
        return moved <= most * scale

    each = jax.tree.map(near, before, x, start)
    return functools.reduce(operator.and_, jax.tree.leaves(each))


@functools.partial(jax.custom_vjp, nondiff_argnames=("f", "steps", "tolerance"))
def _iterated(params, start, f, steps, tolerance):
    """The same, by no more steps than are needed; differentiated by the same rule."""
    own, closed = functions.parts(params)

    def going(state):
        k, _, near = state
        return (k == 0) | ((k < steps) & ~near)

    def step(state):
        k, before, _ = state
        x = f(own, before, *closed)
        return k + 1, x, _is_near(before, x, start, tolerance)

    first = 0, start, _is_near(start, start, start, tolerance)
    _, x, converged = jax.lax.while_loop(going, step, first)
    return x, converged


def fixed_point_fwd(params, start, f, steps, tolerance):
    x, converged = _iterated(params, start, f, steps, tolerance)  # pyright: ignore
    return (x, converged), (params, x)


def fixed_point_bwd(f, steps, tolerance, res, bars):
    params, x = res
    x_bar, _ = bars
    chex.assert_trees_all_equal_shapes_and_dtypes(x, x_bar)
    own, closed = functions.parts(params)
    _, onto_x = jax.vjp(lambda x: f(own, x, *closed), x)
    adjoint = (onto_x, x_bar), x_bar, _adjoint, steps, tolerance
    w, _ = _iterated(*adjoint)  # pyright: ignore
    _, back = functions.local_vjp(f, own, x, closed)
    own_bar, closed_bar, _ = back(w)
    return functions.like(params, own_bar, closed_bar), jax.tree.map(jnp.zeros_like, x)


def _adjoint(params, w):
    onto_x, x_bar = params
    return jax.tree.map(jnp.add, x_bar, *onto_x(w))


_fixed_point.defvjp(fixed_point_fwd, fixed_point_bwd)
_iterated.defvjp(fixed_point_fwd, fixed_point_bwd)


def _layer(params, x):
    """Each unit looks at those before it: d steps are enough, whatever the weights."""
    w, b = params
    return jnp.tanh(x @ jnp.triu(w, 1) + b)


def _plain(params, start):
    w, b = jnp.triu(params[0], 1), params[1]
    step = lambda x, _: (jnp.tanh(x @ w + b), None)
    steps = min(60, len(w))
    x = jax.lax.scan(step, jax.lax.stop_gradient(start), None, length=steps)[0]
    return x, jnp.isfinite(x).all()


def _of_jax(params, start):
    """`jax.lax.custom_root`, both of its equations solved by 60 steps."""

    def steps(f, x):
        return jax.lax.scan(lambda x, _: (f(x), None), x, None, length=60)[0]

    def solve(off, x):
        return steps(lambda x: off(x) + x, x)

    def tangent_solve(off, y):  # by J - 1
        return steps(lambda w: off(w) + w - y, -y)

    off = lambda x: _layer(params, x) - x
    x = jax.lax.custom_root(off, start, solve, tangent_solve)
    return x, jnp.isfinite(x).all()


def _at(*shape, scale=1.0):
    """Weights, a bias for each row of the state, and the start."""
    d = shape[-1]

    def make(key, dtype):
        w, b, x = normal((d, d), shape, shape)(key, dtype)
        return (scale * w, b), x

    return make


CASES = (
    Case(
        functools.partial(fixed_point, f=_layer, steps=60),
        _plain,
        {
            "ordinary": _at(2, 3),
            "no leading axis": _at(3),
            "one unit": _at(2, 1),
            "large weights": _at(2, 3, scale=100.0),
            "empty batch": _at(0, 3),
        },
        {"60 steps, B=512, 256 units": _at(512, 256, scale=1 / 32)},
        "Christianson (1994); Bai et al. (2019), theorem 1",
        9 + 6 + 6,
        rivals={"jax.lax.custom_root": _of_jax},
    ),
)
