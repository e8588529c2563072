"""Local derivatives of a step: a number between scalars, a Jacobian between arrays."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbp import _interpret
from jaxbp._steps import Step, is_floating
from jaxbp._sweep import plain, with_pullback


def local_derivative(step: Step, k: int, *, rules: bool) -> float | None:
    """Of the output in the k-th input, where both are real scalars.

    By the hand-written rule, or, without `rules`, by autodiff.
    """
    value, *others = step.ins[k], *step.outs
    if step.eqn is None or len(others) != 1 or not step.bars or step.bars[k] is None:
        return None
    if any(not _is_real_scalar(v.value) for v in (value, *others)):
        return None
    values = [v.value for v in step.ins]
    run = _interpret.run_equation if rules else plain
    outs, pull = with_pullback(step.eqn, values, [k], run)
    return float(np.asarray(pull([jnp.ones_like(outs[0])])[k]).item())


def _is_real_scalar(x: Any) -> bool:
    return np.size(x) == 1 and is_floating(x) and not jnp.iscomplexobj(x)
