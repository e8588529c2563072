"""A line of the list: which rule, at which arguments, and what is to be expected."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Asked(NamedTuple):
    """`f` at `args`, where it meets rules.

    `differs` gives the verdict of each rule that is not `right` there, and why;
    `wrapped`, of each wrapper that `audit` sees in place of a rule, the rules in the
    source; `since` and `before` the versions of jax between which the line holds.
    """

    label: str
    f: Callable[..., Any]
    args: tuple[Any, ...]
    differs: Mapping[str, tuple[str, str]] = {}
    wrapped: Mapping[str, str] = {}
    since: str = ""
    before: str = ""


def a(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def m(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def slope(f: Callable[..., Any]) -> Callable[..., Any]:
    """The derivative, in which rules of rules are met."""
    return lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]
