"""Named wires of a jaxpr: their values beside the outputs, and pairs of both sides."""

from collections import Counter
from typing import Any

import jax

from jaxbp import _interpret
from jaxbp._steps import holds, wire_name


def with_wires(f, example) -> tuple[list[str], Any]:
    """The jaxpr of `f` with the values of all its named wires as further outputs."""
    jaxpr, names = jax.make_jaxpr(f)(*example), []
    if not holds(jaxpr, wire_name):
        return names, jaxpr

    def named(*flat):
        found = []

        def visit(eqn, ins, outs):
            if name := wire_name(eqn):
                found.append((name, outs[0]))
            return outs

        outs = _interpret.interpret(jaxpr, flat, visit)
        names[:] = [name for name, _ in found]
        return [*outs, *(value for _, value in found)]

    return names, jax.make_jaxpr(named)(*jax.tree.leaves(example))


def paired(names: list[str], bars: list[str]) -> list[tuple[str, int, int]]:
    """Wires named on both sides: name, place in bwd, place forward; bwd's order.

    A name met several times is met in the opposite order on the way back. One that is
    not met as often on both sides is left out.
    """
    counts, back = Counter(names), Counter(bars)
    places = {name: [k for k, n in enumerate(names) if n == name] for name in counts}
    found = []
    for place, bar in enumerate(bars):
        name = bar.removesuffix("_bar")
        if bar != name and counts[name] == back[bar]:
            k = places[name].pop()
            turn = f"[{len(places[name])}]" if counts[name] > 1 else ""
            found.append((name + turn, place, k))
    return found
