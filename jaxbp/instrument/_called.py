"""One call of a rule: its arguments, its primal, and the numeric witness of that."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxbp import _jaxpr
from jaxbp._steps import is_floating
from jaxbp.instrument._judge import ASKED, Numeric
from jaxbp.instrument._numeric import ladder, secants
from jaxbp.instrument._parts import from_parts, parts, parts_of
from jaxbp.instrument._probes import probes
from jaxbp.instrument._witnesses import Witness


class Called:
    """An equation that calls a rule, or a shard_map, a jaxpr of which `alone` is.

    `live` are the places of the inputs that are differentiated, `floating` those of the
    outputs that have a cotangent.
    """

    def __init__(self, eqn: Any, alone: Any = None):
        self.eqn, self._alone = eqn, alone
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
        return Witness(
            jax.make_jaxpr(self._values)(avals), self.live, range(len(self.avals))
        )

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

    def _body(self, inputs: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
        """The jaxpr that M has rules in and A has not, and its inputs."""
        if self._alone is None:
            return _jaxpr.primal(self.eqn, inputs)
        return self._alone, list(inputs or ())

    def _primal(self, inputs):
        body, taken = self._body(inputs)
        return _jaxpr.evaluate(_jaxpr.without_rules(body), taken)

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
