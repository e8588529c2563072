"""Softmax, its logarithm, and the log-sum-exp, over the last axis, with a mask.

An entry that is masked counts as a logit of -inf; a row of which nothing is kept has no
probabilities, and its cotangents are 0.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxbp._errors import argument_error, as_floats, describe
from jaxbp.ops._case import Case, beside, normal, points
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike

Mask = Bool[Array, "*#n #k"] | None


def softmax(x: ArrayLike, mask: Mask = None) -> Float[Array, "*n k"]:
    r"""Softmax of the last axis: $y_i = e^{x_i} / \sum_j e^{x_j}$.

    VJP: $\bar x_i = y_i(\bar y_i - \sum_j \bar y_j y_j)$. The Jacobian
    $y_i(\delta_{ij} - y_j)$ is full: every output depends on every input. The mean is
    taken off twice: once leaves $\bar y_i$ less its own roundings where one class has
    all the probability.

    Args:
        x: logits, any leading axes; shifted by their maximum, so that none overflows.
        mask: True where a logit counts; of x's shape, or broadcast to it.
    Returns:
        probabilities; 0 where masked, and all over a row of which nothing is kept.
        Residuals kept: `y`, which has the mask in it.
    Raises:
        ValueError: no axis to normalise over; a mask that does not broadcast to x.
        TypeError: x not floating, mask not boolean.
    Source: Bridle, "Probabilistic interpretation of feedforward classification network
        outputs" (1990), eq. 4; twice is enough: Parlett, *The Symmetric Eigenvalue
        Problem*, sec. 6.9.
    """
    return _softmax(*_checked("softmax", x, mask))


@jax.custom_vjp
def _softmax(x, mask):
    x, top, total, _ = _shifted(x, mask)
    return jnp.exp(x - top) / total


def softmax_fwd(x, mask=None):
    y = _softmax(x, mask)
    return y, y


def softmax_bwd(y, y_bar):
    chex.assert_trees_all_equal_shapes_and_dtypes(y, y_bar)
    centred = y_bar - _summed(y_bar * y)
    return y * (centred - _summed(centred * y)), None


_softmax.defvjp(softmax_fwd, softmax_bwd)


def log_softmax(x: ArrayLike, mask: Mask = None) -> Float[Array, "*n k"]:
    r"""Logarithm of the softmax: $y_i = x_i - \ln\sum_j e^{x_j}$.

    VJP: $\bar x_i = \bar y_i - p_i\sum_j \bar y_j$ with $p$ the softmax; taken twice
    (it is a projection), since once leaves a rounding where $p_i$ is close to 1. A
    masked entry has no cotangent, and none of its own is heard.

    Args:
        x: logits, any leading axes; shifted by their maximum, so that none overflows.
        mask: True where a logit counts; of x's shape, or broadcast to it.
    Returns:
        log-probabilities, up to 0; -inf where masked, and all over a row of which
        nothing is kept: choose with `where`, 0 times -inf is not 0. Where one class has
        all the probability its value is rounded in units of 1's last place; its
        gradient is not. Residuals kept: `x`, `mask`, and of each row the maximum and
        the sum, from which the softmax is one exponential away.
    Raises:
        ValueError: no axis to normalise over; a mask that does not broadcast to x.
        TypeError: x not floating, mask not boolean.
    Source: Bishop, *Pattern Recognition and Machine Learning*, eqs. 4.104–4.106.
    """
    return _log_softmax(*_checked("log_softmax", x, mask))


@jax.custom_vjp
def _log_softmax(x, mask):
    return log_softmax_fwd(x, mask)[0]


def log_softmax_fwd(x, mask=None):
    kept, top, total, _ = _shifted(x, mask)
    # Masked again, so that autodiff of this hears no cotangent there either.
    y = _masked(kept - top - jnp.log(total), mask)
    return y, (x, mask, top, total)


def log_softmax_bwd(res, y_bar):
    x, mask, top, total = res
    chex.assert_trees_all_equal_shapes_and_dtypes(x, y_bar)
    e = jnp.exp(_masked(x, mask) - top)
    heard = y_bar if mask is None else jnp.where(mask, y_bar, 0)
    once = heard - e * (_summed(heard) / total)
    return once - e * (_summed(once) / total), None


_log_softmax.defvjp(log_softmax_fwd, log_softmax_bwd)


def logsumexp(x: ArrayLike, mask: Mask = None) -> Float[Array, "*n"]:
    r"""Log-sum-exp of the last axis: $y = \ln\sum_j e^{x_j}$.

    VJP: $\bar x_i = \bar y\,e^{x_i} / \sum_j e^{x_j}$, the softmax.

    Args:
        x: logits, any leading axes; shifted by their maximum, so that none overflows.
        mask: True where a logit counts; of x's shape, or broadcast to it.
    Returns:
        one number a row; -inf where nothing is kept. Residuals kept: `x`, `mask`, and
        of each row the maximum and the sum: their log-sum-exp would have rounded away
        what tells large logits apart.
    Raises:
        ValueError: no axis to sum over; a mask that does not broadcast to x.
        TypeError: x not floating, mask not boolean.
    Source: Bishop, *Pattern Recognition and Machine Learning*, ch. 4, ex. 4.17 (its
        gradient); Blanchard, Higham and Higham (2021), eq. 1.4 (the shift).
    """
    return _logsumexp(*_checked("logsumexp", x, mask))


@jax.custom_vjp
def _logsumexp(x, mask):
    return logsumexp_fwd(x, mask)[0]


def logsumexp_fwd(x, mask=None):
    _, top, total, nothing = _shifted(x, mask)
    y = jnp.where(nothing, -jnp.inf, top + jnp.log(total))
    return y[..., 0], (x, mask, top, total)


def logsumexp_bwd(res, y_bar):
    x, mask, top, total = res
    chex.assert_shape(y_bar, x.shape[:-1])
    return jnp.exp(_masked(x, mask) - top) * (y_bar[..., None] / total), None


_logsumexp.defvjp(logsumexp_fwd, logsumexp_bwd)


def _shifted(x, mask):
    """Logits with the mask in them, their maximum, the sum of exponentials beside it.

    And where a row keeps nothing: maximum and sum are finite and not 0 there.
    """
    x = _masked(x, mask)
    top = jax.lax.stop_gradient(x.max(axis=-1, keepdims=True))
    top = jnp.where(top == -jnp.inf, 0, top)
    total = _summed(jnp.exp(x - top))
    return x, top, jnp.where(total == 0, 1, total), total == 0


def _masked(x, mask):
    return x if mask is None else jnp.where(mask, x, -jnp.inf)


def _summed(x):
    return x.sum(axis=-1, keepdims=True, dtype=accumulator(x.dtype)).astype(x.dtype)


def _checked(function, x, mask):
    (x,) = as_floats(function, x=x)
    if x.ndim == 0 or x.shape[-1] == 0:
        expected = "of shape (*n, k) with k at least 1"
        raise argument_error(function, "x", expected, f"shape {x.shape}")
    if mask is None:
        return x, None
    if jnp.result_type(mask) != np.bool_:
        got, mend = describe(mask), "True keeps an entry: compare it with 0"
        raise argument_error(function, "mask", "boolean", got, mend, kind=TypeError)
    mask = jnp.asarray(mask)
    shape = (*(1,) * (x.ndim - mask.ndim), *mask.shape)
    fits = len(shape) == x.ndim
    if not fits or any(m not in (1, n) for m, n in zip(shape, x.shape, strict=True)):
        expected = f"of a shape that broadcasts to x's {x.shape}"
        raise argument_error(function, "mask", expected, mask.shape)
    return alike(x, mask)


def _plain(of_rows, nothing):
    """`of_rows(x, where=mask)`, and `nothing` where an entry or a row is masked."""

    def plain(x, mask):
        if mask is None:
            return of_rows(x, None)
        some = mask.any(axis=-1, keepdims=True)
        y = of_rows(x, jnp.where(some, mask, True))
        kept = some & mask if y.ndim == x.ndim else some[..., 0]
        return jnp.where(kept, y, nothing)

    return plain


def _case(function, of_rows, nothing, source, residuals, masked=True) -> Case:
    """Masked at "ordinary", unless masked outputs are infinite."""
    x = normal((5, 3))
    mask = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    unlike = [[0.0, 0.0, 0.0], [1e4, 0.0, -1e4], [7.0, 7.0, 1.0], [40.0, 0.0, 0.0]]
    inputs = {
        "ordinary": beside(x, mask if masked else None),
        "no mask": beside(x, None),
        "one mask for all": beside(x, mask[0]),
        "rows of nothing": beside(x, mask & mask.all(axis=-1, keepdims=True)),
        "huge where masked": points([[1.0, 0.0, 1e30], [2.0, -3.0, -1e30]], mask[0]),
        "one row": beside(normal((4,)), None),
        "one class": beside(normal((3, 1)), None),
        "empty batch": beside(normal((0, 3)), None),
        "ties and far": points(unlike, None),
    }
    cost = {"8192×1000": beside(normal((8192, 1000)), None)}
    plain = _plain(of_rows, nothing)
    return Case(function, plain, inputs, cost, source, residuals)


CASES = (
    _case(
        softmax,
        lambda x, mask: jax.nn.softmax(x, where=mask),
        0.0,
        "Bridle (1990), eq. 4",
        15,
    ),
    _case(
        log_softmax,
        lambda x, mask: jax.nn.log_softmax(x, where=mask),
        -jnp.inf,
        "Bishop, eqs. 4.104–4.106",
        25,
        masked=False,
    ),
    _case(
        logsumexp,
        lambda x, mask: jax.nn.logsumexp(x, axis=-1, where=mask),
        -jnp.inf,
        "Bishop, ex. 4.17",
        40,
    ),
)
