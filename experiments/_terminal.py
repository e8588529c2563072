"""Tables for the terminal, readable at 80 columns and through a pipe."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments._results import Report
from experiments._rows import Row

_STYLES = {
    "met": "green",
    "rounded-inputs": "yellow",
    "erratum": "bold red",
    "derived": "dim",
}
_COLUMNS = ("published", "hand-written", "autodiff", "numeric")
# A long table says its claims and the first of what it derived; the JSON has them all.
_DERIVED = 40
# And of one mistake that is in many numbers, the first.
_ALIKE = 5


def print_legend(console: Console) -> None:
    """What the tables' marks mean."""
    say(
        console, "published: as printed, or = the page's own formula, evaluated; · none"
    )
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
        values = [_number(v, digits) for v in (row.manual, row.auto, row.numeric)]
        verdict = f"{row.verdict} {row.erratum}".strip()
        style = _STYLES[row.verdict]
        table.add_row(
            row.quantity, _published(row, digits), *values, Text(verdict, style)
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
    for (system, erratum), alike in itertools.groupby(rows, _origin):
        group = list(alike)
        for row in group[:_ALIKE]:
            numbers = (_published(row, 5), _number(row.manual, 5))
            table.add_row(f"{system}  {row.quantity}", *numbers, row.note)
        if len(group) > _ALIKE:
            rest = f"{system}  … and {len(group) - _ALIKE} more"
            table.add_row(rest, "", "", f"{erratum}: the same mistake")
    if table.row_count:
        console.print(table)
        console.print()


def print_summary(console: Console, reports: Mapping[str, Report]) -> bool:
    """Do the witnesses agree, and what became of the claims."""
    worst = {name: _disagreements(report.rows) for name, report in reports.items()}
    trained = [name for name, report in reports.items() if is_trained(report)]
    systems = [name for name in reports if name not in trained]
    rows = [row for name in systems for row in reports[name].rows]
    gap, error = _largest(rows)
    count = lambda names: f"{sum(not worst[n] for n in names)} of {len(names)}"
    if systems:
        say(
            console,
            f"{count(systems)} systems: hand-written and autodiff agree, at worst to "
            f"{gap:.1e}, and numeric derivatives with them, within their own error "
            f"estimates, at worst {error:.1e} (relative).",
        )
    if trained:
        say(
            console,
            f"{count(trained)} trained by both gradients along the same curves, to "
            "what rounding explains.",
        )
    for name, bad in worst.items():
        for row in bad[:3]:
            values = (row.manual, row.auto, row.numeric)
            shown = ", ".join("none" if v is None else f"{v!r}" for v in values)
            say(console, f"{name}: the witnesses disagree on {row.quantity}: {shown}")
    if systems:
        _print_claims(console, rows)
    return not any(worst.values())


def is_trained(report: Report) -> bool:
    """Whether it is of training: its rows have what rounding explains beside them."""
    return any(row.rounding is not None for row in report.rows)


def _print_claims(console: Console, rows: Sequence[Row]) -> None:
    count = Counter(row.verdict for row in rows)
    claims = sum(n for verdict, n in count.items() if verdict != "derived")
    labels = sorted({r.erratum for r in rows if r.erratum}, key=lambda e: (len(e), e))
    say(
        console,
        f"{claims} claims: {count['met']} met, {count['rounded-inputs']} from rounded "
        f"inputs, {count['erratum']} wrong{_listed(labels)}; "
        f"beside them {count['derived']} derived, where nothing is published.",
    )


def _origin(row: Row) -> tuple[str, str]:
    return row.system, row.erratum


def _disagreements(rows: Sequence[Row]) -> list[Row]:
    """Rows in which a witness is further from the hand-written value than it may be."""
    return [row for row in rows if not _agree(row)]


def _agree(row: Row) -> bool:
    scale = max(row.scale or 0.0, abs(row.manual))
    allowed = 1e-13 * scale if row.rounding is None else row.rounding
    if row.auto is not None and not _close(row.auto, row.manual, allowed):
        return False
    # Where rounding explains as much as this, a wrong rule would pass as well.
    if row.rounding is not None and not row.rounding <= 1e-3 * scale:
        return False
    if row.numeric is None or row.error is None:
        return True
    return _close(row.numeric, row.manual, row.error) and row.error <= 1e-9 * scale


def _close(a: float, b: float, tolerance: float) -> bool:
    return a == b or abs(a - b) <= tolerance or (math.isnan(a) and math.isnan(b))


def _largest(rows: Iterable[Row]) -> tuple[float, float]:
    """The largest gap from hand-written to autodiff, and error estimate, relative."""
    gaps, errors = [0.0], [0.0]
    for row in rows:
        scale = max(row.scale or 0.0, abs(row.manual))
        if scale and math.isfinite(scale):
            gaps += [abs(row.auto - row.manual) / scale] if row.auto is not None else []
            errors += [row.error / scale] if row.error is not None else []
    return max(gaps), max(errors)


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    table.pad_edge, table.padding = False, (0, 2, 0, 0)
    table.add_column(names[0], overflow="fold")
    for name in names[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _published(row: Row, digits: int) -> str:
    """As printed, long numbers cut; else by the page's formula, which `=` says."""
    if row.printed is not None:
        return row.printed if len(row.printed) <= 11 else row.printed[:10] + "…"
    formula = row.published_formula
    return "·" if formula is None else f"={_number(formula, digits)}"


def _number(value: float | None, digits: int) -> str:
    return "·" if value is None else f"{value + 0.0:.{digits}g}"


def _listed(labels: Sequence[str]) -> str:
    return f" ({', '.join(labels)})" if labels else ""


def say(console: Console, text: str) -> None:
    """Plain text."""
    # soft_wrap: a plain table of the report stays whole where it is wider.
    console.print(text, soft_wrap="\n" in text)
