"""The simple recurrent network over a sequence."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxbp.ops import _recurrent as recurrent
from jaxbp.ops._case import Case, beside, normal


def rnn(
    x: Float[Array, "*n t i"],
    h0: Float[Array, "*n h"],
    wx: Float[Array, "i h"],
    wh: Float[Array, "h h"],
    b: Float[Array, " h"],
    lengths: Int[Array, "*n"] | None = None,
) -> tuple[Float[Array, "*n t h"], Float[Array, "*n h"]]:
    r"""Recurrent network: $h_t = \tanh(x_t W_x + h_{t-1} W_h + b)$ for every step.

    VJP, from the last step to the first: $\bar h_t$ is $\bar y_t$ and what arrives from
    step t + 1; $\bar z_t = \bar h_t(1 - h_t^2)$; $\bar h_{t-1} = \bar z_t W_h^\top$;
    and over all steps $\bar x = \bar z W_x^\top$, $\bar W_x = x^\top\bar z$,
    $\bar W_h = h_{-1}^\top\bar z$ with $h_{-1}$ the output a step before,
    $\bar b = \sum\bar z$.

    Args:
        x: inputs, any leading axes `*n`, then time.
        h0: state before the first step.
        wx: weights of the inputs, stored (in, out).
        wh: weights of the state before.
        b: bias.
        lengths: steps of each sequence. After its end a state stays as it is, outputs
            are 0, and nothing there has a gradient; None: all steps. No cotangent.
            Inputs after the end must be finite.
    Returns:
        states $h_t$, and the last one. Residuals kept: the arguments but for `b`, and
        the states, in which tanh's derivative is $1 - h^2$. Memory and time are linear
        in t; the inner loop carries the state's cotangent and nothing else.
    Raises:
        ValueError: the axes do not chain.
        TypeError: not floating, of two dtypes, or lengths that are no integers.
    Source: Elman, "Finding structure in time" (1990); Werbos, "Backpropagation through
        time" (1990).
    """
    expected = "x (*n, t, i), h0 (*n, h), wx (i, h), wh (h, h), b (h)"
    arrays = {"x": x, "h0": h0, "wx": wx, "wh": wh, "b": b}
    return _rnn(*recurrent.checked("rnn", expected, 1, lengths, **arrays))


_CELL = recurrent.Cell(
    step=lambda zx, zh, state: (jnp.tanh(zx + zh),),
    slopes=lambda zx, zh, before, after: 1 - jnp.square(after[0]),
    back=lambda bars, slope: (bars[0] * slope, (jnp.zeros_like(slope),)),
)


@jax.custom_vjp
def _rnn(x, h0, wx, wh, b, lengths):
    (ys,), (h,) = recurrent.forward(_CELL, x, (h0,), wx, wh, (b,), lengths)
    return ys, h


def rnn_fwd(x, h0, wx, wh, b, lengths):
    ys, h = _rnn(x, h0, wx, wh, b, lengths)
    return (ys, h), (x, h0, wx, wh, lengths, ys)


def rnn_bwd(res, bars):
    x, h0, wx, wh, lengths, ys = res
    y_bar, h_bar = bars
    chex.assert_trees_all_equal_shapes_and_dtypes(ys, y_bar)
    no_bias = (jnp.zeros_like(wx[0]),)  # the states say all that it does
    x_bar, (h0_bar,), *weights_bar = recurrent.backward(
        _CELL, x, (h0,), wx, wh, no_bias, lengths, (ys,), y_bar, (h_bar,)
    )
    return x_bar, h0_bar, *weights_bar, None


_rnn.defvjp(rnn_fwd, rnn_bwd)


def _plain(x, h0, wx, wh, b, lengths=None):
    t = x.shape[-2]

    def step(h, inputs):
        x, k = inputs
        new = jnp.tanh(x @ wx + h @ wh + b)
        if lengths is None:
            return new, new
        live = (k < lengths)[..., None]
        return jnp.where(live, new, h), jnp.where(live, new, 0)

    h, ys = jax.lax.scan(step, h0, (jnp.moveaxis(x, -2, 0), jnp.arange(t)))
    return jnp.moveaxis(ys, 0, -2), h


def _hoisted(x, h0, wx, wh, b, lengths=None):
    """Autodiff with all input products in one, outside the scan; no lengths."""

    def step(h, z):
        h = jnp.tanh(z + h @ wh)
        return h, h

    h, ys = jax.lax.scan(step, h0, jnp.moveaxis(x @ wx + b, -2, 0))
    return jnp.moveaxis(ys, 0, -2), h


def _at(n, t, i, h, lengths=None):
    shapes = (*n, t, i), (*n, h), (i, h), (h, h), (h,)
    return beside(normal(*shapes, scale=max(i, h) ** -0.5), lengths)


CASES = (
    Case(
        rnn,
        _plain,
        {
            "ordinary": _at((2,), 4, 2, 3, np.array([4, 2])),
            "no leading axis": _at((), 3, 2, 2),
            "one step": _at((2,), 1, 2, 1),
            "lengths 0 and 1": _at((3,), 2, 1, 2, np.array([0, 1, 2])),
            "empty batch": _at((0,), 3, 2, 2),
            "no steps": _at((2,), 0, 2, 3),
        },
        {
            "T=1024, B=1, 256 units": _at((1,), 1024, 256, 256),
            "T=512, B=8, 256 units": _at((8,), 512, 256, 256),
        },
        "Elman (1990); Werbos (1990)",
        16 + 6 + 6 + 9 + 2 + 24,
        rivals={"input product hoisted": _hoisted},
    ),
)
