"""What the witnesses answer to the probes at one point."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._errors import first_line, not_differentiable
from jaxbp.instrument._comparison import Worst
from jaxbp.instrument._judge import disagreement
from jaxbp.instrument._noise import at_places
from jaxbp.instrument._numeric import Secants, secants, split
from jaxbp.instrument._parts import cotangent, parts
from jaxbp.instrument._probes import PROBES, probes
from jaxbp.instrument._program import LARGE, Program
from jaxbp.instrument._structure import along_symmetric
from jaxbp.instrument._witnesses import Pullback

_NUMERIC_LIMIT = 4096  # elements that are differentiated numerically one by one
_DIGITS = 16  # noise that is one sixteenth of a value leaves no digit of it
MANUAL, AUTO = 0, 1  # sides: the hand-written witness's, autodiff's
BOTH = AUTO, MANUAL
_EXACT = np.float64, np.complex128
_BLOCK = 2**18  # elements that are compared at once: what is large fits but a few times


class Answers:
    """The answers of both witnesses to every probe, at one point and in one dtype.

    `manual[c]` and `auto[c]` are those to probe c. As many are kept as are small, at
    least the last pair that was asked for; others are asked for again.
    """

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
        if program.is_large and sum(aval.size for aval in program.avals) == 1:
            count = 1  # any other would be a multiple of it: linearity is asked anyway
        self.probes = cotangents or probes(
            program.avals, program.output_paths, seed, count
        )
        count = len(self.probes)
        self.earlier: list[Sequence[Any]] = []  # points asked before, to be told from
        self._rounding: dict[int, float] = {}
        # Of the leaves alone: what is cast down inside shows in the measured noise.
        units = [float(jnp.finfo(jnp.result_type(x)).eps) for x in self.leaves]
        self.unit = max(units, default=0.0)
        self.size = sum(np.size(leaf) for leaf in self.leaves)
        self.refused = ""
        # Partial functions, no methods: what refers to itself is not freed at once.
        keep = functools.lru_cache(max(1, LARGE // max(1, self.size)))
        self.wide = bool(jax.config.jax_enable_x64)  # pyright: ignore - is there
        with jax.enable_x64(self.wide):
            self.triangles = program.triangles(self.inputs)
        context = (self.wide, program, self.inputs, self.probes)
        ask = keep(functools.partial(_asked, self.triangles, *context))
        self._errors: list[Pullback] = []  # of the numeric witness in autodiff's place
        self.noise = keep(functools.partial(_noise, *context, seed, self._errors))
        self._kept = ask, self.noise
        try:
            ask(count - 1)
        except Exception as error:  # whatever JAX raises of what has no derivative
            manual = [program.manual(inputs, g) for g in self.probes]
            if not self.can_ask_numeric:
                raise not_differentiable("compare", error) from error
            if self.size > _NUMERIC_LIMIT:
                raise
            self.refused = first_line(error)
            numeric, self._errors[:] = self._numeric_pullbacks()
            ask = list(zip(manual, numeric, strict=True)).__getitem__
        self.manual = _Side(ask, MANUAL, count)
        self.auto = _Side(ask, AUTO, count)

    def let_go(self) -> None:
        """Keep no answer of a large program: one that is wanted is asked for again."""
        if self.program.is_large:
            for cache in self._kept:
                cache.cache_clear()

    def both(self, cotangents: Sequence[Any]) -> tuple[Pullback, Pullback]:
        """What the witnesses answer to a cotangent that is no probe."""
        context = (self.wide, self.program, self.inputs, [cotangents])
        return _asked(self.triangles, *context, 0)

    def hand_written(self, cotangents: Sequence[Any]) -> Pullback:
        """What the hand-written one does, by whichever program is compiled."""
        if self.refused or self.program.is_large:
            with jax.enable_x64(self.wide):
                return self.program.manual(self.inputs, cotangents)
        return self.both(cotangents)[0]

    def noise_at(
        self,
        c: int,
        places: Mapping[int, np.ndarray],
        needed: Mapping[int, np.ndarray],
        *,
        sides: Sequence[int] = BOTH,
    ) -> list[np.ndarray]:
        """The noise of either at flat elements of some leaves, leaf by leaf.

        As much as `needed`, or else the larger of the `sides` in full: NaN where
        rounding may give NaN to each of them.
        """
        largest = [np.full(some.size, np.nan) for some in places.values()]
        for side in sides:
            if all(
                (n >= needed[k]).all() for k, n in zip(places, largest, strict=True)
            ):
                break
            noise = self._noise_of(side, c, places, needed)
            largest = [
                np.fmax(n, noise[k]) for k, n in zip(places, largest, strict=True)
            ]
        return largest

    def _noise_of(self, side: int, c: int, places, needed) -> list[np.ndarray]:
        without_end = all(np.isinf(size).all() for size in needed.values())
        whole = without_end and not self.program.is_large
        if whole or (side == AUTO and self._errors):
            return at_places(self.noise(c, side).cotangents, places)
        witness = (self.program.manual, self.program.auto)[side]
        ask = (self.inputs, self.probes[c], self.seed, places, needed)
        with jax.enable_x64(self.wide):
            return witness.noise(*ask).cotangents

    def numeric_gradient(self) -> list[np.ndarray]:
        """The numeric witness about the first probe; NaN where it was not asked."""
        size = sum(x.size for x in self.parts)
        values, asked = np.full(size, np.nan), np.arange(size)
        if size > _NUMERIC_LIMIT:
            asked = np.linspace(0, size - 1, _NUMERIC_LIMIT).astype(int)
        if self.can_ask_numeric:
            values[asked] = self.secants(0, asked).central
        return self._like_leaves(values)

    @property
    def can_ask_numeric(self) -> bool:
        return all(jnp.result_type(x) in _EXACT for x in self.leaves)

    @functools.cached_property
    def parts(self) -> list[np.ndarray]:
        """The leaves' real and imaginary parts."""
        return list(map(parts, self.leaves))

    def secants(self, c: int, elements: np.ndarray, rounding: float = 0.0) -> Secants:
        """The numeric witness at elements of the concatenated `parts`, at probe c."""
        context = (self.inputs, self.probes[c])
        return secants(self.program.ladder, context, self.parts, elements, rounding)

    def rounding(self, c: int) -> float:
        """What rounding alone can do to probe c's product with the outputs.

        Infinite where it leaves no digit of them: a singular matrix's solution.
        """
        if c not in self._rounding:
            with jax.enable_x64(self.wide):
                noise = self.program.auto.noise_of_outputs(self.inputs, self.seed)
            outs = self.auto[c].outputs
            self._rounding[c] = rounding_in(self.probes[c], outs, noise)
        return self._rounding[c]

    def largest_difference(self, k: int) -> Worst | None:
        """The element of leaf k at which M and A differ most at the first probe."""
        m, a = self.manual[0].cotangents[k], self.auto[0].cotangents[k]
        if not m.size:
            return None
        best, element = -1.0, 0
        for part, (some_m, some_a) in blocks(m, a):
            with np.errstate(all="ignore"):
                difference = np.nan_to_num(np.abs(some_m - some_a))
            if difference.max() > best:
                best, element = difference.max(), part.start + int(difference.argmax())
        return worst_at(m, a, element)

    def _numeric_pullbacks(self) -> tuple[list[Pullback], list[Pullback]]:
        """In autodiff's place: the numeric derivative, and a quarter of its error.

        The quarter stands as noise: sixteen times that is four errors.
        """
        outputs = [np.asarray(x) for x in self.program.values(self.inputs)]
        noise = self.program.auto.noise_of_outputs(self.inputs, self.seed)
        everywhere = np.arange(sum(x.size for x in self.parts))
        values, errors = [], []
        for c in range(len(self.probes)):
            rounding = self._rounding[c] = rounding_in(self.probes[c], outputs, noise)
            s = self.secants(c, everywhere, rounding)
            values.append(Pullback(outputs, self._like_leaves(s.central)))
            off = [np.abs(x) for x in self._like_leaves(s.error / 4)]
            errors.append(Pullback(noise, off))
        return values, errors

    def _like_leaves(self, derivatives: np.ndarray) -> list[np.ndarray]:
        pieces = split(derivatives, self.parts)
        return list(map(cotangent, pieces, self.leaves))


