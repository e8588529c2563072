"""Cold time of `compare` over the catalogue and a network, beside check_grads.

Cold: JAX's caches cleared before every call, nothing read from or written to the
persistent compilation cache. check_grads, "quick" and "full" are asked in turn in one
process; a ratio is of medians over the rounds.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.test_util import check_grads

from benchmarks._machine import described, machine
from jaxbp import compare
from jaxbp._jaxpr import is_differentiable
from jaxbp.nets import mlp
from jaxbp.ops.catalogue import CASES

_BARS = {"quick": 3.0, "full": 15.0}
_MOST_SECONDS = 30.0


class _Subject(NamedTuple):
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", help="names to measure, of ops and nets")
    add("--rounds", type=int, default=5, help="of check_grads and quick (5)")
    add("--full-rounds", type=int, default=1, help="of full (1)")
    add("--dtype", choices=("float64", "float32"), default="float64")


def run(options: argparse.Namespace) -> dict[str, Any]:
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_enable_x64", options.dtype == "float64")
    print(described())
    print(f"arguments in {options.dtype}; check_grads in float64 at the same ones\n")
    columns = f"{'':36}{'check_grads':>12}{'quick':>9}{'full':>9}"
    print(f"{columns}{'quick/c':>9}{'full/c':>9}  verdicts")
    rows = []
    subjects = [*_subjects(options.dtype)]
    _once(subjects[0])  # what JAX imports late is nobody's time
    for subject in subjects:
        if options.only and subject.name not in options.only:
            continue
        rows.append(_measured(subject, options))
        print(_line(rows[-1]), flush=True)
    return {"machine": machine(), "dtype": options.dtype, "rows": rows} | _said(rows)


def _subjects(dtype: str) -> Iterator[_Subject]:
    key = jax.random.key(0)
    for case in CASES:
        args = next(iter(case.inputs.values()))(key, np.dtype(dtype))
        yield _Subject(case.name, case.function, args)
    net = mlp([4, 5, 3], output="softmax", loss="cross_entropy")
    x = jax.random.normal(key, (6, 4), dtype)
    y = np.eye(3, dtype=dtype)[np.arange(6) % 3]
    params = jax.tree.map(lambda p: p.astype(dtype), net.init(key))
    yield _Subject("mlp.loss", net.loss, (params, (x, y)))


def _once(subject: _Subject) -> None:
    for ask in (_check_grads, _quick, _full):
        ask(subject)


def _measured(subject: _Subject, options) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"check_grads": [], "quick": [], "full": []}
    verdicts = {}
    for k in range(max(options.rounds, options.full_rounds)):
        ways = {"check_grads": _check_grads, "quick": _quick, "full": _full}
        for name, ask in ways.items():
            rounds = options.full_rounds if name == "full" else options.rounds
            if k >= rounds:
                continue
            jax.clear_caches()
            start = time.perf_counter()
            verdicts[name] = ask(subject)
            seconds[name].append(time.perf_counter() - start)
    middle = {k: float(np.median(v)) for k, v in seconds.items() if v}
    ratios = {k: middle[k] / middle["check_grads"] for k in _BARS if k in middle}
    return {
        "name": subject.name,
        "seconds": seconds,
        "median": middle,
        "ratio": ratios,
        "verdicts": verdicts,
    }


def _check_grads(subject: _Subject) -> str:
    """In float64, of the floating arguments: it takes no others."""
    with jax.enable_x64(True):
        leaves, tree = jax.tree.flatten(subject.args)
        chosen = [is_differentiable(x) for x in leaves]
        wide = [
            jax.numpy.asarray(np.asarray(x, np.float64))
            for x, c in zip(leaves, chosen, strict=True)
            if c
        ]

        def f(*floats):
            values = iter(floats)
            merged = [
                next(values) if c else x for x, c in zip(leaves, chosen, strict=True)
            ]
            outs = subject.function(*jax.tree.unflatten(tree, merged))
            return list(filter(is_differentiable, jax.tree.leaves(outs)))

        try:
            check_grads(f, tuple(wide), order=1, modes=["rev"])
        except AssertionError:
            return "fails"
    return "passes"


def _quick(subject: _Subject) -> str:
    return compare(subject.function, *subject.args).verdict


def _full(subject: _Subject) -> str:
    return compare(subject.function, *subject.args, effort="full").verdict


def _line(row: dict[str, Any]) -> str:
    seconds = "".join(
        f"{row['median'].get(k, np.nan):{w - 2}.2f} s"
        for k, w in (("check_grads", 12), ("quick", 9), ("full", 9))
    )
    ratios = "".join(f"{row['ratio'].get(k, np.nan):9.2f}" for k in _BARS)
    said = ", ".join(row["verdicts"].values())
    return f"{row['name']:36}{seconds}{ratios}  {said}"


def _said(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    print()
    for name, bar in _BARS.items():
        ratios = [row["ratio"][name] for row in rows if name in row["ratio"]]
        if not ratios:
            continue
        seconds = max(max(row["seconds"][name]) for row in rows)
        median, low, high = np.median(ratios), min(ratios), max(ratios)
        print(
            f"{name}: median {median:.2f} times check_grads (at most {bar:g}), "
            f"{low:.2f} to {high:.2f} over {len(ratios)}; longest {seconds:.1f} s"
            + (f" (at most {_MOST_SECONDS:g})" if name == "full" else "")
        )
        found[name] = {
            "median": float(median),
            "range": [low, high],
            "longest seconds": seconds,
        }
    return found
