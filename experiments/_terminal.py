"""Tables for the terminal, readable at 80 columns and through a pipe."""

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments._results import Report
from experiments._rows import Row
from experiments._told import (
    LEGEND,
    disagreements,
    errata,
    is_trained,
    number,
    published,
    summary,
)

_STYLES = {
    "met": "green",
    "rounded-inputs": "yellow",
    "erratum": "bold red",
    "derived": "dim",
}
_COLUMNS = ("published", "hand-written", "autodiff", "numeric")
# A long table says its claims and the first of what it derived; the JSON has them all.
_DERIVED = 40


def print_legend(console: Console) -> None:
    """What the tables' marks mean."""
    say(console, LEGEND)
    console.print()


def print_report(console: Console, title: str, report: Report, path: object) -> None:
    """A system: its table, then what else it has to say; of trained networks that."""
    if is_trained(report):
        say(console, f"{title}\n\n{report.text}\n")
        return
    derived = [row for row in report.rows if row.verdict == "derived"]
    kept = len(report.rows) - max(0, len(derived) - _DERIVED)
    table = _table(title, "quantity", *_COLUMNS)
    table.add_column("verdict", max_width=14)
    digits = 7 if console.width >= 100 else 5
    for row in report.rows[:kept]:
        values = [number(v, digits) for v in (row.manual, row.auto, row.numeric)]
        verdict = f"{row.verdict} {row.erratum}".strip()
        style = _STYLES[row.verdict]
        table.add_row(
            row.quantity, published(row, digits), *values, Text(verdict, style)
        )
    console.print(table)
    if kept < len(report.rows):
        say(console, f"… and {len(report.rows) - kept} derived rows more in {path}")
    if report.text:
        console.print()
        say(console, report.text)
    console.print()


def print_errata(console: Console, rows: Iterable[Row]) -> None:
    """Every wrong claim, with the link at fault."""
    table = _table(
        "Claims that the numbers do not bear out", "claim", "published", "right"
    )
    table.add_column("link at fault", ratio=1)
    for wrong in errata(rows):
        table.add_row(*wrong.cells)
    if table.row_count:
        console.print(table)
        console.print()


def print_summary(console: Console, reports: Mapping[str, Report]) -> bool:
    """Do the witnesses agree, and what became of the claims."""
    for line in summary(reports):
        say(console, line)
    return not any(disagreements(report.rows) for report in reports.values())


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    table.pad_edge, table.padding = False, (0, 2, 0, 0)
    table.add_column(names[0], overflow="fold")
    for name in names[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def say(console: Console, text: str) -> None:
    """Plain text."""
    # soft_wrap: a plain table of the report stays whole where it is wider.
    console.print(text, soft_wrap="\n" in text)
