"""The options of `python -m experiments`, and what is wrong with those that came."""

import argparse
import itertools
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from experiments._rows import SYSTEMS

HERE = pathlib.Path(__file__).parent
TUTORIALS = (*SYSTEMS, "errata")
NAMES = (*TUTORIALS, "digits", "mnist", "names")
_DESCRIPTION = "Take the tutorial systems apart, and train networks on real data."


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What is asked for; `names` are those of experiments, each once."""
    options = _parser().parse_args(arguments)
    options.names = _names(options)
    _check_sizes(options.sizes)
    return options


def fail(message: str) -> NoReturn:
    """End the run: a request gone wrong."""
    print(f"experiments: {message}", file=sys.stderr)
    raise SystemExit(2)


def _value(option: str, kind: type, expected: str, allowed: Callable) -> Callable:
    """A parser of an option's value which says what was expected and what came."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not allowed(value):
            fail(f"expected {option} to be {expected}; got {text}.")
        return value

    return parse


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
        fail("expected --out to be a folder to write in; got an empty name.")
    return pathlib.Path(text)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(f"{message.removeprefix('argument ')}.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("experiments", description=_DESCRIPTION, allow_abbrev=False)
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
        default=HERE.parent / "results",
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
            fail(f"expected NAME to be one of {', '.join(NAMES)}; got {name}.")
    chosen = NAMES if options.all else [name.lower() for name in asked] or TUTORIALS
    return list(dict.fromkeys(chosen))


def _check_sizes(sizes: Sequence[int]) -> None:
    if len(sizes) < 2 or sizes[0] != 2 or sizes[-1] != 1:
        got = " ".join(map(str, sizes))
        why = "XOR has two inputs and one output"
        fail(f"expected --sizes to start with 2 and end with 1; got {got}: {why}.")
    weights = sum(i * o for i, o in itertools.pairwise(sizes))
    if weights > _MOST:
        expected = f"expected --sizes to make at most {_MOST:,} weights"
        fail(f"{expected}; got {weights:,}: choose smaller layers.")
