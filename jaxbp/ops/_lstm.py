"""Long short-term memory over a sequence."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxbp.ops import _recurrent as recurrent
from jaxbp.ops._case import Case, beside, normal


def lstm(
    x: Float[Array, "*n t i"],
    h0: Float[Array, "*n h"],
    c0: Float[Array, "*n h"],
    wx: Float[Array, "i g"],
    wh: Float[Array, "h g"],
    b: Float[Array, " g"],
    lengths: Int[Array, "*n"] | None = None,
) -> tuple[Float[Array, "*n t h"], tuple[Float[Array, "*n h"], Float[Array, "*n h"]]]:
    r"""LSTM: $c_t = f c_{t-1} + i g$, $h_t = o\tanh c_t$ for every step of a sequence.

    $i, f, g, o$ are the quarters, in this order, of $z_t = x_t W_x + h_{t-1} W_h + b$,
    $g$ through tanh and the others through the sigmoid.

    VJP, from the last step to the first: $\bar h_t$ is $\bar y_t$ and what arrives from
    step t + 1; $\bar c_t \mathrel{+}= \bar h_t\,o(1 - \tanh^2 c_t)$;
    $\bar z_t = (\bar c_t g\,i(1-i), \bar c_t c_{t-1} f(1-f), \bar c_t i(1-g^2),
    \bar h_t \tanh c_t\,o(1-o))$; $\bar h_{t-1} = \bar z_t W_h^\top$,
    $\bar c_{t-1} = \bar c_t f$; and over all steps $\bar x = \bar z W_x^\top$,
    $\bar W_x = x^\top\bar z$, $\bar W_h = h_{-1}^\top\bar z$, $\bar b = \sum\bar z$.

    Args:
        x: inputs, any leading axes `*n`, then time.
        h0: output before the first step.
        c0: memory before the first step.
        wx: weights of the inputs, stored (in, out), with out the four quarters.
        wh: weights of the output before.
        b: bias.
        lengths: steps of each sequence. After its end a state stays as it is, outputs
            are 0, and nothing there has a gradient; None: all steps. No cotangent.
            Inputs after the end must be finite.
    Returns:
        outputs $h_t$, and the last $(h, c)$. Residuals kept: the arguments, the outputs
        and every $c_t$; gates are computed again, a chunk of steps at a time, so that
        memory grows by three numbers a unit and step, where the gates would be four
        more. Time is linear in t.
    Raises:
        ValueError: the axes do not chain.
        TypeError: not floating, of two dtypes, or lengths that are no integers.
    Source: Hochreiter and Schmidhuber, "Long short-term memory" (1997), with the forget
        gate of Gers et al. (2000); Graves, *Supervised Sequence Labelling* (2012), §4.
    """
    expected = "x (*n, t, i), h0 (*n, h), c0 (*n, h), wx (i, g), wh (h, g), b (g)"
    arrays = {"x": x, "h0": h0, "c0": c0, "wx": wx, "wh": wh, "b": b}
    return _lstm(*recurrent.checked("lstm", expected, 4, lengths, **arrays))


def _step(zx, zh, state):
    i, f, g, o = _gates(zx, zh)
    c = f * state[1] + i * g
    return o * jnp.tanh(c), c


def _gates(zx, zh):
    i, f, g, o = jnp.split(zx + zh, 4, axis=-1)
    sigmoid = jax.lax.logistic
    return sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)


def _slopes(zx, zh, before, after):
    i, f, g, o = _gates(zx, zh)
    before, y = before[1], jnp.tanh(after[1])
    of_c = g * i * (1 - i), before * f * (1 - f), i * (1 - g * g)
    return of_c, y * o * (1 - o), o * (1 - y * y), f


def _back(bars, slopes):
    h_bar, c_bar = bars
    of_c, of_h, onto_c, forget = slopes
    c_bar = c_bar + h_bar * onto_c
    z_bar = jnp.concatenate([*(c_bar * s for s in of_c), h_bar * of_h], axis=-1)
    return z_bar, (jnp.zeros_like(h_bar), c_bar * forget)


_CELL = recurrent.Cell(_step, _slopes, _back)


@jax.custom_vjp
def _lstm(x, h0, c0, wx, wh, b, lengths):
    (ys, _), state = recurrent.forward(_CELL, x, (h0, c0), wx, wh, (b,), lengths)
    return ys, state


def lstm_fwd(x, h0, c0, wx, wh, b, lengths):
    states, state = recurrent.forward(_CELL, x, (h0, c0), wx, wh, (b,), lengths)
    return (states[0], state), (x, h0, c0, wx, wh, b, lengths, states)


def lstm_bwd(res, bars):
    x, h0, c0, wx, wh, b, lengths, states = res
    y_bar, (h_bar, c_bar) = bars
    chex.assert_trees_all_equal_shapes_and_dtypes(states[0], y_bar)
    x_bar, (h0_bar, c0_bar), *weights_bar = recurrent.backward(
        _CELL, x, (h0, c0), wx, wh, (b,), lengths, states, y_bar, (h_bar, c_bar)
    )
    return x_bar, h0_bar, c0_bar, *weights_bar, None


_lstm.defvjp(lstm_fwd, lstm_bwd)


def _plain(x, h0, c0, wx, wh, b, lengths=None):
    t = x.shape[-2]

    def step(state, inputs):
        x, k = inputs
        h, c = state
        i, f, g, o = jnp.split(x @ wx + h @ wh + b, 4, -1)
        c_new = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h_new = jax.nn.sigmoid(o) * jnp.tanh(c_new)
        if lengths is None:
            return (h_new, c_new), h_new
        live = (k < lengths)[..., None]
        state = jnp.where(live, h_new, h), jnp.where(live, c_new, c)
        return state, jnp.where(live, h_new, 0)

    state, ys = jax.lax.scan(step, (h0, c0), (jnp.moveaxis(x, -2, 0), jnp.arange(t)))
    return jnp.moveaxis(ys, 0, -2), state


def _hoisted(x, h0, c0, wx, wh, b, lengths=None):
    """Autodiff with all input products in one, outside the scan; no lengths."""

    def step(state, z):
        h, c = state
        i, f, g, o = jnp.split(z + h @ wh, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    state, ys = jax.lax.scan(step, (h0, c0), jnp.moveaxis(x @ wx + b, -2, 0))
    return jnp.moveaxis(ys, 0, -2), state


def _at(n, t, i, h, lengths=None):
    shapes = (*n, t, i), (*n, h), (*n, h), (i, 4 * h), (h, 4 * h), (4 * h,)
    return beside(normal(*shapes, scale=max(i, h) ** -0.5), lengths)


CASES = (
    Case(
        lstm,
        _plain,
        {
            "ordinary": _at((2,), 3, 2, 2, np.array([3, 2])),
            "no leading axis": _at((), 3, 2, 2),
            "one step": _at((2,), 1, 2, 1),
            "lengths 0 and 1": _at((3,), 2, 1, 2, np.array([0, 1, 2])),
            "empty batch": _at((0,), 3, 2, 2),
        },
        {"T=512, B=8, 256 units": _at((8,), 512, 256, 256)},
        "Hochreiter and Schmidhuber (1997)",
        12 + 4 + 4 + 16 + 16 + 8 + 2 + 2 * 12,
        rivals={"input product hoisted": _hoisted},
    ),
)
