"""A hand-written rule beside autodiff of its primal, both compiled at some shapes."""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxbp import _jaxpr
from jaxbp._sweep import holds, is_floating, wire_name
from jaxbp.instrument._judge import ASKED, Numeric, disagreement
from jaxbp.instrument._noise import rounding_noise
from jaxbp.instrument._numeric import ladder, secants
from jaxbp.instrument._probes import probes


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
            self._compiled[key] = jax.jit(run)
        return [np.asarray(x) for x in self._compiled[key](jaxpr.consts, inputs)]


class Pair:
    """Both witnesses of one rule at some shapes.

    M is the VJP of the call, A that of its primal with all rules removed; both are
    jaxprs from (inputs, cotangents) to (outputs, cotangents of the floating inputs,
    cotangents on `wires`). `auto` is None where autodiff cannot do it, `refused` says
    why.
    """

    def __init__(self, eqn: Any, values: Sequence[Any], programs: Programs):
        self.eqn, self._programs = eqn, programs
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
        names = _jaxpr.argument_names(eqn)
        self.arguments = [names[k] for k in self.live]
        example = (list(values), [jnp.zeros(a.shape, a.dtype) for a in self.avals])
        bars, self.manual = _with_wires(self._manual, example)
        self.refused, self.auto, wires = "", None, []
        try:
            wires, self.auto = self._autodiff(bars, example)
        except Exception as error:  # whatever JAX raises of what has no derivative
            self.refused = str(error).strip().split("\n")[0]
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
        manual = self._answer(rounding_noise(self.manual, flat, seed), self._kept)
        if self.auto is None:
            return manual
        auto = rounding_noise(self.auto, flat, seed)
        auto = self._answer(auto, range(len(self.wires)))
        return jax.tree.map(np.fmax, manual, auto)

    def numeric(self, inputs, bars, position: int, elements) -> Numeric | None:
        """The numeric witness at elements of one floating input."""
        leaves = [np.asarray(inputs[k]) for k in self.live]
        if not elements.size or any(leaf.dtype != np.float64 for leaf in leaves):
            return None
        start = sum(leaf.size for leaf in leaves[:position])
        # As many elements at every input: one compiled program serves them all.
        padded = np.resize(elements, ASKED)
        context = (list(inputs), self.like_outputs(bars))
        s = secants(self._ladder, context, leaves, start + padded)
        return Numeric.of(elements, s)

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
        return self._vjp(functools.partial(_jaxpr.run_equation, self.eqn), inputs, bars)

    def _primal(self, inputs):
        body, taken = _jaxpr.primal(self.eqn, inputs)
        return _jaxpr.evaluate(_jaxpr.without_rules(body), taken)

    def _vjp(self, run, inputs, bars):
        def call(*leaves):
            outs = run(self._moved(inputs, leaves))
            return [outs[k] for k in self.floating]

        outs, back = jax.vjp(call, *(inputs[k] for k in self.live))
        return [*outs, *back(list(bars))]

    def _autodiff(self, bars: list[str], example):
        """Wires with their place among M's, and A's jaxpr, with their cotangents."""
        body, _ = _jaxpr.primal(self.eqn)
        plain = _jaxpr.without_rules(body)
        if not bars or not holds(plain, wire_name):

            def pull(inputs, bars):
                return self._vjp(self._primal, inputs, bars)

            return [], jax.make_jaxpr(pull)(*example)

        def forward(inputs, _):
            return _jaxpr.evaluate(plain, _jaxpr.primal(self.eqn, inputs)[1])

        names, jaxpr = _with_wires(forward, example)
        wires = _paired(names, bars)
        avals = jaxpr.out_avals[len(jaxpr.out_avals) - len(names) :]

        def tapped(inputs, taps):
            count = iter(range(len(names)))

            def visit(eqn, ins, outs):
                if not wire_name(eqn):
                    return outs
                k = next(count)
                return [outs[0] + taps[k]] if k in taps else outs

            return _jaxpr.interpret(plain, _jaxpr.primal(self.eqn, inputs)[1], visit)

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

    @functools.cached_property
    def _ladder(self):
        def phi(context, *leaves):
            inputs, bars = context
            outs = self._primal(self._moved(inputs, leaves))
            terms = [g * outs[k] for g, k in zip(bars, self.floating, strict=True)]
            value = sum(jnp.sum(t).real for t in terms)
            return value, sum(jnp.sum(jnp.abs(t)) for t in terms)

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


def _with_wires(f, example) -> tuple[list[str], Any]:
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

        outs = _jaxpr.interpret(jaxpr, flat, visit)
        names[:] = [name for name, _ in found]
        return [*outs, *(value for _, value in found)]

    return names, jax.make_jaxpr(named)(*jax.tree.leaves(example))


def _paired(names: list[str], bars: list[str]) -> list[tuple[str, int, int]]:
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
