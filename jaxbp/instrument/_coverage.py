"""Which arms of a program's branches were taken at the points that were asked."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxbp.instrument._arms import Arms
from jaxbp.instrument._branch import Branch, short
from jaxbp.instrument._compiled import jitted
from jaxbp.instrument._witnesses import Witness


class Coverage:
    """The branches of a function, and of the backward passes of its rules, as asked.

    What lies in a body that is run whole (shard_map, kernels, solvers) is not counted.
    """

    def __init__(self, witness: Witness, inputs: Sequence[Any]):
        self._branches: list[Branch] = []
        try:
            self._prepare(witness, inputs)
            self.see(inputs)
        except Exception:  # what cannot be run otherwise than whole is not counted
            self._branches = []

    def _prepare(self, witness, inputs):
        arms = Arms()
        self._branches = list(arms.branches(witness.jaxpr))
        self._evaluate = jitted(lambda inputs: arms.run(witness.jaxpr, inputs)[1])
        self._taken = np.zeros(sum(len(b.taken) for b in self._branches), bool)

    def see(self, inputs: Sequence[Any]) -> None:
        """Count the arms that are taken at this point."""
        if self._branches:
            self._taken |= np.asarray(self._evaluate(list(inputs)))

    @property
    def branches(self) -> tuple[Branch, ...]:
        found, start = [], 0
        for b in self._branches:
            taken = self._taken[start : start + len(b.taken)].tolist()
            start += len(taken)
            found.append(Branch(b.site, b.kind, tuple(taken), b.rules))
        return tuple(found)

    @property
    def unproven(self) -> str:
        """Which arm that holds a hand-written rule was never taken; "" if none."""
        missed = [
            f"{b.kind} at {short(b.site)}, arm {arm}"
            for b in self.branches
            for arm in b.never
            if arm in b.rules
        ]
        if not missed:
            return ""
        return (
            f"never taken, though a hand-written rule is there: {'; '.join(missed)}; "
            "ask at arguments that take it"
        )
