"""A hand-written rule beside autodiff of its primal, both compiled at some shapes."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import _interpret, _jaxpr
from jaxbp._errors import first_line
from jaxbp._steps import holds, wire_name
from jaxbp.instrument._called import Called
from jaxbp.instrument._compiled import Programs
from jaxbp.instrument._judge import disagreement
from jaxbp.instrument._noise import noise_of_inputs, rounding_noise
from jaxbp.instrument._structure import along_symmetric, reads_one_triangle
from jaxbp.instrument._tolerance import Rounds, approaches, iterates, longer
from jaxbp.instrument._wires import paired, with_wires


class Answer(NamedTuple):
    """What a witness says at one call: all arrays, of outputs, inputs and wires."""

    outputs: list[np.ndarray]
    cotangents: list[np.ndarray]
    wires: list[np.ndarray]


class Pair(Called):
    """Both witnesses of one rule at some shapes.

    M is the VJP of the call, A that of its primal with all rules removed; both are
    jaxprs from (inputs, cotangents) to (outputs, cotangents of the floating inputs,
    cotangents on `wires`). `auto` is None where autodiff cannot do it, `refused` says
    why. Of a shard_map, a jaxpr of which `alone` is, M is its VJP with the rule `kept`
    alone of those inside, or with all, and A that with none.
    """

    def __init__(
        self,
        eqn: Any,
        values: Sequence[Any],
        programs: Programs,
        alone: Any = None,
        kept: _jaxpr.Rule | None = None,
    ):
        super().__init__(eqn, alone)
        self._programs, self._rule = programs, kept
        example = (list(values), [jnp.zeros(a.shape, a.dtype) for a in self.avals])
        bars, self.manual = with_wires(self._manual, example)
        self.refused, self.auto, wires = "", None, []
        try:
            wires, self.auto = self._autodiff(bars, example)
        except Exception as error:  # whatever JAX raises of what has no derivative
            self.refused = first_line(error)
        self.wires = [name for name, _ in wires]
        self._kept = [k for _, k in wires]

    def ask(self, inputs: Sequence[Any], bars: Sequence[Any]) -> tuple[Answer, Answer]:
        """What M and A answer; where there is no A, M twice."""
        bars = self.like_outputs(bars)
        manual = self._programs(self.manual, [*inputs, *bars])
        manual = self._answer(manual, self._kept)
        if self.auto is None:
            return manual, manual
        auto = self._by_autodiff(inputs, bars)
        for k, place in enumerate(self.live):
            if self._reads_one_triangle(place, inputs, bars):
                pair = manual.cotangents[k], auto.cotangents[k]
                auto.cotangents[k] = along_symmetric(*pair)
        return manual, auto

    def _by_autodiff(self, inputs, bars) -> Answer:
        auto = self._programs(self.auto, [*inputs, *bars])
        return self._answer(auto, range(len(self.wires)))

    def _reads_one_triangle(self, place, inputs, bars) -> bool:
        def outputs(x):
            moved = [*inputs[:place], x, *inputs[place + 1 :]]
            return self._by_autodiff(moved, bars).outputs

        return reads_one_triangle(np.asarray(inputs[place]), outputs)

    def noise(self, inputs: Sequence[Any], bars: Sequence[Any], seed: int) -> Answer:
        """Per element, what rounding alone can do to either answer."""
        flat = [*inputs, *self.like_outputs(bars)]
        others = longer(self.manual, approaches)
        manual = self._noise(self.manual, others, flat, seed)
        manual = self._answer(manual, self._kept)
        if self.auto is None:
            return manual
        auto = self._noise(self.auto, self._longer, flat, seed)
        auto = self._answer(auto, range(len(self.wires)))
        return jax.tree.map(np.fmax, manual, auto)

    @functools.cached_property
    def _longer(self) -> list[Any]:
        """A, once for each loop that repeats one step, with more rounds of it."""
        example = ([v.aval for v in self.eqn.invars], self.avals)

        def pull(plain, inputs, bars):
            run = lambda inputs: _jaxpr.evaluate(plain, self._body(inputs)[1])
            return self._vjp(run, inputs, bars)

        return [
            jax.make_jaxpr(functools.partial(pull, plain))(*example)
            for plain in longer(_jaxpr.without_rules(self._body()[0]), iterates)
        ]

    def _noise(self, jaxpr, others, flat, seed):
        if self._alone is None:
            noise = rounding_noise(jaxpr, flat, seed)
        else:
            run = functools.partial(self._programs, jaxpr)
            noise = noise_of_inputs(run, flat, seed)
        loose = Rounds(jaxpr, others).left_open(flat)
        return list(map(np.add, noise, loose))

    def _answer(self, flat, kept) -> Answer:
        n, m = len(self.floating), len(self.floating) + len(self.live)
        return Answer(flat[:n], flat[n:m], [flat[m:][k] for k in kept])

    def _manual(self, inputs, bars):
        run = functools.partial(_interpret.run_equation, self.eqn)
        if self._alone is not None and self._rule:
            single = _jaxpr.with_one_rule(self._alone, self._rule)
            run = functools.partial(_jaxpr.evaluate, single)
        return self._vjp(run, inputs, bars)

    def _vjp(self, run, inputs, bars):
        def call(*leaves):
            outs = run(self._moved(inputs, leaves))
            return [outs[k] for k in self.floating]

        outs, back = jax.vjp(call, *(inputs[k] for k in self.live))
        return [*outs, *back(list(bars))]

    def _autodiff(self, bars: list[str], example):
        """Wires with their place among M's, and A's jaxpr, with their cotangents."""
        body, _ = self._body()
        plain = _jaxpr.without_rules(body)
        if not bars or not holds(plain, wire_name):

            def pull(inputs, bars):
                return self._vjp(self._primal, inputs, bars)

            return [], jax.make_jaxpr(pull)(*example)

        def forward(inputs, _):
            return _jaxpr.evaluate(plain, self._body(inputs)[1])

        names, jaxpr = with_wires(forward, example)
        wires = paired(names, bars)
        avals = jaxpr.out_avals[len(jaxpr.out_avals) - len(names) :]

        def tapped(inputs, taps):
            count = iter(range(len(names)))

            def visit(eqn, ins, outs):
                if not wire_name(eqn):
                    return outs
                k = next(count)
                return [outs[0] + taps[k]] if k in taps else outs

            return _interpret.interpret(plain, self._body(inputs)[1], visit)

        def pull(inputs, bars):
            def call(leaves, taps):
                outs = tapped(self._moved(inputs, leaves), taps)
                return [outs[k] for k in self.floating]

            taps = {k: jnp.zeros(avals[k].shape, avals[k].dtype) for _, _, k in wires}
            outs, back = jax.vjp(call, [inputs[k] for k in self.live], taps)
            leaves_bar, taps_bar = back(list(bars))
            return [*outs, *leaves_bar, *(taps_bar[k] for _, _, k in wires)]

        return [(name, place) for name, place, _ in wires], jax.make_jaxpr(pull)(
            *example
        )


def beyond(manual, auto, noise=None) -> list[np.ndarray]:
    """Of pairs of arrays, where they differ beyond rounding: multiples of it."""
    noises = [None] * len(manual) if noise is None else noise
    return [
        disagreement(m, a, float(jnp.finfo(a.dtype).eps), n)
        if m.shape == a.shape
        else np.full(m.shape or 1, np.inf)
        for m, a, n in zip(manual, auto, noises, strict=True)
    ]
