"""A witness: the VJP of a traced function, and what rounding does to it."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxbp._interpret import run_equation
from jaxbp._jaxpr import bodies, evaluate, is_call
from jaxbp.instrument import _by_numpy
from jaxbp.instrument._compiled import jitted
from jaxbp.instrument._noise import at_places, rounding_noise
from jaxbp.instrument._tolerance import Rounds, approaches, iterates, longer

# Of an array's size: among the steps of the numeric witness.
_NEAR = (2.0**-5, 2.0**-7, 2.0**-9, 2.0**-11)


class Pullback(NamedTuple):
    """What one cotangent gives: primal outputs, a cotangent for every input leaf."""

    outputs: list[np.ndarray]
    cotangents: list[np.ndarray]

    @classmethod
    def of(cls, outputs: Sequence[Any], cotangents: Sequence[Any]) -> "Pullback":
        return cls(list(map(np.asarray, outputs)), list(map(np.asarray, cotangents)))


def stops(eqn: Any) -> bool:
    return eqn.primitive.name == "stop_gradient"


class Witness:
    """The VJP of a jaxpr in some of its inputs, compiled once, and its rounding noise.

    `wrt` are the inputs that are differentiated, `outputs` the floating outputs: the
    others have no cotangent.
    """

    def __init__(self, jaxpr: Any, wrt: Sequence[int], outputs: Sequence[int]):
        self.jaxpr, self.wrt, self.outputs = jaxpr, list(wrt), list(outputs)
        self._compiled = jitted(self.pullback)
        self._read: Any = None
        self._rounds: Rounds | None = None

    def primal(self, inputs: Sequence[Any]) -> list[jax.Array]:
        """The floating outputs."""
        outs = evaluate(self.jaxpr, inputs)
        return [outs[k] for k in self.outputs]

    def primal_beside(self, inputs: Sequence[Any], moved: Sequence[Any]):
        """The floating outputs at `moved`, by gradients that stop where they stop.

        What a stop_gradient gives, unless it is in a loop, is what it gives at
        `inputs`.
        """
        outs = _stopped(self.jaxpr, list(zip(inputs, moved, strict=True)))
        return [outs[k][1] for k in self.outputs]

    def pullback(self, inputs: Sequence[Any], cotangents: Sequence[Any]):
        """The floating outputs and the cotangents of the leaves `wrt`, traceable."""

        def of_leaves(*leaves):
            return self.primal(self.moved(inputs, leaves))

        outs, back = jax.vjp(of_leaves, *(inputs[k] for k in self.wrt))
        like = [jnp.asarray(g, o.dtype) for g, o in zip(cotangents, outs, strict=True)]
        return outs, list(back(like))

    def moved(self, inputs: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
        """The inputs with these values on the differentiated leaves."""
        inputs = list(inputs)
        for k, leaf in zip(self.wrt, leaves, strict=True):
            inputs[k] = leaf
        return inputs

    def __call__(self, inputs: Sequence[Any], cotangents: Sequence[Any]) -> Pullback:
        return Pullback.of(*self._compiled(list(inputs), list(cotangents)))

    def quickly(self, inputs: Sequence[Any], cotangents: Sequence[Any]):
        """`pullback` by NumPy, None where compiling it takes less time."""
        jaxpr, n = self.read(inputs, cotangents), len(self.outputs)
        outs = _by_numpy.quickly(jaxpr, [*inputs, *cotangents])
        return None if outs is None else (outs[:n], outs[n:])

    def read(self, inputs: Sequence[Any], cotangents: Sequence[Any]) -> Any:
        """The jaxpr of the pullback; a witness is asked at one set of shapes."""
        if self._read is None:
            self._read = jax.make_jaxpr(self.pullback)(list(inputs), list(cotangents))
        return self._read

    def noise(
        self,
        inputs: Sequence[Any],
        cotangents: Sequence[Any],
        seed: int,
        places: Mapping[int, np.ndarray] | None = None,
        needed: Mapping[int, np.ndarray] | None = None,
    ) -> Pullback:
        """Per element, what rounding alone can do to outputs and cotangents.

        With what a loop leaves open that repeats one step a fixed number of times.
        With `places`, at these flat elements of some leaves' cotangents alone, and no
        longer than until it is as large as `needed` there.
        """
        flat, n = [*inputs, *cotangents], len(self.outputs)
        if places is not None:
            places = {n + k: elements for k, elements in places.items()}
        if needed is not None:
            needed = {n + k: size for k, size in needed.items()}
        noise = self._with_more_rounds(inputs, cotangents).left_open(flat)
        noise = noise if places is None else at_places(noise, places)
        if needed is not None:
            needed = {k: np.maximum(m - noise[k], 0) for k, m in needed.items()}
        if needed is None or any(size.any() for size in needed.values()):
            jaxpr = self.read(inputs, cotangents)
            rounded = rounding_noise(jaxpr, flat, seed, places, needed)
            noise = list(map(np.add, noise, rounded))
        return Pullback(noise[: len(self.outputs)], noise[len(self.outputs) :])

    def settled(self, inputs: Sequence[Any], cotangents: Sequence[Any]) -> list[bool]:
        """Of each loop that repeats one step, whether it is at its limit."""
        rounds = self._with_more_rounds(inputs, cotangents)
        return rounds.settled([*inputs, *cotangents])

    def _with_more_rounds(self, inputs, cotangents) -> Rounds:
        """The pullback beside those with longer loops, of the primal or of its own."""
        if self._rounds is None:
            jaxpr = self.read(inputs, cotangents)
            primals = longer(self.jaxpr, iterates)
            others = [Witness(primal, self.wrt, self.outputs) for primal in primals]
            pullbacks = [other.read(inputs, cotangents) for other in others]
            self._rounds = Rounds(jaxpr, [*pullbacks, *longer(jaxpr, approaches)])
        return self._rounds

    def noise_of_outputs(self, inputs: Sequence[Any], seed: int) -> list[np.ndarray]:
        """The same of the floating outputs alone, whose cotangents are not asked.

        With what loops leave open, those too that end at a tolerance: here, and at
        neighbours as near as the numeric witness asks. By chance, or since the matrix
        is symmetric, one may end far within the tolerance.
        """
        rounded = rounding_noise(self.jaxpr, inputs, seed)
        noise = list(map(np.add, rounded, self._longer.left_open(inputs)))
        for point in self._neighbours(inputs, seed) if self._longer else ():
            noise = list(map(np.fmax, noise, self._longer.left_open(point)))
        return [noise[k] for k in self.outputs]

    def _neighbours(self, inputs: Sequence[Any], seed: int) -> Iterator[list[Any]]:
        rng = np.random.default_rng((seed, 2))
        leaves = [np.asarray(inputs[k]) for k in self.wrt]
        for step in _NEAR:
            moves = (step * rng.standard_normal(np.shape(x)) for x in leaves)
            near = [x + _rms(x) * d for x, d in zip(leaves, moves, strict=True)]
            yield self.moved(inputs, near)

    @functools.cached_property
    def _longer(self) -> Rounds:
        return Rounds(self.jaxpr, longer(self.jaxpr, approaches))


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.vdot(x, x).real / max(x.size, 1)))


def _stopped(jaxpr: Any, inputs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The outputs at two points; behind a stop_gradient, at the second as at the first.

    Calls are looked into, loops are not.
    """
    env = dict(zip(jaxpr.invars, inputs, strict=True))
    consts = zip(jaxpr.constvars, getattr(jaxpr, "consts", ()), strict=True)
    env.update((v, (value, value)) for v, value in consts)

    def read(atom):
        return (atom.val,) * 2 if isinstance(atom, Literal) else env[atom]

    for eqn in jaxpr.eqns:
        ins = list(map(read, eqn.invars))
        if is_call(eqn):
            (body,) = bodies(eqn)
            outs = _stopped(body, ins)
        else:
            here, there = (run_equation(eqn, [x[k] for x in ins]) for k in (0, 1))
            outs = list(zip(here, here if stops(eqn) else there, strict=True))
        env.update(zip(eqn.outvars, outs, strict=True))
    return list(map(read, jaxpr.outvars))