class _Side(Sequence[Pullback]):
    """One witness's answers, asked for one by one."""

    def __init__(self, ask: Callable[[int], Sequence[Pullback]], side: int, count: int):
        self._ask, self._side, self._order = ask, side, range(count)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, c: int) -> Pullback:  # pyright: ignore - no slices
        return self._ask(self._order[c])[self._side]


def beyond_rounding(manual, auto, unit, noise=None) -> np.ndarray | None:
    """`disagreement`, None where there is none: block by block, for memory's sake."""
    found = None
    arrays = (manual, auto) if noise is None else (manual, auto, noise)
    for part, (m, a, *n) in blocks(*arrays):
        multiple = disagreement(m, a, unit, *n)
        if multiple.any():
            found = np.zeros(manual.size) if found is None else found
            found[part] = multiple
    return None if found is None else found.reshape(manual.shape)


def worst_at(m: np.ndarray, a: np.ndarray, element: int) -> Worst:
    """Both values at a flat index."""
    index = tuple(int(i) for i in np.unravel_index(element, m.shape))
    return Worst(index, m.flat[element].item(), a.flat[element].item(), None)


def rounding_in(
    bars: Sequence[Any], outputs: Sequence[Any], noise: Sequence[Any]
) -> float:
    """What the outputs' noise is in their product with cotangents.

    Infinite where it leaves no digit of them.
    """
    moved = whole = 0.0
    for g, y, n in zip(bars, outputs, noise, strict=True):
        finite = np.isfinite(y)
        with np.errstate(all="ignore"):
            whole += float(np.sum(np.abs(g * y), where=finite))
            moved += float(np.sum(np.abs(g) * n, where=finite & (n > 0)))
    return np.inf if moved > whole / _DIGITS > 0 else moved


def _asked(triangles, wide, program, inputs, probes, c) -> tuple[Pullback, Pullback]:
    with jax.enable_x64(wide):  # also where the asker has left it
        manual, auto = program.ask(inputs, probes[c])
    for k in triangles:
        bars = along_symmetric(manual.cotangents[k], auto.cotangents[k])
        auto.cotangents[k] = bars
    return manual, auto


def _noise(wide, program, inputs, probes, seed, errors, c, side) -> Pullback:
    """Rounding noise of one side at probe c, all that there is."""
    if side == AUTO and errors:
        return errors[c]
    witness = (program.manual, program.auto)[side]
    with jax.enable_x64(wide):
        return witness.noise(inputs, probes[c], seed)


def blocks(*arrays: np.ndarray) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Flat pieces of arrays of one shape, with their place."""
    flat = [np.ravel(x) for x in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        part = slice(start, start + _BLOCK)
        yield part, [x[part] for x in flat]
