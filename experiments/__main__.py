"""Take the tutorial systems apart, and train networks on real data."""

import argparse
import ast
import io
import itertools
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NoReturn

from experiments._rows import SYSTEMS

_HERE = pathlib.Path(__file__).parent
TUTORIALS = (*SYSTEMS, "errata")
NAMES = (*TUTORIALS, "digits", "mnist", "names")
# What the extra `data` installs; all else that is imported, `report` does.
_DATA = ("mlxtend", "names", "sklearn")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where the witnesses agree, 1 where they do not, 2 for a request gone wrong."""
    for stream in (sys.stdout, sys.stderr):
        # σ and ∂ must not end a run in a terminal that has no letters for them.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    if options.list:
        for name in NAMES:
            print(summary(name))
        return 0
    names = _names(options)
    _check_sizes(options.sizes)
    try:
        with _on_device(options.device):
            return _run(names, options)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("experiments", "jaxbp")):
            raise
        extra = "data" if error.name in _DATA else "report"
        mend = f"pip install 'jaxbp[{extra}]'"
        _fail(f"expected the module {error.name}; got none: {mend}.")
    except KeyboardInterrupt:
        print("experiments: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough: end as other tools do
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13


def summary(name: str) -> str:
    """The first line of an experiment's docstring, without importing it."""
    tree = ast.parse((_HERE / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or name).splitlines()[0]


def _on_device(name: str | None) -> AbstractContextManager:
    from experiments._device import computing_on

    try:
        return computing_on(name)
    except ValueError as error:
        _fail(str(error))


def _run(names: Sequence[str], options: argparse.Namespace) -> int:
    from rich.console import Console

    from experiments import _results, _terminal
    from experiments.errata import collect, wrong

    started = time.monotonic()

    try:
        _results.check_folder(options.out)
    except OSError as error:
        why = error.strerror or error
        _fail(f"expected --out to be a folder to write in; got {options.out}: {why}.")
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
        _fail(f"expected {file} to be a file to write; got an error: {why}.")


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


def _value(option: str, kind: type, expected: str, allowed: Callable) -> Callable:
    """A parser of an option's value which says what was expected and what came."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not allowed(value):
            _fail(f"expected {option} to be {expected}; got {text}.")
        return value

    return parse


_NARROWEST = 72  # columns, below which a table would lose some of its own
_MOST = 1_000_000  # epochs, and weights: what a loop on one machine finishes

_SIZE = _value("--sizes", int, "integers of at least 1", lambda n: n >= 1)
_RATE = _value(
    "--learning-rate", float, "a positive number", lambda x: 0 < x < math.inf
)
_LOSS = _value("--loss-below", float, "a number from 0 on", lambda x: 0 <= x < math.inf)
_EPOCHS = _value(
    "--epochs", int, f"an integer from 0 to {_MOST:,}", lambda n: 0 <= n <= _MOST
)
_STEPS = _value(
    "--steps", int, f"an integer from 1 to {_MOST:,}", lambda n: 1 <= n <= _MOST
)
_SEED = _value("--seed", int, "an integer from 0 to 2³²−1", lambda n: 0 <= n < 2**32)


def _folder(text: str) -> pathlib.Path:
    if not text:
        _fail("expected --out to be a folder to write in; got an empty name.")
    return pathlib.Path(text)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _fail(f"{message.removeprefix('argument ')}.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("experiments", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add(
        "names",
        nargs="*",
        metavar="NAME",
        help="of t1 … t12, errata, digits, mnist and names; without one, the tutorials",
    )
    add("--all", action="store_true", help="train the networks as well")
    add("--list", action="store_true", help="say what there is, and stop")
    add(
        "--out",
        type=_folder,
        default=_HERE.parent / "results",
        metavar="DIR",
        help="where to write JSON and figures (results/)",
    )
    add(
        "--device",
        metavar="NAME",
        help="where to compute: cpu, gpu, tpu, or one of several, gpu:1 (JAX chooses)",
    )
    add("--seed", type=_SEED, default=0, metavar="N", help="of random starts (0)")
    add(
        "--steps",
        type=_STEPS,
        metavar="N",
        help="of training in digits, mnist and names (each its own)",
    )
    t11 = parser.add_argument_group("the run of t11").add_argument
    t11(
        "--sizes",
        nargs="+",
        type=_SIZE,
        default=[2, 3, 3, 1],
        metavar="N",
        help="layers' lengths (2 3 3 1)",
    )
    t11("--learning-rate", type=_RATE, default=1.0, metavar="ETA", help="step size (1)")
    t11(
        "--loss-below",
        type=_LOSS,
        default=0.05,
        metavar="EPSILON",
        help="stop below this loss (0.05)",
    )
    t11(
        "--epochs",
        type=_EPOCHS,
        default=1000,
        metavar="N",
        help="and after this many epochs (1000)",
    )
    return parser


def _names(options: argparse.Namespace) -> list[str]:
    asked = options.names
    for name in asked:
        if name.lower() not in NAMES:
            _fail(f"expected NAME to be one of {', '.join(NAMES)}; got {name}.")
    chosen = NAMES if options.all else [name.lower() for name in asked] or TUTORIALS
    return list(dict.fromkeys(chosen))


def _check_sizes(sizes: Sequence[int]) -> None:
    if len(sizes) < 2 or sizes[0] != 2 or sizes[-1] != 1:
        got = " ".join(map(str, sizes))
        why = "XOR has two inputs and one output"
        _fail(f"expected --sizes to start with 2 and end with 1; got {got}: {why}.")
    weights = sum(i * o for i, o in itertools.pairwise(sizes))
    if weights > _MOST:
        expected = f"expected --sizes to make at most {_MOST:,} weights"
        _fail(f"{expected}; got {weights:,}: choose smaller layers.")


def _fail(message: str) -> NoReturn:
    print(f"experiments: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    sys.exit(main())
