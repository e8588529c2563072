"""Values and cotangents of a function, wire by wire and equation by equation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbp._arguments import checked
from jaxbp._errors import argument_error, describe
from jaxbp._interpret import interpret
from jaxbp._jaxpr import Program, is_differentiable, trace
from jaxbp._steps import Step, Value, is_floating, wire_name
from jaxbp._sweep import sweep


class Wire(NamedTuple):
    """The value on a named wire and its cotangent, None where none is known."""

    value: Any
    cotangent: Any


@dataclass(frozen=True)
class Tape:
    """What one forward and one backward sweep met.

    `value` is f's, `gradient` a tree like the arguments (None: no cotangent), `steps`
    in program order, `inputs` and `outputs` the differentiated leaves and the traced
    outputs, `wires` by name; of a name met several times, the last.
    """

    value: Any
    gradient: Any
    steps: tuple[Step, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    wires: Mapping[str, Wire]


def record(
    f: Callable[..., Any],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    cotangent: Any = None,
) -> Tape:
    r"""Every equation's values and cotangents, from one sweep forward and one back.

    For $y = f(x)$ and every intermediate $v$: its value, and
    $\bar v = (\partial y/\partial v)^\top \bar y$. Equations are run one by one, each
    with its own VJP; hand-written rules stay whole, so that the gradient is the one
    that `jax.grad(f)` gives. The bodies of jit and remat and the branch of a cond that
    is taken stand in place of the call. A scan is unrolled, a long one at its first,
    its last and a few other iterations, with the ones between as one step. Of a while
    loop iterations 0, 1, 2, 4, 8, … and the last are shown, values only.

    Wires named with `jax.ad_checkpoint.checkpoint_name` are known by name. Inside a
    rule, the wire `a` named by its fwd has the cotangent that its bwd names `a_bar`.

    Args:
        f: any JAX function.
        *args: where to evaluate it. Float and complex leaves are differentiated.
        kwargs: keyword arguments of `f`, differentiated alike.
        cotangent: a tree like the output, None where an output has none; left out, 1,
            for a function of one real scalar.
    Returns:
        Tape: `.value`, `.gradient`, `.steps`, `.inputs`, `.outputs`, `.wires`. A
        cotangent that does not exist is None, never 0.
    Raises:
        TypeError: `f` is not callable.
        ValueError: no cotangent for a function of more than one scalar; one that does
            not fit the output.

    Limits: an equation that JAX cannot differentiate (a callback, a while loop), or a
    rule whose bwd raises, stops the cotangent there; its step's `note` says why.
    Values agree with an uncompiled run of `f` equation by equation: where `f` is
    compiled, fused operations may round otherwise.
    """
    kwargs = checked("record", f, args, kwargs)
    program = trace(f, args, kwargs)
    bars = output_cotangents("record", program, cotangent)
    inputs, outputs, steps = sweep(program.jaxpr, program.inputs, bars)
    found = iter([v.cotangent for v in inputs])
    gradient = jax.tree.map(
        lambda leaf: next(found) if is_differentiable(leaf) else None, args
    )
    value = program.merge([v.value for v in outputs])
    return Tape(value, gradient, tuple(steps), inputs, outputs, _wires_of(steps))


def wires(f: Callable[..., Any], *args: Any) -> dict[str, jax.Array]:
    """The value on every named wire that is met while `f(*args)` is evaluated.

    A wire is named by `jax.ad_checkpoint.checkpoint_name`, in forward code and in
    hand-written backward code alike: `wires(jax.grad(f), *args)` holds both `a2` and
    `a2_bar`. Of a name met several times, in a loop for example, the last value stays.
    """
    found: dict[str, jax.Array] = {}

    def visit(eqn, ins, outs):
        del ins
        name = wire_name(eqn)
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
            name = wire_name(eqn)
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


def output_cotangents(function: str, program: Program, cotangent: Any) -> list[Any]:
    """One for every traced output, None where there is none."""
    avals = program.jaxpr.out_avals
    if cotangent is None:
        if not avals:
            expected, got = "a function that returns an array", "one that returns none"
            mend = "compute what it returns from floats among its arguments"
            raise argument_error(function, "f", expected, got, mend)
        if len(avals) != 1 or avals[0].shape or avals[0].dtype.kind in "cb":
            got = f"None, for {', '.join(map(describe, avals))}"
            mend = "give it, or let f return one real number"
            raise _no_cotangent(function, got, mend)
        return [jnp.ones((), avals[0].dtype)]
    tree = jax.tree.structure(program.merge([0] * len(avals)))
    places = program.merge(list(range(len(avals))))
    try:
        given = tree.flatten_up_to(cotangent)
    except (ValueError, TypeError) as error:
        raise _no_cotangent(function, error) from None
    bars: list[Any] = [None] * len(avals)
    for k, bar in zip(jax.tree.leaves(places), given, strict=True):
        if bar is None or not isinstance(k, int):
            continue
        array = _as_array(bar, avals[k].dtype)
        if array is None or array.shape != avals[k].shape:
            expected = f"like the output, {describe(avals[k])}"
            raise argument_error(function, "cotangent", expected, describe(bar))
        bars[k] = array if is_floating(avals[k]) else None
    return bars


def _as_array(x: Any, dtype: Any) -> jax.Array | None:
    try:
        return jnp.asarray(x, dtype)
    except (TypeError, ValueError):  # text, a ragged list
        return None


def _no_cotangent(function: str, got: object, mend: str = "") -> Exception:
    expected = "a tree like the output"
    return argument_error(function, "cotangent", expected, got, mend)


def _wires_of(steps: Sequence[Step]) -> dict[str, Wire]:
    found: dict[str, Wire] = {}
    for step in steps:
        name = wire_name(step.eqn) if step.eqn else None
        if name is not None:
            found[name] = Wire(step.outs[0].value, step.outs[0].cotangent)
        inside = dict(step.wires)
        # Met in the opposite order on the way back: the last forward is the first.
        bars = dict(reversed(step.wires))
        for name, value in inside.items():
            if not name.endswith("_bar"):
                found[name] = Wire(value, bars.get(f"{name}_bar"))
    return found
