"""A rule's own backward pass: the cotangents that it names, and its equations."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxbp._steps import Step, wire_name
from jaxbp._sweep import forward_pass, sweep
from jaxbp.drawing._formulas import bar
from jaxbp.drawing._section import Run, Section
from jaxbp.drawing._units import units_between
from jaxbp.instrument._wires import paired

_TURN = "the way back"  # where a rule's fwd ends and its bwd begins


class Written:
    """The cotangents that a rule's bwd names, by the wires that its fwd names."""

    def __init__(self, wires: Sequence[tuple[str, Any]] = ()):
        forward = [(n, v) for n, v in wires if not n.endswith("_bar")]
        back = [(n, v) for n, v in wires if n.endswith("_bar")]
        self._found: dict[str, list[tuple[Any, Any]]] = {}
        pairs = paired([n for n, _ in forward], [n for n, _ in back])
        for _, place, k in sorted(pairs, key=lambda pair: pair[2]):
            name, value = forward[k]
            self._found.setdefault(name, []).append((value, back[place][1]))

    def __bool__(self) -> bool:
        return bool(self._found)

    def bar(self, name: str, step: Step) -> Any:
        """The cotangent on the wire that a step names, None where none is.

        Of a name that a loop meets several times, that of the iteration shown: known by
        the value on the wire, which has to be the same.
        """
        met = self._found.get(name, [])
        turns = [int(k) for w in step.where for k in re.findall(r"^scan\[(\d+)\]$", w)]
        k = turns[-1] if turns and len(met) > 1 else 0
        if k >= len(met) or (len(met) > 1 and not turns):
            return None
        value, found = met[k]
        units = units_between(value, step.outs[0].value)
        # Half of the digits: rounding leaves them, another iteration does not.
        half = float(jnp.finfo(value.dtype).eps) ** -0.5
        return found if units is not None and units < half else None


def backward_of(
    step: Step, given: Sequence[str], outputs: Sequence[str], iteration: int
) -> Section | None:
    """A rule's backward pass, by the cotangents that arrive; None where none does.

    `given` and `outputs` are the names of the rule's inputs and outputs.
    """
    bars = [out.cotangent for out in step.outs]
    if all(found is None for found in bars) or not step.bars:
        return None
    chosen, forward = forward_pass(step)

    def both(chosen, bars):
        pull = forward(chosen)
        return pull([None if b is None else checkpoint_name(b, _TURN) for b in bars])

    args = chosen, bars
    run = sweep(
        jax.make_jaxpr(both)(*args),
        jax.tree.leaves(args),
        [None] * sum(bar is not None for bar in step.bars),
        wires=False,
        iteration=iteration,
    )
    arriving = [bar(n) for n, b in zip(outputs, bars, strict=True) if b is not None]
    live = [name for name, v in zip(given, step.ins, strict=True) if v.active]
    return _after_the_turn(run, live + arriving)


def _after_the_turn(run: Run, names: Sequence[str]) -> Section:
    """The steps of the bwd; what they read of the fwd are inputs, as residuals."""
    inputs, outputs, steps = run
    turns = [k for k, s in enumerate(steps) if s.eqn and wire_name(s.eqn) == _TURN]
    fwd, bwd = steps[: turns[0]], steps[turns[-1] + 1 :]
    whole = Section(run, {}, {})
    called = {id(v): name for v, name in zip(inputs, names, strict=True) if name}
    made = {id(out): out for step in fwd for out in step.outs}
    made |= {id(v): v for v in inputs}
    read = {id(v): v for step in bwd for v in (*map(whole.root, step.ins),)}
    residuals = [v for key, v in read.items() if key in made]
    for value in residuals:
        named = whole.named(value)
        called.setdefault(id(value), named[0] if named else "res")
    steps = [s for s in steps if s in bwd or (s.eqn and wire_name(s.eqn))]
    return Section((residuals, outputs, steps), called, {})
