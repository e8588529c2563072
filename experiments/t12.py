"""T12: a 4-4-2 network with given weights, squared error and cross-entropy."""

import argparse
import math

from experiments import _layers
from experiments._results import Report
from experiments._rows import Claim, Witness, tabulate
from experiments._systems import System
from experiments._witnesses import align, measure, sigma
from jaxbp import nets, ops

X = (2.0, 5.0, 3.0, 3.0)
TARGET = (1.0, 0.0)
RATE = 1.0
# As printed: a row is a unit, a column an input.
W1 = (
    (0.1, 0.3, 0.8, -0.4),
    (-0.3, -0.2, 0.5, 0.5),
    (-0.3, 0.0, 0.5, 0.4),
    (0.2, 0.5, -0.9, 0.7),
)
W2 = ((0.5, 0.8, 0.2, 0.4), (0.5, 0.2, 0.3, -0.5))
GIVEN = (
    {f"x{i + 1}": value for i, value in enumerate(X)}
    | {f"y{i + 1}": value for i, value in enumerate(TARGET)}
    | {f"w1{u + 1}{i + 1}": w for u, row in enumerate(W1) for i, w in enumerate(row)}
    | {f"w2{u + 1}{i + 1}": w for u, row in enumerate(W2) for i, w in enumerate(row)}
    | {"b1": 0.0, "b2": 0.0}
)


def _unit(name: str, printed: str, weights: str, inputs: str, bias: str) -> Claim:
    dot = lambda v: sum(v[f"{weights}{i}"] * v[f"{inputs}{i}"] for i in range(1, 5))
    return Claim(name, printed, lambda v: dot(v) + v[bias])


def _softmax(v, unit: str) -> float:
    return math.exp(v[unit]) / (math.exp(v["a21"]) + math.exp(v["a22"]))


def _closed(v) -> float:
    """The page's closed formula of ∂L/∂w131."""
    return (
        -2 * (v["y1"] - v["ŷ1"]) * v["ŷ1"] * (1 - v["ŷ1"]) * v["w213"]
        - 2 * (v["y2"] - v["ŷ2"]) * v["ŷ2"] * (1 - v["ŷ2"]) * v["w223"]
    ) * (v["h13"] * (1 - v["h13"]) * v["x1"])


def _by_factors(v) -> float:
    return (
        v["∂L/∂ŷ1"] * v["∂ŷ1/∂a21"] * v["∂a21/∂h13"]
        + v["∂L/∂ŷ2"] * v["∂ŷ2/∂a22"] * v["∂a22/∂h13"]
    ) * (v["∂h13/∂a13"] * v["∂a13/∂w131"])


_forward = (
    *(
        _unit(f"a1{u}", printed, f"w1{u}", "x", "b1")
        for u, printed in enumerate(("2.9", "1.4", "2.1", "2.3"), 1)
    ),
    Claim("h11", "0.95", lambda v: sigma(v["a11"])),
    Claim("h12", "0.80", lambda v: sigma(v["a12"])),
    Claim("h13", "0.89", lambda v: sigma(v["a13"])),
    Claim("h14", "0.91", lambda v: sigma(v["a14"])),
    _unit("a21", "1.66", "w21", "h1", "b2"),
    _unit("a22", "0.45", "w22", "h1", "b2"),
    Claim("ŷ1", "0.77", lambda v: _softmax(v, "a21")),
    Claim("ŷ2", "0.23", lambda v: _softmax(v, "a22")),
    Claim("L", None, lambda v: (v["y1"] - v["ŷ1"]) ** 2 + (v["y2"] - v["ŷ2"]) ** 2),
)
_output = (
    Claim("∂L/∂ŷ1", "-0.46", lambda v: -2 * (v["y1"] - v["ŷ1"])),
    Claim("∂L/∂ŷ2", "0.46", lambda v: -2 * (v["y2"] - v["ŷ2"])),
    Claim(
        "∂L/∂ŷ1 as Σ(yi−ŷi)²",
        formula=lambda v: (v["y1"] - v["ŷ1"]) ** 2 + (v["y2"] - v["ŷ2"]) ** 2,
        of="∂L/∂ŷ1",
        erratum="E12",
        note="this is the loss, not its derivative",
    ),
    Claim("ŷ1, step 1: e^a21/(e^a21+e^a22)", None, lambda v: _softmax(v, "a21"), "ŷ1"),
    Claim(
        "ŷ1, step 2: e^(−a21)/(e^(−a21)+e^a22)",
        formula=lambda v: (
            math.exp(-v["a21"]) / (math.exp(-v["a21"]) + math.exp(v["a22"]))
        ),
        of="ŷ1",
        erratum="E11",
        note="multiplied by e^(−a21), the numerator is 1",
    ),
    Claim(
        "ŷ1, step 3: 1/(1+e^(−(a21−a22)))",
        formula=lambda v: sigma(v["a21"] - v["a22"]),
        of="ŷ1",
    ),
    Claim(
        "∂ŷ1/∂a21, step 4: the derivative",
        formula=lambda v: (
            sigma(v["a21"] - v["a22"])
            * (math.exp(v["a22"] - v["a21"]) / (1 + math.exp(v["a22"] - v["a21"])))
        ),
        of="∂ŷ1/∂a21",
    ),
    Claim(
        "∂ŷ1/∂a21",
        "-0.079",
        lambda v: v["ŷ1"] * (1 - v["ŷ1"]) * -v["a22"],
        erratum="E2",
        note="step 5, “rearranging”: the factor −a22 does not belong",
    ),
    Claim(
        "∂ŷ2/∂a22",
        "-0.293",
        lambda v: v["ŷ2"] * (1 - v["ŷ2"]) * -v["a21"],
        erratum="E2",
        note="the factor −a21 does not belong",
    ),
)
_w212 = (
    Claim("∂a21/∂w212", "0.80", lambda v: v["h12"]),
    Claim(
        "∂L/∂w212",
        "-0.029",
        lambda v: v["∂L/∂ŷ1"] * v["∂ŷ1/∂a21"] * v["∂a21/∂w212"],
        erratum="E2",
        note="the path through ŷ2 is left out",
    ),
    Claim(
        "∂L/∂w212 in the update",
        "-0.065",
        lambda v: -2 * (v["y1"] - v["ŷ1"]) * v["ŷ1"] * (1 - v["ŷ1"]) * v["h12"],
        of="∂L/∂w212",
        erratum="E2",
        note="without −a22, still without the path through ŷ2: half the right value",
    ),
    Claim(
        "w212 after the update",
        "0.865",
        lambda v: v["w212"] - RATE * v["∂L/∂w212 in the update"],
        erratum="E2",
    ),
)
_w131 = (
    Claim("∂a21/∂h13", "0.20", lambda v: v["w213"]),
    Claim("∂a22/∂h13", "0.30", lambda v: v["w223"]),
    Claim("∂h13/∂a13", "0.0979", lambda v: v["h13"] * (1 - v["h13"]), erratum="E7"),
    Claim("∂a13/∂w131", "2", lambda v: v["x1"]),
    Claim(
        "∂L/∂w131",
        "-6.4e-3",
        _closed,
        erratum="E3",
        note="the sign is wrong; the paths a21 → ŷ2 and a22 → ŷ1 are left out",
    ),
    Claim(
        "∂L/∂w131 by the printed factors",
        "-6.4e-3",
        _by_factors,
        of="∂L/∂w131",
        erratum="E3",
        note="this is where the printed number comes from",
    ),
)
CLAIMS = (*_forward, *_output, *_w212, *_w131)


