"""The same function with its hand-written rules removed."""

import functools
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

from jaxbp import _jaxpr
from jaxbp._errors import argument_error, describe

P = ParamSpec("P")
T = TypeVar("T")


def autodiff(
    f: Callable[P, T], *, keep: Literal["jax"] | None = "jax"
) -> Callable[P, T]:
    r"""The same function with its hand-written rules removed.

    Every call $y = p(x)$ of a rule (`jax.custom_vjp`, `jax.custom_jvp`,
    `jax.custom_gradient`) with primal $p$ is replaced by the equations of $p$ itself,
    wherever it stands: inside jit, scan, while, cond, remat, vmap, shard_map or another
    rule. Every other equation is evaluated as it was. So the value is that of `f`,
    and for a program $f = h \circ p \circ k$

    $$\bar x = \partial k^\top \, \partial p^\top \, \partial h^\top \, \bar y$$

    with $\partial p^\top$ from JAX's own differentiation of $p$, where `jax.grad(f)`
    takes the rule's bwd. The result can be transformed like any function: jit, grad,
    vmap, jvp. It is traced at every call, as `f` would be under grad; put jit around it
    to trace it once.

    Args:
        f: any function that JAX can trace. Its arguments and outputs are pytrees;
            leaves that are not being transformed (flags, sizes, keys, strings, concrete
            data) reach it unchanged. It may close over traced values.
        keep: `"jax"` leaves the rules that JAX itself ships (`jax.nn.relu`,
            `jnp.logaddexp`): they are part of what autodiff is. None removes them too:
            `logaddexp(x, 0)` then has derivative 0 at x = 0, where it is ½.
    Returns:
        a function of the same signature and output tree.
    Raises:
        TypeError: `f` is not callable.
        ValueError: `keep` is neither `"jax"` nor None.

    Limits: a rule that `f` has already differentiated itself (`jax.grad(g)` inside `f`)
    is out of reach, and so is one called inside a rule of JAX's that is kept
    (`lax.custom_root`, `odeint`). A primal that reverse mode cannot differentiate
    (a dynamic while loop, a callback, a kernel) raises JAX's error when it is
    differentiated; forward mode goes through the loop. Python control flow on a value
    that is being differentiated has to be written with `lax.cond`, as under jit. A rule
    that `jax.custom_jvp` puts on a function of JAX's is the user's and is removed.
    """
    if not callable(f):
        raise argument_error("autodiff", "f", "a function", describe(f), kind=TypeError)
    if keep not in ("jax", None):
        raise argument_error("autodiff", "keep", '"jax" or None', repr(keep))

    @functools.wraps(f, updated=())  # not the attributes: a module's may be its weights
    def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        program = _jaxpr.trace(f, args, kwargs, dynamic=_jaxpr.is_tracer)
        plain = _jaxpr.without_rules(program.jaxpr, keep_jax=keep == "jax")
        return program.merge(_jaxpr.evaluate(plain, program.inputs))

    return twin
