"""The command line: compare, audit, cost and graph of a function, and doctor."""

import argparse
import contextlib
import functools
import importlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

_VERBS = {
    "compare": "hold a hand-written gradient against autodiff's",
    "audit": "the same, of every hand-written rule inside a function",
    "cost": "what a hand-written gradient buys: time, memory, FLOPs",
    "graph": "a value and a gradient on every wire, as a picture, a page or text",
}
_SUFFIXES = {
    ".svg": lambda graph: graph.svg(),
    ".png": lambda graph: graph.png(),
    ".html": lambda graph: graph.html(),
    ".txt": lambda graph: f"{graph.text()}\n",
    ".md": lambda graph: graph.worksheet(markdown=True) + "\n",
    ".json": lambda graph: json.dumps(graph.to_dict(), indent=2) + "\n",
}
_EXIT = "exit codes: 0 ok, 1 the answer is not ok, 2 the question could not be asked"
_ARGS = (
    "a function without arguments, which returns those of FUNCTION: a tuple of "
    "positional ones, or a dict of keyword ones"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where the answer is ok, 1 where it is not, 2 where nothing could be asked."""
    for stream in (sys.stdout, sys.stderr):
        # × and – must not end a run in a terminal that has no letters for them.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    out = getattr(options, "out", None)
    if out and _suffix(out) not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        _fail(f"expected --out to end in one of {known}; got {out}.")
    with contextlib.redirect_stdout(sys.stderr):  # what the user's own code prints
        answer = _doctor() if options.verb == "doctor" else _ask(options)
        said = _written(answer, out) if out else ""
    text = json.dumps(answer.to_dict(), indent=2) if options.json else said or answer
    try:
        print(text, flush=True)
    except OSError as error:  # a reader that has gone, a full disk: no verdict
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail(f"the answer could not be written: {error}.")
    return 0 if getattr(answer, "ok", True) else 1  # a cost is neither ok nor not


def _ask(options: argparse.Namespace) -> Any:
    """The verb's answer about the function at its arguments."""
    f = _function("FUNCTION", options.function)
    make_args = _function("--args", options.args)
    settings = _settings(options)
    with _blame(options.args, options.verb):
        made = make_args()
    args, kwargs = _arguments(options.args, made)
    with _blame(options.function, options.verb):
        answer = _verb(options.verb)(f, *args, kwargs=kwargs, **settings)
    try:
        return answer.close(*options.close) if options.verb == "graph" else answer
    except ValueError as error:  # no such group
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def _written(graph: Any, path: str) -> str:
    """What to say of a graph that now stands in a file, as the suffix wants it."""
    try:
        content = _SUFFIXES[_suffix(path)](graph)
        data = content if isinstance(content, bytes) else content.encode()
        with open(path, "wb") as file:
            file.write(data)
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        _fail(f"expected --out to be a file that can be written; got {error}.")
    return f"{graph.headline()}\nin {path}"


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options of the verb that were given; its own defaults stand for the rest."""
    names = ("seed", "effort", "order", "surrogate", "numeric", "accuracy", "rounds")
    names += ("iteration",)
    given = {name: getattr(options, name, None) for name in names}
    if getattr(options, "reference", None):
        given["reference"] = _function("--reference", options.reference)
    return {name: value for name, value in given.items() if value is not None}


def _verb(name: str) -> Callable[..., Any]:
    home = "drawing" if name == "graph" else f"instrument._{name}"
    return getattr(importlib.import_module(f"jaxbp.{home}"), name)


def _doctor() -> Any:
    return importlib.import_module("jaxbp._doctor").examine()


@contextlib.contextmanager
def _blame(target: str, verb: str) -> Iterator[None]:
    """An error of the user's code with its traceback, one of the verb's without."""
    try:
        yield
    except (Exception, SystemExit) as error:  # a script's own exit code is none of ours
        if str(error).startswith(f"jaxbp.{verb}:"):
            print(error, file=sys.stderr)
            raise SystemExit(2) from None
        _print_from_the_users_code_on(error)
        _fail(f"{target} raised {type(error).__name__}; see above.")


def _print_from_the_users_code_on(error: BaseException) -> None:
    """The traceback behind the last of our frames; all of it where that is the end."""
    home = os.path.dirname(__file__) + os.sep
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    files = [frame.f_code.co_filename for frame in frames]
    own = [file.startswith(home) or "importlib" in file for file in files]
    rest = error.__traceback__
    for _ in range(len(own) - own[::-1].index(True)):
        rest = rest and rest.tb_next
    if rest or isinstance(error, SyntaxError):  # which tells its place itself
        error = error.with_traceback(rest)
    traceback.print_exception(error)


def _function(option: str, target: str) -> Callable[..., Any]:
    """The function that `package.module:function` names."""
    name, colon, path = target.partition(":")
    if not (name and colon and path):
        _fail(f"expected {option} to be package.module:function; got {target}.")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            _print_from_the_users_code_on(error)
            _fail(f"importing {name} raised ModuleNotFoundError; see above.")
        _fail(
            f"expected {option} to be in a module that can be imported from "
            f"{os.getcwd()}; got {target}: there is no module {error.name}."
        )
    except (Exception, SystemExit) as error:
        _print_from_the_users_code_on(error)
        _fail(f"importing {name} raised {type(error).__name__}; see above.")
    try:
        found = functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        _fail(f"expected {option} to be a function of {name}; got {target}: {error}.")
    if not callable(found):
        got = f"{target}, of type {type(found).__name__}"
        _fail(f"expected {option} to be a function; got {got}.")
    return found


def _arguments(option: str, made: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(made, dict) and all(isinstance(key, str) for key in made):
        return (), made
    if isinstance(made, tuple):
        return made, {}
    _fail(
        "expected --args to return a tuple of positional arguments or a dict of "
        f"keyword ones; got {type(made).__name__} from {option}."
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _fail(f"{message.removeprefix('argument ')}; see jaxbp --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("jaxbp", description=__doc__, epilog=_EXIT, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary in _VERBS.items():
        sub = verbs.add_parser(
            verb, help=summary, description=summary, epilog=_EXIT, allow_abbrev=False
        )
        _add_options(verb, sub.add_argument)
    sub = verbs.add_parser(
        "doctor", help="what JAX finds here, and what is not installed"
    )
    _add_json(sub.add_argument)
    return parser


def _add_options(verb: str, add: Callable[..., Any]) -> None:
    add("function", metavar="FUNCTION", help="package.module:function")
    add("--args", required=True, metavar="package.module:make_args", help=_ARGS)
    if verb in ("compare", "cost"):
        add(
            "--reference",
            metavar="package.module:function",
            help="a function of the same arguments to stand in autodiff's place",
        )
    if verb == "compare":
        effort = "quick, the point given and others of its shapes, or full (quick)"
        add("--effort", metavar="EFFORT", help=effort)
        add("--order", type=int, metavar="N", help="2: the second derivative too (1)")
        add(
            "--surrogate",
            nargs="+",
            metavar="PATH",
            help="key paths of arguments whose gradient is different on purpose, [0]",
        )
        add(
            "--numeric",
            action="store_const",
            const=True,
            help="ask a numeric derivative about every element",
        )
        add(
            "--accuracy",
            action="store_const",
            const=True,
            help="not ok where less accurate than autodiff in the arguments' dtype",
        )
    if verb == "graph":
        suffixes = f"where to write it: a file that ends in {', '.join(_SUFFIXES)}"
        add("--out", metavar="FILE", help=suffixes)
        add("--iteration", type=int, metavar="N", help="of every scan, to be drawn (0)")
        closed = "functions and scopes that are drawn as one box each"
        add("--close", nargs="+", default=(), metavar="GROUP", help=closed)
    elif verb == "cost":
        add("--rounds", type=int, metavar="N", help="how often both are run (11)")
    else:
        add("--seed", type=int, metavar="N", help="of the random cotangents (0)")
    _add_json(add)


def _add_json(add: Callable[..., Any]) -> None:
    add("--json", action="store_true", help="print JSON in place of the table")


def _fail(message: str) -> NoReturn:
    print(f"jaxbp: {message}", file=sys.stderr)
    raise SystemExit(2)