def run(options: argparse.Namespace) -> Report:
    del options
    transposed = [list(zip(*w, strict=True)) for w in (W1, W2)]
    inputs = _layers.inputs(transposed, X, ((0.0,) * 4, (0.0,) * 2))
    chain = _layers.links(2, ops.softmax, bias=True)
    known: dict[str, Witness] = {}
    tables, systems = [], []
    for loss, suffix in (("squared_error", ""), ("cross_entropy", ", cross-entropy")):
        net = nets.mlp((4, 4, 2), output="softmax", loss=loss)
        # The links below the loss do not depend on it.
        system = _layers.system(net, TARGET)
        found = measure(system, inputs, () if suffix else chain)
        title = f"the 4-4-2 network, {loss.replace('_', ' ')}"
        systems.append(System(title, system, (inputs,), _layers.numbered))
        rows = _layers.elements(found)
        rows["w212 after the update"] = _updated(rows["∂L/∂w212"])
        tables.append(_paths(known or rows, rows, suffix))
        about_loss = lambda name: name.startswith(("L", "∂L", "w"))
        known |= {n + suffix: w for n, w in rows.items() if not suffix or about_loss(n)}
    rows = tabulate("T12", known, CLAIMS, GIVEN)
    # The page's claims are about the first loss.
    return Report(rows, text="\n\n".join(tables), systems=tuple(systems[:1]))


def _updated(gradient: Witness) -> Witness:
    start = GIVEN["w212"]
    manual, auto, numeric = (start - RATE * (g or 0.0) for g in gradient[:3])
    error = RATE * (gradient.error or 0.0) + 2e-16 * abs(start)
    return Witness(manual, auto, numeric, error)


def _paths(known: dict[str, Witness], rows: dict[str, Witness], suffix: str) -> str:
    """∂L/∂w212 link by link: what the page has, and the path that it leaves out."""
    head = ("path", "∂L/∂ŷ", "∂ŷ/∂a21", "∂a21/∂w212", "product")
    lines: list[tuple[str, ...]] = [head]
    total = 0.0
    for unit in ("ŷ1", "ŷ2"):
        names = (f"∂L/∂{unit}", f"∂{unit}/∂a21", "∂a21/∂w212")
        factors = [rows.get(n, known.get(n)) for n in names]
        values = [w.manual for w in factors if w is not None]
        total += math.prod(values)
        cells = [f"{value:.7g}" for value in (*values, math.prod(values))]
        lines.append((f"w212 → a21 → {unit} → L", *cells))
    lines.append(("sum", "", "", "", f"{total:.7g}"))
    title = f"∂L/∂w212{suffix}: {rows['∂L/∂w212'].manual:.10g}, the sum of its paths"
    return align(lines, title)
