"""Ask each line of the list, and hold the answer against what the list says."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxbp import audit
from public_rules._asked import Asked
from public_rules._sources import Written, rules_written

_ORDER = "broken-contract wrong unproven less-accurate autodiff-wrong kink right"


@dataclass
class Line:
    """One rule at one line of the list."""

    package: str
    asked: str
    rule: str
    where: str
    verdict: str
    detail: str
    why: str = ""
    stale: str = ""


@dataclass
class Library:
    """What a library's lines found; `missed` are rules that nothing accounts for."""

    name: str
    written: list[Written]
    lines: list[Line] = field(default_factory=list)
    met: set[tuple[str, str]] = field(default_factory=set)
    not_asked: dict[str, str] = field(default_factory=dict)

    @property
    def missed(self) -> list[Written]:
        asked = [r for r in self.written if (r.path, r.name) not in self.met]
        return [rule for rule in asked if not self.reason(rule)]

    def reason(self, rule: Written) -> str:
        return self.not_asked.get(rule.name, "")


def ask(name: str, rows: Sequence[Asked], not_asked: dict[str, str], say) -> Library:
    library = Library(name, rules_written(name), not_asked=not_asked)
    for row in rows:
        if not _holds_here(row):
            continue
        lines = list(_lines(library, row))
        library.lines += lines
        for line in lines:
            say(line)
    return library


def _lines(library: Library, row: Asked):
    with contextlib.redirect_stdout(io.StringIO()):  # of what a rule itself prints
        found = audit(row.f, *row.args)
    worst: dict[tuple[str, str], Any] = {}
    for finding in found.findings:
        key = (finding.rule, _inside(finding.source))
        if key not in worst or _rank(finding) < _rank(worst[key]):
            worst[key] = finding
    written = {(rule.path, rule.name) for rule in library.written}
    paths = {rule.name: rule.path for rule in library.written}
    met = {(where.rsplit(":", 1)[0], rule) for rule, where in worst}
    seen = {rule for rule, _ in worst}
    met |= {(paths[r], r) for wrapper, r in row.wrapped.items() if wrapper in seen}
    library.met |= met & written
    if not met & written:
        stale = "no rule of this library is met here"
        yield Line(
            library.name, row.label, "", "", found.verdict, found.note, "", stale
        )
    for (rule, where), finding in worst.items():
        if where.split("/")[0] != library.name:
            continue
        expected, why = row.differs.get(rule, ("right", ""))
        stale = f"the list says {expected}" if finding.verdict != expected else ""
        yield Line(
            library.name,
            row.label,
            row.wrapped.get(rule, rule),
            where,
            finding.verdict,
            _detail(finding),
            "" if stale else why,
            stale,
        )
    for rule in {*row.differs, *row.wrapped} - seen:
        yield Line(library.name, row.label, rule, "", "", "", "", "it is not met here")


def _rank(finding) -> int:
    return _ORDER.split().index(finding.verdict)


def _detail(finding) -> str:
    if finding.verdict == "right":
        return ""
    worst, parts = finding.worst, [finding.kind]
    if worst:
        values = (worst.manual, worst.auto, worst.numeric)
        hand, auto, numeric = ("–" if v is None else f"{v:.4g}" for v in values)
        parts.append(f"hand {hand}, autodiff {auto}, numeric {numeric}")
    else:
        parts.append(finding.message)
    return "; ".join(part for part in parts if part)


def _inside(source: str) -> str:
    """`jax/_src/nn/functions.py:71` of the path in site-packages."""
    return source.split("site-packages/")[-1]


def _holds_here(row: Asked) -> bool:
    here = _version(jax.__version__)
    if row.since and here < _version(row.since):
        return False
    return not row.before or here < _version(row.before)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def text_of(line: Line) -> str:
    columns = (
        f"{line.package:8}{line.asked[:34]:35}{line.rule:32}"
        f"{line.verdict:16}{line.where}"
    )
    notes = [line.detail, line.why, f"NOT SO: {line.stale}" if line.stale else ""]
    return "\n".join([columns.rstrip(), *(f"          {n}" for n in notes if n)])


def summary(library: Library) -> str:
    met = sum((rule.path, rule.name) in library.met for rule in library.written)
    out = [f"{library.name}: {len(library.written)} rules in the source, {met} met"]
    for rule in library.written:
        if (rule.path, rule.name) not in library.met:
            reason = library.reason(rule) or "NOT SO: neither met nor given a reason"
            out.append(f"  {rule.name}, {rule.path}:{rule.line}: {reason}")
    return "\n".join(out)
