"""What a measurement found: plain data, and the table an engineer reads."""

import dataclasses
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxbp.instrument._residuals import Residual

SCHEMA = 1
_SHOWN = 6  # residuals of a side in the table; `to_dict` has them all


@dataclass(frozen=True)
class Side:
    """What a step costs one side, hand-written or autodiff.

    None stands for what the backend does not tell. Seconds are of this run on this
    machine, `run_seconds` the median over the rounds: what holds is their ratio.
    """

    flops: int
    transcendentals: int
    bytes: int
    xla_flops: float | None
    xla_transcendentals: float | None
    xla_bytes: float | None
    temp_bytes: int | None
    residual_bytes: int
    residuals: tuple[Residual, ...]
    trace_seconds: float
    compile_seconds: float
    run_seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Ratio:
    """Hand-written over autodiff, of every round; its median and quartiles."""

    median: float
    lower: float
    upper: float
    rounds: int


@dataclass(frozen=True)
class Cost:
    """The answer of `cost`: both sides, and the ratio of their run times.

    `against` names the other side, "autodiff" or the reference. Of several devices,
    XLA's figures and the temporary memory are one's. `load` is the machine's
    mean number of running processes over the last minute, None where it does not tell.
    """

    function: str
    against: str
    time: Ratio
    manual: Side
    auto: Side
    device: str
    devices: int
    cores: int
    load: float | None
    note: str = ""

    @property
    def ratios(self) -> dict[str, float | None]:
        """Hand-written over autodiff, quantity by quantity; None where autodiff's is
        nothing, either is not known, or loops of unknown length are in one alone."""
        found = {name: _over(self.manual, self.auto, name) for _, name, _ in _ROWS}
        return found | {"run_seconds": self.time.median}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: schema, ratios, both sides, machine."""
        return {"schema": SCHEMA, "ratios": self.ratios, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        table.add_column("of value and VJP", no_wrap=True)
        for name in ("hand-written", self.against, "ratio"):
            table.add_column(name, justify="right", no_wrap=True)
        for label, name, form in _ROWS:
            sides = [getattr(side, name) for side in (self.manual, self.auto)]
            shown = ["–" if v is None else form(v) for v in sides]
            table.add_row(label, *shown, _ratio(self.ratios[name]))
        out = io.StringIO()
        console = Console(file=out, width=100, markup=False, highlight=False)
        console.print(self._headline(), soft_wrap=True)
        console.print(table)
        for line in self._details():
            console.print(f"  {line}", soft_wrap=True)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def _headline(self) -> str:
        t = self.time
        return (
            f"cost({self.function}): {t.median:.3g} × the run time of {self.against} "
            f"(quartiles {t.lower:.3g} … {t.upper:.3g}, "
            f"{t.rounds} round{'s' * (t.rounds != 1)})"
        )

    def _details(self) -> list[str]:
        sides = {"hand-written": self.manual, self.against: self.auto}
        lines = []
        for name, side in sides.items():
            if side.residuals:
                lines += [f"{name} keeps", *_kept(side.residuals)]
        lines.append(self._machine())
        for name, side in sides.items():
            lines += [f"{name}: {note}" for note in side.notes]
        return lines + ([self.note] if self.note else [])

    def _machine(self) -> str:
        device = self.device
        if self.devices > 1:
            device = f"{self.devices} × {device} (XLA's figures and memory are one's)"
        load = "" if self.load is None else f", load {self.load:.2g}"
        busy = (self.load or 0) > self.cores
        doubt = ": busy, the times are rough" if busy else ""
        return f"on {device}, {self.cores} cores{load}{doubt}"


def _kept(residuals: tuple[Residual, ...]) -> list[str]:
    ordered = sorted(residuals, key=lambda r: -r.bytes)
    shown, rest = ordered[:_SHOWN], ordered[_SHOWN:]
    lines = [
        f"  {_size(r.bytes):>8}  {r.dtype} {r.shape}  {_short(r.source)}" for r in shown
    ]
    if rest:
        total = _size(sum(r.bytes for r in rest))
        lines.append(f"  {total:>8}  in {len(rest)} more")
    return lines


def _short(source: str) -> str:
    """Relative to the working directory where that is shorter."""
    path, _, line = source.rpartition(":")
    if not path:
        return "of an unknown line"
    return f"{min(path, os.path.relpath(path), key=len)}:{line}"


def _over(manual: Side, auto: Side, name: str) -> float | None:
    a, b = getattr(manual, name), getattr(auto, name)
    if name in _COUNTED and set(manual.notes) != set(auto.notes):
        return None
    return None if a is None or not b else a / b


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _unit(steps: tuple[str, ...], step: int) -> Callable[[float], str]:
    def form(value: float) -> str:
        k = 0
        while abs(value) >= step and k < len(steps) - 1:
            value, k = value / step, k + 1
        whole = value == int(value) or value >= 100
        return f"{value:{'.0f' if whole else '.3g'}} {steps[k]}".rstrip()

    return form


_number = _unit(("", "k", "M", "G", "T"), 1000)
_size = _unit(("B", "KiB", "MiB", "GiB", "TiB"), 1024)


def _seconds(value: float) -> str:
    return _unit(("µs", "ms", "s"), 1000)(value * 1e6)


_COUNTED = ("flops", "transcendentals", "bytes")
_ROWS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("FLOPs", "flops", _number),
    ("transcendentals", "transcendentals", _number),
    ("bytes read and written", "bytes", _size),
    ("XLA: FLOPs, loops once", "xla_flops", _number),
    ("XLA: transcendentals", "xla_transcendentals", _number),
    ("XLA: bytes, fused", "xla_bytes", _size),
    ("temporary memory", "temp_bytes", _size),
    ("kept beside the arguments", "residual_bytes", _size),
    ("trace", "trace_seconds", _seconds),
    ("lower and compile", "compile_seconds", _seconds),
    ("run", "run_seconds", _seconds),
)
