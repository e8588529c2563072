"""The values and cotangents that stand on the named wires of a function."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxbp._errors import argument_error
from jaxbp._jaxpr import interpret, trace


def wires(f: Callable[..., Any], *args: Any) -> dict[str, jax.Array]:
    """The value on every named wire that is met while `f(*args)` is evaluated.

    A wire is named by `jax.ad_checkpoint.checkpoint_name`, in forward code and in
    hand-written backward code alike: `wires(jax.grad(f), *args)` holds both `a2` and
    `a2_bar`. Of a name met several times, in a loop for example, the last value stays.
    """
    found: dict[str, jax.Array] = {}

    def visit(eqn, ins, outs):
        del ins
        name = _wire_name(eqn)
        if name is not None:
            found[name] = outs[0]
        return outs

    program = trace(f, args)
    interpret(program.jaxpr, program.inputs, visit)
    return found


def tap(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` with something added on its wires: `g(taps, *args)`, `taps[name]` on `name`.

    At taps of zero `g` is `f`, and its gradient in `taps[name]` is the cotangent of
    that wire. Rules are kept whole, so that a wire inside one is out of reach: tap
    `autodiff(f)` to reach them all.

    Raises:
        ValueError: a tap names no wire of `f`.
    """

    def tapped(taps: Mapping[str, jax.Array], *args: Any) -> Any:
        met = set()

        def visit(eqn, ins, outs):
            del ins
            name = _wire_name(eqn)
            if name is not None and name in taps:
                met.add(name)
                return [outs[0] + taps[name]]
            return outs

        program = trace(f, args)
        outs = interpret(program.jaxpr, program.inputs, visit, descend_rules=False)
        for name in taps:
            if name not in met:
                known = ", ".join(sorted(wires(f, *args))) or "none"
                raise argument_error("tap", "taps", f"names among {known}", name)
        return program.merge(outs)

    return tapped


def _wire_name(eqn: Any) -> str | None:
    return eqn.params["name"] if eqn.primitive.name == "name" else None
