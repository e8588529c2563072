"""What a comparison found: plain data, and the table an engineer reads."""

import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._arguments import leaves_with_paths
from jaxbp._page import Line, Table, render
from jaxbp.instrument._branch import Branch, summary

Verdict = Literal[
    "broken-contract",
    "wrong",
    "unproven",
    "less-accurate",
    "autodiff-wrong",
    "kink",
    "surrogate",
    "right",
]
# From the worst to the best: the verdict of the whole is the first that occurs.
VERDICTS: tuple[Verdict, ...] = Verdict.__args__  # pyright: ignore
FAILED = VERDICTS[:3]
SCHEMA = 1
NEVER_GIVEN = "a live input is given no cotangent"
_LISTED = 4096  # numbers of a point that JSON holds


@dataclass(frozen=True)
class Worst:
    """The element at which hand-written and autodiff differ most, and its values."""

    index: tuple[int, ...]
    manual: complex | float
    auto: complex | float | None
    numeric: complex | float | None


@dataclass(frozen=True)
class Finding:
    """One leaf's verdict.

    `argument` is its key path in the argument tuple (`[0]['w']`), or "value" when the
    value that the rule's forward pass returns is at fault; `output` the key path of the
    output whose cotangent showed it ("" where all did together). `point` is (args,
    kwargs) of a finding at other arguments than the caller's.
    """

    verdict: Verdict
    argument: str
    output: str = ""
    worst: Worst | None = None
    kind: str = ""
    message: str = ""
    point: Any = field(default=None, compare=False, repr=False)


def without_autodiff(finding: Finding) -> Finding:
    """A finding in which the numeric value alone stood in autodiff's place."""
    worst = finding.worst
    if worst is not None:
        number = worst.auto if worst.numeric is None else worst.numeric
        worst = replace(worst, auto=None, numeric=number)
    message = finding.message.replace("autodiff", "the numeric derivative")
    return replace(finding, worst=worst, message=message)


