"""The rules of optax."""

import jax.numpy as jnp
import optax

from public_rules._asked import Asked, a

_SCALED = "different on purpose: scale_gradient multiplies what flows back"

# fmt: off
ASKED = (
    Asked("scale_gradient", lambda x: optax.scale_gradient(x, 0.5), (a(1, 2),), {"_scale_gradient": ("wrong", _SCALED)}),
    Asked("safe_softmax_cross_entropy", optax.safe_softmax_cross_entropy, (a(1, 2, -3), a(0.2, 0.3, 0.5))),
    Asked("safe_softmax_cross_entropy, -inf", optax.safe_softmax_cross_entropy, (a(1, 2, -jnp.inf), a(0.5, 0.5, 0))),
    Asked("projection_simplex", optax.projections.projection_simplex, (a(0.3, 2, -1),)),
    Asked("projection_simplex, all inside", optax.projections.projection_simplex, (a(0.2, 0.3, 0.6),)),
    Asked("projection_simplex, at its edge", optax.projections.projection_simplex, (a(1, 0, -1),)),
    Asked("projection_l1_ball", optax.projections.projection_l1_ball, (a(0.3, 2, -1),)),
)
# fmt: on
NOT_ASKED = {}
