"""Take the tutorial systems apart, and train networks on real data."""

import argparse
import ast
import io
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from experiments._options import HERE, NAMES, TUTORIALS, fail, options_of
from experiments._rows import SYSTEMS

_NARROWEST = 72  # columns, below which a table would lose some of its own
# What the extra `data` installs; all else that is imported, `report` does.
_DATA = ("mlxtend", "names", "sklearn")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where the witnesses agree, 1 where they do not, 2 for a request gone wrong."""
    for stream in (sys.stdout, sys.stderr):
        # σ and ∂ must not end a run in a terminal that has no letters for them.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = options_of(arguments)
    if options.list:
        for name in NAMES:
            print(summary(name))
        return 0
    try:
        with _on_device(options.device):
            return _run(options)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("experiments", "jaxbp")):
            raise
        extra = "data" if error.name in _DATA else "report"
        mend = f"pip install 'jaxbp[{extra}]'"
        fail(f"expected the module {error.name}; got none: {mend}.")
    except KeyboardInterrupt:
        print("experiments: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough: end as other tools do
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13


def summary(name: str) -> str:
    """The first line of an experiment's docstring, without importing it."""
    tree = ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or name).splitlines()[0]


def _on_device(name: str | None) -> AbstractContextManager:
    from experiments._device import computing_on

    try:
        return computing_on(name)
    except ValueError as error:
        fail(str(error))


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from experiments import _results, _terminal
    from experiments.errata import collect, wrong

    started, names = time.monotonic(), options.names
    try:
        _results.check_folder(options.out)
    except OSError as error:
        why = error.strerror or error
        fail(f"expected --out to be a folder to write in; got {options.out}: {why}.")
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, _NARROWEST)
    if set(names) & set(TUTORIALS):
        _terminal.print_legend(console)
    reports, written = {}, []
    for name in _needed(names):
        reports[name] = report = _one(name, options)
        if name in names:
            paths = _written(_results.write, options.out, name, report)
            written += paths
            shown = _shown(paths[0])
            _terminal.print_report(console, summary(name), report, shown)
    found = [row for report in reports.values() for row in wrong(report.rows)]
    if "errata" in names:
        written += _written(_results.write, options.out, "errata", collect(reports))
    _terminal.print_errata(console, found)
    good = _terminal.print_summary(console, reports)
    written += _write_page(console, reports, options.out)
    seconds = time.monotonic() - started
    files = ", ".join(path.name for path in written)
    _terminal.say(console, f"{files} in {_shown(options.out)}; {seconds:.0f} s.")
    return 0 if good else 1


def _written(write: Callable, folder: pathlib.Path, *content):
    """What `write(folder, …)` has written."""
    try:
        return write(folder, *content)
    except OSError as error:
        why = error.strerror or error
        file = error.filename2 or error.filename or folder
        fail(f"expected {file} to be a file to write; got an error: {why}.")


def _write_page(console, reports, folder: pathlib.Path) -> list[pathlib.Path]:
    """The page of all reports, where what it needs is installed; else that is said."""
    from experiments import _page, _terminal

    if lacking := _page.missing():
        mend = "pip install 'jaxbp[report]'"
        _terminal.say(console, f"no {_page.NAME} without {', '.join(lacking)}: {mend}")
        return []
    titles = {name: summary(name) for name in reports}
    path = _written(_page.write, folder, reports, titles)
    size = path.stat().st_size / 1e6
    _terminal.say(console, f"{_page.NAME}: all of it on one page, {size:.1f} MB.")
    return [path]


def _needed(names: Sequence[str]) -> list[str]:
    """What has to run: for the errata, every system."""
    needed = SYSTEMS if "errata" in names else ()
    return list(dict.fromkeys([*needed, *(n for n in names if n != "errata")]))


def _one(name: str, options: argparse.Namespace):
    """One experiment, in float64; nothing of that is left behind."""
    import importlib

    import jax

    module = importlib.import_module(f"experiments.{name}")
    with jax.enable_x64(True):
        return module.run(options)


def _shown(path: pathlib.Path) -> str:
    """Relative to the working directory where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


if __name__ == "__main__":
    sys.exit(main())
