"""What a narrow dtype shows: its contract, overflow, and worse rounding."""

from collections.abc import Collection

import jax.numpy as jnp
import numpy as np

from jaxbp.instrument._answers import blocks, worst_at
from jaxbp.instrument._comparison import Finding
from jaxbp.instrument._judge import disagreement
from jaxbp.instrument._testimony import Testimony

_TIMES = 8  # as inaccurate as autodiff, or as one unit in the last place


def in_low_precision(
    working: Testimony, exact: Testimony, surrogates: Collection[str]
) -> list[Finding]:
    """Findings in the working dtype, against float64 answers at the same point.

    In units in the last place, each against its own float64 answer: M is
    `less-accurate` when its largest error is over 8 times the larger of A's and one
    unit; beyond the noise of its own rounding it is `wrong`.
    """
    errors = _errors(working, exact)  # first: it ends at probe 0, which is asked next
    found = working.value()
    for k, path in enumerate(working.paths):
        finding = working.broken_contract(k, callers=True)
        if finding is None and path in surrogates:
            finding = Finding("surrogate", path)
        finding = finding or _overflow(working, k, path)
        found.append(finding or _accuracy(working, exact, k, path, *errors[k]))
    return found


def _errors(working, exact) -> np.ndarray:
    """By leaf, M's and A's largest error at every probe, in units in the last place.

    Each against itself in float64: at a kink the two choose differently.
    """
    count = len(working.probes)
    errors = np.zeros((len(working.paths), 2, count))
    for c in reversed(range(count)):
        for side in ("manual", "auto"):
            values, truth = getattr(working, side)[c], getattr(exact, side)[c]
            for k, value in enumerate(values.cotangents):
                errors[k, int(side == "auto"), c] = _ulps(value, truth.cotangents[k])
    return errors


def _overflow(working, k, path) -> Finding | None:
    m, a = (p[0].cotangents[k] for p in (working.manual, working.auto))
    lost = ~np.isfinite(m) & np.isfinite(a)
    if not lost.any():
        return None
    worst = worst_at(m, a, int(np.argmax(lost)))
    message = f"in {m.dtype} not finite in {np.count_nonzero(lost)} elements"
    return Finding("wrong", path, "", worst, "overflow", message)


def _accuracy(working, exact, k, path, manual, auto) -> Finding:
    if not max(manual) > _TIMES * max(*auto, 1.0):
        return Finding("right", path)
    c = int(np.argmax(manual))
    m, a = (p[c].cotangents[k] for p in (working.manual, working.auto))
    truth = exact.manual[c].cotangents[k]
    noise = working.noise(c)[0].cotangents[k]
    beyond = disagreement(m.astype(truth.dtype), truth, working.unit, noise)
    with np.errstate(all="ignore"):
        element = int(np.argmax(np.nan_to_num(np.abs(m - truth))))
    worst = worst_at(m, a, element)
    message = (
        f"in {m.dtype} off by {max(manual):.3g} units in the last place, autodiff by "
        f"{max(auto):.3g}"
    )
    if beyond.any():
        return Finding("wrong", path, "", worst, "dtype", f"{message}: no rounding")
    return Finding("less-accurate", path, "", worst, "", message)


def _ulps(value: np.ndarray, exact: np.ndarray) -> float:
    """Largest error in units in the last place; of what is not finite, none."""
    info, largest = jnp.finfo(value.dtype), 0.0
    for _, (some, truth) in blocks(value, exact):
        with np.errstate(all="ignore"):
            unit = info.eps * np.maximum(np.abs(truth), float(info.tiny))
            ulps = np.abs(some.astype(exact.dtype) - truth) / unit
        error = np.max(ulps, initial=0.0, where=np.isfinite(ulps))
        largest = max(largest, float(error))
    return largest
