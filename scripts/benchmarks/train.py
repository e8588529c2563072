"""`train.fit` on the tutorial's two-layer network, beside what else could train it.

3 inputs, 4 hidden units, 1 output, 4 examples, no biases; full-batch descent of half
the squared error, 80,000 steps, from the tutorial's own weights. Every way is run in
turn in one process, round after round, and ends with the same weights, or it is an
error. Columns are microseconds a step of the process's own time, which a busy machine
does not stretch as it does the wall's: the median and the best of the rounds; then what
fit takes over it, the median of the rounds' ratios with its quartiles, and best over
best. Of `fit` the second 80,000 of 160,000 steps count, with what the host does between
chunks: what compiles is in the first, and told beside.
"""

import argparse
import contextlib
import functools
import importlib.util
import io
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import _rivals
from benchmarks._machine import described, machine
from benchmarks._rivals import NET, Problem, Ran, Way, clock
from jaxbp import autodiff, train

_FIT = "fit, hand-written"
_BARE = "bare fori_loop of its step"
_C = "C loop, gcc -O3 -march=native"
_NUMPY = "the tutorial's NumPy loop"
_AT_ONCE, _ONE = "restarts at once", "one by one"
_COMPILED = "first entry, s"
_CLOSE = {"float64": 1e-9, "float32": 0.05}  # of weights after 80,000 steps


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rounds", type=int, default=9, help="in which all ways run (9)")
    add("--steps", type=int, default=80_000, help="of a run (80,000)")
    add("--restarts", type=int, default=64, help="at once (64)")
    add("--dtype", choices=("float32", "float64"), help="both where left out")


def run(options: argparse.Namespace) -> dict[str, Any]:
    print(described())
    found = {}
    for dtype in [options.dtype] if options.dtype else ["float64", "float32"]:
        jax.config.update("jax_enable_x64", dtype == "float64")
        problem = _rivals.problem_of(dtype, options.steps)
        with tempfile.TemporaryDirectory() as folder:
            ways = _ways(problem, pathlib.Path(folder))
            rows = _measured(problem, ways, options.rounds)
        _tell(dtype, rows)
        several = _restarts(problem, options.restarts, min(3, options.rounds))
        found[dtype] = {"rows": rows, "restarts": several}
    print(f"\n{described()}")
    return {"machine": machine(), "steps": options.steps} | found


def _ways(problem: Problem, folder: pathlib.Path) -> dict[str, Way]:
    slope, auto = jax.value_and_grad(NET.loss), jax.grad(autodiff(NET.loss))
    alone = _rivals.silent(jax.grad(NET.loss))
    ways = {
        _FIT: functools.partial(_fitted, problem, "manual"),
        "fit, autodiff": functools.partial(_fitted, problem, "auto"),
        "fit, both": functools.partial(_fitted, problem, "both"),
        _BARE: _rivals.looped(problem, slope),
        "  without the loss": _rivals.looped(problem, alone),
        "  without the loss, autodiff": _rivals.looped(problem, _rivals.silent(auto)),
    }
    if shutil.which("gcc"):
        ways[_C] = _rivals.in_c(problem, folder)
    ways["jitted step, Python loop"] = _rivals.stepped(problem)
    if importlib.util.find_spec("torch"):
        ways["PyTorch, eager"] = functools.partial(_rivals.in_torch, problem)
    ways[_NUMPY] = functools.partial(_rivals.in_numpy, problem)
    return ways


def _fitted(problem: Problem, route: str, loss=NET.loss, params=None) -> Ran:
    """The second half of a run of twice the steps; the weights after the first."""
    marks: list[tuple[float, Any]] = []

    def mark(params):
        marks.append((clock(), jax.tree.map(np.array, params)))
        return {}

    params = problem.params if params is None else params
    given = loss, params, (problem.x, problem.y), optax.sgd(1.0)
    how = {"steps": 2 * problem.steps, "evaluate": (problem.steps, mark)}
    with contextlib.redirect_stderr(io.StringIO()):
        result = train.fit(*given, gradient=route, **how)
    (start, weights), (end, _) = marks
    first = {_COMPILED: result.history[0]["seconds"]}
    return Ran((end - start) / problem.steps * 1e6, weights, first)


def _measured(problem: Problem, ways: dict[str, Way], rounds: int) -> dict[str, Any]:
    micros: dict[str, list[float]] = {name: [] for name in ways}
    beside: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        ends = {}
        for name, way in ways.items():
            ran = way()
            micros[name].append(ran.micros)
            ends[name], beside[name] = ran.weights, ran.beside
        _check(ends, _CLOSE[problem.dtype])
    fit = np.array(micros[_FIT])
    return {
        name: {
            "micros": found,
            "median": float(np.median(found)),
            "best": min(found),
            "fit over it": np.quantile(fit / found, [0.5, 0.25, 0.75]).tolist(),
            "best over best": min(fit) / min(found),
            **beside[name],
        }
        for name, found in micros.items()
    }


def _check(ends: dict[str, Any], close: float) -> None:
    expected = jax.tree.leaves(ends[_FIT])
    for name, weights in ends.items():
        for a, b in zip(jax.tree.leaves(weights), expected, strict=False):
            if not np.allclose(a, b, rtol=close, atol=0):
                raise SystemExit(f"bench train: {name} ends elsewhere: {a} and {b}")


def _restarts(problem: Problem, count: int, rounds: int) -> dict[str, Any]:
    """Many starts as one run of the sum of their losses, beside one run each."""

    def loss(params, batch):
        losses = jax.vmap(NET.loss, (0, None))(params, batch)
        return losses.sum(), {"losses": losses}

    one = jax.tree.map(np.asarray, problem.params)
    scales = np.linspace(0.5, 1.5, count, dtype=problem.dtype)[:, None, None]
    many = jax.tree.map(lambda w: scales * w, one)
    found: dict[str, list[tuple[float, float]]] = {_AT_ONCE: [], _ONE: []}
    for _ in range(rounds):
        for name, of, params in ((_AT_ONCE, loss, many), (_ONE, NET.loss, one)):
            start = clock()
            ran = _fitted(problem, "manual", of, params)
            found[name].append((ran.micros, clock() - start))
    (micros, seconds), (micros_1, seconds_1) = (
        np.median(found[name], axis=0).tolist() for name in (_AT_ONCE, _ONE)
    )
    steps, runs = micros_1 * count / micros, seconds_1 * count / seconds
    print(
        f"{count} {_AT_ONCE}: {micros / count:.3f} µs a step and restart, "
        f"{micros_1:.3f} {_ONE}: {steps:.1f} times better; whole runs, what compiles "
        f"included, {runs:.1f} times ({seconds:.2f} s, {count} × {seconds_1:.2f} s)"
    )
    return {"count": count, "found": found, "steps": steps, "runs": runs}


def _tell(dtype: str, rows: dict[str, Any]) -> None:
    print(f"\n{dtype:32}{'µs a step':>10}{'best':>9}{'fit over it':>31}{'best':>9}")
    for name, row in rows.items():
        middle, low, high = row["fit over it"]
        ratio = f"{middle:.3g} [{low:.3g}, {high:.3g}]"
        line = f"{name:32}{row['median']:10.3f}{row['best']:9.3f}{ratio:>31}"
        more = "".join(f"  {k} {v:.2f}" for k, v in row.items() if k == _COMPILED)
        print(f"{line}{row['best over best']:9.3g}{more}")
