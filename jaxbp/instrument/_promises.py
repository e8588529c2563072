"""What is held whatever a rule's gradient is: value, dtype, zero at zero, linearity."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from jaxbp._steps import holds
from jaxbp.instrument._answers import (
    BOTH,
    MANUAL,
    Answers,
    beyond_rounding,
    worst_at,
)
from jaxbp.instrument._comparison import Finding
from jaxbp.instrument._judge import further_than, worst_elements
from jaxbp.instrument._tolerance import ends_at_a_float

_TIMES = 2.0**20  # what a cotangent is multiplied with: exact in every dtype


class Promises(Answers):
    """Answers, and the findings on the contract."""

    def value(self) -> list[Finding]:
        """fwd's value against the primal's."""
        found, own, rival = [], "fwd", "the primal"
        if self.program.by_reference:
            own, rival = "f", "the reference"
        pairs = zip(self.manual[0].outputs, self.auto[0].outputs, strict=True)
        for k, (m, a) in enumerate(pairs):
            path = self.program.output_paths[k]
            if m.shape != a.shape:
                message = f"{own} gives shape {m.shape}, {rival} {a.shape}"
                found.append(Finding("broken-contract", "value", path, message=message))
                continue
            multiple = beyond_rounding(m, a, self.unit)
            if multiple is not None:
                noise = np.maximum(*(self.noise(0, side).outputs[k] for side in BOTH))
                multiple = beyond_rounding(m, a, self.unit, noise)
            if multiple is not None:
                worst = worst_at(m, a, int(worst_elements(multiple)[0]))
                message = f"{own}'s value is not {rival}'s"
                found.append(
                    Finding("broken-contract", "value", path, worst, message=message)
                )
        return found

    def broken_contract(self, k: int, callers: bool) -> Finding | None:
        """A cotangent of another dtype, or one where there should be none."""
        m, leaf = self.manual[0].cotangents[k], self.leaves[k]
        strong = not isinstance(leaf, (float, complex))
        if callers and strong and m.dtype != jnp.result_type(leaf):
            message = f"a cotangent of dtype {m.dtype} for {jnp.result_type(leaf)}"
        elif self._not_zero_at_zero[k]:
            message = "not 0 for a cotangent of 0"
        else:
            return None
        worst = self.largest_difference(k)
        return Finding("broken-contract", self.paths[k], worst=worst, message=message)

    @functools.cached_property
    def _not_zero_at_zero(self) -> list[bool]:
        zeros = [np.zeros_like(g) for g in self.probes[0]]
        bars = self.hand_written(zeros).cotangents
        return [bool(bar.any() and np.isfinite(bar).all()) for bar in bars]

    @functools.cached_property
    def _ends_at_a_float(self) -> bool:
        """Whether a tolerance in the pullback leaves its cotangents open by as much."""
        written = self.program.manual.read(self.inputs, self.probes[-1])
        return holds(written, ends_at_a_float)

    def not_linear(self, leaves: list[int], allowed: float) -> dict[int, Finding]:
        """A power of two goes through a linear map, to `allowed` of each element.

        A small one where a loop ends at a tolerance: one that is absolute may be below
        all rounding of what is far larger, and the loop go on for ever.
        """
        times = 2.0 if self._ends_at_a_float else _TIMES
        large = [np.asarray(g) * times for g in self.probes[-1]]
        at_large = self.hand_written(large).cotangents
        found = {}
        for k in leaves:
            once = self.manual[-1].cotangents[k]
            scaled = at_large[k] / np.float64(times)  # of float16 it is infinite
            multiple = beyond_rounding(scaled, once, self.unit)
            if multiple is not None and self._ends_at_a_float:
                noise = self.noise(len(self.probes) - 1, MANUAL).cotangents[k]
                multiple = beyond_rounding(scaled, once, self.unit, noise)
            if multiple is None:
                continue
            finite = np.isfinite(once) & np.isfinite(scaled)
            # Below the smallest normal number a power of two does round.
            tiny = float(jnp.finfo(once.dtype).tiny) * times
            multiple = np.where(finite & (np.abs(once) > tiny), multiple, 0)
            if not further_than(allowed, scaled, once, np.flatnonzero(multiple)):
                continue
            worst = worst_at(once, scaled, int(worst_elements(multiple)[0]))
            ignored = np.array_equal(once, at_large[k])
            kind = "ignored cotangent" if ignored else "not linear"
            word = "twice" if times == 2 else "2^20 times"
            gives = at_large[k][worst.index].item() / once[worst.index].item()
            message = f"{word} the cotangent does not give {word} as much"
            message += f" but {gives:.6g} times"
            worst = dataclasses.replace(worst, auto=None)
            path = self.paths[k]
            found[k] = Finding("broken-contract", path, "", worst, kind, message)
        return found
