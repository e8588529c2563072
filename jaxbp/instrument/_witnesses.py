"""Two witnesses of one traced function: its hand-written VJP and autodiff's."""

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._errors import argument_error
from jaxbp._jaxpr import evaluate, is_differentiable, trace, without_rules
from jaxbp.instrument._noise import rounding_noise
from jaxbp.instrument._numeric import ladder

PROBES = 3


class Pullback(NamedTuple):
    """What one cotangent gives: primal outputs, a cotangent for every input leaf."""

    outputs: list[np.ndarray]
    cotangents: list[np.ndarray]


class Witness:
    """The VJP of a jaxpr in some of its inputs, compiled once, and its rounding noise.

    `wrt` are the inputs that are differentiated, `outputs` the floating outputs: the
    others have no cotangent.
    """

    def __init__(self, jaxpr: Any, wrt: Sequence[int], outputs: Sequence[int]):
        self.jaxpr, self.wrt, self.outputs = jaxpr, list(wrt), list(outputs)
        self._compiled = jax.jit(self.pullback)

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
        outs, bars = self._compiled(list(inputs), list(cotangents))
        return Pullback([np.asarray(o) for o in outs], [np.asarray(b) for b in bars])

    def noise(
        self, inputs: Sequence[Any], cotangents: Sequence[Any], seed: int
    ) -> Pullback:
        """Per element, what rounding alone can do to outputs and cotangents."""
        args = (list(inputs), list(cotangents))
        jaxpr = jax.make_jaxpr(self.pullback)(*args)
        noise = rounding_noise(jaxpr, jax.tree.leaves(args), seed)
        return Pullback(noise[: len(self.outputs)], noise[len(self.outputs) :])


@dataclass(frozen=True)
class Program:
    """A function traced at some arguments: its witnesses, and what they are asked.

    `inputs` are the arrays that the traced function takes, the leaves `wrt` among them
    are differentiated.
    """

    manual: Witness
    auto: Witness
    inputs: list[Any]
    output_paths: list[str]

    @functools.cached_property
    def avals(self) -> list[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the floating outputs."""
        return jax.eval_shape(self.manual.primal, self.inputs)

    def leaves(self, inputs: Sequence[Any]) -> list[Any]:
        return [inputs[k] for k in self.manual.wrt]

    @functools.cached_property
    def ladder(self) -> Callable[..., Any]:
        """The numeric witness's program: the contraction with (inputs, cotangents)."""

        def phi(context, *leaves):
            inputs, cotangents = context
            outs = self.auto.primal(self.auto.moved(inputs, leaves))
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
) -> Program:
    """Trace `f` once for both witnesses, and the `reference`, if there is one, too.

    `dynamic` leaves are inputs of the traced program, all others constants in it.
    """
    program = trace(f, args, kwargs, dynamic=dynamic)
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
    return Program(manual, auto, program.inputs, paths)


def in_float64(leaf: Any) -> Any:
    """A differentiable leaf cast up, any other as it is. Under `enable_x64`."""
    if not is_differentiable(leaf):
        return leaf
    value = np.asarray(leaf)
    wide = np.complex128 if jnp.iscomplexobj(value) else np.float64
    return jnp.asarray(value.astype(wide))


def probes(
    avals: Sequence[jax.ShapeDtypeStruct],
    paths: Sequence[str],
    seed: int,
    count: int = PROBES,
) -> list[list[np.ndarray]]:
    """Random cotangents of uneven magnitude, seeded by the path of their output.

    Of eight significant bits, so that every dtype holds them exactly. A function of one
    scalar is asked with 1 first: that pullback is its gradient.
    """
    found = []
    for k in range(count):
        pairs = zip(avals, paths, strict=True)
        found.append([_random(aval, path, (seed, k)) for aval, path in pairs])
    if len(avals) == 1 and not avals[0].shape:
        found[0] = [np.ones((), np.float64)]
    return found


def _random(aval, path, seed):
    rng = np.random.default_rng((*seed, zlib.crc32(path.encode())))

    def draw():
        magnitude = 2.0 ** rng.integers(-3, 4, aval.shape)
        values = np.asarray(rng.standard_normal(aval.shape) * magnitude)
        return np.asarray(values.astype(jnp.bfloat16).astype(np.float64))

    if jnp.issubdtype(aval.dtype, jnp.complexfloating):
        return draw() + 1j * draw()
    return draw()


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
