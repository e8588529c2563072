"""What is said of rows wherever they are shown: numbers, wrong claims, the summary."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from experiments._results import Report
from experiments._rows import Row

# Of one mistake that is in many numbers, the first are enough.
_ALIKE = 5


class Wrong(NamedTuple):
    """A claim that the numbers do not bear out: claim, published, right, what is wrong.

    `row` is the claim's, or the first of those that the line stands for.
    """

    cells: tuple[str, str, str, str]
    row: Row
    stands_for_more: bool = False


LEGEND = "published: as printed, or = the page's own formula, evaluated; · none"


def published(row: Row, digits: int) -> str:
    """As printed, long numbers cut; else by the page's formula, which `=` says."""
    if row.printed is not None:
        return row.printed if len(row.printed) <= 11 else row.printed[:10] + "…"
    formula = row.published_formula
    return "·" if formula is None else f"={number(formula, digits)}"


def number(value: float | None, digits: int) -> str:
    return "·" if value is None else f"{value + 0.0:.{digits}g}"


def is_trained(report: Report) -> bool:
    """Whether it is of training: its rows have what rounding explains beside them."""
    return any(row.rounding is not None for row in report.rows)


def errata(rows: Iterable[Row]) -> Iterator[Wrong]:
    """The wrong claims: of every mistake the first, and how many more."""
    for (system, erratum), alike in itertools.groupby(rows, _origin):
        group = list(alike)
        shown = group[:_ALIKE]
        for row in shown:
            numbers = published(row, 5), number(row.manual, 5)
            yield Wrong((f"{system}  {row.quantity}", *numbers, row.note), row)
        if more := len(group) - len(shown):
            rest = f"{system}  … and {more} more"
            said = f"{erratum}: the same mistake"
            yield Wrong((rest, "", "", said), group[len(shown)], True)


def summary(reports: Mapping[str, Report]) -> Iterator[str]:
    """Do the witnesses agree, where do they not, and what became of the claims."""
    worst = {name: disagreements(report.rows) for name, report in reports.items()}
    trained = [name for name, report in reports.items() if is_trained(report)]
    systems = [name for name in reports if name not in trained]
    rows = [row for name in systems for row in reports[name].rows]
    gap, error = _largest(rows)
    count = lambda names: f"{sum(not worst[n] for n in names)} of {len(names)}"
    if systems:
        yield (
            f"{count(systems)} systems: hand-written and autodiff agree, at worst to "
            f"{gap:.1e}, and numeric derivatives with them, within their own error "
            f"estimates, at worst {error:.1e} (relative)."
        )
    if trained:
        yield (
            f"{count(trained)} trained by both gradients along the same curves, to "
            "what rounding explains."
        )
    for name, bad in worst.items():
        for row in bad[:3]:
            values = (row.manual, row.auto, row.numeric)
            shown = ", ".join("none" if v is None else f"{v!r}" for v in values)
            yield f"{name}: the witnesses disagree on {row.quantity}: {shown}"
    if systems:
        yield _claims(rows)


def _claims(rows: Sequence[Row]) -> str:
    count = Counter(row.verdict for row in rows)
    claims = sum(n for verdict, n in count.items() if verdict != "derived")
    labels = sorted({r.erratum for r in rows if r.erratum}, key=lambda e: (len(e), e))
    return (
        f"{claims} claims: {count['met']} met, {count['rounded-inputs']} from rounded "
        f"inputs, {count['erratum']} wrong{_listed(labels)}; "
        f"beside them {count['derived']} derived, where nothing is published."
    )


def _origin(row: Row) -> tuple[str, str]:
    return row.system, row.erratum


def _listed(labels: Sequence[str]) -> str:
    return f" ({', '.join(labels)})" if labels else ""


def disagreements(rows: Sequence[Row]) -> list[Row]:
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
