"""Two witnesses of one traced function: its hand-written VJP and autodiff's."""

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import evaluate, is_differentiable, trace, without_rules
from jaxbp.instrument._noise import rounding_noise

PROBES = 3


class Pullback(NamedTuple):
    """What one cotangent gives: primal outputs, a cotangent for every input leaf."""

    outputs: list[np.ndarray]
    cotangents: list[np.ndarray]


class Witness:
    """The VJP of a jaxpr, compiled once, and the rounding noise in it."""

    def __init__(self, jaxpr: Any, inputs: Sequence[Any], outputs: Sequence[int]):
        self.jaxpr, self.inputs, self.outputs = jaxpr, list(inputs), list(outputs)
        self._pull = jax.jit(self._pullback)

    def primal(self, *leaves: Any) -> list[jax.Array]:
        """The floating outputs; the others have no cotangent."""
        outs = evaluate(self.jaxpr, leaves)
        return [outs[k] for k in self.outputs]

    def __call__(self, cotangents: Sequence[np.ndarray]) -> Pullback:
        outs, bars = self._pull(self.inputs, self._like_outputs(cotangents))
        return Pullback([np.asarray(o) for o in outs], [np.asarray(b) for b in bars])

    def noise(self, cotangents: Sequence[np.ndarray], seed: int) -> Pullback:
        """Per element, what rounding alone can do to outputs and cotangents."""
        args = (self.inputs, self._like_outputs(cotangents))
        jaxpr = jax.make_jaxpr(self._pullback)(*args)
        noise = rounding_noise(jaxpr, jax.tree.leaves(args), seed)
        return Pullback(noise[: len(self.outputs)], noise[len(self.outputs) :])

    @functools.cached_property
    def avals(self) -> list[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the floating outputs."""
        return jax.eval_shape(self.primal, *self.inputs)

    def _pullback(self, leaves, cotangents):
        outs, back = jax.vjp(self.primal, *leaves)
        return outs, list(back(list(cotangents)))

    def _like_outputs(self, cotangents):
        pairs = zip(cotangents, self.avals, strict=True)
        return [jnp.asarray(g, aval.dtype) for g, aval in pairs]


class Traced(NamedTuple):
    """A function traced at the caller's arguments: what there is to differentiate."""

    manual: Witness
    auto: Witness
    jaxpr: Any
    output_paths: list[str]


def traced(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    reference: Callable[..., Any] | None,
) -> Traced:
    """Trace `f` once for both witnesses, and the `reference`, if there is one, too."""
    program = trace(f, args, kwargs)
    outputs, paths = _floating_outputs(program)
    manual = Witness(program.jaxpr, program.inputs, outputs)
    if reference is None:
        plain = without_rules(program.jaxpr)
    else:
        other = trace(reference, args, kwargs)
        plain, outputs = other.jaxpr, _floating_outputs(other)[0]
    auto = Witness(plain, program.inputs, outputs)
    return Traced(manual, auto, program.jaxpr, paths)


def in_float64(leaf: Any) -> Any:
    """A differentiable leaf cast up, any other as it is. Under `enable_x64`."""
    if not is_differentiable(leaf):
        return leaf
    value = np.asarray(leaf)
    wide = np.complex128 if jnp.iscomplexobj(value) else np.float64
    return jnp.asarray(value.astype(wide))


def probes(
    avals: Sequence[jax.ShapeDtypeStruct], paths: Sequence[str], seed: int
) -> list[list[np.ndarray]]:
    """Random cotangents of uneven magnitude, seeded by the path of their output.

    Of eight significant bits, so that every dtype holds them exactly. A function of one
    scalar is asked with 1 first: that pullback is its gradient.
    """
    found = []
    for k in range(PROBES):
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
