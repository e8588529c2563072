"""The rules of flax."""

import jax.numpy as jnp
from flax.linen import fp8_ops

from public_rules._asked import Asked, a, m

_STATE = (
    "different on purpose: for scale and history the rule gives back their next state "
    "in place of a cotangent, which flax's optimizer step assigns"
)
_THROUGH = (
    "different on purpose: the quantized product is differentiated as a plain one"
)
_FLOAT32 = (
    "different on purpose: its cotangents are of preferred_element_type, float32 here, "
    "whatever dtype comes in; for its scales they are the next state, as above"
)
_DIMS = (((1,), (0,)), ((), ()))
_META = (a(1), a(0, 0, 0))


def _fp8(lhs, rhs, scales, histories):
    return fp8_ops.fp8_scaled_dot_general(
        lhs,
        rhs,
        _DIMS,
        preferred_element_type=jnp.float32,
        **dict(zip(("lhs_scale", "rhs_scale", "grad_scale"), scales, strict=True)),
        **dict(
            zip(
                ("lhs_amax_history", "rhs_amax_history", "grad_amax_history"),
                histories,
                strict=True,
            )
        ),
    )


# fmt: off
ASKED = (
    Asked("in_qdq", lambda x, *meta: fp8_ops.in_qdq(jnp.float32, jnp.float8_e4m3fn, x, *meta), (a(1, 2.1), *_META), {"in_qdq": ("broken-contract", _STATE)}),
    Asked("out_qdq", lambda x, *meta: fp8_ops.out_qdq(jnp.float32, jnp.float8_e5m2, x, *meta), (a(1, 2.1), *_META), {"out_qdq": ("broken-contract", _STATE)}),
    Asked("fp8_scaled_dot_general", _fp8, (m([0.5, -1], [0.3, 2]), m([1, 2], [0.7, 0.1]), (a(1),) * 3, (a(0, 0, 0),) * 3), {
        "in_q": ("broken-contract", _STATE),
        "quantized_dot": ("broken-contract", _FLOAT32),
        "out_dq": ("broken-contract", _THROUGH),
    }),
    Asked("dot_general_with_precision", lambda x, y: fp8_ops.dot_general_with_precision(x, y, _DIMS), (m([0.5, -1], [0.3, 2]), m([1, 2], [0.7, 0.1]))),
)
# fmt: on
_MAKER = "a maker of rules: the user's function is the rule"
NOT_ASKED = {
    "f": _MAKER,
    "nodiff_fn": _MAKER,
    "SimpleCustomVjpFn(fun, graph=graph)": _MAKER,
    "CustomVjpFnWrapper(f=self.fun, jax_nondi": _MAKER,
}
