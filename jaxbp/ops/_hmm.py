"""The log-likelihood of a hidden Markov model; its VJP is the posterior."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxbp._errors import argument_error, as_floats, check_shapes
from jaxbp.ops import _logs as logs
from jaxbp.ops._case import Case, normal, points, then
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike


def hmm_log_likelihood(
    log_initial: Float[Array, " k"],
    log_transition: Float[Array, "k k"],
    log_likelihoods: Float[Array, "*n t k"],
) -> Float[Array, "*n"]:
    r"""Log-likelihood of observations: $L = \ln\sum_z e^{\pi_{z_1} + b_{1 z_1}}
    \prod_{t>1} e^{A_{z_{t-1} z_t} + b_{t z_t}}$, over all paths z of states.

    VJP: $\bar b_{ti} = \bar L\,\gamma_{ti}$, $\bar\pi = \bar L\,\gamma_1$,
    $\bar A_{ij} = \bar L\sum_t \xi_{tij}$: the posterior probabilities of being in
    state i at time t, and of going from i to j there. They come from the filtered
    states by the backward recursion
    $\gamma_{ti} = p_{ti}\sum_j T_{ij}\gamma_{t+1,j}/s_{tj}$ with $s_t = p_t T$,
    $T = e^A$, and $\sum_t \xi_{tij} = T_{ij}\sum_t p_{ti}\gamma_{t+1,j}/s_{tj}$, one
    matrix product.

    States are kept as logarithms, their maximum taken out at every step. A step is a
    product with T where none of its terms can underflow, and a log-sum-exp of k × k
    terms in every step of a batch in which one could. Memory and time are linear in t.

    Args:
        log_initial: $\pi$, of any scale: nothing here assumes that it is normalised.
        log_transition: A, from the row's state to the column's; -inf where there is no
            way, with gradient 0.
        log_likelihoods: b of each observation under each state, any leading axes; -inf
            where impossible.
    Returns:
        L; -inf, with gradient 0, where no path is possible. Residuals kept: the
        filtered states, `log_transition`, and whether products were safe.
    Raises:
        ValueError: the axes do not chain, or there is no observation or no state.
        TypeError: not floating, or of two dtypes.
    Source: Rabiner, "A tutorial on hidden Markov models" (1989), eqs. 19–27, 37.
    """
    function = "hmm_log_likelihood"
    arrays = as_floats(
        function,
        log_initial=log_initial,
        log_transition=log_transition,
        log_likelihoods=log_likelihoods,
    )
    pi, a, b = arrays
    expected = "log_initial (k), log_transition (k, k), log_likelihoods (*n, t, k)"
    check_shapes(
        function, expected, log_initial=pi, log_transition=a, log_likelihoods=b
    )
    if 0 in b.shape[-2:]:
        expected = "of shape (*n, t, k) with t and k at least 1"
        raise argument_error(function, "log_likelihoods", expected, f"shape {b.shape}")
    return _hmm_log_likelihood(*alike(pi, a, b))


def _transition(a):
    """T and the factor taken out of it, as a logarithm."""
    highest = logs.finite_max(a)
    return jnp.exp(a - highest), highest


def _onward_by_product(a):
    t, highest = _transition(a)
    return lambda state: logs.log(jnp.exp(state) @ t) + highest


def _onward_by_logs(a):
    return lambda state: logs.log_sum_exp(state[..., None] + a, -2)


def _filtered(onward, pi, b):
    """Log-states (t, *n, k), each with maximum 0, and the sum of what was taken out."""

    def shifted(state):
        shift = logs.finite_max(state, -1)
        return state - shift, shift[..., 0]

    def step(state, b):
        state, shift = shifted(onward(state) + b)
        return state, (state, shift)

    b = jnp.moveaxis(b, -2, 0)
    first, shift = shifted(pi + b[0])
    _, (states, shifts) = jax.lax.scan(step, first, b[1:])
    return jnp.concatenate([first[None], states]), shift + shifts.sum(axis=0)


def _likelihood(states, shift, dtype):
    return (logs.log_sum_exp(states[-1], -1) + shift).astype(dtype)


def _wide(*arrays):
    return [x.astype(accumulator(x.dtype)) for x in arrays]


@jax.custom_vjp
def _hmm_log_likelihood(log_initial, log_transition, log_likelihoods):
    pi, a, b = _wide(log_initial, log_transition, log_likelihoods)
    states, shift = _filtered(_onward_by_logs(a), pi, b)
    return _likelihood(states, shift, log_initial.dtype)


def _is_safe(a, states):
    """No term of any product under- or overflows, there or in the backward recursion.

    With a tenth of the exponents to spare, for cotangents.
    """
    spread = lambda x: jnp.max(jnp.where(jnp.isneginf(x), 0, -x), initial=0.0)
    most = -0.9 * jnp.log(jnp.finfo(a.dtype).tiny)
    return spread(a - logs.finite_max(a)) + spread(states) <= most


def hmm_log_likelihood_fwd(log_initial, log_transition, log_likelihoods):
    pi, a, b = _wide(log_initial, log_transition, log_likelihoods)
    states, shift = _filtered(_onward_by_product(a), pi, b)
    safe = _is_safe(a, states)
    states, shift = jax.lax.cond(
        safe,
        lambda: (states, shift),
        lambda: _filtered(_onward_by_logs(a), pi, b),
    )
    return _likelihood(states, shift, log_initial.dtype), (log_transition, states, safe)


def hmm_log_likelihood_bwd(res, bar):
    log_transition, states, safe = res
    chex.assert_shape(bar, states.shape[1:-1])
    (a,) = _wide(log_transition)
    # Scaled by the cotangent from the start: all that follows is linear in it.
    last = jnp.exp(states[-1] - logs.log_sum_exp(states[-1], -1)[..., None].clip(0))
    last = last * bar[..., None].astype(a.dtype)
    earlier, a_bar = jax.lax.cond(safe, _by_product, _by_logs, a, states[:-1], last)
    gamma = jnp.concatenate([earlier, last[None]])
    dtype = log_transition.dtype
    pi_bar = gamma[0].sum(axis=tuple(range(gamma.ndim - 2)))
    b_bar = jnp.moveaxis(gamma, 0, -2)
    return pi_bar.astype(dtype), a_bar.astype(dtype), b_bar.astype(dtype)


_hmm_log_likelihood.defvjp(hmm_log_likelihood_fwd, hmm_log_likelihood_bwd)


def _by_product(a, states, last):
    """Posteriors but the last, and the sum of those of transitions."""
    t, _ = _transition(a)
    p = jnp.exp(states)
    s = p @ t
    inverse = jnp.where(s > 0, 1 / jnp.where(s > 0, s, 1), 0)
    turned = t.T

    def step(gamma, inputs):
        p, inverse = inputs
        ratio = gamma * inverse
        gamma = p * (ratio @ turned)
        return gamma, (gamma, ratio)

    _, (gamma, ratio) = jax.lax.scan(step, last, (p, inverse), reverse=True)
    n = tuple(range(p.ndim - 1))
    return gamma, t * jnp.tensordot(p, ratio, axes=(n, n))


def _by_logs(a, states, last):
    """The same, each weight $p_i T_{ij}/s_j$ by itself: at most 1, whatever a is."""

    def step(carry, state):
        gamma, a_bar = carry
        terms = state[..., None] + a
        s = logs.log_sum_exp(terms, -2)[..., None, :]
        xi = jnp.exp(terms - jnp.where(jnp.isneginf(s), 0, s)) * gamma[..., None, :]
        gamma = xi.sum(axis=-1)
        a_bar = a_bar + xi.sum(axis=tuple(range(xi.ndim - 2)))
        return (gamma, a_bar), gamma

    carry = last, jnp.zeros_like(a)
    (_, a_bar), gamma = jax.lax.scan(step, carry, states, reverse=True)
    return gamma, a_bar


def _plain(log_initial, log_transition, log_likelihoods):
    # -1e30 for -inf, of which autodiff makes inf - inf; and -inf again in the end.
    arrays = log_initial, log_transition, log_likelihoods
    pi, a, b = (jnp.maximum(x, -1e30) for x in arrays)
    b = jnp.moveaxis(b, -2, 0)

    def step(alpha, b):
        onward = jax.nn.logsumexp(alpha[..., None] + a, axis=-2)
        return onward + b, None

    alpha, _ = jax.lax.scan(step, pi + b[0], b[1:])
    y = jax.nn.logsumexp(alpha, axis=-1)
    return y + jax.lax.stop_gradient(jnp.where(y < -1e29, -jnp.inf, 0))


def _scaled(log_initial, log_transition, log_likelihoods):
    """Autodiff of the recursion in probabilities, normalised at every step."""
    t = jnp.exp(log_transition)
    b = jnp.moveaxis(log_likelihoods, -2, 0)
    highest = b.max(axis=-1, keepdims=True)

    def normalised(p):
        total = p.sum(axis=-1, keepdims=True)
        return p / total, jnp.log(total[..., 0])

    def step(p, b):
        return normalised((p @ t) * b)

    b = jnp.exp(b - highest)
    first, scale = normalised(jnp.exp(log_initial) * b[0])
    _, scales = jax.lax.scan(step, first, b[1:])
    return scale + scales.sum(axis=0) + highest[..., 0].sum(axis=0)


def _at(n, t, k, scale=1.0):
    shapes = (k,), (k, k), (*n, t, k)
    normalised = jax.nn.log_softmax
    return then(normal(*shapes, scale=scale), normalised, normalised, None)


_inf = float("inf")
_left_to_right = points(
    [0.0, -_inf, -_inf],
    [[-0.7, -0.7, -_inf], [-_inf, -0.7, -0.7], [-_inf, -_inf, 0.0]],
    [[-0.5, -2.0, -1.0], [-1.0, -0.3, -1.0], [-2.0, -1.0, -0.1]],
)
CASES = (
    Case(
        hmm_log_likelihood,
        _plain,
        {
            "ordinary": _at((2,), 3, 2),
            "no leading axis": _at((), 4, 3),
            "one observation": _at((2,), 1, 2),
            "one state": _at((2,), 3, 1),
            "no way": _left_to_right,
            "far apart": _at((), 3, 3, 400.0),
            "empty batch": _at((0,), 3, 2),
        },
        {"T=1000, 64 states": _at((), 1000, 64)},
        "Rabiner (1989), eqs. 19–27, 37",
        4 + 12 + 1,
        rivals={"scaled, by autodiff": _scaled},
    ),
)
