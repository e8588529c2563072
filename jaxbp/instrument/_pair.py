"""A hand-written rule beside autodiff of its primal, both compiled at some shapes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxbp import _interpret, _jaxpr
from jaxbp._errors import first_line
from jaxbp._steps import holds, is_floating, wire_name
from jaxbp.instrument._compiled import jitted
from jaxbp.instrument._judge import ASKED, Numeric, disagreement
from jaxbp.instrument._noise import noise_of_inputs, rounding_noise
from jaxbp.instrument._numeric import ladder, secants
from jaxbp.instrument._parts import from_parts, parts, parts_of
from jaxbp.instrument._probes import probes
from jaxbp.instrument._tolerance import iterates, longer, moved_on
from jaxbp.instrument._wires import paired, with_wires
from jaxbp.instrument._witnesses import Witness


class Answer(NamedTuple):
    """What a witness says at one call: all arrays, of outputs, inputs and wires."""

    outputs: list[np.ndarray]
    cotangents: list[np.ndarray]
    wires: list[np.ndarray]


class Programs:
    """Compiled jaxprs: those that read alike share one, constants being arguments."""

    def __init__(self):
        self._compiled: dict[str, Callable[..., Any]] = {}

    def __len__(self) -> int:
        return len(self._compiled)

    def __call__(self, jaxpr: Any, inputs: Sequence[Any]) -> list[np.ndarray]:
        key = f"{id(jaxpr)}" if holds(jaxpr, _array_literal) else str(jaxpr)
        if key not in self._compiled:
            run = functools.partial(_jaxpr.evaluate_with, jaxpr)
            self._compiled[key] = jitted(run)
        return [np.asarray(x) for x in self._compiled[key](jaxpr.consts, inputs)]


class Pair:
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
        self.eqn, self._programs = eqn, programs
        self._alone, self._rule = alone, kept
        self._same = _shared(eqn)
        closed = _jaxpr.closed_over(eqn)
        self.live = [
            k
            for k, v in enumerate(eqn.invars)
            if is_floating(v.aval) and k >= closed and self._same.get(k, [k])[0] == k
        ]
        self.floating = [k for k, v in enumerate(eqn.outvars) if is_floating(v.aval)]
        self.avals = [eqn.outvars[k].aval for k in self.floating]
        self.dtypes = [eqn.invars[k].aval.dtype for k in self.live]
        self.unit = max((float(jnp.finfo(d).eps) for d in self.dtypes), default=0.0)
        names = [f"[{k}]" for k in range(len(eqn.invars))]
        names = _jaxpr.argument_names(eqn) if alone is None else names
        self.arguments = [names[k] for k in self.live]
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
        flat = [*inputs, *self.like_outputs(bars)]
        manual = self._answer(self._programs(self.manual, flat), self._kept)
        if self.auto is None:
            return manual, manual
        auto = self._programs(self.auto, flat)
        return manual, self._answer(auto, range(len(self.wires)))

    def noise(self, inputs: Sequence[Any], bars: Sequence[Any], seed: int) -> Answer:
        """Per element, what rounding alone can do to either answer."""
        flat = [*inputs, *self.like_outputs(bars)]
        others = longer(self.manual, iterates)
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
        return list(map(np.add, noise, moved_on(jaxpr, others, flat)))

    def numeric(
        self, inputs, bars, position: int, elements, seed: int
    ) -> Numeric | None:
        """The numeric witness at elements of one floating input."""
        leaves = [parts(inputs[k]) for k in self.live]
        if not elements.size or any(leaf.dtype != np.float64 for leaf in leaves):
            return None
        elements = parts_of(elements, inputs[self.live[position]])[:ASKED]
        start = sum(leaf.size for leaf in leaves[:position])
        # As many elements at every input: one compiled program serves them all.
        padded = np.resize(elements, ASKED)
        context = (list(inputs), self.like_outputs(bars))
        noise = self._value.noise_of_outputs(inputs, seed)
        rounding = sum(
            float(np.sum(np.abs(g) * n, where=np.isfinite(n)))
            for g, n in zip(bars, noise, strict=True)
        )
        s = secants(self._ladder, context, leaves, start + padded, rounding)
        return Numeric.of(elements, s)

    @functools.cached_property
    def _value(self) -> Witness:
        avals = [v.aval for v in self.eqn.invars]
        return Witness(jax.make_jaxpr(self._values)(avals), [], range(len(self.avals)))

    def cotangents(self, bars, name: str, seed: int) -> list[list[Any]]:
        """The cotangent that arrives, if one does, and random ones."""
        paths = [f"{name}{k}" for k in self.floating]
        random = probes(self.avals, paths, seed)[1:]
        if all(bars[k] is None for k in self.floating):
            return random
        zeros = [np.zeros(a.shape, a.dtype) for a in self.avals]
        arriving = [bars[k] for k in self.floating]
        pairs = zip(arriving, zeros, strict=True)
        return [[z if b is None else b for b, z in pairs], *random]

    def like_outputs(self, bars: Sequence[Any]) -> list[jax.Array]:
        pairs = zip(bars, self.avals, strict=True)
        return [jnp.asarray(g, aval.dtype) for g, aval in pairs]

    def _moved(self, inputs, leaves):
        """The inputs with these values on the differentiated ones."""
        inputs = list(inputs)
        for k, leaf in zip(self.live, leaves, strict=True):
            for place in self._same.get(k, [k]):
                inputs[place] = leaf
        return inputs

    def _answer(self, flat, kept) -> Answer:
        n, m = len(self.floating), len(self.floating) + len(self.live)
        return Answer(flat[:n], flat[n:m], [flat[m:][k] for k in kept])

    def _manual(self, inputs, bars):
        run = functools.partial(_interpret.run_equation, self.eqn)
        if self._alone is not None and self._rule:
            single = _jaxpr.with_one_rule(self._alone, self._rule)
            run = functools.partial(_jaxpr.evaluate, single)
        return self._vjp(run, inputs, bars)

    def _body(self, inputs: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
        """The jaxpr that M has rules in and A has not, and its inputs."""
        if self._alone is None:
            return _jaxpr.primal(self.eqn, inputs)
        return self._alone, list(inputs or ())

    def _primal(self, inputs):
        body, taken = self._body(inputs)
        return _jaxpr.evaluate(_jaxpr.without_rules(body), taken)

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

    def _values(self, inputs):
        outs = self._primal(inputs)
        return [outs[k] for k in self.floating]

    @functools.cached_property
    def _ladder(self):
        """The cotangents' product with what a move changes of the outputs.

        Outputs that it leaves alone then bring in neither their rounding, however large
        they are, nor what is not finite there.
        """

        def phi(context, *leaves):
            inputs, bars = context
            old = [inputs[k] for k in self.live]
            pairs = list(zip(old, map(from_parts, leaves, old), strict=True))
            # One program for both: what does not move is then the same bits.
            both = jax.lax.map(
                lambda leaves: self._values(self._moved(inputs, leaves)),
                [jnp.stack(pair) for pair in pairs],
            )
            terms = [_change(bar, out) for bar, out in zip(bars, both, strict=True)]
            value, rounded = (sum(column) for column in zip(*terms, strict=True))
            return value, rounded

        return ladder(phi)


def beyond(manual, auto, noise=None) -> list[np.ndarray]:
    """Of pairs of arrays, where they differ beyond rounding: multiples of it."""
    noises = [None] * len(manual) if noise is None else noise
    return [
        disagreement(m, a, float(jnp.finfo(a.dtype).eps), n)
        if m.shape == a.shape
        else np.full(m.shape or 1, np.inf)
        for m, a, n in zip(manual, auto, noises, strict=True)
    ]


def _change(bar, out):
    """Sum of bar * (out[1] - out[0]), and of the magnitudes that are rounded in it."""
    # One type for all outputs: narrow floats have no sum with others.
    out = out.astype(jnp.complex128 if jnp.iscomplexobj(out) else jnp.float64)
    same = (out[0] == out[1]) | jnp.isnan(out).all(axis=0)
    change = jnp.where(same, 0, out[1] - out[0])
    rounded = jnp.where(same, 0, jnp.abs(out).sum(axis=0))
    bar = bar.astype(out.dtype)
    return jnp.sum(bar * change).real, jnp.sum(jnp.abs(bar) * rounded)


def _shared(eqn) -> dict[int, list[int]]:
    """Places at which a rule of JAX's takes the same variable: differentiated as one.

    `custom_root` takes what its function and its solver close over twice, and gives the
    whole cotangent to one of them.
    """
    rule = _jaxpr.as_rule(eqn)
    if rule is None or not rule.from_jax:
        return {}
    places: dict[Any, list[int]] = {}
    for k, var in enumerate(eqn.invars):
        if not isinstance(var, Literal):
            places.setdefault(var, []).append(k)
    return {k: same for same in places.values() for k in same}


def _array_literal(eqn) -> bool:
    return any(isinstance(v, Literal) and np.ndim(v.val) for v in eqn.invars)
