"""Full-batch descent: the tutorial's statements in NumPy, and by `train.fit`."""

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbp import train
from jaxbp.nets import Net

X = np.array([[0.0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])

Matrix = Any  # np.ndarray of float64, two axes
Loss = Callable[[Any, Any], Any]


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


def published(net: Net) -> Loss:
    """The net's loss with the page's rule as its hand-written gradient.

    On any number of layers: s(O), σ′ of what is σ's output.
    """

    @jax.custom_vjp
    def loss(params, x, y):
        return net.loss(params, (x, y))

    def fwd(params, x, y):
        h = [x]
        for layer in params:
            h.append(jax.lax.logistic(h[-1] @ layer["w"]))
        return loss(params, x, y), (params, h, y)

    def bwd(res, loss_bar):
        params, h, y = res
        delta = -loss_bar * (y - h[-1]) * _s(h[-1])
        bars = []
        for layer, below in zip(params[::-1], h[-2::-1], strict=True):
            bars.append({"w": below.T @ delta})
            delta = (delta @ layer["w"].T) * _s(below)
        return tuple(bars[::-1]), None, None

    loss.defvjp(fwd, bwd)
    return lambda params, batch: loss(params, *batch)


def _s(x):
    value = jax.lax.logistic(x)
    return value * (1 - value)


def as_params(weights: Sequence[Matrix]):
    return tuple({"w": jnp.asarray(w)} for w in weights)


def descend(
    net: Net, loss: Loss, start: Sequence[Matrix], y, iterations: int, gradient: str
) -> Matrix:
    """The outputs of every iteration, one unit of step down the gradient."""

    def watched(params, batch):
        return loss(params, batch), net.forward(params, batch[0])[:, 0]

    return _watched(watched, as_params(start), y, iterations, gradient)


def _watched(loss, params, y, iterations: int, gradient: str) -> Matrix:
    """What the loss returns beside the scalar, of every iteration."""
    how = {"steps": iterations, "gradient": gradient, "log_every": 1}
    history = train.fit(loss, params, (X, y), optax.sgd(1.0), **how).history
    return np.array([entry["metrics"] for entry in history])


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


def growth(net: Net, loss: Loss, start: Sequence[Matrix], y, iterations: int) -> Matrix:
    """How far the error of a start one ulp away is, at most, in every iteration."""
    starts = [start, *one_ulp_away(start)]
    stacked = [np.stack(ws) for ws in zip(*starts, strict=True)]

    def watched(params, batch):
        outputs = jax.vmap(net.forward, (0, None))(params, batch[0])
        error = jnp.abs(batch[1] - outputs).mean(axis=(1, 2))
        losses = jax.vmap(loss, (0, None))(params, batch)
        return losses.sum(), jnp.abs(error - error[0]).max()

    return _watched(watched, as_params(stacked), y, iterations, "manual")


def first(condition) -> int | None:
    """The first iteration at which it holds; None if it never does."""
    found = np.flatnonzero(condition)
    return int(found[0]) if len(found) else None
