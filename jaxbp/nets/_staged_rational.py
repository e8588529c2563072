"""The staged rational function, forward and backward one stage a line."""

import jax
from jax.ad_checkpoint import checkpoint_name as wire
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxbp import ops
from jaxbp._errors import as_floats, check_shapes


def staged_rational(x: ArrayLike, y: ArrayLike) -> Float[Array, "*n"]:
    r"""$f(x, y) = \dfrac{x + \sigma(y)}{\sigma(x) + (x + y)^2}$, elementwise.

    VJP: with $N$ the numerator and $D$ the denominator, $\bar N = \bar f/D$,
    $\bar D = -N\bar f/D^2$, $\bar x = \bar N + \bar D(\sigma'(x) + 2(x+y))$,
    $\bar y = \bar N\sigma'(y) + 2\bar D(x+y)$: x meets three branches, y two, and their
    cotangents add up.

    Wires: `sigy`, `numer`, `sigx`, `xandy`, `xandysqr`, `denom`, `rec_denom`, `f`.

    Args:
        x: any shape `*n`.
        y: the same shape and dtype.
    Returns:
        the function's value; the denominator is positive everywhere. Residuals kept:
        what each stage keeps: `x`, `y`, `numer`, `xandy`, `rec_denom`.
    Raises:
        ValueError: the shapes differ.
        TypeError: not floating, or of two dtypes.
    Source: CS231n notes, "Backpropagation in practice: staged computation".
    """
    x, y = as_floats("staged_rational", x=x, y=y)
    check_shapes("staged_rational", "x (*n), y (*n)", x=x, y=y)
    return _staged_rational(x, y)


@jax.custom_vjp
def _staged_rational(x, y):
    return staged_rational_fwd(x, y)[0]


def staged_rational_fwd(x, y):
    sigy, sigy_res = ops.sigmoid_fwd(y)
    numer, numer_res = ops.add_fwd(x, wire(sigy, "sigy"))
    sigx, sigx_res = ops.sigmoid_fwd(x)
    xandy, xandy_res = ops.add_fwd(x, y)
    xandysqr, xandysqr_res = ops.square_fwd(wire(xandy, "xandy"))
    denom, denom_res = ops.add_fwd(wire(xandysqr, "xandysqr"), wire(sigx, "sigx"))
    rec_denom, rec_denom_res = ops.reciprocal_fwd(wire(denom, "denom"))
    f, f_res = ops.multiply_fwd(wire(numer, "numer"), wire(rec_denom, "rec_denom"))
    numerator_res = (sigy_res, numer_res)
    denominator_res = (sigx_res, xandy_res, xandysqr_res, denom_res, rec_denom_res)
    return wire(f, "f"), (numerator_res, denominator_res, f_res)


def staged_rational_bwd(res, df):
    (sigy_res, numer_res), denominator_res, f_res = res
    sigx_res, xandy_res, xandysqr_res, denom_res, rec_denom_res = denominator_res
    df = wire(df, "f_bar")
    dnumer, drec_denom = ops.multiply_bwd(f_res, df)
    drec_denom = wire(drec_denom, "rec_denom_bar")
    (ddenom,) = ops.reciprocal_bwd(rec_denom_res, drec_denom)
    ddenom = wire(ddenom, "denom_bar")
    dxandysqr, dsigx = ops.add_bwd(denom_res, ddenom)
    dsigx, dxandysqr = wire(dsigx, "sigx_bar"), wire(dxandysqr, "xandysqr_bar")
    (dx1,) = ops.sigmoid_bwd(sigx_res, dsigx)
    (dxandy,) = ops.square_bwd(xandysqr_res, dxandysqr)
    dxandy = wire(dxandy, "xandy_bar")
    dx2, dy1 = ops.add_bwd(xandy_res, dxandy)
    dnumer = wire(dnumer, "numer_bar")
    dx3, dsigy = ops.add_bwd(numer_res, dnumer)
    dsigy = wire(dsigy, "sigy_bar")
    (dy2,) = ops.sigmoid_bwd(sigy_res, dsigy)
    return dx1 + dx2 + dx3, dy1 + dy2


_staged_rational.defvjp(staged_rational_fwd, staged_rational_bwd)
