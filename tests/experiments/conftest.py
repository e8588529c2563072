"""Every experiment runs once a session; tests look at what it said, and claimed."""

import argparse
import functools
import importlib
from dataclasses import dataclass

import jax
import pytest

from experiments._results import Report

OPTIONS = argparse.Namespace(
    sizes=[2, 3, 3, 1], learning_rate=1.0, loss_below=0.05, epochs=1000, seed=0
)


@dataclass(frozen=True)
class Ran:
    """A report, and the arguments from which `tabulate` made its rows."""

    report: Report
    tabulated: list[tuple]

    def __getitem__(self, quantity):
        """The row of a quantity."""
        (row,) = [row for row in self.report.rows if row.quantity == quantity]
        return row


@pytest.fixture(scope="session")
def ran():
    """`ran("t12")`: the experiment with its default options."""

    @functools.cache
    def run(name: str) -> Ran:
        module = importlib.import_module(f"experiments.{name}")
        tabulate, tabulated = module.tabulate, []

        def recorded(system, witnesses, claims=(), given=None):
            claims = list(claims)
            tabulated.append((system, dict(witnesses), claims, given))
            return tabulate(system, witnesses, claims, given)

        with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
            patch.setattr(module, "tabulate", recorded)
            report = module.run(OPTIONS)
        return Ran(report, tabulated)

    return run
