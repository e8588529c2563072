"""One op: its mutants, asked of `compare` until it says no, and what it let pass."""

import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax

from jaxbp import compare
from jaxbp.ops._case import Case
from scripts.mutation.equivalence import Judge
from scripts.mutation.inputs import asked, batches, squared
from scripts.mutation.mutants import Mutant, mutants

Outcome = Literal["quick", "regimes", "full", "equivalent", "kink", "survived"]
OUTCOMES: tuple[Outcome, ...] = Outcome.__args__  # pyright: ignore
KILLED = OUTCOMES[:3]
_LEAST = 1000  # inputs at which equivalence is to be shown


@dataclass(frozen=True)
class Fate:
    """What became of a mutant: killed by which question, or why not.

    `where` is the equation that was changed, `what` the change; `verdict` is what
    `compare` said when it was killed, or else the judge; `inputs` how many the judge
    compared, `example` one that tells it from the true rule.
    """

    op: str
    where: str
    what: str
    outcome: Outcome
    verdict: str = ""
    inputs: int = 0
    example: str = ""


@dataclass(frozen=True)
class Result:
    """An op's mutants; `alarms` are questions that the true rule itself fails."""

    op: str
    fates: tuple[Fate, ...]
    alarms: tuple[str, ...]
    seconds: float

    def count(self, *outcomes: str) -> int:
        return sum(fate.outcome in outcomes for fate in self.fates)


def run(case: Case, *, seed: int = 0, limit: int | None = None) -> Result:
    """Mutate a case's rule; `limit` takes that many of its mutants, evenly chosen."""
    started = time.monotonic()
    with jax.enable_x64(True):
        trial = _Trial(case, seed)
        todo = trial.mutants()
        if limit is not None and limit < len(todo):
            todo = [todo[k * len(todo) // limit] for k in range(limit)]
        fates = tuple(trial.fate(mutant, square) for mutant, square in todo)
    jax.clear_caches()
    return Result(case.name, fates, trial.alarms, time.monotonic() - started)


class _Trial:
    """The questions that the true rule passes, and a mutant's way through them."""

    def __init__(self, case: Case, seed: int):
        self.case, self.seed = case, seed
        self.fwd, self.bwd = case.fwd, case.bwd
        ordinary = asked(case, "ordinary")
        self.shapes = {False: ordinary}
        with contextlib.suppress(Exception):  # may be none of the function's
            if not self._refused(self.bwd, squared(ordinary)):
                self.shapes[True] = squared(ordinary)
        full = self._refused(self.bwd, ordinary, effort="full")
        verdicts = {"ordinary, full effort": full}
        self.regimes = []
        for name in case.inputs:
            args = asked(case, name)
            verdicts[name] = self._refused(self.bwd, args)
            if not verdicts[name] and name != "ordinary":
                self.regimes.append(args)
        # An empty regime proves nothing, of a true rule as of a mutant.
        self.alarms = tuple(
            f"{verdict} at {name}"
            for name, verdict in verdicts.items()
            if verdict not in ("", "unproven") or (verdict and "ordinary" in name)
        )
        self._judge = functools.cache(self._judged_at)

    def mutants(self) -> list[tuple[Mutant, bool]]:
        """At the ordinary shapes; at square ones those that fit only there."""
        found = [(m, False) for m in self._mutants_at(self.shapes[False])]
        if True in self.shapes:
            ordinary = self._backward_arguments(self.shapes[False])
            for mutant in self._mutants_at(self.shapes[True]):
                try:
                    jax.eval_shape(mutant.of(self.bwd), *ordinary)
                except Exception:
                    found.append((mutant, True))
        return found

    def fate(self, mutant: Mutant, square: bool) -> Fate:
        args, bwd = self.shapes[square], mutant.of(self.bwd)

        def ends(outcome: Outcome, verdict: str = "", inputs: int = 0, example=None):
            where = f"{mutant.where} (square)" if square else mutant.where
            shown = "" if example is None else " ".join(str(example).split())
            return Fate(
                self.case.name, where, mutant.what, outcome, verdict, inputs, shown
            )

        if verdict := self._refused(bwd, args):
            return ends("quick", verdict)
        verdict, count, example = self._judge(square)(bwd)
        if verdict == "equivalent" and count >= _LEAST:
            return ends("equivalent", inputs=count)
        for elsewhere in self.regimes:
            with contextlib.suppress(TypeError, ValueError, LookupError):
                # It may not evaluate at these shapes; then they say nothing.
                if verdict_there := self._refused(bwd, elsewhere):
                    return ends("regimes", verdict_there)
        if verdict_there := self._refused(bwd, args, effort="full"):
            return ends("full", verdict_there)
        choice = verdict == "kink" and count >= _LEAST
        return ends("kink" if choice else "survived", verdict, count, example)

    def _judged_at(self, square: bool) -> Judge:
        inputs = batches(self.case, square=square, seed=self.seed)
        return Judge(self.fwd, self.bwd, inputs)

    def _refused(self, bwd, args, **options) -> str:
        """The verdict on a rule, "" where it is ok."""
        comparison = compare(self._rule(bwd), *args, **options)
        return "" if comparison.ok else comparison.verdict

    def _rule(self, bwd: Callable) -> Callable:
        def function(*args):
            return self.case.function(*args)

        function.__name__ = self.case.name
        rule = jax.custom_vjp(function)
        rule.defvjp(self.fwd, bwd)
        return rule

    def _mutants_at(self, args) -> list[Mutant]:
        return mutants(self.bwd, self._backward_arguments(args), self.seed)

    def _backward_arguments(self, args):
        y, res = self.fwd(*args)
        return res, y
