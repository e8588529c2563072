"""What the witnesses answer to the probes, and the findings that follow."""

import dataclasses
import functools
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp.instrument._comparison import Finding, Worst
from jaxbp.instrument._evidence import gathered, showing_output
from jaxbp.instrument._judge import (
    ASKED,
    Numeric,
    disagreement,
    judge,
    sides,
    telling_elements,
    worst_elements,
)
from jaxbp.instrument._numeric import Secants, secants, split
from jaxbp.instrument._witnesses import PROBES, Program, Pullback, probes

_NUMERIC_LIMIT = 4096  # elements that are differentiated numerically one by one
_LARGE = 2.0**20


class Testimony:
    """The answers of both witnesses to every probe, at one point and in one dtype."""

    def __init__(
        self,
        program: Program,
        inputs: Sequence[Any],
        paths: Sequence[str],
        seed: int,
        count: int = PROBES,
        cotangents: list[list[np.ndarray]] | None = None,
    ):
        self.program, self.inputs, self.paths = program, list(inputs), paths
        self.seed, self.leaves = seed, program.leaves(inputs)
        self.probes = cotangents or probes(
            program.avals, program.output_paths, seed, count
        )
        # Of the leaves alone: what is cast down inside shows in the measured noise.
        units = [float(jnp.finfo(jnp.result_type(x)).eps) for x in self.leaves]
        self.unit = max(units, default=0.0)
        self.manual = [program.manual(inputs, g) for g in self.probes]
        self.refused = ""
        self.earlier: list[Sequence[Any]] = []  # points asked before, to be told from
        self._noise: dict[int, tuple[Pullback, Pullback]] = {}
        try:
            self.auto = [program.auto(inputs, g) for g in self.probes]
        except Exception as error:  # whatever JAX raises of what has no derivative
            if not self._can_ask_numeric or self._size > _NUMERIC_LIMIT:
                raise
            self.refused = first_line(error)
            self.auto, self._errors = self._numeric_pullbacks()

    def findings(
        self, surrogates: Collection[str], *, callers: bool = True
    ) -> list[Finding]:
        """One a leaf, in tree order, after the value's if the value is at fault.

        `callers`: this is the dtype that the caller asked in, a cotangent's is held
        against it.
        """
        if not self.probes[0] or not self.leaves:
            return []
        found = self.value()
        for k, path in enumerate(self.paths):
            broken = self.broken_contract(k, path, callers)
            if broken is None and path not in surrogates:
                broken = self._not_linear(k, path)
            if broken:
                found.append(broken)
            elif path in surrogates:
                message = "different on purpose: only its contract is held"
                worst = self._largest_difference(k)
                found.append(Finding("surrogate", path, worst=worst, message=message))
            else:
                found.append(self._leaf(k, path))
        return found

    def numeric_gradient(self) -> list[np.ndarray]:
        """The numeric witness about the first probe; NaN where it was not asked."""
        total = self._size
        values = np.full(total, np.nan)
        asked = np.arange(total)
        if total > _NUMERIC_LIMIT:
            asked = np.linspace(0, total - 1, _NUMERIC_LIMIT).astype(int)
        if self._can_ask_numeric:
            values[asked] = self._secants(0, asked).central
        return split(values, self.leaves)

    def _beyond_rounding(self, k) -> tuple[int, np.ndarray] | None:
        """The first probe at which leaf k differs beyond rounding, and by how much.

        The cheap bound first; noise is measured only where that fails, beginning with
        the probe at which most elements fail it.
        """
        pairs = [
            (m.cotangents[k], a.cotangents[k])
            for m, a in zip(self.manual, self.auto, strict=True)
        ]
        failing = [np.count_nonzero(disagreement(m, a, self.unit)) for m, a in pairs]
        for c in np.argsort(-np.array(failing), kind="stable"):
            if not failing[c]:
                return None
            of_manual, of_auto = self.noise(int(c))
            noise = np.fmax(of_manual.cotangents[k], of_auto.cotangents[k])
            manual, auto = pairs[c]
            multiple = disagreement(manual, auto, self.unit, noise)
            if multiple.any():
                return int(c), multiple
        return None

    def noise(self, c: int) -> tuple[Pullback, Pullback]:
        """Rounding noise at probe c, the hand-written witness's and autodiff's."""
        if c not in self._noise:
            ask = (self.inputs, self.probes[c], self.seed)
            manual = self.program.manual.noise(*ask)
            auto = self._errors[c] if self.refused else self.program.auto.noise(*ask)
            self._noise[c] = manual, auto
        return self._noise[c]

    def value(self) -> list[Finding]:
        """fwd's value against the primal's."""
        found = []
        pairs = zip(self.manual[0].outputs, self.auto[0].outputs, strict=True)
        for k, (m, a) in enumerate(pairs):
            path = self.program.output_paths[k]
            if m.shape != a.shape:
                message = f"fwd gives shape {m.shape}, the primal {a.shape}"
                found.append(Finding("broken-contract", "value", path, message=message))
                continue
            multiple = disagreement(m, a, self.unit)
            if multiple.any():
                of_manual, of_auto = self.noise(0)
                noise = np.fmax(of_manual.outputs[k], of_auto.outputs[k])
                multiple = disagreement(m, a, self.unit, noise)
            if multiple.any():
                worst = worst_at(m, a, int(worst_elements(multiple)[0]))
                message = "fwd's value is not the primal's"
                found.append(
                    Finding("broken-contract", "value", path, worst, message=message)
                )
        return found

    def broken_contract(self, k: int, path: str, callers: bool) -> Finding | None:
        """A cotangent of another dtype, or one where there should be none."""
        m, leaf = self.manual[0].cotangents[k], self.leaves[k]
        strong = not isinstance(leaf, (float, complex))
        if callers and strong and m.dtype != jnp.result_type(leaf):
            message = f"a cotangent of dtype {m.dtype} for {jnp.result_type(leaf)}"
        elif self._at_zero[k].any() and np.isfinite(self._at_zero[k]).all():
            message = "not 0 for a cotangent of 0"
        else:
            return None
        worst = self._largest_difference(k)
        return Finding("broken-contract", path, worst=worst, message=message)

    def _not_linear(self, k, path) -> Finding | None:
        """A power of two goes through a linear map exactly."""
        once, scaled = self.manual[-1].cotangents[k], self._at_large[k] / _LARGE
        both = np.isfinite(once) & np.isfinite(scaled)
        multiple = np.where(both, disagreement(scaled, once, self.unit), 0)
        if not multiple.any():
            return None
        worst = worst_at(scaled, once, int(worst_elements(multiple)[0]))
        ignored = np.array_equal(once, scaled * _LARGE)
        kind = "ignored cotangent" if ignored else "not linear"
        message = "2^20 times the cotangent does not give 2^20 times as much"
        return Finding("broken-contract", path, "", worst, kind, message)

    @functools.cached_property
    def _at_large(self):
        large = [np.asarray(g) * _LARGE for g in self.probes[-1]]
        return self.program.manual(self.inputs, large).cotangents

    @functools.cached_property
    def _at_zero(self):
        zeros = [np.zeros_like(g) for g in self.probes[0]]
        return self.program.manual(self.inputs, zeros).cotangents

    def _leaf(self, k, path) -> Finding:
        beyond = self._beyond_rounding(k)
        if beyond:
            c, multiple = beyond
            m, a = self.manual[c].cotangents[k], self.auto[c].cotangents[k]
            numeric = self._numeric(c, k, telling_elements(multiple, m, a))
            evidence = gathered(self, c, k)
            finding = judge(path, m, a, multiple, numeric, self.unit, evidence)
            if finding.verdict == "kink" and not self._is_subgradient(c, k, multiple):
                message = "at a kink, but no subgradient: along a line it is too steep"
                return dataclasses.replace(
                    finding, verdict="wrong", kind="", message=message
                )
            return dataclasses.replace(finding, output=showing_output(self, c, k))
        m, a = self.manual[0].cotangents[k], self.auto[0].cotangents[k]
        worst = self._largest_difference(k)
        if not np.isfinite(m).all() and not np.isfinite(a).all():
            message = "not finite, hand-written and by autodiff: ask elsewhere"
            return Finding("unproven", path, worst=worst, message=message)
        message = "" if m.size else "empty"
        return Finding("right", path, worst=worst, message=message)

    def _is_subgradient(self, c, k, multiple) -> bool:
        """Whether M is possible along lines through all differing elements at once.

        At a tie every element may have a derivative of its own choice, all together may
        not: a maximum's gradient sums to 1.
        """
        m, scale = self.manual[c].cotangents[k], np.max(np.abs(self.leaves[k]))
        rng = np.random.default_rng(self.seed)
        for weights in (np.ones(m.shape), rng.uniform(0.5, 1.5, m.shape)):
            direction = np.where(multiple > 0, weights * (scale or 1.0), 0.0)
            directions = [np.zeros(np.shape(x)) for x in self.leaves]
            directions[k] = direction
            context = (self.inputs, self.probes[c], directions)
            s = secants(self.program.along, context, [np.zeros(())])
            low, high = sorted((s.left[0], s.right[0]))
            slack = 4 * (s.left_error[0] + s.right_error[0])
            if not low - slack <= np.sum(m * direction) <= high + slack:
                return False
        return True

    def _numeric(self, c, k, elements) -> Numeric | None:
        """The numeric witness at elements of leaf k, until one is wrong there.

        None where it cannot be asked. Always as many elements at once, at every leaf:
        one compiled program serves them all.
        """
        if not self._can_ask_numeric:
            return None
        m, a = self.manual[c].cotangents[k], self.auto[c].cotangents[k]
        start = sum(np.size(x) for x in self.leaves[:k])
        found: list[Numeric] = []
        for first in range(0, len(elements), ASKED):
            some = elements[first : first + ASKED]
            s = self._secants(c, start + np.resize(some, ASKED))
            found.append(Numeric.of(some, s))
            if "wrong" in sides(m, a, found[-1], self.unit):
                break
        return Numeric(*(np.concatenate(c) for c in zip(*found, strict=True)))

    @property
    def _can_ask_numeric(self) -> bool:
        return all(jnp.result_type(x) == np.float64 for x in self.leaves)

    def _secants(self, c, elements) -> Secants:
        context = (self.inputs, self.probes[c])
        return secants(self.program.ladder, context, self.leaves, elements)

    def _largest_difference(self, k) -> Worst | None:
        m, a = self.manual[0].cotangents[k], self.auto[0].cotangents[k]
        if not m.size:
            return None
        with np.errstate(all="ignore"):
            return worst_at(m, a, int(np.argmax(np.nan_to_num(np.abs(m - a)))))

    @property
    def _size(self) -> int:
        return sum(np.size(leaf) for leaf in self.leaves)

    def _numeric_pullbacks(self) -> tuple[list[Pullback], list[Pullback]]:
        """In autodiff's place: the numeric derivative, and a quarter of its error.

        The quarter stands as noise: sixteen times that is four errors.
        """
        outputs = [
            np.asarray(x) for x in jax.jit(self.program.auto.primal)(self.inputs)
        ]
        values, errors = [], []
        for c in range(len(self.probes)):
            s = self._secants(c, np.arange(self._size))
            values.append(Pullback(outputs, split(s.central, self.leaves)))
            nothing = [np.zeros(x.shape) for x in outputs]
            errors.append(Pullback(nothing, split(s.error / 4, self.leaves)))
        return values, errors


def worst_at(m: np.ndarray, a: np.ndarray, element: int) -> Worst:
    """Both values at a flat index."""
    index = tuple(int(i) for i in np.unravel_index(element, m.shape))
    return Worst(index, m.flat[element].item(), a.flat[element].item(), None)


def first_line(error: Exception) -> str:
    """What JAX says first: the rest is advice on its internals."""
    return str(error).strip().split("\n")[0]
