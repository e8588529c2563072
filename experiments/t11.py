"""T11: gradient descent on a deep network, XOR, until satisfied."""

import argparse
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _curves, _layers
from experiments._results import Report
from experiments._rows import Claim, Witness, tabulate
from experiments._systems import System
from experiments._witnesses import Found, Link, align, measure
from jaxbp import nets, ops, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

X = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
Y = np.array([[0.0], [1], [1], [0]])
_NOTES = {
    "E4": "the sign: b + η·Δb goes uphill",
    "E10": "w112 is moved by Δw111, Δw112 is meant",
}
EXAMPLE = 1  # the chain of ∂L/∂w222 is shown for x = (0, 1) alone


class Descent(NamedTuple):
    """A run: epochs done, and the loss before each of them and after the last."""

    epochs: int
    losses: np.ndarray
    params: Any

    def reason(self, loss_below: float) -> str:
        loss = self.losses[self.epochs]
        if loss < loss_below:
            return f"loss {loss:.6g} is below {loss_below:g} after {self.epochs} epochs"
        return f"{self.epochs} epochs are reached, at loss {loss:.6g}"


def network(sizes) -> nets.Net:
    return nets.mlp(tuple(sizes), output="sigmoid", loss="binary_cross_entropy")


def descend(
    net: nets.Net, params, rate, loss_below, epochs: int, gradient: str = "manual"
) -> Descent:
    """Full-batch descent, stopped by the loss or by the epochs."""
    result = train.fit(
        net.loss,
        params,
        (X, Y),
        optax.sgd(rate),
        epochs=epochs,
        loss_below=loss_below,
        gradient=gradient,
        log_every=1,
    )
    losses = [entry["loss"] for entry in result.history]
    done = len(losses)
    if result.stopped_because == "epochs":  # the last one's own loss is nobody's yet
        losses.append(float(net.loss(result.params, (jnp.asarray(X), jnp.asarray(Y)))))
    else:
        done -= 1
    return Descent(done, np.array(losses), result.params)


def claims(sizes, rate: float) -> list[Claim]:
    """The updates as printed, every w and b, and the chain of ∂L/∂w222."""
    found = [
        Claim(
            f"new {name}",
            formula=lambda v, n=name, d=delta, way=way: v[n] + way * rate * v[f"Δ{d}"],
            erratum=erratum,
            note=_NOTES.get(erratum, ""),
        )
        for name, delta, way, erratum in _updates(sizes)
    ]
    if has_chain(sizes):
        found.append(Claim("∂L/∂w222, one example", formula=_chain))
    return found


def _updates(sizes):
    """(parameter, which Δ moves it, up or down) as the page's algorithm has it."""
    for _, index, name in _named(sizes, "w"):
        second = index == (0, 1, 0)
        before = f"w{_number(1, 1, 1)}"
        # The second of the printed updates: w112 ← w112 − η·Δw111.
        yield (name, before, -1, "E10") if second else (name, name, -1, "")
    for _, _, name in _named(sizes, "b"):
        yield name, name, 1, "E4"


def _chain(v: Mapping[str, float]) -> float:
    product = v["∂L/∂ŷ"] * v["∂ŷ/∂a31"] * v["∂a31/∂h22"]
    return product * v["∂h22/∂a22"] * v["∂a22/∂w222"]


def has_chain(sizes) -> bool:
    return len(sizes) == 4 and min(sizes[:3]) >= 2


def run(options: argparse.Namespace) -> Report:
    sizes, rate = options.sizes, options.learning_rate
    net = network(sizes)
    params = jax.jit(net.init)(jax.random.key(options.seed))
    stop = (rate, options.loss_below, options.epochs)
    manual = descend(net, params, *stop)
    auto = descend(net, params, *stop, gradient="auto")
    known, given = first_step(net, sizes, params, rate)
    if has_chain(sizes):
        known |= chain(net, params)
    known["epochs done"] = Witness(float(manual.epochs), float(auto.epochs))
    known["loss at the end"] = Witness(float(manual.losses[-1]), float(auto.losses[-1]))
    rows = tabulate("T11", known, claims(sizes, rate), given)
    figures = {"t11_loss": loss_figure(manual, auto, sizes, options.loss_below)}
    loss, title = _loss(net, X[EXAMPLE], Y[EXAMPLE]), "one example's loss at the start"
    systems = (System(title, loss, (_inputs(params),), _layers.numbered),)
    return Report(rows, figures, _text(manual, auto, options), systems)


