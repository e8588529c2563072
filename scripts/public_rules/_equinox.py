"""The rules of equinox."""

import equinox
import equinox.internal
import jax.numpy as jnp

from public_rules._asked import Asked, a

_REFUSES = "it raises by intent: what passes through it may not be differentiated"


def _loop(x):
    return equinox.internal.while_loop(
        lambda carry: carry[0] < 3,
        lambda carry: (carry[0] + 1, jnp.sin(carry[1])),
        (0, x),
        kind="checkpointed",
        max_steps=4,
    )[1]


# fmt: off
ASKED = (
    Asked("internal.nextafter", equinox.internal.nextafter, (a(1, 2),)),
    Asked("internal.prevbefore", equinox.internal.prevbefore, (a(1, 2),)),
    Asked("internal.nondifferentiable", equinox.internal.nondifferentiable, (a(1),), {"_nondifferentiable": ("broken-contract", _REFUSES)}),
    Asked("error_if", lambda x: equinox.error_if(x, x.sum() < 0, "negative"), (a(1, 2),), wrapped={"fn_wrapper": "_error"}),
    Asked("debug.backward_nan", lambda x: equinox.debug.backward_nan(x, terminate=False), (a(1, 2),), wrapped={"fn_wrapped": "_backward_nan"}),
    Asked("internal.while_loop, checkpointed", _loop, (a(1, 2),), wrapped={"fn_wrapped": "_checkpointed_while_loop", "fn_wrapper": "_stop_gradient_on_unperturbed"}),
)
# fmt: on
NOT_ASKED = {
    "_record_symbolic_zeros": "inside the loop's bwd, which finds out what is zero",
    "_record_symbolic_zero": "inside the loop's bwd, which finds out what is zero",
}
