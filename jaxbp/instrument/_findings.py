"""What an audit found: plain data, and the table an engineer reads."""

import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxbp._page import Line, Table, render
from jaxbp.instrument._comparison import (
    FAILED,
    SCHEMA,
    Finding,
    Verdict,
    numbers_of,
    plain,
)


@dataclass(frozen=True)
class LinkFinding(Finding):
    """One rule's verdict at one place: the worst of its calls and arguments.

    `rule` is its name, `site` where it is called and `source` where it is defined, both
    `file:line`; `wire` the name on which its output stands, or, where the rule is a
    hand-written chain, the first wrong wire counted from the loss; `calls` how many
    were asked; `within` the rule in whose primal it is called.
    """

    rule: str = ""
    site: str = ""
    source: str = ""
    wire: str = ""
    calls: int = 0
    within: str = ""


@dataclass(frozen=True)
class Audit:
    """The answer of `audit`: one finding a rule and place, from the loss backwards."""

    function: str
    verdict: Verdict
    findings: tuple[LinkFinding, ...]
    note: str = ""

    @property
    def ok(self) -> bool:
        """False for `broken-contract`, `wrong` and `unproven`."""
        return self.verdict not in FAILED

    @property
    def first(self) -> LinkFinding | None:
        """The first wrong link counted from the loss, or else the first unproven one.

        None where all are right.
        """
        failed = [f for f in self.findings if f.verdict in FAILED]
        wrong = [f for f in failed if f.verdict != "unproven"]
        return next(iter(wrong or failed), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: schema, verdict, findings; non-finite numbers as strings."""
        return {
            "schema": SCHEMA,
            "function": self.function,
            "ok": self.ok,
            "verdict": self.verdict,
            "note": self.note,
            "first": None if self.first is None else self.findings.index(self.first),
            "findings": [plain(finding) for finding in self.findings],
        }

    def to_html(self) -> str:
        """One page, self-contained: the verdict, the first wrong link, every rule.

        Raises:
            ModuleNotFoundError: jinja2 is not installed: pip install 'jaxbp[report]'.
        """
        heading, *lines = _heading(self)
        return render(
            "Audit.to_html",
            "findings.html",
            title=f"audit({self.function})",
            heading=heading,
            lines=[*lines, *filter(None, [self.note])],
            ok=self.ok,
            found=_table(self),
            told=[": ".join(group) for group in _told(self)],
            otherwise=", or take str()",
        )

    def __str__(self) -> str:
        return _printed(self)


def _heading(audit: Audit) -> Iterator[str]:
    calls = sum(f.calls for f in audit.findings)
    counted = "1 call of a rule" if calls == 1 else f"{calls} calls of rules"
    yield f"audit({audit.function}): {audit.verdict}, {counted}"
    if first := audit.first:
        wire = f", wire {first.wire}" if first.wire else ""
        what = "unproven" if first.verdict == "unproven" else "wrong"
        site = f", {short(first.site)}" if first.site else ""
        yield f"first {what} link from the loss: {first.rule}{wire}{site}"


def _table(audit: Audit) -> Table:
    lines = []
    for f in audit.findings:
        rule = f"{f.within} > {f.rule}" if f.within else f.rule
        cells = (rule, f.verdict, f.wire, str(f.calls), short(f.site))
        lines.append(Line(cells, "wrong" if f.verdict in FAILED else ""))
    columns = ("rule", "verdict", "wire", "calls", "called at")
    return Table("Every rule, from the loss backwards", columns, lines, ("calls",))


def _told(audit: Audit) -> Iterator[list[str]]:
    """Of every rule that is not plainly right, what was found and what is said."""
    for f in audit.findings:
        if f.verdict != "right" or f.message:
            head = f"{f.rule}, defined at {short(f.source)}: {f.verdict}"
            said = ": ".join(part for part in (f.kind, f.message) if part)
            yield [head, *filter(None, [_values(f), said])]


def _printed(audit: Audit) -> str:
    from rich.console import Console
    from rich.table import Table as Printed

    table, found = Printed(box=None, pad_edge=False), _table(audit)
    for name in found.columns:
        justify = "right" if name in found.numeric else "left"
        table.add_column(name, justify=justify, no_wrap=True)
    for line in found.lines:
        table.add_row(*line.cells)
    out = io.StringIO()
    console = Console(file=out, width=200, markup=False, highlight=False)

    def say(text):
        console.print(text, soft_wrap=True)

    for text in _heading(audit):
        say(text)
    if audit.findings:
        console.print(table)
    for head, *lines in _told(audit):
        say(f"  {head}")
        for line in lines:
            say(f"    {line}")
    if audit.note:
        say(f"  {audit.note}")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _values(f: LinkFinding) -> str:
    if not f.worst:
        return f.argument
    at = str(list(f.worst.index)) if f.worst.index else ""
    manual, auto, numeric = numbers_of(f)
    return (
        f"{f.argument}{f' at {at}' if at else ''}: hand-written {manual}, "
        f"autodiff {auto}, numeric {numeric}"
    )


def short(site: str) -> str:
    """A file without the directory that it is imported from, or the working one."""
    roots = [os.path.join(path, "") for path in (os.getcwd(), *sys.path) if path]
    return site.removeprefix(max(filter(site.startswith, roots), key=len, default=""))
