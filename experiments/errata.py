"""errata: every claim of T1–T12 that its own numbers do not bear out."""

import argparse
import importlib
from collections.abc import Iterable, Mapping

from experiments._results import Report
from experiments._rows import SYSTEMS, Row

WRONG = ("erratum", "rounded-inputs")


def run(options: argparse.Namespace) -> Report:
    """Run every system, and keep what is wrong."""
    modules = {name: importlib.import_module(f"experiments.{name}") for name in SYSTEMS}
    return collect({name: module.run(options) for name, module in modules.items()})


def collect(reports: Mapping[str, Report]) -> Report:
    """The wrong rows of reports at hand."""
    return Report([row for report in reports.values() for row in wrong(report.rows)])


def wrong(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.verdict in WRONG]
