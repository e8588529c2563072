"""Three witnesses for every wire, local derivative, gradient and update of a system."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._rows import Witness
from jaxbp import autodiff
from jaxbp._tape import tap, wires
from jaxbp.instrument import numeric_gradient

Inputs = Mapping[str, Any]
System = Callable[[Any], Any]


class Link(NamedTuple):
    """One step of a chain: the wire it makes, by which op, from which wires."""

    output: str
    op: Callable[..., jax.Array]
    inputs: tuple[str, ...]


class Found(NamedTuple):
    """An array by its witnesses; a local Jacobian has the output's axes first.

    `numeric` and its `error` are None for a forward value.
    """

    manual: Any
    auto: Any
    numeric: Any = None
    error: Any = None

    def at(self, *index: int) -> Witness:
        """One element. Without an index, of an array of one element."""
        pick = lambda a: None if a is None else float(a[index] if index else a.item())
        scale = float(np.max(np.abs(self.manual)))
        manual, auto, numeric, error = map(pick, self)
        assert manual is not None
        return Witness(manual, auto, numeric, error, scale)

    def element(self, *index: int) -> "Found":
        return Found(*(None if part is None else part[index] for part in self))


class Measured(NamedTuple):
    """What is found of a system: `total` and every wire's value, the cotangent of every
    wire and input, and the local derivative of every link, by (output, input)."""

    total: Found
    values: dict[str, Found]
    cotangents: dict[str, Found]
    local: dict[tuple[str, str], Found]


def sigma(x: float) -> float:
    """The logistic function, as the pages write it."""
    return 1 / (1 + math.exp(-x))


def measure(f: System, inputs: Inputs, links: Sequence[Link] = ()) -> Measured:
    """Everything about a scalar `f(inputs)`, by one compiled program and one ladder.

    Manual are the `_bar` wires of the hand-written chain, and its gradient; auto the
    taps of the twin; numeric are secants of the tapped twin. A link's local derivative
    is by its op's rule, by the op's twin, by secants of the op.
    """
    inputs = {name: jnp.asarray(value, float) for name, value in inputs.items()}
    manual, auto = jax.tree.map(np.asarray, _exact(f, links)(inputs))
    sides = (manual, auto, *_numeric(f, inputs, links, manual["values"]))

    def found(kind: str) -> dict[Any, Found]:
        parts = [side[kind] for side in sides if kind in side]
        return {name: Found(*(part[name] for part in parts)) for name in manual[kind]}

    total = Found(manual["total"], auto["total"])
    return Measured(total, found("values"), found("cotangents"), found("local"))


def multiply(factors: Iterable[Found]) -> Found:
    """The product of elements, by each witness; relative errors add up."""
    factors = list(factors)
    manual, auto = (math.prod(f[k] for f in factors) for k in (0, 1))
    numeric = math.prod(f.numeric for f in factors)
    relative = sum(f.error / abs(f.numeric) for f in factors if np.all(f.numeric))
    floor = len(factors) * np.finfo(float).eps
    return Found(manual, auto, numeric, abs(numeric) * (relative + floor))


def ascend(f: System, inputs: Inputs, found: Measured, rate: float) -> Found:
    """f after one step p + rate ∂f/∂p in every input, by each witness's gradient."""
    kinds = ("manual", "auto", "numeric")
    moved = [
        {
            name: jnp.asarray(p + rate * getattr(found.cotangents[name], kind))
            for name, p in inputs.items()
        }
        for kind in kinds
    ]
    by_hand, twin = jax.jit(f), jax.jit(autodiff(f))
    functions = (by_hand, twin, by_hand)
    manual, auto, numeric = (
        np.asarray(g(at)) for g, at in zip(functions, moved, strict=True)
    )
    slopes = [found.cotangents[name] for name in inputs]
    error = rate * sum(np.sum(abs(g.numeric) * g.error) for g in slopes)
    return Found(manual, auto, numeric, error + np.finfo(float).eps * abs(manual))


