"""T8: composed elementary functions, link by link, and where e^(e^(x²)) overflows."""

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._results import Report
from experiments._rows import Claim, Formula, Witness, tabulate
from experiments._systems import System
from experiments._witnesses import Link, align, measure, witnesses
from jaxbp import autodiff, nets, ops

POINTS = (0.5, 1.0)


class Composed(NamedTuple):
    """A function of x, its links, and the pages' formulas for its wires and d/dx."""

    name: str
    function: Callable
    links: tuple[Link, ...]
    formulas: dict[str, Callable[[float], float]]


_h1 = Link("h1", ops.square, ("x",))
_h2 = Link("h2", ops.exp, ("h1",))
_inner = {"h1": lambda x: x**2, "h2": lambda x: math.exp(x**2)}
FUNCTIONS = (
    Composed(
        "e^(x²)",
        nets.exp_square,
        (_h1, Link("y", ops.exp, ("h1",))),
        {"y": _inner["h2"], "∂y/∂x": lambda x: 2 * x * math.exp(x**2)},
    ),
    Composed(
        "e^(e^(x²))",
        nets.exp_exp_square,
        (_h1, _h2, Link("y", ops.exp, ("h2",))),
        _inner
        | {
            "y": lambda x: math.exp(math.exp(x**2)),
            "∂y/∂x": lambda x: math.exp(math.exp(x**2)) * 2 * x * math.exp(x**2),
        },
    ),
    Composed(
        "1/e^(x²)",
        nets.reciprocal_exp_square,
        (_h1, _h2, Link("y", ops.reciprocal, ("h2",))),
        _inner
        | {
            "y": lambda x: 1 / math.exp(x**2),
            "∂y/∂x": lambda x: -1 / math.exp(x**2) ** 2 * (2 * x * math.exp(x**2)),
        },
    ),
)
GATES = {
    "eˣ": (ops.exp, math.exp),
    "x²": (ops.square, lambda x: 2 * x),
    "1/x": (ops.reciprocal, lambda x: -1 / x**2),
}


def claims() -> list[Claim]:
    at = lambda formula, x: _constant(formula, x)
    found = [
        Claim(f"d/dx {name} at {x}", formula=at(derivative, x))
        for name, (_, derivative) in GATES.items()
        for x in POINTS
    ]
    for f in FUNCTIONS:
        for x in POINTS:
            for quantity, formula in f.formulas.items():
                found.append(Claim(_name(f.name, quantity, x), formula=at(formula, x)))
    return found


def run(options: argparse.Namespace) -> Report:
    del options
    known, tables = _gates(), []
    for f in FUNCTIONS:
        inputs = {"x": jnp.asarray(POINTS, float)}
        found = measure(lambda v, f=f: f.function(v["x"]).sum(), inputs, f.links)
        for k, x in enumerate(POINTS):
            here = witnesses(found, "y", (k,))
            known |= {_name(f.name, quantity, x): w for quantity, w in here.items()}
            tables.append(_chain(f, x, here))
    limits = _limits(nets.exp_exp_square)
    tables.append("\n".join(f"{name}: {w.manual!r}" for name, w in limits.items()))
    known |= limits
    at = POINTS[0]
    systems = tuple(System(f"{f.name} at {at}", f.function, (at,)) for f in FUNCTIONS)
    return Report(
        tabulate("T8", known, claims()), text="\n\n".join(tables), systems=systems
    )


def _name(function: str, quantity: str, x: float) -> str:
    if quantity == "∂y/∂x":
        return f"d/dx {function} at {x}"
    return f"{function} at {x}: {quantity}"


def _constant(formula: Callable[[float], float], x: float) -> Formula:
    return lambda v: formula(x)


def _gates() -> dict[str, Witness]:
    inputs = {name: jnp.asarray(POINTS, float) for name in GATES}
    total = lambda v: sum(op(v[name]).sum() for name, (op, _) in GATES.items())
    found = measure(total, inputs)
    return {
        f"d/dx {name} at {x}": found.cotangents[name].at(k)
        for name in GATES
        for k, x in enumerate(POINTS)
    }


def _chain(f: Composed, x: float, known: dict[str, Witness]) -> str:
    """The chain x → h1 → … → y with each link's local derivative."""
    lines, product = [("link", "value", "local derivative", "product so far")], 1.0
    for link in f.links:
        (source,) = link.inputs
        local = known[f"∂{link.output}/∂{source}"].manual
        product *= local
        value = known[link.output].manual
        name = f"{source} → {link.output} ({link.op.__name__})"
        lines.append((name, f"{value:.7g}", f"{local:.7g}", f"{product:.7g}"))
    return align(lines, f"{f.name} at x = {x:g}")


def _limits(f: Callable) -> dict[str, Witness]:
    """The largest x with f, and its gradient, finite: both dtypes, both chains."""
    known = {}
    for dtype in (np.float32, np.float64):
        gradients = [jax.jit(jax.value_and_grad(g)) for g in (f, autodiff(f))]
        for k, what in enumerate(("e^(e^(x²))", "d/dx e^(e^(x²))")):
            both = [
                _largest_finite(lambda x, g=g, k=k: g(x)[k], dtype) for g in gradients
            ]
            name = f"largest x with finite {what}, {np.dtype(dtype).name}"
            known[name] = Witness(*both)
    return known


def _largest_finite(f: Callable, dtype: type) -> float:
    """By bisection in the dtype itself, down to neighbouring numbers."""
    finite, infinite = dtype(1), dtype(4)
    while True:
        middle = dtype((finite + infinite) / dtype(2))
        if middle in (finite, infinite):
            return float(finite)
        if np.isfinite(f(middle)):
            finite = middle
        else:
            infinite = middle
