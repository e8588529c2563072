"""The rules that JAX itself ships."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import special

from public_rules._asked import Asked, a, m, slope
from public_rules._scipy import SPECIAL

_CHOICE = "a choice of subgradient, 0, as JAX documents it"
_RESCUE = "the rule is there for this point: autodiff of the primal has "
_SINGULAR = _RESCUE + "0/0 at a singular matrix, the rule the cofactors"
_TIE = _RESCUE + "subgradients of max and abs at the tie, no derivative"
_ABS = _RESCUE + "a step of abs"
_SERIES = (
    "a Taylor polynomial whose derivative is the next one, not its own: they agree to "
    "rounding where it is used, |x| <= sqrt(eps); here a select drops it"
)
_SQUARE = m([2, 0.5, 0.3], [0.1, 1.5, -0.4], [0.7, 0.2, 3])
_FOUR = m([1, 0.1, 0.2, 0.1], [0.3, 2, 0.1, 0], [0.1, 0.2, 3, 0.1], [0, 0.1, 0.4, 4])


def _softmax(x):
    with jax.softmax_custom_jvp(True):
        return jax.nn.softmax(x)


def _logdet(method):
    return lambda x: jnp.linalg.slogdet(x, method=method)[1]


def _mantissa(x):
    return jnp.frexp(x)[0]


def _cube_root(x):
    def solve(g, y):
        return lax.fori_loop(0, 40, lambda k, y: y - g(y) / (3 * y**2), y)

    start = jnp.ones_like(x)
    return lax.custom_root(
        lambda y: y**3 - x, start, solve, lambda g, y: y / g(jnp.ones_like(y))
    )


def _decay(y, rate):
    from jax.experimental.ode import odeint

    return odeint(lambda y, t, rate: -rate * y, y, jnp.linspace(0.0, 1, 3), rate)


def _heads(x):
    """Attention of two heads, as the TPU kernels' own reference has it."""
    from jax.experimental.pallas.ops.tpu.flash_attention import mha_reference

    return mha_reference(x, x[:, :, ::-1], 2 * x, None, causal=True)


def _splash(cap):
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )

    mask = jnp.tri(3, dtype=bool)

    def attention(q, k, v):
        return kernel.attention_reference_custom(
            mask, q, k, v, None, attn_logits_soft_cap=cap
        )

    return attention


