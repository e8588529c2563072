"""What an equation computes and how it is pulled back, as a person would write it."""

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import Literal

from jaxbp import _jaxpr
from jaxbp.drawing._numbers import number, operand


class Formula(NamedTuple):
    """`value` is the output; of every input the local derivative, "" where it is no
    number (an array's that mixes elements), and the cotangent that it is given."""

    value: str
    local: tuple[str, ...]
    vjp: tuple[str, ...]


# {0}, {1} are the inputs, {y} is the output. Element by element: the value, and its
# derivative in every input.
_ELEMENTWISE: dict[str, tuple[str, ...]] = {
    "abs": ("|{0}|", "sign {0}"),
    "add": ("{0} + {1}", "1", "1"),
    "add_any": ("{0} + {1}", "1", "1"),
    "asin": ("arcsin {0}", "1/√(1 − {0}²)"),
    "atan": ("arctan {0}", "1/(1 + {0}²)"),
    "atan2": ("arctan({0}/{1})", "{1}/({0}² + {1}²)", "−{0}/({0}² + {1}²)"),
    "ceil": ("⌈{0}⌉", "0"),
    "clamp": ("clip {1} to [{0}, {2}]", "0", "1 inside, 0 outside", "0"),
    "convert_element_type": ("{0}", "1"),
    "copy": ("{0}", "1"),
    "cos": ("cos {0}", "−sin {0}"),
    "cosh": ("cosh {0}", "sinh {0}"),
    "div": ("{0} / {1}", "1/{1}", "−{y}/{1}"),
    "eq": ("{0} = {1}", "0", "0"),
    "erf": ("erf {0}", "2/√π · e^(−{0}²)"),
    "exp": ("e^{0}", "{y}"),
    "exp2": ("2^{0}", "{y} ln 2"),
    "expm1": ("e^{0} − 1", "{y} + 1"),
    "floor": ("⌊{0}⌋", "0"),
    "ge": ("{0} ≥ {1}", "0", "0"),
    "gt": ("{0} > {1}", "0", "0"),
    "le": ("{0} ≤ {1}", "0", "0"),
    "log": ("ln {0}", "1/{0}"),
    "log1p": ("ln(1 + {0})", "1/(1 + {0})"),
    "logistic": ("σ({0})", "{y}(1 − {y})"),
    "lt": ("{0} < {1}", "0", "0"),
    "max": ("max({0}, {1})", "1 where {0} > {1}{tie}", "1 where {1} > {0}{tie}"),
    "min": ("min({0}, {1})", "1 where {0} < {1}{tie}", "1 where {1} < {0}{tie}"),
    "mul": ("{0} · {1}", "{1}", "{0}"),
    "ne": ("{0} ≠ {1}", "0", "0"),
    "neg": ("−{0}", "−1"),
    "pow": ("{0}^{1}", "{1} · {y}/{0}", "{y} ln {0}"),
    "rsqrt": ("1/√{0}", "−{y}/(2{0})"),
    "sign": ("sign {0}", "0"),
    "sin": ("sin {0}", "cos {0}"),
    "sinh": ("sinh {0}", "cosh {0}"),
    "sqrt": ("√{0}", "1/(2{y})"),
    "square": ("{0}²", "2{0}"),
    "stop_gradient": ("{0}, held fixed", "0"),
    "sub": ("{0} − {1}", "1", "−1"),
    "tan": ("tan {0}", "1 + {y}²"),
    "tanh": ("tanh {0}", "1 − {y}²"),
}

