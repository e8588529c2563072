"""Numbers and arrays in few letters."""

import math
from typing import Any

import numpy as np

_LISTED = 4  # elements up to which a vector is shown whole
MISSING = "–"  # what was not computed; never 0


def number(value: Any, digits: int = 7) -> str:
    """One number; a minus sign, not a hyphen."""
    if value is None:
        return MISSING
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (complex, np.complexfloating)):
        sign = "+" if value.imag >= 0 or math.isnan(value.imag) else "−"
        return f"{number(value.real, 4)} {sign} {number(abs(value.imag), 4)}i"
    if isinstance(value, (int, np.integer)):
        return str(int(value)).replace("-", "−")
    return f"{float(value) + 0.0:.{digits}g}".replace("-", "−")


def operand(value: Any) -> str:
    """A number in a product: a negative one in brackets."""
    text = number(value)
    return f"({text})" if text.startswith("−") else text


def summary(value: Any, digits: int = 4) -> str:
    """A scalar as its number, an array by root mean square and range."""
    if value is None:
        return MISSING
    if not isinstance(value, np.ndarray):  # a key
        return str(value.dtype)
    if value.ndim == 0:
        return number(value.item(), digits + 3)
    shape = "×".join(map(str, value.shape))
    if not value.size:
        return f"{shape}, empty"
    if not is_numeric(value):
        return f"{value.dtype} {shape}"
    if value.ndim == 1 and value.size <= _LISTED:
        return f"[{', '.join(number(x, digits) for x in value.tolist())}]"
    low, high = (number(x, digits) for x in spread(value))
    return f"{shape}, rms {number(rms(value), digits)}, {low} … {high}"


def is_numeric(array: np.ndarray) -> bool:
    return array.dtype.kind in "biufcV" and array.dtype.names is None


def widened(value: Any) -> np.ndarray:
    """Real numbers in a dtype that NumPy computes in; of complex ones magnitudes."""
    array = np.asarray(value)
    if np.iscomplexobj(array):
        return np.abs(array)
    return array.astype(np.float64)


def rms(array: Any) -> float:
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.mean(np.square(widened(array)))))


def spread(array: Any) -> tuple[float, float]:
    wide = widened(array)
    return float(wide.min()), float(wide.max())