# fmt: off
_FUNCTIONS = (
    Asked("nn.relu", jax.nn.relu, (a(-2, 0.5, 3),)),
    Asked("nn.relu at 0", jax.nn.relu, (a(-1, 0, 2),), {"relu": ("kink", _CHOICE)}),
    Asked("nn.relu6", jax.nn.relu6, (a(-2, 0.5, 3, 7),)),
    Asked("nn.relu6 at 0, 6", jax.nn.relu6, (a(0, 6),), {"relu6": ("kink", _CHOICE)}),
    Asked("nn.softmax", _softmax, (a(1, 2, -3),)),
    Asked("nn.softmax, uneven", _softmax, (a(1e4, 2, -1e4),)),
    Asked("nn.log1mexp", jax.nn.log1mexp, (a(0.1, 0.69, 0.7, 3),)),
    Asked("nn.log1mexp, near 0", jax.nn.log1mexp, (a(1e-6),)),
    Asked("nn.log1mexp, tiny", jax.nn.log1mexp, (a(1e-30),), {"log1mexp": ("autodiff-wrong", _RESCUE + "log1p(-1) in the arm that is not taken")}),
    Asked("nn.softplus", jax.nn.softplus, (a(-3, 0.5, 2),)),
    Asked("nn.softplus at 0", jax.nn.softplus, (a(0),), {"logaddexp": ("autodiff-wrong", _TIE)}),
    Asked("logaddexp", jnp.logaddexp, (a(1, 2, -3), a(0, 2.5, 7))),
    Asked("logaddexp, tie", jnp.logaddexp, (a(0, 1), a(0, 1)), {"logaddexp": ("autodiff-wrong", _TIE)}),
    Asked("logaddexp, one -inf", jnp.logaddexp, (a(-jnp.inf, 1), a(2, -jnp.inf))),
    Asked("logaddexp2", jnp.logaddexp2, (a(1, 2, -3), a(0, 2.5, 7))),
    Asked("logaddexp2, tie", jnp.logaddexp2, (a(0, 1), a(0, 1)), {"logaddexp2": ("autodiff-wrong", _TIE)}),
    Asked("i0", jnp.i0, (a(-2, 0.5, 30),)),
    Asked("i0 at 0", jnp.i0, (a(0),), {"_i0": ("autodiff-wrong", _ABS)}, before="0.12"),
    Asked("i0 at 0", jnp.i0, (a(0),), {"i0_impl": ("autodiff-wrong", _ABS)}, since="0.12"),
    Asked("scipy.special.i1", special.i1, (a(-2, 0.5, 9),), since="0.12"),
    Asked("scipy.special.i1 at 0", special.i1, (a(0),), since="0.12"),
    Asked("scipy.special.i1'", slope(special.i1), (a(0),), since="0.12"),
    Asked("scipy.special.i1', off 0", slope(special.i1), (a(-2, 0.5),), {"_i1_maclaurin": ("wrong", _SERIES)}, since="0.12"),
    Asked("linalg.slogdet, 2x2", _logdet(None), (_SQUARE[:2, :2],)),
    Asked("linalg.slogdet, 3x3", _logdet(None), (_SQUARE,)),
    Asked("linalg.slogdet, LU", _logdet("lu"), (_FOUR,)),
    Asked("linalg.slogdet, QR", _logdet("qr"), (_FOUR,)),
    Asked("linalg.det, 2x2", jnp.linalg.det, (_SQUARE[:2, :2],), since="0.12"),
    Asked("linalg.det, 3x3", jnp.linalg.det, (_SQUARE,), since="0.12"),
    Asked("linalg.det, 4x4", jnp.linalg.det, (_FOUR,)),
    Asked("linalg.det, rank 3", jnp.linalg.det, (jnp.diag(a(1, 2, 3, 0)),), {"_det": ("autodiff-wrong", _SINGULAR)}),
    Asked("linalg.pinv, wide", jnp.linalg.pinv, (_SQUARE[:2],)),
    Asked("linalg.pinv, tall", jnp.linalg.pinv, (_SQUARE[:, :2],)),
    Asked("linalg.pinv, hermitian", lambda x: jnp.linalg.pinv(x, hermitian=True), (_SQUARE + _SQUARE.T,)),
    Asked("frexp", _mantissa, (a(0.3, 5, -7),), {"_frexp": ("autodiff-wrong", _RESCUE + "bit operations, through which nothing flows")}, before="0.12"),
    Asked("hypot", jnp.hypot, (a(3, -1), a(4, 2)), since="0.12"),
    Asked("sinc", jnp.sinc, (a(0.3, -1.7, 1e-3),), before="0.12"),
    Asked("sinc at 0", jnp.sinc, (a(0),), before="0.12"),
    Asked("lax.custom_root", _cube_root, (a(2, 5),), before="0.12"),
    Asked("odeint", _decay, (a(1, 2), a(0.5)[0])),
    Asked("flash_attention.mha_reference", _heads, (m(*_FOUR)[None, None],)),
    Asked("splash attention_reference", _splash(None), (_SQUARE, _SQUARE.T, 2 * _SQUARE)),
    Asked("splash attention_reference, cap", _splash(2.0), (_SQUARE, _SQUARE.T, 2 * _SQUARE)),
    Asked("erf'", slope(special.erf), (a(0.5, 1),), since="0.12"),
)
# fmt: on
ASKED = (*_FUNCTIONS, *SPECIAL)

_GPU = "a kernel that only a GPU compiles"
_TPU = "a Pallas kernel that only a TPU compiles"
_MAKER = "a maker of rules: the user's function is the rule"
NOT_ASKED = {
    "_dot_product_attention": _GPU,
    "_dot_product_attention_fp8": _GPU,
    "scaled_dot_general_fn": _GPU,
    "mha": _GPU,
    "attention": _GPU,
    "layer_norm": _GPU,
    "rms_norm": _GPU,
    "lstm": "cuDNN's LSTM: its primal does not run on a CPU",
    "_flash_attention": _TPU,
    "backend.gmm": _TPU,
    "_splash_attention_custom": _TPU,
    "wrapped_fun": _MAKER,
    "f": _MAKER,
    "f_flat": "a function read from disk: it needs flatbuffers, which jax leaves out",
    "make_call": "needs TensorFlow",
    "converted_fun_flat_with_custom_gradient_tf": "needs TensorFlow",
    "_eval_jaxpr_ad_error": "it raises by intent: nothing may differentiate it",
    "primal_left_tangent_right": "the identity in a tangent: inside remat's own rule",
    "lambda _, *args: f(*args)": _MAKER,
}
