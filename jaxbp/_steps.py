"""What a sweep keeps: values with their cotangents, and the equations between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbp import _jaxpr
from jaxbp._jaxpr import Rule


@dataclass(eq=False)
class Value:
    """A value of the program, and the cotangent that arrives at it.

    Steps that share a value share this object. `cotangent` is None where none arrives:
    what the outputs do not depend on, data, and what lies before a while loop.
    `active`: it is floating, and depends on an argument that is differentiated.
    """

    value: Any
    active: bool = False
    cotangent: Any = None


@dataclass(eq=False)
class Step:
    """One equation as it was run: `ins` to `outs`, and cotangents the other way.

    `name` is the primitive's or the rule's; `where` the loops, branches, named scopes
    and jitted functions around it, outermost first; `bars` what it adds to the
    cotangents of its inputs, None: nothing; `wires` the names that a rule's own fwd and
    bwd give, in the order met; `note` why no cotangent goes through, where one should.
    """

    name: str
    ins: tuple[Value, ...]
    outs: tuple[Value, ...]
    site: str = ""
    where: tuple[str, ...] = ()
    eqn: Any = None
    rule: Rule | None = None
    bars: tuple[Any, ...] = ()
    wires: tuple[tuple[str, Any], ...] = ()
    note: str = ""
    pull: Callable[[list[Any]], Sequence[Any]] | None = field(default=None, repr=False)


def is_floating(x: Any) -> bool:
    dtype = x.dtype if hasattr(x, "dtype") else np.result_type(type(x))
    return jnp.issubdtype(dtype, jnp.inexact)


def holds(jaxpr: Any, test: Callable[[Any], Any]) -> bool:
    """Whether an equation of the jaxpr, or of one inside it, passes the test."""
    return any(
        test(eqn) or any(holds(body, test) for body in _jaxpr.bodies(eqn))
        for eqn in jaxpr.eqns
    )


def is_users_rule(eqn: Any) -> bool:
    """Whether an equation calls a rule that JAX does not ship."""
    rule = _jaxpr.as_rule(eqn)
    return rule is not None and not rule.from_jax


def wire_name(eqn: Any) -> str | None:
    """What `checkpoint_name` calls the output of an equation."""
    return eqn.params["name"] if eqn.primitive.name == "name" else None


def or_zeros(bar: Any, like: Any) -> Any:
    """A cotangent, of zeros where there is none."""
    return jnp.zeros_like(like) if bar is None else bar
