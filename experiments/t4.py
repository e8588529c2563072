"""T4: the sigmoid's derivative, every step of its derivation, and both plots."""

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from experiments import _curves
from experiments._results import Report
from experiments._rows import Claim, Formula, Witness, tabulate
from experiments._systems import System
from experiments._witnesses import Found, align, measure, sigma
from jaxbp import autodiff, ops

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = (-2.0, 0.0, 2.0)
PLOTTED = np.arange(-10, 10, 0.2)


class Printed(NamedTuple):
    """One printed line: its quantity, its text, and its right side as a formula.

    A derivative that still stands on the right side is a quantity of its own, `inner`.
    """

    quantity: str
    text: str
    formula: Callable[[float, Callable[[str], float]], float]
    erratum: str = ""


STANDING: dict[str, Callable] = {
    "σ′": ops.sigmoid,
    "d/dx (1+e^(−x))": lambda x: ops.add(jnp.ones_like(x), ops.exp(-x)),
    "d/dx e^(−x)": lambda x: ops.exp(-x),
    "d/dx (−x)": lambda x: -x,
    "d/dx x": lambda x: x,
}


def _reciprocal_squared(x):
    return (1 + math.exp(-x)) ** -2


LINES = (
    Printed("σ", "1/(1+e^(−x))", lambda x, d: sigma(x)),
    Printed(
        "d/dx e^(−x)",
        "e^(u(x))·d/dx x",
        lambda x, d: math.exp(-x) * 1,
        "E9",
    ),
    Printed(
        "σ′",
        "−(1+e^(−x))^(−2)·d/dx(1+e^(−x))",
        lambda x, d: -_reciprocal_squared(x) * d("d/dx (1+e^(−x))"),
    ),
    Printed(
        "σ′",
        "−(1+e^(−x))^(−2)·(d/dx 1 + d/dx e^(−x))",
        lambda x, d: -_reciprocal_squared(x) * (0 + d("d/dx e^(−x)")),
    ),
    Printed(
        "σ′",
        "−(1+e^(−x))^(−2)·(e^(−x)·d/dx[−x])",
        lambda x, d: -_reciprocal_squared(x) * (math.exp(-x) * d("d/dx (−x)")),
    ),
    Printed(
        "σ′",
        "−(1+e^(−x))^(−2)·(e^(−x) − d/dx[x])",
        lambda x, d: -_reciprocal_squared(x) * (math.exp(-x) - d("d/dx x")),
        "E6",
    ),
    Printed(
        "σ′",
        "−(1+e^(−x))^(−2)·(e^(−x) − 1)",
        lambda x, d: -_reciprocal_squared(x) * (math.exp(-x) - 1),
        "E6",
    ),
    Printed(
        "σ′",
        "e^(−x)/(1+e^(−x))²",
        lambda x, d: math.exp(-x) / (1 + math.exp(-x)) ** 2,
    ),
    Printed("σ′", "σ(x)(1−σ(x))", lambda x, d: sigma(x) * (1 - sigma(x))),
)


def claims() -> list[Claim]:
    return [_claim(k, line, x) for x in POINTS for k, line in enumerate(LINES, 1)]


def run(options: argparse.Namespace) -> Report:
    del options
    x = jnp.asarray(POINTS, float)
    everything = lambda v: sum(f(v[name]).sum() for name, f in STANDING.items())
    found = measure(everything, dict.fromkeys(STANDING, x)).cotangents
    found["σ"] = exact(x)["σ"]
    known = {
        _at(name, x): values.at(k)
        for k, x in enumerate(POINTS)
        for name, values in found.items()
    }
    figures = {"t4_sigmoid": sigmoid_figure(), "t4_derivative": derivative_figure()}
    worst = deviations(PLOTTED)
    for number, (line, difference) in enumerate(worst, 1):
        name = f"{line.quantity}, line {number}: largest difference over the range"
        known[name] = Witness(difference)
    at = f"at {', '.join(f'{x:g}' for x in POINTS)}".replace("-", "−")
    drawn = System(f"σ {at}, derived", derived, (x,), called={"σ′": "∂y/∂x"})
    rows = tabulate("T4", known, claims())
    return Report(rows, figures, _over_the_range(worst), (drawn,))


def derived(x: jax.Array) -> jax.Array:
    """σ as the page takes it apart, summed over the points that x holds."""
    power = checkpoint_name(ops.exp(checkpoint_name(-x, "−x")), "e^(−x)")
    below = checkpoint_name(1 + power, "1+e^(−x)")
    return checkpoint_name(ops.reciprocal(below), "σ").sum()


@jax.jit
def exact(x: jax.Array) -> dict[str, Found]:
    """σ, and everything that stands under a d/dx, by hand-written rule and autodiff."""
    slope = lambda f: jax.vmap(jax.grad(f))(x)
    found = {name: Found(slope(f), slope(autodiff(f))) for name, f in STANDING.items()}
    return {"σ": Found(ops.sigmoid(x), autodiff(ops.sigmoid)(x)), **found}


def deviations(x: np.ndarray) -> list[tuple[Printed, float]]:
    """Of every line, the largest difference from autodiff, relative to the largest
    value over the range."""
    found, worst = jax.tree.map(np.asarray, exact(jnp.asarray(x))), []
    for line in LINES:
        values = [
            line.formula(float(at), lambda name, k=k: float(found[name].manual[k]))
            for k, at in enumerate(x)
        ]
        auto = found[line.quantity].auto
        worst.append((line, float(np.max(abs(values - auto)) / np.max(abs(auto)))))
    return worst


def sigmoid_figure() -> "Figure":
    made, (axes,) = _curves.figure()
    axes.plot(PLOTTED, np.asarray(ops.sigmoid(jnp.asarray(PLOTTED))), color="blue")
    axes.set(title="Sigmoid", xlabel="x", ylabel="y")
    return made


def derivative_figure() -> "Figure":
    made, (axes,) = _curves.figure()
    y, pullback = jax.vjp(ops.sigmoid, jnp.asarray(PLOTTED))
    (slope,) = pullback(jnp.ones_like(y))
    axes.plot(PLOTTED, slope, color="red", ls="--", label="Derivative of Sigmoid")
    axes.plot(PLOTTED, y, color="blue", label="Sigmoid")
    axes.set(title="Derivative of the Sigmoid Function", xlabel="x", ylabel="y")
    axes.legend(loc="center right")
    return made


def _claim(number: int, line: Printed, x: float) -> Claim:
    formula: Formula = lambda v: line.formula(x, lambda name: v[_at(name, x)])
    about = _at(line.quantity, x)
    return Claim(
        f"{about}, line {number}", None, formula, about, line.erratum, line.text
    )


def _at(quantity: str, x: float) -> str:
    return f"{quantity} at {x:g}".replace("-", "−")


def _over_the_range(worst: list[tuple[Printed, float]]) -> str:
    lines = [("line", "of", "largest difference")]
    for number, (line, difference) in enumerate(worst, 1):
        text = f"{number} {line.text}" + (f" ({line.erratum})" if line.erratum else "")
        lines.append((text, line.quantity, f"{difference:.1e}"))
    title = (
        "every line against autodiff, x = −10, −9.8, …, 9.8, relative to the largest"
    )
    return align(lines, title)