def witnesses(
    found: Measured, output: str, at: tuple[int, ...] = ()
) -> dict[str, Witness]:
    """Values, gradients and local derivatives of a system of scalars, by name.

    The local derivative of a link into the output is that of the whole: one row.
    """
    rows = {name: value.at(*at) for name, value in found.values.items()}
    for name, cotangent in found.cotangents.items():
        rows[f"∂{output}/∂{name}"] = cotangent.at(*at)
    for (wire, source), local in found.local.items():
        if wire != output:
            rows[f"∂{wire}/∂{source}"] = local.at(*at, *at)
    return rows


def link_table(found: Measured, output: str, links: Iterable[Link]) -> str:
    """The links from the output back: upstream × local = downstream."""
    lines = [("link", "upstream", "× local", "= downstream")]
    for link in reversed(list(links)):
        for source in link.inputs:
            up = found.cotangents[link.output].at().manual
            local = found.local[link.output, source].at().manual
            name = f"{source} → {link.output} ({link.op.__name__})"
            lines.append((name, f"{up:.7g}", f"{local:.7g}", f"{up * local:.7g}"))
    return align(lines, f"every link, from {output} back")


def align(lines: Sequence[Sequence[str]], title: str) -> str:
    """A plain table for `Report.text`: the first line is the head, the rest right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([title, *("  " + row for row in rows)])


def _exact(f: System, links: Sequence[Link]) -> Callable[[Inputs], tuple[dict, dict]]:
    """One compiled program: what the rules and what autodiff say."""

    def local(values, of):
        return {
            (link.output, source): derivative
            for link in links
            for source, derivative in zip(
                link.inputs,
                jax.jacrev(of(link.op), tuple(range(len(link.inputs))))(
                    *(values[name] for name in link.inputs)
                ),
                strict=True,
            )
        }

    @jax.jit
    def exact(inputs):
        total, gradient = jax.value_and_grad(f)(inputs)
        met = wires(jax.grad(f), inputs)
        values = {name: v for name, v in met.items() if not name.endswith("_bar")}
        bars = {name: met[f"{name}_bar"] for name in values} | gradient
        by_hand = {"total": total, "values": values, "cotangents": bars}
        by_hand["local"] = local({**inputs, **values}, lambda op: op)

        taps = jax.tree.map(jnp.zeros_like, values)
        both = jax.value_and_grad(tap(autodiff(f)), (0, 1))
        total, (bars, gradient) = both(taps, inputs)
        values = wires(autodiff(f), inputs)
        twin = {"total": total, "values": values, "cotangents": bars | gradient}
        twin["local"] = local({**inputs, **values}, autodiff)
        return by_hand, twin

    return exact


def _numeric(f: System, inputs: Inputs, links: Sequence[Link], values) -> tuple:
    """Secants of the tapped twin, and of every link's op at copies of its inputs.

    Of a link with n outputs there are n copies of its inputs, the i-th for output i.
    All are terms of one sum: none has a part in the derivative of another's argument.
    """
    taps = {name: np.zeros_like(value) for name, value in values.items()}
    known = {**inputs, **values}
    copies = {}
    for link in links:
        count = np.size(values[link.output]) if link.output in values else 1
        for source in link.inputs:
            copies[link.output, source] = np.stack([known[source]] * count)
    tapped = tap(autodiff(f))

    def everything(taps, inputs, copies):
        total = tapped(taps, inputs)
        for link in links:
            args = [copies[link.output, source] for source in link.inputs]
            outputs = jax.vmap(link.op)(*args)
            total += jnp.trace(jnp.reshape(outputs, (len(outputs), -1)))
        return total

    def sorted_out(parts):
        taps, inputs, copies = parts
        shapes = {
            (w, s): np.shape(values.get(w, 0.0)) + np.shape(known[s]) for w, s in copies
        }
        local = {key: copies[key].reshape(shape) for key, shape in shapes.items()}
        return {"cotangents": {**taps, **inputs}, "local": local}

    gradient, error = numeric_gradient(everything, taps, dict(inputs), copies)
    return sorted_out(gradient), sorted_out(error)
