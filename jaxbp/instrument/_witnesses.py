"""Two witnesses of one traced function: its hand-written VJP and autodiff's."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._arguments import check_closed
from jaxbp._errors import argument_error
from jaxbp._jaxpr import evaluate, is_differentiable, trace, without_rules
from jaxbp.instrument import _by_numpy
from jaxbp.instrument._compiled import jitted
from jaxbp.instrument._noise import at_places, rounding_noise
from jaxbp.instrument._numeric import ladder
from jaxbp.instrument._parts import from_parts
from jaxbp.instrument._tolerance import (
    iterates,
    left_open,
    longer,
    moved_on,
    settled,
)

# Elements among the inputs, from which memory and run time are what count.
LARGE = 2**20
_LONG = 500  # equations of a pullback, from which its run time counts as well


class Pullback(NamedTuple):
    """What one cotangent gives: primal outputs, a cotangent for every input leaf."""

    outputs: list[np.ndarray]
    cotangents: list[np.ndarray]

    @classmethod
    def of(cls, outputs: Sequence[Any], cotangents: Sequence[Any]) -> "Pullback":
        return cls(list(map(np.asarray, outputs)), list(map(np.asarray, cotangents)))


class Witness:
    """The VJP of a jaxpr in some of its inputs, compiled once, and its rounding noise.

    `wrt` are the inputs that are differentiated, `outputs` the floating outputs: the
    others have no cotangent.
    """

    def __init__(self, jaxpr: Any, wrt: Sequence[int], outputs: Sequence[int]):
        self.jaxpr, self.wrt, self.outputs = jaxpr, list(wrt), list(outputs)
        self._compiled = jitted(self.pullback)
        self._read: Any = None

    def primal(self, inputs: Sequence[Any]) -> list[jax.Array]:
        """The floating outputs."""
        outs = evaluate(self.jaxpr, inputs)
        return [outs[k] for k in self.outputs]

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
        jaxpr = self.read(inputs, cotangents)
        noise = rounding_noise(jaxpr, flat, seed, places, needed)
        loose = self._left_open(inputs, cotangents)
        if places is not None:
            loose = at_places(loose, places)
        noise = [rounded + more for rounded, more in zip(noise, loose, strict=True)]
        return Pullback(noise[: len(self.outputs)], noise[len(self.outputs) :])

    def _left_open(self, inputs, cotangents) -> list[np.ndarray]:
        """What more rounds of the primal's loops change, or of the pullback's own."""
        jaxpr, flat = self.read(inputs, cotangents), [*inputs, *cotangents]
        others = [*self._with_more_rounds(inputs, cotangents), *longer(jaxpr, iterates)]
        return moved_on(jaxpr, others, flat)

    def limits(self, inputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
        """The pullback with more rounds of each loop that is at its limit here."""
        others = self._with_more_rounds(inputs, cotangents)
        return [j for j in others if self.is_at([j], inputs, cotangents)]

    def is_at(
        self, limits: list[Any], inputs: Sequence[Any], cotangents: Sequence[Any]
    ) -> bool:
        """Whether its loops are at these limits."""
        flat = [*inputs, *cotangents]
        return settled(self.read(inputs, cotangents), limits, flat)

    def _with_more_rounds(self, inputs, cotangents) -> list[Any]:
        return [
            Witness(primal, self.wrt, self.outputs).read(inputs, cotangents)
            for primal in longer(self.jaxpr, iterates)
        ]

    def noise_of_outputs(self, inputs: Sequence[Any], seed: int) -> list[np.ndarray]:
        """The same of the floating outputs alone, whose cotangents are not asked.

        With what a loop leaves open that ends at a tolerance.
        """
        pairs = zip(
            rounding_noise(self.jaxpr, inputs, seed),
            left_open(self.jaxpr, inputs),
            strict=True,
        )
        noise = [rounded + loose for rounded, loose in pairs]
        return [noise[k] for k in self.outputs]


@dataclass(frozen=True)
class Program:
    """A function traced at some arguments: its witnesses, and what they are asked.

    `inputs` are the arrays that the traced function takes, the leaves `wrt` among them
    are differentiated. One that is asked `once` is not compiled where it is short.
    `by_reference`: the second witness is another function's.
    """

    manual: Witness
    auto: Witness
    inputs: list[Any]
    output_paths: list[str]
    once: bool = False
    by_reference: bool = False

    def ask(
        self, inputs: Sequence[Any], cotangents: Sequence[Any]
    ) -> tuple[Pullback, Pullback]:
        """What either witness answers.

        One compiled program is both, unless its arrays are large: they need not be in
        memory at once.
        """
        if self.is_large:
            return self.manual(inputs, cotangents), self.auto(inputs, cotangents)
        manual, auto = self._both(list(inputs), list(cotangents))
        return Pullback.of(*manual), Pullback.of(*auto)

    @property
    def is_large(self) -> bool:
        return sum(map(np.size, self.inputs)) > LARGE

    @functools.cached_property
    def is_long(self) -> bool:
        """Whether to ask at many points would take minutes."""
        return _by_numpy.length(self.manual.read(self.inputs, self.avals)) > _LONG

    def _both(self, inputs: list[Any], cotangents: list[Any]):
        if self.once:
            manual, auto = (
                w.quickly(inputs, cotangents) for w in (self.manual, self.auto)
            )
            if manual is not None and auto is not None:
                return manual, auto
        return self._compiled(inputs, cotangents)

    @functools.cached_property
    def _compiled(self) -> Callable[..., Any]:
        def both(inputs, cotangents):
            return [w.pullback(inputs, cotangents) for w in (self.manual, self.auto)]

        return jitted(both)

    @functools.cached_property
    def avals(self) -> list[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the floating outputs."""
        return jax.eval_shape(self.manual.primal, self.inputs)

    def leaves(self, inputs: Sequence[Any]) -> list[Any]:
        return [inputs[k] for k in self.manual.wrt]

    @functools.cached_property
    def ladder(self) -> Callable[..., Any]:
        """The numeric witness's program: the contraction with (inputs, cotangents).

        Its leaves are moved by their `parts`.
        """

        def phi(context, *leaves):
            inputs, cotangents = context
            pairs = zip(leaves, self.leaves(inputs), strict=True)
            moved = [from_parts(leaf, like) for leaf, like in pairs]
            outs = self.auto.primal(self.auto.moved(inputs, moved))
            return self._contracted(cotangents, outs)

        return ladder(phi)

    @functools.cached_property
    def along(self) -> Callable[..., Any]:
        """The same along a line: context (inputs, cotangents, directions), leaf t."""

        def phi(context, t):
            inputs, cotangents, directions = context
            pairs = zip(self.leaves(inputs), directions, strict=True)
            inputs = self.auto.moved(inputs, [x + t * d for x, d in pairs])
            outs = self.auto.primal(inputs)
            return self._contracted(cotangents, outs)

        return ladder(phi)

    def _contracted(self, cotangents, outs):
        """What is differentiated numerically, and the magnitude it is rounded at."""
        terms = [g * out for g, out in zip(cotangents, outs, strict=True)]
        value = sum(jnp.sum(t).real for t in terms)
        return value, sum(jnp.sum(jnp.abs(t)) for t in terms)

    def pullbacks(self, cotangents: Sequence[Any]) -> "Program":
        """Both pullbacks of one cotangent as functions to be differentiated again."""

        def witness(first: Witness) -> Witness:
            def bars(*inputs):
                return first.pullback(inputs, cotangents)[1]

            jaxpr = jax.make_jaxpr(bars)(*self.inputs)
            return Witness(jaxpr, first.wrt, range(len(first.wrt)))

        paths = [f"cotangent of leaf {k}" for k in range(len(self.manual.wrt))]
        return Program(witness(self.manual), witness(self.auto), self.inputs, paths)


