"""What a run shows while it goes: a bar on a terminal, lines where there is none."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxbp.train._processes import is_first

_PAUSE = 1.0  # seconds between lines
Show = Callable[[Mapping[str, Any]], None]


@contextlib.contextmanager
def shown(total: int | None, on_log: Show | None) -> Iterator[Show]:
    """A function that is given every entry of the history as it is made.

    Of several processes the first alone shows them.
    """
    if not is_first():
        yield lambda entry: None
    elif on_log is not None:
        yield on_log
    elif sys.stderr.isatty():
        with _bar(total) as show:
            yield show
    else:
        yield _lines(total)


def _lines(total) -> Show:
    of = "" if total is None else f" of {total:,}"
    print("train.fit: compiling …", file=sys.stderr, flush=True)

    last = -_PAUSE

    def show(entry):
        nonlocal last
        if entry["seconds"] < last + _PAUSE and entry["step"] != total:
            return
        last = entry["seconds"]
        rate = f"{entry['steps_per_second']:,.4g} steps/s"
        text = f"train.fit: step {entry['step']:,}{of}, {_figures(entry)}, {rate}"
        print(text, file=sys.stderr, flush=True)

    return show


@contextlib.contextmanager
def _bar(total) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("compiling …", total=total)

        def show(entry):
            rate = f"{entry['steps_per_second']:,.4g} steps/s"
            said = f"{_figures(entry)}, {rate}"
            progress.update(task, completed=entry["step"], description=said)

        yield show


def _figures(entry) -> str:
    left_out = ("step", "seconds", "steps_per_second")
    figures = {k: v for k, v in entry.items() if k not in left_out}
    return ", ".join(f"{k} {v:.6g}" for k, v in figures.items() if _is_number(v))


def _is_number(value) -> bool:
    return isinstance(value, (int, float))


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; the first time it is noted, the second it raises.

    Signals reach the main thread alone: in another one nothing is changed.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def note(number, frame):
        del number, frame
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()
        if not is_first():
            return
        said = "train.fit: stopping after this chunk; once more to stop at once"
        print(said, file=sys.stderr, flush=True)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


class Clock:
    """Steps a second since the last time it was asked, and seconds since it began."""

    def __init__(self, step: int, seconds: float):
        self._last = time.perf_counter()
        self._began, self._step = self._last - seconds, step

    def __call__(self, step: int) -> dict[str, float]:
        now = time.perf_counter()
        rate = (step - self._step) / max(now - self._last, 1e-9)
        self._last, self._step = now, step
        return {"seconds": now - self._began, "steps_per_second": rate}


def at(step: int, done: int, times: dict[str, float]) -> dict[str, float]:
    """The same for a step on the way there, at the chunk's one speed."""
    rate = times["steps_per_second"]
    return {
        "seconds": times["seconds"] - (done - step) / rate,
        "steps_per_second": rate,
    }