# Linear maps, and others that mix elements: the value, and what is pulled back to
# every input from {b}, the output's cotangent.
_MIXING: dict[str, tuple[str, ...]] = {
    "abs of complex": ("|{0}|", "{b} · conj({0})/{y}"),
    "broadcast_in_dim": ("{0}, repeated", "Σ {b} over what was repeated"),
    "cumsum": ("running sum of {0}", "running sum of {b} from the end"),
    "cumsum from the end": ("running sum of {0} from the end", "running sum of {b}"),
    "gather": ("elements of {0} at {1}", "{b} added at {1}", "none: places"),
    "dynamic_slice": ("a piece of {0}", "{b} in its place, 0 elsewhere"),
    "pad": ("{0}, padded", "the piece of {b} that is {0}", "Σ {b} of the padding"),
    "reduce_max": ("max {0}", "{b} where {0} is the largest, shared at a tie"),
    "reduce_min": ("min {0}", "{b} where {0} is the smallest, shared at a tie"),
    "reduce_prod": ("Π {0}", "{b} · Π of the others"),
    "reduce_sum": ("Σ {0}", "{b} for every term"),
    "reshape": ("{0}, reshaped", "{b}, shaped back"),
    "rev": ("{0}, reversed", "{b}, reversed"),
    "slice": ("a piece of {0}", "{b} in its place, 0 elsewhere"),
    "sort": ("{0}, sorted", "{b}, in the old order"),
    "squeeze": ("{0}, squeezed", "{b}, shaped back"),
    "transpose": ("{0}, transposed", "{b}, transposed back"),
    "unstack": ("the rows of {0}", "the rows' cotangents, stacked"),
}

# Ops of this library whose primal is more than one equation.
_OPS: dict[str, tuple[str, ...]] = {
    "_binary_cross_entropy": (
        "−{1} ln {0} − (1 − {1}) ln(1 − {0})",
        "{b} · ({0} − {1})/({0}(1 − {0}))",
        "{b} · ln((1 − {0})/{0})",
    ),
    "_cross_entropy": ("−Σ {1} ln {0}", "−{b} · {1}/{0}", "−{b} · ln {0}"),
    "_dense": ("{0} {1} + {2}", "{b} {1}ᵀ", "{0}ᵀ {b}", "Σ {b} over examples"),
    "_half_squared_error": (
        "½ Σ({0} − {1})²",
        "{b} · ({0} − {1})",
        "{b} · ({1} − {0})",
    ),
    "_softmax": ("softmax {0}", "{y} · ({b} − Σ {b} · {y})"),
    "_softmax_cross_entropy": (
        "−Σ {1} ln softmax {0}",
        "{b} · (softmax({0}) Σ {1} − {1})",
        "−{b} · ln softmax {0}",
    ),
    "_squared_error": (
        "Σ({0} − {1})²",
        "{b} · 2({0} − {1})",
        "{b} · 2({1} − {0})",
    ),
}
_HOME = os.path.join(os.path.dirname(_jaxpr.__file__), "ops", "")


def formula(eqn: Any, names: Sequence[str], output: str, label: str = "") -> Formula:
    """The formula of one equation, its inputs and its output called by these names.

    A rule whose primal is one equation has that equation's. Another has its name in it,
    and is pulled back "by" it.
    """
    if eqn is None:
        return _written(label, names, output)
    if _jaxpr.is_rule(eqn):
        if label in _OPS and _is_ours(eqn):
            return _written(label, names, output)
        body, inputs = _jaxpr.primal(eqn)
        called = dict(zip(map(id, eqn.invars), names, strict=True))
        single = _single(body, [called[id(v)] for v in inputs], output)
        return single or _by_rule(label.removeprefix("_"), names)
    kind = eqn.primitive.name
    if kind == "dot_general":
        return _product(eqn, names, output)
    if kind == "select_n":
        return _choice(names, output)
    if kind == "integer_pow" and eqn.params["y"] != 2:
        return _power(eqn.params["y"], names, output)
    if kind == "abs" and eqn.invars[0].aval.dtype.kind == "c":
        kind = "abs of complex"
    if kind == "cumsum" and eqn.params["reverse"]:
        kind = "cumsum from the end"
    return _written("square" if kind == "integer_pow" else kind, names, output)


def bar(name: str) -> str:
    """What the house calls the cotangent of a wire."""
    return f"{name}_bar"


def _written(kind, names, output) -> Formula:
    if kind in _ELEMENTWISE:
        value, *local = (_filled(text, names, output) for text in _ELEMENTWISE[kind])
        local = ["1" if d == "1/1" else d for d in (local * len(names))[: len(names)]]
        return Formula(value, tuple(local), tuple(_times(output, d) for d in local))
    mixing = _MIXING.get(kind) or _OPS.get(kind, ())
    if len(mixing) > len(names):
        value, *vjp = (_filled(text, names, output) for text in mixing)
        return Formula(value, ("",) * len(names), tuple(vjp[: len(names)]))
    if kind in ("concatenate", "stack"):
        value = f"{', '.join(names)}, joined"
        vjp = tuple(f"the piece of {bar(output)} that is {name}" for name in names)
        return Formula(value, ("",) * len(names), vjp)
    return _by_rule(kind, names)