def traced(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    reference: Callable[..., Any] | None,
    dynamic: Callable[[object], bool] = is_differentiable,
    *,
    once: bool = False,
) -> Program:
    """Trace `f` once for both witnesses, and the `reference`, if there is one, too.

    `dynamic` leaves are inputs of the traced program, all others constants in it.
    `once`: it will be asked at one point.
    """
    program = trace(f, args, kwargs, dynamic=dynamic)
    check_closed("compare", program.jaxpr)
    outputs, paths = _floating_outputs(program)
    wrt = [k for k, x in enumerate(program.inputs) if is_differentiable(x)]
    manual = Witness(program.jaxpr, wrt, outputs)
    if reference is None:
        plain = without_rules(program.jaxpr)
    else:
        other = trace(reference, args, kwargs, dynamic=dynamic)
        plain = other.jaxpr
        outputs = _floating_outputs(other)[0]
    auto = Witness(plain, wrt, outputs)
    shapes = [[str(w.jaxpr.out_avals[k]) for k in w.outputs] for w in (manual, auto)]
    if shapes[0] != shapes[1]:
        ours, theirs = (", ".join(s) or "no floating output" for s in shapes)
        expected = f"a function with f's outputs, {ours}"
        raise argument_error("compare", "reference", expected, theirs)
    by_reference = reference is not None
    return Program(manual, auto, program.inputs, paths, once, by_reference)


def in_float64(leaf: Any) -> Any:
    """A differentiable leaf cast up, any other as it is. Under `enable_x64`."""
    if not is_differentiable(leaf):
        return leaf
    value = np.asarray(leaf)
    wide = np.complex128 if jnp.iscomplexobj(value) else np.float64
    return jnp.asarray(value.astype(wide))


def _floating_outputs(program):
    count = len(program.jaxpr.out_avals)
    tree = program.merge([_Output(k) for k in range(count)])
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    paths = {v.k: jax.tree_util.keystr(p) for p, v in leaves if isinstance(v, _Output)}
    floating = [
        k
        for k, aval in enumerate(program.jaxpr.out_avals)
        if jnp.issubdtype(aval.dtype, jnp.inexact)
    ]
    return floating, [paths[k] for k in floating]


@dataclass(frozen=True)
class _Output:
    k: int
