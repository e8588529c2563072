"""A function traced for both witnesses, and what they are asked of it."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._arguments import check_closed
from jaxbp._errors import argument_error, first_line, not_differentiable
from jaxbp._jaxpr import is_differentiable, trace, without_rules
from jaxbp._steps import holds
from jaxbp.instrument import _by_numpy
from jaxbp.instrument._compiled import jitted
from jaxbp.instrument._numeric import ladder
from jaxbp.instrument._parts import from_parts
from jaxbp.instrument._structure import reads_one_triangle, summing_to_one
from jaxbp.instrument._witnesses import Pullback, Witness, stops

# Elements among the inputs, from which memory and run time are what count.
LARGE = 2**20
_LONG = 500  # equations of a pullback, from which its run time counts as well


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

    @functools.cached_property
    def values(self) -> Callable[..., Any]:
        """The floating outputs at some inputs, by no rule."""
        return jax.jit(self.auto.primal)

    def triangles(self, inputs: Sequence[Any]) -> list[int]:
        """The leaves of which f reads one triangle: symmetric matrices, by intent."""

        def reads(place):
            outputs = lambda x: self.values([*inputs[:place], x, *inputs[place + 1 :]])
            return reads_one_triangle(np.asarray(inputs[place]), outputs)

        if self.is_large:
            return []
        return [k for k, place in enumerate(self.auto.wrt) if reads(place)]

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

    def _values(self, inputs, moved):
        """The outputs at moved inputs, for a derivative of them."""
        if self._stops:
            return self.auto.primal_beside(inputs, moved)
        return self.auto.primal(moved)

    @functools.cached_property
    def _stops(self) -> bool:
        """Whether what gradients stop at is for the numeric witness to honour.

        Where there is autodiff, it is autodiff that knows.
        """
        if not holds(self.auto.jaxpr, stops):
            return False
        try:
            shapes(self, self.auto)
        except Exception:  # whatever JAX raises of what has no derivative
            return True
        return False

    @functools.cached_property
    def ladder(self) -> Callable[..., Any]:
        """The numeric witness's program: the contraction with (inputs, cotangents).

        Its leaves are moved by their `parts`.
        """

        def phi(context, *leaves):
            inputs, cotangents = context
            pairs = zip(leaves, self.leaves(inputs), strict=True)
            moved = [from_parts(leaf, like) for leaf, like in pairs]
            outs = self._values(inputs, self.auto.moved(inputs, moved))
            return self._contracted(cotangents, outs)

        return ladder(phi)

    @functools.cached_property
    def along(self) -> Callable[..., Any]:
        """The same along a line: context (inputs, cotangents, directions), leaf t."""

        def phi(context, t):
            inputs, cotangents, directions = context
            pairs = zip(self.leaves(inputs), directions, strict=True)
            moved = self.auto.moved(inputs, [x + t * d for x, d in pairs])
            return self._contracted(cotangents, self._values(inputs, moved))

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


class RuleRaises(Exception):
    """The hand-written rule does not run where autodiff of its primal does."""


def check_runs(program: Program) -> None:
    """RuleRaises where only autodiff of the primals gives a pullback."""
    try:
        shapes(program, program.manual)
    except Exception as error:
        try:
            shapes(program, program.auto)
        except Exception as other:
            if first_line(other) == first_line(error):  # no rule of f's raises that
                raise not_differentiable("compare", error) from error
        message = f"the rule raises {type(error).__name__}: {first_line(error)}"
        raise RuleRaises(message) from error


def shapes(program: Program, witness: Witness) -> Any:
    """Of a pullback; it is traced for them, and raises what it raises."""
    return jax.eval_shape(witness.pullback, program.inputs, program.avals)


def in_float64(leaf: Any) -> Any:
    """A differentiable leaf cast up, any other as it is. Under `enable_x64`.

    Probabilities then sum to one in float64.
    """
    if not is_differentiable(leaf):
        return leaf
    value = np.asarray(leaf)
    if jnp.iscomplexobj(value):
        return jnp.asarray(value.astype(np.complex128))
    unit = float(jnp.finfo(value.dtype).eps)
    return jnp.asarray(summing_to_one(value.astype(np.float64), unit))


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