def first_step(net, sizes, params, rate) -> tuple[dict[str, Witness], dict[str, float]]:
    """Δ and the value after one step down, for every w and b; and the parameters."""
    inputs = _inputs(params)
    slopes = measure(_loss(net, X, Y), inputs).cotangents
    known, given = {}, {}
    for key, index, name in (*_named(sizes, "w"), *_named(sizes, "b")):
        layer, at = f"{key}{index[0] + 1}", index[1:]
        known[f"Δ{name}"] = slopes[layer].at(*at)
        moved = _moved(inputs[layer], slopes[layer], rate)
        known[f"new {name}"] = moved.at(*at)
        given[name] = float(inputs[layer][at])
    order = sorted(known, key=lambda name: not name.startswith("Δ"))
    return {name: known[name] for name in order}, given


def chain(net, params) -> dict[str, Witness]:
    """The five factors of ∂L/∂w222, and itself, for one example."""
    links = (
        Link("a2", ops.dense, ("h1", "w2", "b2")),
        Link("h2", ops.sigmoid, ("a2",)),
        Link("a3", ops.dense, ("h2", "w3", "b3")),
        Link("yhat", ops.sigmoid, ("a3",)),
    )
    found = measure(_loss(net, X[EXAMPLE], Y[EXAMPLE]), _inputs(params), links)
    return {
        "∂L/∂w222, one example": found.cotangents["w2"].at(1, 1),
        "∂L/∂ŷ": found.cotangents["yhat"].at(0),
        "∂ŷ/∂a31": found.local["yhat", "a3"].at(0, 0),
        "∂a31/∂h22": found.local["a3", "h2"].at(0, 1),
        "∂h22/∂a22": found.local["h2", "a2"].at(1, 1),
        "∂a22/∂w222": found.local["a2", "w2"].at(1, 1, 1),
    }


def loss_figure(manual: Descent, auto: Descent, sizes, loss_below) -> "Figure":
    made, (axes,) = _curves.figure()
    curves = {"hand-written gradient": manual.losses, "autodiff": auto.losses}
    _curves.draw(axes, curves)
    axes.axhline(loss_below, color="0.4", lw=0.9, zorder=1, label=f"ε = {loss_below:g}")
    title = f"T11: XOR by a {'-'.join(map(str, sizes))} network"
    _curves.label(axes, title, "epoch", "mean binary cross-entropy")
    axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    return made


def _loss(net, x, y):
    def loss(v):
        layers = range(1, len(v) // 2 + 1)
        params = tuple({s: v[f"{s}{k}"] for s in "wb"} for k in layers)
        return net.loss(params, (jnp.asarray(x), jnp.asarray(y)))

    return loss


def _inputs(params) -> dict[str, np.ndarray]:
    return {f"{s}{k}": np.asarray(p[s]) for k, p in enumerate(params, 1) for s in p}


def _named(sizes, kind: str):
    """(kind, (layer, *place in the library's array), the page's name) of every element:
    w is (layer, unit, input) there and stored (in, out) here."""
    for layer, (before, units) in enumerate(itertools.pairwise(sizes)):
        for unit in range(units):
            if kind == "b":
                yield kind, (layer, unit), f"b{layer + 1}[{unit + 1}]"
                continue
            for i in range(before):
                name = f"w{_number(layer + 1, unit + 1, i + 1)}"
                yield kind, (layer, i, unit), name


def _number(*indices: int) -> str:
    return ("" if max(indices) < 10 else ",").join(map(str, indices))


def _moved(value: np.ndarray, slope: Found, rate: float) -> Found:
    if slope.numeric is None or slope.error is None:
        return Found(value - rate * slope.manual, value - rate * slope.auto)
    # An element is known no better than to half its last place.
    error = rate * slope.error + np.finfo(float).eps * np.abs(value)
    manual, auto, numeric = (value - rate * part for part in slope[:3])
    return Found(manual, auto, numeric, error)


def _text(manual: Descent, auto: Descent, options: argparse.Namespace) -> str:
    epochs = sorted({0, 1, 10, 100, 300, manual.epochs} & set(range(manual.epochs + 1)))
    lines = [("epochs done", "hand-written", "autodiff")]
    for k in epochs:
        there = f"{auto.losses[k]:.12g}" if k <= auto.epochs else "-"
        lines.append((f"{k}", f"{manual.losses[k]:.12g}", there))
    network, rate = "-".join(map(str, options.sizes)), f"{options.learning_rate:g}"
    title = f"mean binary cross-entropy, {network}, η = {rate}, seed {options.seed}"
    return f"{align(lines, title)}\n\nstopped: {manual.reason(options.loss_below)}."
