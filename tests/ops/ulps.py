"""Errors in units in the last place."""

import numpy as np


def ulps(actual, exact) -> float:
    """Largest error of `actual`, in units of `exact`'s last place in actual's dtype.

    Below the normal numbers a unit is the smallest normal number's: CPUs flush there.
    """
    actual = np.asarray(actual)
    exact = np.asarray(exact, np.longdouble)
    size = np.maximum(np.abs(exact), np.finfo(actual.dtype).tiny)
    unit = np.spacing(size.astype(actual.dtype)).astype(np.longdouble)
    return float(np.max(np.abs(actual - exact) / unit, initial=0.0))
