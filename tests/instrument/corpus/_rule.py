"""One rule of the corpus, and the arrays that many are asked at."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

_rng = np.random.default_rng(5)


def _normal(*shape):
    return _rng.standard_normal(shape)


X, W, B = _normal(4, 3), _normal(3, 3), _normal(3)
V, U = _normal(5), _normal(5)
P = np.abs(_normal(4, 3)) + 0.2
LONG, LONGER = _normal(5000), _normal(10_000)
IDS = np.array([2, 0, 2, 1])
FLAGS = np.array([True, False, True, True, False])


class Rule(NamedTuple):
    primal: Callable
    bwd: Callable
    args: tuple
    blamed: str | None = "[0]"

    def function(self):
        @jax.custom_vjp
        def f(*args):
            return self.primal(*args)

        def fwd(*args):
            return self.primal(*args), args if len(args) > 1 else args[0]

        f.defvjp(fwd, self.bwd)
        return f
