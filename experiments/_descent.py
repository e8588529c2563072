"""Full-batch descent: the tutorial's statements in NumPy, and one jitted loop."""

import ctypes
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import autodiff
from jaxbp.nets import Net

X = np.array([[0.0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])

Matrix = Any  # np.ndarray of float64, two axes
Step = Callable[[Any, Any, Any], tuple[Any, Any]]


def starts() -> tuple[list[Matrix], list[Matrix]]:
    """The tutorial's first weights: one-layer [W], two-layer [Wh, Wo].

    Both from `np.random.seed(1)`: W, printed to 8 decimals, is what the generator draws
    next after Wh and Wo.
    """
    generator = np.random.RandomState(1)
    wh, wo, w = (2 * generator.random_sample(s) - 1 for s in ((3, 4), (4, 1), (3, 1)))
    return [w], [wh, wo]


class Kernels(NamedTuple):
    """Two functions on which the last digit of a run depends."""

    exp: Callable[[Matrix], Matrix]
    dot: Callable[[Matrix, Matrix], Matrix]


def _exp_of_c(x):
    return np.array(list(map(math.exp, x.ravel().tolist()))).reshape(x.shape)


def _dot_in_lanes(a, b):
    """Matrix product with the roundings of the page's machine, as reconstructed.

    They are those of OpenBLAS on a processor with AVX2, and with them every printed
    digit comes out. One product is added after the other, but for a 4 × 4 matrix times
    a vector products 0 and 2, 1 and 3, then the two sums; there a matrix stored by
    columns takes the second product of each pair in a fused multiply-add, rounded once.
    """
    if a.shape != (4, 4) or b.shape != (4, 1):
        return np.add.reduce(a.T[:, :, None] * b[:, None, :], axis=0)
    if a.flags.c_contiguous:
        products = a * b.T
        pairs = products[:, :2] + products[:, 2:]
        return pairs[:, :1] + pairs[:, 1:]
    b0, b1, b2, b3 = b.ravel().tolist()
    rows = a.tolist()
    fused = [_fma(r[2], b2, r[0] * b0) + _fma(r[3], b3, r[1] * b1) for r in rows]
    return np.array(fused)[:, None]


def _find_fma() -> Callable[[float, float, float], float]:
    if hasattr(math, "fma"):  # Python 3.13
        return math.fma  # pyright: ignore
    found = ctypes.CDLL("ucrtbase" if os.name == "nt" else None).fma
    found.argtypes, found.restype = [ctypes.c_double] * 3, ctypes.c_double
    return found


_fma = _find_fma()
PAGE = Kernels(_exp_of_c, _dot_in_lanes)
HERE = Kernels(np.exp, np.matmul)


def one_layer(start, y, iterations: int, kernels=PAGE, prime="published") -> Matrix:
    """T5's statements in their order; the outputs O of every iteration."""
    dot, (sigmoid, s) = kernels.dot, _sigmoid_and_s(kernels, prime)
    W, outputs = start[0].copy(), np.empty((iterations, len(X)))
    for i in range(iterations):
        O = sigmoid(dot(X, W))
        E = y - O
        outputs[i] = O[:, 0]
        delta = E * s(O)
        W += dot(X.T, delta)
    return outputs


def two_layers(start, y, iterations: int, kernels=PAGE, prime="published") -> Matrix:
    """T6's statements in their order; the outputs O of every iteration."""
    dot, (sigmoid, s) = kernels.dot, _sigmoid_and_s(kernels, prime)
    (Wh, Wo), outputs = (w.copy() for w in start), np.empty((iterations, len(X)))
    for i in range(iterations):
        H = sigmoid(dot(X, Wh))
        O = sigmoid(dot(H, Wo))
        E = y - O
        outputs[i] = O[:, 0]
        dO = E * s(O)
        dH = dot(dO, Wo.T) * s(H)
        Wo += dot(H.T, dO)
        Wh += dot(X.T, dH)
    return outputs


def _sigmoid_and_s(kernels, prime):
    """The page's two functions; `prime="true"` puts σ′ at a sigmoid's output for s."""

    def sigmoid(x):
        return 1 / (1 + kernels.exp(-x))

    def s(x):
        value = sigmoid(x)
        return value * (1 - value)

    return sigmoid, s if prime == "published" else lambda output: output * (1 - output)


def errors(outputs, y):
    """The mean |y − O| of every iteration."""
    return np.mean(np.abs(np.ravel(y) - np.asarray(outputs)), axis=-1)


def published_step(params, x, y):
    """The page's rule on any number of layers: s(O), σ′ of what is σ's output."""
    h = [x]
    for layer in params:
        h.append(jax.lax.logistic(h[-1] @ layer["w"]))
    delta = (y - h[-1]) * _s(h[-1])
    moved = []
    for layer, below in zip(params[::-1], h[-2::-1], strict=True):
        moved.append({"w": layer["w"] + below.T @ delta})
        delta = (delta @ layer["w"].T) * _s(below)
    return tuple(moved[::-1]), h[-1]


def _s(x):
    value = jax.lax.logistic(x)
    return value * (1 - value)


def manual_step(net: Net) -> Step:
    """One unit of step down the hand-written gradient."""

    def step(params, x, y):
        loss, res = net.loss_fwd(params, x, y)
        params_bar, _, _ = net.loss_bwd(res, jnp.ones_like(loss))
        return _minus(params, params_bar), net.forward(params, x)

    return step


def auto_step(net: Net) -> Step:
    """One unit of step down autodiff's gradient."""
    gradient = jax.grad(autodiff(net.loss))

    def step(params, x, y):
        return _minus(params, gradient(params, (x, y))), net.forward(params, x)

    return step


def _minus(params, gradient):
    return jax.tree.map(jnp.subtract, params, gradient)


def as_params(weights: Sequence[Matrix]):
    return tuple({"w": jnp.asarray(w)} for w in weights)


def descend(step: Step, start: Sequence[Matrix], y, iterations: int):
    """The outputs of every iteration of `step`, in one compiled loop."""
    return np.asarray(_descend(step, iterations, as_params(start), jnp.asarray(y)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _descend(step, iterations, params, y):
    def iterate(params, _):
        params, output = step(params, jnp.asarray(X), y)
        return params, output[:, 0]

    return jax.lax.scan(iterate, params, length=iterations)[1]


def one_ulp_away(start: Sequence[Matrix]) -> list[list[Matrix]]:
    """Starts of which one weight is moved to the next number up, or down."""
    starts = []
    for k, w in enumerate(start):
        for index in np.ndindex(w.shape):
            for way in (np.inf, -np.inf):
                moved = [w.copy() for w in start]
                moved[k][index] = np.nextafter(w[index], way)
                starts.append(moved)
    return starts


def growth(step: Step, start: Sequence[Matrix], y, iterations: int) -> Matrix:
    """How far the error of a start one ulp away is, at most, in every iteration."""
    starts = [start, *one_ulp_away(start)]
    stacked = [np.stack(ws) for ws in zip(*starts, strict=True)]
    return np.asarray(_growth(step, iterations, as_params(stacked), jnp.asarray(y)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _growth(step, iterations, params, y):
    def iterate(params, _):
        params, outputs = jax.vmap(step, (0, None, None))(params, jnp.asarray(X), y)
        error = jnp.abs(y - outputs).mean(axis=(1, 2))
        return params, jnp.abs(error - error[0]).max()

    return jax.lax.scan(iterate, params, length=iterations)[1]


def first(condition) -> int | None:
    """The first iteration at which it holds; None if it never does."""
    found = np.flatnonzero(condition)
    return int(found[0]) if len(found) else None
