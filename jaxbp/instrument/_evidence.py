"""What a wrong gradient is held beside, to tell what kind of mistake it is."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._interpret import interpret
from jaxbp._jaxpr import site_of
from jaxbp._loops import unrolled_size
from jaxbp._steps import holds, is_floating
from jaxbp.instrument._by_numpy import run_once
from jaxbp.instrument._witnesses import stops

if TYPE_CHECKING:
    from jaxbp.instrument._testimony import Testimony

_SAME = 1e-6  # far above float64's rounding, far below any factor worth naming
_CLOSE = 2.0**-6  # of each element: seen by any smooth derivative, over few kinks
_INTERPRETED = 300  # equations at most whose results are candidates for a factor


@dataclass(frozen=True)
class Evidence:
    """One leaf's cotangents, probe by probe, and what they are held beside.

    `probe` is the one that is judged; `others` maps the paths of other leaves to
    autodiff's cotangents at that probe. `inputs` are the differentiated leaves, `leaf`
    the one in question; `cotangents` belong to `outputs`. What costs a run is asked
    when a hypothesis needs it: `again(leaf, cotangents)` is autodiff's cotangent of the
    leaf with another value in it, or for other cotangents; `earlier` gives what it is
    at points asked before and close by each; `intermediates` the values inside the
    function, by name, and `unstopped` what autodiff would give without stop_gradient,
    None if none is.
    """

    manual: Sequence[np.ndarray]
    auto: Sequence[np.ndarray]
    probe: int = 0
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    leaf: np.ndarray | None = None
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    cotangents: Sequence[np.ndarray] = ()
    again: Callable[..., np.ndarray] | None = None
    earlier: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]] = tuple
    intermediates: Callable[[], Mapping[str, np.ndarray]] = dict
    unstopped: Callable[[], np.ndarray | None] = lambda: None

    @property
    def m(self) -> np.ndarray:
        return self.manual[self.probe]

    @property
    def a(self) -> np.ndarray:
        return self.auto[self.probe]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal in every element, as near as a mistake is told from rounding."""
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=_SAME, atol=0))


def laid_along(value: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The value broadcast to a shape, by its last axes or by its first."""
    shapes = dict.fromkeys([value.shape, (*value.shape, *[1] * len(shape))])
    for trial in shapes:
        trial = trial[: max(len(shape), value.ndim)]
        try:
            yield np.broadcast_to(value.reshape(trial), shape)
        except ValueError:
            continue


def intermediates(jaxpr: Any, inputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """Every floating result in a small program, by its primitive and line.

    One compiled program; of a large one nothing.
    """
    if unrolled_size(jaxpr) > _INTERPRETED:
        return {}
    names: list[str] = []

    def run(inputs):
        names.clear()
        found = []

        def visit(eqn, ins, outs):
            floating = [out for out in outs if is_floating(out)]
            names.extend(f"{eqn.primitive.name} at {site_of(eqn)}" for _ in floating)
            found.extend(floating)
            return outs

        interpret(jaxpr, inputs, visit)
        return found

    values = run_once(run, list(inputs))
    return dict(zip(names, map(np.asarray, values), strict=True))


def gathered(answers: "Testimony", c: int, k: int) -> Evidence:
    """What the witnesses' answers say about leaf k, at probe c.

    Of every probe; where not all answers are kept, of c and one other.
    """
    program, cotangents = answers.program, answers.probes[c]
    asked = list(range(len(answers.probes)))
    if program.is_large:
        asked = [*[p for p in asked if p != c][:1], c]
    leaves = list(map(np.asarray, answers.leaves))
    named = [f"argument {path}" for path in answers.paths]
    manual, auto = [], []
    for p in asked:
        manual.append(answers.manual[p].cotangents[k])
        auto.append(answers.auto[p].cotangents[k])
    others = dict(zip(answers.paths, answers.auto[c].cotangents, strict=True))
    del others[answers.paths[k]]
    outputs = [f"output{path}" for path in program.output_paths]

    def again(leaf=None, cotangents=cotangents):
        inputs = list(answers.inputs)
        if leaf is not None:
            inputs[program.manual.wrt[k]] = leaf
        return program.ask(inputs, cotangents)[1].cotangents[k]

    def within():
        return intermediates(program.auto.jaxpr, answers.inputs)

    def earlier():
        for inputs in answers.earlier:
            close_by = list(inputs)
            for i in program.manual.wrt:
                close_by[i] = np.asarray(inputs[i]) * (1 + _CLOSE)
            at, near = (program.ask(x, cotangents)[1] for x in (inputs, close_by))
            yield at.cotangents[k], near.cotangents[k]

    return Evidence(
        manual,
        auto,
        asked.index(c),
        others,
        leaves[k],
        dict(zip(named, leaves, strict=True)),
        dict(zip(outputs, answers.auto[c].outputs, strict=True)),
        cotangents,
        None if answers.refused or program.is_large else again,
        tuple if answers.refused else earlier,
        dict if program.is_large else within,
        lambda: _unstopped(program.auto, answers.inputs, cotangents, k),
    )


def _unstopped(witness, inputs, cotangents, k) -> np.ndarray | None:
    if not holds(witness.jaxpr, stops) or unrolled_size(witness.jaxpr) > _INTERPRETED:
        return None

    def pass_on(eqn, ins, outs):
        return ins if stops(eqn) else outs

    def free(inputs):
        return interpret(witness.jaxpr, inputs, pass_on, descend_rules=False)

    def pullback(inputs, cotangents):
        def of_leaf(leaf):
            moved = list(inputs)
            moved[witness.wrt[k]] = leaf
            outs = free(moved)
            return [outs[j] for j in witness.outputs]

        outs, back = jax.vjp(of_leaf, inputs[witness.wrt[k]])
        bars = [jnp.asarray(g, o.dtype) for g, o in zip(cotangents, outs, strict=True)]
        return back(bars)[0]

    return np.asarray(run_once(pullback, list(inputs), list(cotangents)))
