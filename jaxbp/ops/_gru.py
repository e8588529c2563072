"""The gated recurrent unit over a sequence."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxbp.ops import _recurrent as recurrent
from jaxbp.ops._case import Case, beside, normal


def gru(
    x: Float[Array, "*n t i"],
    h0: Float[Array, "*n h"],
    wx: Float[Array, "i g"],
    wh: Float[Array, "h g"],
    bx: Float[Array, " g"],
    bh: Float[Array, " g"],
    lengths: Int[Array, "*n"] | None = None,
) -> tuple[Float[Array, "*n t h"], Float[Array, "*n h"]]:
    r"""GRU: $h_t = (1 - u) n + u h_{t-1}$ for every step of a sequence.

    With $a = x_t W_x + b_x$ and $s = h_{t-1} W_h + b_h$, each of three thirds,
    $r = \sigma(a_1 + s_1)$ resets, $u = \sigma(a_2 + s_2)$ updates, and
    $n = \tanh(a_3 + r s_3)$ is new. Reset after the product, as cuDNN and PyTorch have
    it: one product with $W_h$ serves all three.

    VJP, from the last step to the first: $\bar h_t$ is $\bar y_t$ and what arrives from
    step t + 1; $\bar a_3 = \bar h_t(1 - u)(1 - n^2)$, $\bar a_1 = \bar a_3 s_3 r(1-r)$,
    $\bar a_2 = \bar h_t(h_{t-1} - n)u(1-u)$; $\bar s = (\bar a_1, \bar a_2,
    r\bar a_3)$; $\bar h_{t-1} = \bar h_t u + \bar s W_h^\top$; and over all steps
    $\bar x = \bar a W_x^\top$, $\bar W_x = x^\top\bar a$, $\bar b_x = \sum\bar a$,
    $\bar W_h = h_{-1}^\top\bar s$ with $h_{-1}$ the state a step before,
    $\bar b_h = \sum\bar s$.

    Args:
        x: inputs, any leading axes `*n`, then time.
        h0: state before the first step.
        wx: weights of the inputs, stored (in, out), with out the three thirds.
        wh: weights of the state before.
        bx: bias of the inputs' product.
        bh: bias of the state's; only its last third is not the same as `bx`'s.
        lengths: steps of each sequence. After its end a state stays as it is, outputs
            are 0, and nothing there has a gradient; None: all steps. No cotangent.
            Inputs after the end must be finite.
    Returns:
        states $h_t$, and the last one. Residuals kept: the arguments and the states;
        gates are computed again, a chunk of steps at a time. Memory and time are linear
        in t.
    Raises:
        ValueError: the axes do not chain.
        TypeError: not floating, of two dtypes, or lengths that are no integers.
    Source: Cho et al., "Learning phrase representations using RNN encoder–decoder"
        (2014), eqs. 5–8; the reset after the product: PyTorch's `torch.nn.GRU`.
    """
    expected = "x (*n, t, i), h0 (*n, h), wx (i, g), wh (h, g), bx (g), bh (g)"
    arrays = {"x": x, "h0": h0, "wx": wx, "wh": wh, "bx": bx, "bh": bh}
    return _gru(*recurrent.checked("gru", expected, 3, lengths, **arrays))


def _gates(zx, zh):
    (a1, a2, a3), (s1, s2, s3) = (jnp.split(z, 3, axis=-1) for z in (zx, zh))
    r, u = jax.lax.logistic(a1 + s1), jax.lax.logistic(a2 + s2)
    return r, u, jnp.tanh(a3 + r * s3), s3


def _step(zx, zh, state):
    _, u, n, _ = _gates(zx, zh)
    return ((1 - u) * n + u * state[0],)


def _slopes(zx, zh, before, after):
    r, u, n, s3 = _gates(zx, zh)
    of_n = (1 - u) * (1 - n * n)
    return of_n * s3 * r * (1 - r), (before[0] - n) * u * (1 - u), of_n, u, r


def _back(bars, slopes):
    (h_bar,) = bars
    *of_h, u, _ = slopes
    return jnp.concatenate([h_bar * s for s in of_h], axis=-1), (h_bar * u,)


def _hidden(z_bar, slopes):
    a1, a2, a3 = jnp.split(z_bar, 3, axis=-1)
    return jnp.concatenate([a1, a2, a3 * slopes[-1]], axis=-1)


_CELL = recurrent.Cell(_step, _slopes, _back, _hidden)


@jax.custom_vjp
def _gru(x, h0, wx, wh, bx, bh, lengths):
    (ys,), (h,) = recurrent.forward(_CELL, x, (h0,), wx, wh, (bx, bh), lengths)
    return ys, h


def gru_fwd(x, h0, wx, wh, bx, bh, lengths):
    ys, h = _gru(x, h0, wx, wh, bx, bh, lengths)
    return (ys, h), (x, h0, wx, wh, bx, bh, lengths, ys)


def gru_bwd(res, bars):
    x, h0, wx, wh, bx, bh, lengths, ys = res
    y_bar, h_bar = bars
    chex.assert_trees_all_equal_shapes_and_dtypes(ys, y_bar)
    x_bar, (h0_bar,), *weights_bar = recurrent.backward(
        _CELL, x, (h0,), wx, wh, (bx, bh), lengths, (ys,), y_bar, (h_bar,)
    )
    return x_bar, h0_bar, *weights_bar, None


_gru.defvjp(gru_fwd, gru_bwd)


def _plain(x, h0, wx, wh, bx, bh, lengths=None):
    t = x.shape[-2]

    def step(h, inputs):
        x, k = inputs
        a, s = jnp.split(x @ wx + bx, 3, -1), jnp.split(h @ wh + bh, 3, -1)
        reset, update = jax.nn.sigmoid(a[0] + s[0]), jax.nn.sigmoid(a[1] + s[1])
        new = (1 - update) * jnp.tanh(a[2] + reset * s[2]) + update * h
        if lengths is None:
            return new, new
        live = (k < lengths)[..., None]
        return jnp.where(live, new, h), jnp.where(live, new, 0)

    h, ys = jax.lax.scan(step, h0, (jnp.moveaxis(x, -2, 0), jnp.arange(t)))
    return jnp.moveaxis(ys, 0, -2), h


def _at(n, t, i, h, lengths=None):
    shapes = (*n, t, i), (*n, h), (i, 3 * h), (h, 3 * h), (3 * h,), (3 * h,)
    return beside(normal(*shapes, scale=max(i, h) ** -0.5), lengths)


CASES = (
    Case(
        gru,
        _plain,
        {
            "ordinary": _at((2,), 3, 2, 2, np.array([3, 2])),
            "no leading axis": _at((), 3, 2, 2),
            "one step": _at((2,), 1, 2, 1),
            "lengths 0 and 1": _at((3,), 2, 1, 2, np.array([0, 1, 2])),
            "empty batch": _at((0,), 3, 2, 2),
        },
        {"T=512, B=8, 256 units": _at((8,), 512, 256, 256)},
        "Cho et al. (2014), eqs. 5–8",
        12 + 4 + 12 + 12 + 6 + 6 + 2 + 12,
    ),
)
