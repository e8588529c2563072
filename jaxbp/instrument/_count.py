"""FLOPs and bytes of a jaxpr, its loops multiplied out."""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jax.extend.core import Literal

from jaxbp._jaxpr import bodies, site_of
from jaxbp.instrument._flops import FREE, LEAVES, arithmetic, combinations, nbytes


@dataclass(frozen=True)
class Count:
    """What a program computes and moves, before any compiler's fusion.

    `flops` are additions, multiplications, comparisons and selections of floating
    numbers, `transcendentals` calls of exp, log, sqrt and their like, `bytes` what all
    equations read and write. `notes` say what could not be counted.
    """

    flops: int = 0
    transcendentals: int = 0
    bytes: int = 0
    notes: tuple[str, ...] = ()

    def __add__(self, other: "Count") -> "Count":
        return Count(
            self.flops + other.flops,
            self.transcendentals + other.transcendentals,
            self.bytes + other.bytes,
            tuple(dict.fromkeys(self.notes + other.notes)),
        )

    def __mul__(self, n: int) -> "Count":
        moved = (self.flops * n, self.transcendentals * n, self.bytes * n)
        return Count(*moved, self.notes)

    @property
    def work(self) -> tuple[int, int]:
        return self.flops + self.transcendentals, self.bytes


def count(jaxpr: Any) -> Count:
    """FLOPs and bytes of a jaxpr.

    A scan counts its body times its length, a cond its dearest branch, a while loop,
    whose trip count is unknown, once. A multiply-add is 2 FLOPs, of complex numbers 8.
    Integer arithmetic, casts and moves are no FLOPs. A gather, a scatter or a slice
    moves what it takes or puts, not the array it takes it from.
    """
    return _total(_of_equation(eqn) for eqn in jaxpr.eqns)


def _total(counts: Iterable[Count]) -> Count:
    return functools.reduce(Count.__add__, counts, Count())


def _of_equation(eqn: Any) -> Count:
    name, params = eqn.primitive.name, eqn.params
    if name in FREE:
        return Count()
    if name == "cond":
        return max((count(b) for b in params["branches"]), key=lambda c: c.work)
    if name == "custom_linear_solve":
        return count(params["jaxprs"].solve)
    # A kernel's body runs on blocks: what it says is not what the call does.
    if name not in LEAVES and name != "pallas_call":
        inner = [count(body) for body in bodies(eqn)]
        if inner:
            return _total(inner) * _repeats(eqn) + Count(notes=_loop_notes(eqn))
    return _of_leaf(eqn)


def _repeats(eqn: Any) -> int:
    params = eqn.params
    if eqn.primitive.name == "scan":
        return params["length"]
    if "newly_manual_axes" in params:  # a shard_map's body is one device's part
        return math.prod(params["mesh"].shape[a] for a in params["newly_manual_axes"])
    return 1


def _loop_notes(eqn: Any) -> tuple[str, ...]:
    if eqn.primitive.name != "while":
        return ()
    where = f" at {site}" if (site := site_of(eqn)) else ""
    return (f"while loop{where}: trip count unknown, counted once",)


def _of_leaf(eqn: Any) -> Count:
    name, moved = eqn.primitive.name, _bytes_moved(eqn)
    if name == "reduce":
        combiner = count(eqn.params["jaxpr"]) * combinations(eqn)
        return Count(combiner.flops, combiner.transcendentals, moved, combiner.notes)
    found = arithmetic(eqn)
    if found is None:
        return Count(bytes=moved, notes=(f"{name}: its arithmetic is not counted",))
    return Count(*found, moved)


def _bytes_moved(eqn: Any) -> int:
    name, ins = eqn.primitive.name, list(eqn.invars)
    if name in ("gather", "dynamic_slice"):
        return 2 * nbytes(eqn.outvars[0].aval) + _bytes(ins[1:])
    if name == "dynamic_update_slice":
        return _bytes(ins[1:]) + nbytes(ins[1].aval)
    if name.startswith("scatter"):
        reads = 1 if name == "scatter" else 2  # what is added to is read as well
        return _bytes(ins[1:]) + reads * nbytes(ins[2].aval)
    return _bytes(ins) + _bytes(eqn.outvars)


def _bytes(atoms: Iterable[Any]) -> int:
    # An operand that stands in an equation twice is read once.
    variables = dict.fromkeys(v for v in atoms if not isinstance(v, Literal))
    return sum(nbytes(v.aval) for v in variables)