def _filled(text, names, output) -> str:
    parts = {"y": output, "b": bar(output), "tie": ", ½ at a tie"}
    return text.format(*names, *([""] * 3), **parts)


def _times(output: str, local: str) -> str:
    """Upstream times local."""
    if local in ("0", "1", "−1"):
        return {"0": "0", "1": bar(output), "−1": f"−{bar(output)}"}[local]
    outside = re.sub(r"\([^()]*\)", "", local)
    loose = local[0] == "−" or re.search(" [+−] | where | inside", outside)
    return f"{bar(output)} · ({local})" if loose else f"{bar(output)} · {local}"


def _by_rule(label, names) -> Formula:
    value = f"{label}({', '.join(names)})"
    return Formula(value, ("",) * len(names), (f"by {label}'s rule",) * len(names))


def _product(eqn, names, output) -> Formula:
    (contracting, batch), (a, b), y = eqn.params["dimension_numbers"], names, output
    ranks = [len(v.aval.shape) for v in eqn.invars]
    plain = contracting == ((ranks[0] - 1,), (0,)) and not batch[0] and ranks[1] <= 2
    if not plain:
        vjp = (f"{bar(y)} × {b}, contracted", f"{a} × {bar(y)}, contracted")
        return Formula(f"{a} × {b}, contracted", ("", ""), vjp)
    return Formula(f"{a} {b}", ("", ""), (f"{bar(y)} {b}ᵀ", f"{a}ᵀ {bar(y)}"))


def _power(n: int, names, output) -> Formula:
    local = f"{number(n)} · {_raised(names[0], n - 1)}"
    return Formula(_raised(names[0], n), (local,), (_times(output, local),))


def _raised(name: str, n: int) -> str:
    return f"{name}²" if n == 2 else f"{name}^{operand(n)}"


def _choice(names, output) -> Formula:
    which, *cases = names
    local = ("0", *(f"1 where {which} chooses it" for _ in cases))
    vjp = ("none: a choice", *(f"{bar(output)} where {which} chooses it",) * len(cases))
    return Formula(f"of {', '.join(cases)} the one that {which} chooses", local, vjp)


def _single(body, names, output) -> Formula | None:
    """The formula of a primal that is one equation of its arguments."""
    eqns = _jaxpr.live(body).eqns
    if len(eqns) != 1 or len(eqns[0].outvars) != 1 or _jaxpr.is_rule(eqns[0]):
        return None
    (eqn,) = eqns
    called = dict(zip(body.invars, names, strict=True))
    inner = [_constant(v) if isinstance(v, Literal) else called[v] for v in eqn.invars]
    if _jaxpr.is_call(eqn):
        return _single(next(_jaxpr.bodies(eqn)), inner, output)
    found = formula(eqn, inner, output)
    if found == _by_rule(eqn.primitive.name, inner):  # the rule says more than that
        return None

    def of(name: str, parts: Sequence[str]) -> list[str]:
        return [p for n, p in zip(inner, parts, strict=True) if n == name]

    local = tuple(_summed(of(name, found.local)) for name in names)
    vjp = tuple(_summed(of(name, found.vjp)) or "0" for name in names)
    vjp = tuple(_times(output, d) if d else v for d, v in zip(local, vjp, strict=True))
    return Formula(found.value, local, vjp)


def _summed(parts: Sequence[str]) -> str:
    if len(set(parts)) == 1:
        return parts[0] if len(parts) == 1 else f"{len(parts)} · {parts[0]}"
    return " + ".join(parts) if all(parts) else ""


def _is_ours(eqn: Any) -> bool:
    rule = _jaxpr.as_rule(eqn)
    return rule is not None and rule.source.startswith(_HOME)


def _constant(literal: Any) -> str:
    return number(np.asarray(literal.val).item())
