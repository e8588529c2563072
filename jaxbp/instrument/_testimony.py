"""The findings that follow from what the witnesses answer."""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np

from jaxbp.instrument._answers import (
    BOTH,
    MANUAL,
    beyond_rounding,
)
from jaxbp.instrument._comparison import FAILED, Finding
from jaxbp.instrument._evidence import gathered
from jaxbp.instrument._judge import (
    ASKED,
    Numeric,
    disagreement,
    further_than,
    judge,
    needed_noise,
    nowhere_finite,
    sides,
    telling_elements,
)
from jaxbp.instrument._kinks import Differing, held_to_lines, with_points_around
from jaxbp.instrument._parts import parts_of, slopes
from jaxbp.instrument._program import LARGE
from jaxbp.instrument._promises import Promises

Pair = tuple[int, np.ndarray, np.ndarray]  # a leaf, and two cotangents of it
_SAMPLE = 2**16  # of the elements of a large array that seem to differ
_FEW = 2  # elements that the numeric witness is asked about at once in a large program
_OUTPUTS = 16  # outputs that are asked one by one


class Testimony(Promises):
    """Answers, and the findings on every leaf."""

    def findings(
        self, surrogates: Collection[str], *, callers: bool = True, allowed: float = 0.0
    ) -> list[Finding]:
        """One a leaf, in tree order, after the value's if the value is at fault.

        `callers`: this is the dtype that the caller asked in, a cotangent's is held
        against it. `allowed`: of each element, what it may be off by.
        """
        if not self.probes[0] or not self.leaves:
            return []
        # From the last probe to the first: answers that are not kept are asked once.
        held = [k for k, path in enumerate(self.paths) if path not in surrogates]
        not_linear = self.not_linear(held, allowed)
        differing = self._differing([k for k in held if k not in not_linear], allowed)
        found = self.value()
        broken = [self.broken_contract(k, callers) for k in range(len(self.leaves))]
        message = "different on purpose: only its contract is held"
        for k, path in enumerate(self.paths):
            if finding := broken[k] or not_linear.get(k):
                found.append(finding)
            elif path in surrogates:
                worst = self.largest_difference(k)
                found.append(Finding("surrogate", path, worst=worst, message=message))
            elif k in differing:
                found.append(self._judged(k, *differing[k]))
            else:
                found.append(self._agreeing(k))
        return held_to_lines(self, found, differing)

    def _differing(self, leaves: Collection[int], allowed: float) -> Differing:
        """By leaf, a probe at which it differs beyond rounding, by how much, a note.

        Where some element differs by more than `allowed` of itself.
        """
        found: Differing = {}
        for c in reversed(range(len(self.probes))):
            rest = [k for k in leaves if k not in found]
            for k, some, beyond, note in self.beyond_noise(c, self._pairs(c, rest)):
                if allowed:
                    m, a = (s[c].cotangents[k] for s in (self.manual, self.auto))
                    if not further_than(allowed, m, a, some[beyond > 0]):
                        continue
                multiple = np.zeros(np.shape(self.leaves[k]))
                multiple.flat[some] = beyond
                found[k] = c, multiple, note
        return found

    def apart(self, c: int) -> set[int]:
        """Leaves of which M is another function at probe c: beyond its own noise."""
        if c not in self._apart:
            pairs = self._pairs(c, range(len(self.leaves)))
            beyond = self.beyond_noise(c, pairs, sides=[MANUAL])
            self._apart[c] = {k for k, *_ in beyond}
        return self._apart[c]

    @functools.cached_property
    def _apart(self) -> dict[int, set[int]]:
        return {}

    def beyond_noise(
        self,
        c: int,
        pairs: Iterable[Pair],
        sides: Sequence[int] = BOTH,
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray, str]]:
        """Leaves whose two cotangents for probe c differ: where, how much, a note.

        The cheap bound first; the noise of the `sides` is measured only where that
        fails: of a large program when neither answers nor pairs are in memory.
        """
        asked, places, notes = self._in_question(pairs)
        if not places:
            return
        self.let_go()
        needed = {k: needed_noise(*pair) for k, pair in asked.items()}
        noises = self.noise_at(c, places, needed, sides=sides)
        for (k, some), noise in zip(places.items(), noises, strict=True):
            beyond = disagreement(*asked[k], self.unit, noise)
            if beyond.any():
                yield k, some, beyond, notes[k]

    def _in_question(self, pairs: Iterable[Pair]):
        """By leaf, values that differ beyond the cheap bound, their places, a note."""
        asked: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        places, notes = {}, {}
        for k, one, other in pairs:
            multiple = beyond_rounding(one, other, self.unit)
            if multiple is not None:
                places[k], notes[k] = some, _ = _sampled(multiple)
                asked[k] = one.ravel()[some], other.ravel()[some]
        return asked, places, notes

    def _pairs(self, c: int, leaves: Iterable[int]) -> Iterator[Pair]:
        """Leaves with both cotangents for probe c."""
        for k in leaves:
            yield k, self.manual[c].cotangents[k], self.auto[c].cotangents[k]

    def _agreeing(self, k: int) -> Finding:
        m, a = self.manual[0].cotangents[k], self.auto[0].cotangents[k]
        path, worst = self.paths[k], self.largest_difference(k)
        lost = int(nowhere_finite(m, a).sum())
        if lost and lost == m.size:
            message = "not finite, hand-written and by autodiff: ask elsewhere"
            return Finding("unproven", path, worst=worst, message=message)
        message = f"{lost} of {m.size} elements finite in no witness" if lost else ""
        if k in self.triangles:
            message = "f reads one triangle: held along symmetric matrices"
        message = message if m.size else "empty"
        return Finding("right", path, worst=worst, message=message)

    def _judged(self, k: int, c, multiple, note) -> Finding:
        evidence = gathered(self, c, k)
        m, a = self.manual[c].cotangents[k], self.auto[c].cotangents[k]
        numeric = self._numeric(c, k, _telling(m, a, multiple))
        path = self.paths[k]
        finding = judge(path, m, a, multiple, numeric, self.unit, evidence)
        message = f"{note}{finding.message}"
        # Which of them shows it takes runs of its own.
        output = self._output(c, k, multiple) if finding.verdict in FAILED else ""
        return dataclasses.replace(finding, output=output, message=message)

    def _output(self, c, k, multiple) -> str:
        """The outputs whose cotangents alone show it, "" where all do or none."""
        paths = self.program.output_paths
        if not 1 < len(paths) <= _OUTPUTS:
            return ""
        # A part of the cotangent makes no more noise than the whole, or about as much.
        some = np.flatnonzero(multiple)
        m, a = (
            side[c].cotangents[k].ravel()[some] for side in (self.manual, self.auto)
        )
        (noise,) = self.noise_at(c, {k: some}, {k: needed_noise(m, a)})
        shown = []
        for j, path in enumerate(paths):
            alone = [g if i == j else 0 * g for i, g in enumerate(self.probes[c])]
            m, a = (side.cotangents[k].ravel()[some] for side in self.both(alone))
            if disagreement(m, a, self.unit, noise).any():
                shown.append(path)
        return ", ".join(shown) if len(shown) < len(paths) else ""

    def _numeric(self, c, k, elements) -> Numeric | None:
        """The numeric witness at the parts of elements of leaf k, until one is wrong.

        None where it cannot be asked. Always as many elements at once, at every leaf:
        one compiled program serves them all.
        """
        if not self.can_ask_numeric:
            return None
        m, a = self.manual[c].cotangents[k], self.auto[c].cotangents[k]
        start, elements = sum(x.size for x in self.parts[:k]), parts_of(elements, m)
        at_once = _FEW if self.program.is_large else ASKED
        rounding = self.rounding(c)
        lost = not all(np.isfinite(out).all() for out in self.auto[c].outputs)
        found: list[Numeric] = []
        for first in range(0, len(elements), at_once):
            some = elements[first : first + at_once]
            s = self.secants(c, start + np.resize(some, at_once), rounding)
            answer = Numeric.of(some, s, lost=lost)
            answer = self._with_own_noise(c, k, answer)
            found.append(with_points_around(self, c, k, answer))
            if "wrong" in sides(m, a, found[-1], self.unit):
                break
        return Numeric(*(np.concatenate(c) for c in zip(*found, strict=True)))

    def _with_own_noise(self, c, k, numeric: Numeric) -> Numeric:
        """Widened by what rounding does to M, where no finite A was held against it."""
        m, a = self.manual[c].cotangents[k], self.auto[c].cotangents[k]
        alone = ~np.isfinite(slopes(a).ravel()[numeric.elements])
        if not alone.any():
            return numeric
        places = numeric.elements // 2 if np.iscomplexobj(m) else numeric.elements
        without_end = np.full(places.shape, np.inf)
        (noise,) = self.noise_at(c, {k: places}, {k: without_end}, sides=[MANUAL])
        noise = np.where(alone & np.isfinite(noise), noise, 0)
        with np.errstate(over="ignore"):
            error, slack = numeric.error + 4 * noise, numeric.slack + 16 * noise
        return numeric._replace(error=error, slack=slack)


def _sampled(multiple: np.ndarray) -> tuple[np.ndarray, str]:
    """The elements that differ; of a large array a sample, the worst in it, and a note.

    To measure the noise of all, or to put all in order, would take their memory several
    times over.
    """
    some = np.flatnonzero(multiple)
    if multiple.size <= LARGE or some.size <= _SAMPLE:
        return some, ""
    chosen = some[np.linspace(0, some.size - 1, _SAMPLE).astype(int)]
    chosen[0] = multiple.argmax()
    note = f"{some.size:,} elements seem to differ, a sample of {_SAMPLE:,} was asked: "
    return chosen, note


def _telling(m, a, multiple) -> np.ndarray:
    """Elements for the numeric witness to decide; of a large array a few."""
    if multiple.size <= LARGE:
        return telling_elements(multiple, m, a)
    some = np.flatnonzero(multiple)
    chosen = telling_elements(multiple.flat[some], m.flat[some], a.flat[some])
    return some[chosen[:ASKED]]
