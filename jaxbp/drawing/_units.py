"""Differences on a scale of rounding."""

from typing import Any

import jax.numpy as jnp
import numpy as np

BEYOND_ROUNDING = 16  # units, which a right rule hardly exceeds


def units_between(manual: Any, auto: Any) -> float | None:
    """How far two arrays are apart, in units of rounding of the larger one's largest.

    None where either was not computed, or where both hold no numbers.
    """
    if manual is None or auto is None or not np.size(auto):
        return None
    manual, auto = np.asarray(manual), np.asarray(auto)
    if manual.shape != auto.shape:
        return float("inf")
    eps = float(jnp.finfo(auto.dtype).eps)
    wide = np.complex128 if np.iscomplexobj(auto) else np.float64
    m, a = manual.astype(wide), auto.astype(wide)
    same = (m == a) | (np.isnan(m) & np.isnan(a))
    with np.errstate(all="ignore"):
        gap = np.where(same, 0, np.abs(m - a)).max()
        scale = max(np.abs(m).max(), np.abs(a).max())
        units = gap / (eps * scale) if gap else 0.0
    return float("inf") if np.isnan(units) else float(units)