@dataclass(frozen=True)
class Comparison:
    """The answer of `compare`.

    `manual`, `auto` and `numeric` are trees like the arguments: the pullback of one
    cotangent, which is 1 for a scalar function, so that they are its gradients. None
    stands for what was not differentiated or not computed, NaN for single elements that
    were not computed; `auto` is None where autodiff has no answer, and `numeric` stood
    in its place. `coverage` tells which arms of the program's branches were taken,
    `against` names the other side, "autodiff" or the reference.
    """

    function: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    manual: Any
    auto: Any
    numeric: Any
    accuracy: bool = False
    note: str = ""
    coverage: tuple[Branch, ...] = ()
    against: str = "autodiff"

    @property
    def ok(self) -> bool:
        """False for `broken-contract`, `wrong` and `unproven`."""
        failed = {*FAILED, "less-accurate"} if self.accuracy else FAILED
        return self.verdict not in failed

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: schema, verdict, findings; non-finite numbers as strings."""
        return {
            "schema": SCHEMA,
            "function": self.function,
            "ok": self.ok,
            "verdict": self.verdict,
            "against": self.against,
            "note": self.note,
            "findings": [plain(finding) for finding in self.findings],
            "coverage": [jsonable(asdict(branch)) for branch in self.coverage],
        }

    def to_html(self) -> str:
        """One page, self-contained: the verdict, the table, what is said of each.

        Raises:
            ModuleNotFoundError: jinja2 is not installed: pip install 'jaxbp[report]'.
        """
        title, table = f"compare({self.function})", self._table()
        return render(
            "Comparison.to_html",
            "findings.html",
            title=title,
            heading=f"{title}: {self.verdict}",
            lines=[self._verdicts(), *filter(None, [self.note])],
            ok=self.ok,
            found=table,
            told=[*self._told(), *filter(None, [summary(self.coverage)])],
            otherwise=", or take str()",
        )

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table as Printed

        table, found = Printed(box=None, pad_edge=False), self._table()
        for name in found.columns:
            is_number = name in found.numeric
            justify = "right" if is_number else "left"
            overflow = "ellipsis" if is_number else "fold"
            table.add_column(
                name, justify=justify, overflow=overflow, no_wrap=is_number
            )
        for line in found.lines:
            table.add_row(*line.cells)
        out = io.StringIO()
        console = Console(file=out, width=100, markup=False, highlight=False)
        console.print(f"compare({self.function}): {self.verdict}", soft_wrap=True)
        if self.findings:
            console.print(table)
        for text in (*self._told(), self.note, summary(self.coverage)):
            if text:
                console.print(f"  {text}", soft_wrap=True)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def _table(self) -> Table:
        """A line a finding: its worst element by each witness."""
        ours = "hand-written" if self.against == "autodiff" else self.function
        numeric = (ours, self.against, "numeric")
        lines = []
        for f in self.findings:
            at = str(list(f.worst.index)) if f.worst and f.worst.index else ""
            kind = "wrong" if f.verdict in FAILED else ""
            lines.append(Line((f.argument, f.verdict, at, *numbers_of(f)), kind))
        columns = ("argument", "verdict", "at", *numeric)
        caption = f"Every argument: {ours}, {self.against}, numeric"
        return Table(caption, columns, lines, numeric)

    def _verdicts(self) -> str:
        count = Counter(f.verdict for f in self.findings)
        found = [f"{count[v]} {v}" for v in VERDICTS if count[v]]
        n = len(self.findings)
        return f"of {n} argument{'s' * (n != 1)} {', '.join(found) or 'none asked'}"

    def _told(self) -> Iterator[str]:
        """What is said of the arguments, alike of several once, and where to ask."""
        said: dict[str, list[str]] = {}  # the arguments that a line tells of
        for f in self.findings:
            if f.message:
                kind = f"{f.kind}: " if f.kind else ""
                shown = f"; seen from output {f.output}" if f.output else ""
                said.setdefault(f"{kind}{f.message}{shown}", []).append(f.argument)
        for text, arguments in said.items():
            yield f"{', '.join(arguments)}: {text}"
        found = [k for k, f in enumerate(self.findings) if f.point]
        failed = [k for k in found if self.findings[k].verdict in FAILED]
        for k in failed[:1]:
            yield f"to ask there: args, kwargs = comparison.findings[{k}].point"


def worst_of(verdicts: list[Verdict]) -> Verdict:
    """The first in the order of VERDICTS; of nothing compared, `unproven`."""
    return min(verdicts, key=VERDICTS.index) if verdicts else "unproven"


def elsewhere(findings: list[Finding], where: str, point: Any = None) -> list[Finding]:
    """Findings elsewhere than where the caller asked, which say so.

    `point`: the (args, kwargs) there, if they are others.
    """
    return [
        f if f.verdict == "right" else _elsewhere(f, where, point) for f in findings
    ]


def plain(finding: Finding) -> dict[str, Any]:
    """JSON-ready; with arguments of its own, where they are few."""
    values = asdict(replace(finding, point=None))
    return jsonable(values | {"point": _listed(finding.point)})


def _listed(point: Any) -> dict[str, Any] | None:
    """By path, dtype and numbers of the arguments; None where they are too many."""
    leaves = leaves_with_paths(*point) if point else []
    if not leaves or sum(np.size(leaf) for _, leaf in leaves) > _LISTED:
        return None
    return {path: _one_listed(leaf) for path, leaf in leaves}


def _one_listed(leaf):
    if not hasattr(leaf, "dtype") or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return leaf if isinstance(leaf, (bool, int, float)) else str(leaf)
    return {"dtype": str(leaf.dtype), "value": np.asarray(leaf).tolist()}


def _elsewhere(finding, where, point):
    # Zeros at one point are not an input that is never given a cotangent.
    if finding.kind == "missing":
        message = finding.message.removesuffix(f"; {NEVER_GIVEN}")
        finding = replace(finding, verdict="wrong", kind="", message=message)
    return replace(finding, message=f"{where}: {finding.message}", point=point)


def numbers_of(finding: Finding) -> list[str]:
    """The worst element's three, with all digits where fewer hide what is at fault."""
    w = finding.worst
    row = (w.manual, w.auto, w.numeric) if w else (None, None, None)
    short = [_number(value) for value in row]
    hidden = short[0] == short[1] and row[0] != row[1] and finding.verdict != "right"
    return [_number(value, 17) for value in row] if hidden else short


def _number(value: Any, digits: int = 10) -> str:
    if isinstance(value, complex):
        digits -= 3  # three of them fit a line
    return "–" if value is None else f"{value:.{digits}g}"


def jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, (complex, np.complexfloating)):
        return {"re": jsonable(value.real), "im": jsonable(value.imag)}
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(float(value))
    return value
