"""What a narrow dtype shows: its contract, overflow, and worse rounding."""

from collections.abc import Collection, Mapping

import jax.numpy as jnp
import numpy as np

from jaxbp.instrument._answers import AUTO, MANUAL, blocks, worst_at
from jaxbp.instrument._comparison import Finding
from jaxbp.instrument._judge import disagreement
from jaxbp.instrument._testimony import Testimony

_DIGITS = 16  # an error of one sixteenth of a value leaves no digit of it
_NOISE = 16  # times the noise of the float64 answer: no error that can be told
_TIMES = 8  # as inaccurate as autodiff, or as one unit in the last place


def in_low_precision(
    working: Testimony,
    exact: Testimony,
    surrogates: Collection[str],
    *,
    callers: bool = True,
    little: Mapping[str, float] | None = None,
) -> list[Finding]:
    """Findings in the working dtype, against float64 answers at the same point.

    `callers`: it is the dtype that the caller asked in; a rule that is written for that
    one may give the cotangents of others in it. `little`: by leaf, a gradient next to
    none.

    In units in the last place, against autodiff in float64: M is `less-accurate` when
    its largest error is over 8 times the larger of A's and one unit; it is `wrong`
    beyond the noise of its own rounding, or where that leaves no digit of the largest
    element, if A keeps one and it is more than `little`. Where the two are not one
    function (at a kink, where autodiff breaks) each is held against itself in float64.
    """
    working.let_go()  # while noise of the exact ones is measured
    errors = _errors(working, exact)  # first: it ends at probe 0, which is asked next
    found = working.value()
    for k, path in enumerate(working.paths):
        finding = working.broken_contract(k, callers)
        if finding is None and path in surrogates:
            finding = Finding("surrogate", path)
        finding = finding or _overflow(working, k, path)
        least = (little or {}).get(path, 0.0)
        found.append(finding or _accuracy(working, exact, k, path, least, *errors[k]))
    return found


def _errors(working, exact) -> np.ndarray:
    """By leaf, M's and A's largest error at every probe, in units in the last place."""
    count = len(working.probes)
    errors = np.zeros((len(working.paths), 2, count))
    for c in reversed(range(count)):
        for k in range(len(working.paths)):
            for side, truth in enumerate((_truth(exact, c, k), _auto(exact, c, k))):
                value = (working.manual, working.auto)[side][c].cotangents[k]
                errors[k, side, c] = _ulps(value, truth, working)
    return errors


def _truth(exact: Testimony, c: int, k: int) -> np.ndarray:
    """What M is held against: autodiff in float64, if they are one function there.

    Beyond M's own noise: autodiff's hides that it has lost what M keeps.
    """
    return (exact.manual, exact.auto)[_side(exact, c, k)][c].cotangents[k]


def _side(exact: Testimony, c: int, k: int) -> int:
    return MANUAL if k in exact.apart(c) else AUTO


def _auto(exact: Testimony, c: int, k: int) -> np.ndarray:
    return exact.auto[c].cotangents[k]


def _overflow(working, k, path) -> Finding | None:
    m, a = (p[0].cotangents[k] for p in (working.manual, working.auto))
    lost = ~np.isfinite(m) & np.isfinite(a)
    if not lost.any():
        return None
    worst = worst_at(m, a, int(np.argmax(np.where(lost, np.abs(a), -1.0))))
    message = f"in {m.dtype} not finite in {np.count_nonzero(lost)} elements"
    return Finding("wrong", path, "", worst, "overflow", message)


def _accuracy(working, exact, k, path, little, manual, auto) -> Finding:
    most = _TIMES * max(*auto, 1.0)
    if not max(manual) > most:
        return Finding("right", path)
    c = int(np.argmax(manual))
    m, a = (p[c].cotangents[k] for p in (working.manual, working.auto))
    truth = _truth(exact, c, k)
    (eps, tiny), sizes = _widest(m, working), np.abs(truth)
    with np.errstate(all="ignore"):
        off = np.abs(m.astype(truth.dtype) - truth)
        units = np.nan_to_num(off / (eps * np.maximum(sizes, tiny)), posinf=np.inf)
    # What is cast down inside is no nearer to the truth in float64; and below the
    # smallest normal number a dtype has no digits to be right in.
    least = _NOISE * exact.noise(c, _side(exact, c, k)).cotangents[k]
    told = off > np.maximum(least, tiny)
    if not told.any():
        return Finding("right", path)
    noise = np.maximum(working.noise(c, MANUAL).cotangents[k], tiny)
    beyond = disagreement(m.astype(truth.dtype), truth, working.unit, noise)
    with np.errstate(all="ignore"):  # where autodiff keeps no digit, none is asked for
        autos = np.abs(a.astype(truth.dtype) - truth)
        autos = np.where(np.isfinite(autos), autos, 0)  # overflow lets M off nothing
        lost = (autos > sizes / _DIGITS) | (autos.max() > sizes.max() / _DIGITS)
    beyond = np.where(lost, 0.0, beyond)
    lost |= not sizes.max() > little
    spoiled = np.where(lost, 0.0, off) > sizes.max() / _DIGITS
    beyond = np.where(spoiled, np.maximum(beyond, 1.0), beyond)
    units = np.where(beyond > 0 if beyond.any() else told, units, 0)
    if not (beyond.any() or units.max() > most):
        return Finding("right", path)
    worst = worst_at(m, a, int(np.argmax(units)))
    message = (
        f"in {m.dtype} off by {units.max():.3g} units in the last place, autodiff by "
        f"{max(auto):.3g}"
    )
    if beyond.any():
        message += ": more than rounding would be"
        return Finding("wrong", path, "", worst, "dtype", message)
    return Finding("less-accurate", path, "", worst, "", message)


def _ulps(value: np.ndarray, exact: np.ndarray, working: Testimony) -> float:
    """Largest error in units in the last place; of what is not finite, none.

    Of the place of the widest unit: of the value's dtype or the arguments'.
    """
    (eps, tiny), largest = _widest(value, working), 0.0
    for _, (some, truth) in blocks(value, exact):
        with np.errstate(all="ignore"):
            place = eps * np.maximum(np.abs(truth), tiny)
            ulps = np.abs(some.astype(exact.dtype) - truth) / place
        error = np.max(ulps, initial=0.0, where=np.isfinite(ulps))
        largest = max(largest, float(error))
    return largest


def _widest(value: np.ndarray, working: Testimony) -> tuple[float, float]:
    """Unit of roundoff and smallest normal number, the larger of value and leaves."""
    infos = [
        jnp.finfo(value.dtype),
        *(jnp.finfo(jnp.result_type(x)) for x in working.leaves),
    ]
    return max(float(i.eps) for i in infos), max(float(i.tiny) for i in infos)
