"""What an audit found: plain data, and the table an engineer reads."""

import io
import os
import sys
from dataclasses import dataclass
from typing import Any

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

    def __str__(self) -> str:
        return _table(self)


def _table(audit: Audit) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("rule", "verdict", "wire", "calls", "called at"):
        justify = "right" if name == "calls" else "left"
        table.add_column(name, justify=justify, no_wrap=True)
    for f in audit.findings:
        rule = f"{f.within} > {f.rule}" if f.within else f.rule
        table.add_row(rule, f.verdict, f.wire, str(f.calls), short(f.site))
    out = io.StringIO()
    console = Console(file=out, width=200, markup=False, highlight=False)

    def say(text):
        console.print(text, soft_wrap=True)

    calls = sum(f.calls for f in audit.findings)
    counted = "1 call of a rule" if calls == 1 else f"{calls} calls of rules"
    say(f"audit({audit.function}): {audit.verdict}, {counted}")
    if first := audit.first:
        wire = f", wire {first.wire}" if first.wire else ""
        what = "unproven" if first.verdict == "unproven" else "wrong"
        site = f", {short(first.site)}" if first.site else ""
        say(f"first {what} link from the loss: {first.rule}{wire}{site}")
    if audit.findings:
        console.print(table)
    for f in audit.findings:
        if f.verdict != "right" or f.message:
            say(f"  {f.rule}, defined at {short(f.source)}: {f.verdict}")
            for line in (_values(f), ": ".join(p for p in (f.kind, f.message) if p)):
                say(f"    {line}") if line else None
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
