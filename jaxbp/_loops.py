"""Loops on Values: a scan unrolled, a while loop shown now and then."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import _interpret, _jaxpr
from jaxbp._steps import Step, Value, is_floating, or_zeros

# A scan whose unrolled body has at most so many equations is unrolled whole.
_UNROLLED = 2000
_ITERATIONS = 6  # that are shown of a longer one


class _Span(NamedTuple):
    """Iterations of a scan; one that is shown is run equation by equation."""

    start: int
    stop: int
    is_shown: bool


def unrolled_scan(recorder, eqn, ins, where, site) -> list[Value]:
    """The outputs of a scan, its iterations (of a long one some) shown one by one."""
    n_consts, n_carry = _interpret.scan_sizes(eqn)
    consts, carry = ins[:n_consts], ins[n_consts : n_consts + n_carry]
    body, length = eqn.params["jaxpr"], eqn.params["length"]
    spans = _pieces(length, _shown(length, unrolled_size(body), recorder.iteration))
    if eqn.params["reverse"]:  # by index along the leading axis, walked downwards
        spans = [_Span(length - b, length - a, shown) for a, b, shown in spans]
    xs = [
        _unstack(recorder.steps, x, spans, where, site)
        for x in ins[n_consts + n_carry :]
    ]
    rows = []
    for k, (start, stop, is_shown) in enumerate(spans):
        inside = [*consts, *carry, *(x[k] for x in xs)]
        if is_shown:
            outs = recorder.run(body, inside, (*where, f"scan[{start}]"), site)
        else:
            params = {**eqn.params, "length": stop - start, "unroll": 1}
            span = (*where, f"scan[{start}:{stop}]")
            outs = recorder.step(eqn.replace(params=params), inside, span, site)
        carry = outs[:n_carry]
        rows.append(outs[n_carry:])
    ys = zip(*rows, strict=True)
    return [*carry, *(_stack(recorder.steps, y, spans, where, site) for y in ys)]


def _unstack(steps, x, spans, where, site):
    outs = tuple(Value(piece, x.active) for piece in _cut(x.value, spans))

    def pull(bars):
        pairs = zip(bars, outs, strict=True)
        return [_join([or_zeros(b, o.value) for b, o in pairs], spans)]

    steps.append(Step("unstack", (x,), outs, site, where, pull=pull))
    return outs


def _stack(steps, rows, spans, where, site):
    joined = _join([row.value for row in rows], spans)
    out = Value(joined, any(row.active for row in rows))

    def pull(bars):
        return _cut(bars[0], spans)

    steps.append(Step("stack", tuple(rows), (out,), site, where, pull=pull))
    return out


def shown_while(recorder, eqn, ins, where, site) -> tuple[Value, ...]:
    """The outputs of a while loop, iterations 0, 1, 2, 4, … and the last shown."""
    params = eqn.params
    n_cond = params["cond_nconsts"]
    n = n_cond + params["body_nconsts"]
    values = [v.value for v in ins]
    go_on = jax.jit(lambda c: _jaxpr.evaluate(params["cond_jaxpr"], c)[0])
    body = params["body_jaxpr"]
    advance = jax.jit(lambda c: _jaxpr.evaluate(body, c))

    def show(k, carry):
        inside = [Value(x) for x in [*values[n_cond:n], *carry]]
        outs = recorder.run(body, inside, (*where, f"while[{k}]"), site)
        return [v.value for v in outs]

    carry, before, k, shown = values[n:], None, 0, True
    while (going := go_on([*values[:n_cond], *carry])).any():
        shown = k & (k - 1) == 0
        before = carry
        step = show(k, carry) if shown else advance([*values[n_cond:n], *carry])
        carry, k = _interpret.moved_on(going, step, carry), k + 1
    if not shown:
        show(k - 1, before)
    active = any(v.active for v in ins)
    outs = tuple(Value(x, active and is_floating(x)) for x in carry)
    note = "no cotangent goes back through a while loop" if active else ""
    recorder.steps.append(Step("while", tuple(ins), outs, site, where, eqn, note=note))
    return outs


def unrolled_size(jaxpr: Any) -> int:
    """Equations that a run of a jaxpr shows, loops multiplied out."""

    def of(eqn):
        if _jaxpr.as_rule(eqn):
            return 1
        inner = sum(map(unrolled_size, _jaxpr.bodies(eqn)))
        return max(1, inner * eqn.params.get("length", 1))

    return sum(map(of, jaxpr.eqns))


def _shown(length: int, size: int, iteration: int | None) -> Sequence[int]:
    """The iterations of a scan that are shown one by one."""
    if iteration is not None:
        return [min(max(iteration + length * (iteration < 0), 0), length - 1)]
    if length * size > _UNROLLED:
        return np.unique(np.linspace(0, length - 1, _ITERATIONS).astype(int)).tolist()
    return range(length)


def _pieces(length: int, shown: Sequence[int]) -> list[_Span]:
    """All iterations of a scan, those that are shown one by one."""
    pieces, end = [], 0
    for k in shown:
        pieces += [_Span(end, k, False)] if k > end else []
        pieces.append(_Span(k, k + 1, True))
        end = k + 1
    return pieces + ([_Span(end, length, False)] if end < length else [])


def _cut(x, spans):
    """The row of an array for a span that is shown, slices for the others."""
    return [
        # An index that is an array: a static slice would compile once per row.
        jax.lax.dynamic_index_in_dim(x, np.int32(a), keepdims=False)
        if is_shown
        else jax.lax.slice_in_dim(x, a, b)
        for a, b, is_shown in spans
    ]


def _join(pieces, spans):
    ordered = sorted(zip(spans, pieces, strict=True), key=lambda pair: pair[0])
    if all(span.is_shown for span in spans):
        return jnp.stack([piece for _, piece in ordered])
    rows = [jnp.asarray(p)[None] if s.is_shown else p for s, p in ordered]
    return jnp.concatenate(rows)
