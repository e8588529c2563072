"""What an array evidently is, it stays: at every point that is generated."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbp._jaxpr import is_differentiable

MASK, SIMPLEX = "zeros and ones", "rows that sum to one"
_ALIKE = 1e-2  # a matrix of bfloat16 that is symmetric but for rounding
SYMMETRIC, SORTED = "a symmetric matrix", "rows in order"


def structure(x: np.ndarray) -> str:
    """What a floating array evidently is, "" where nothing tells.

    One number everywhere, as tests write it, is no symmetric matrix.
    """
    if not x.size:
        return ""
    if is_mask(x):
        return MASK
    if x.ndim and x.shape[-1] > 1 and _sums_to_one(x):
        return SIMPLEX
    if is_symmetric(x) and x.max() > x.min():
        return SYMMETRIC
    return SORTED if is_sorted(x) else ""


def structures(arrays: Sequence[np.ndarray]) -> list[str]:
    """Of several. One alone is in order as a test's way to write some numbers down."""
    alone = sum(x.ndim > 0 for x in arrays) < 2
    kinds = map(structure, arrays)
    return ["" if alone and kind == SORTED else kind for kind in kinds]


def keeping(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """New values with the structure of the old ones."""
    return as_it_was(structure(old), old, new)


def as_it_was(kind: str, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """New values with a structure that the old ones have."""
    if kind == MASK:
        return old
    if kind == SIMPLEX:
        weights = np.abs(np.nan_to_num(new)) + 1e-3
        return weights / weights.sum(axis=-1, keepdims=True)
    if kind == SYMMETRIC:
        return symmetric_part(new)
    return np.sort(new, axis=-1) if kind == SORTED else new


def knots(arrays: Sequence[np.ndarray]) -> list[bool]:
    """Which of several arrays hold numbers that rise, none equal: a table's places.

    One alone is as likely a test's way to write some numbers down.
    """
    if sum(x.ndim > 0 for x in arrays) < 2:
        return [False] * len(arrays)
    one = [x.ndim == 1 and is_sorted(x) for x in arrays]
    return [n and np.diff(x).min() > 0 for n, x in zip(one, arrays, strict=True)]


def apart(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Knots in the place of others, by steps that count beside theirs.

    And beside the numbers themselves, which float32 need not tell apart.
    """
    if not np.isfinite(new).all():
        return np.sort(new)
    step = max(np.diff(old).min() / 64, np.abs(new).max() / 2**20)
    ramp = step * np.arange(new.size)
    return np.maximum.accumulate(np.sort(new) - ramp) + ramp


def keeping_rows(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Rows of another length with the structure of the old ones, which they repeat.

    Of rows with a single one, as labels are, the first stays.
    """
    kind = structure(old)
    if kind == SORTED:
        return np.sort(new, axis=-1)
    if kind == SYMMETRIC and new.shape[-1] == new.shape[-2]:
        # Rows that repeat make it singular, and with a larger diagonal it is not.
        return symmetric_part(new) + np.abs(old).max() * np.eye(new.shape[-1])
    if kind == SIMPLEX:
        return new / new.sum(axis=-1, keepdims=True)
    if kind == MASK and is_one_hot(old):
        return np.eye(new.shape[-1])[new.argmax(axis=-1)]
    return new


def reads_one_triangle(x: np.ndarray, outputs: Callable[[np.ndarray], list]) -> bool:
    """Whether f, with these `outputs`, leaves one triangle of a symmetric x alone."""
    if not is_symmetric(x):
        return False
    before = outputs(x)
    ignored, little = [], np.full_like(x, np.abs(x).max(initial=0) / (4 * x.shape[-1]))
    for triangle in (np.tril(little, -1), np.triu(little, 1)):
        pairs = zip(before, outputs(x + triangle), strict=True)
        ignored.append(all(np.array_equal(*pair, equal_nan=True) for pair in pairs))
    return sum(ignored) == 1


def along_symmetric(manual: np.ndarray, auto: np.ndarray) -> np.ndarray:
    """A as symmetric as M is, for a function that reads one triangle.

    It is meant for symmetric matrices, and along them a gradient in one triangle is the
    same as half of it in either.
    """
    with np.errstate(all="ignore"):
        off = np.abs(manual - np.swapaxes(manual, -1, -2))
        alike = off.max() <= _ALIKE * np.abs(manual).max()
    return symmetric_part(auto) if alike else auto


def symmetric_part(x: np.ndarray) -> np.ndarray:
    return (x + np.swapaxes(x, -1, -2)) / 2


def summing_to_one(x: np.ndarray, unit: float) -> np.ndarray:
    """Probabilities of a narrow dtype as such: rows that only its rounding keeps off.

    A gradient that is right where they sum to one is held by those that do.
    """
    if not x.ndim or x.shape[-1] < 2 or not (x >= 0).all():
        return x
    total = x.sum(axis=-1, keepdims=True)
    off = np.abs(total - 1)
    near = (off <= unit * x.shape[-1]).all() and (total > 0).all()
    return x / total if off.any() and near else x


def keeping_data(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The same of integers: what is in order stays so, a permutation stays one.

    Parents stay before their children. From 0 up in order they are positions, which
    may well occur twice.
    """
    if is_permutation(old) and not is_sorted(old):
        return old[::-1]
    if points_back(old) and not is_sorted(old):
        before = np.maximum(np.arange(old.size) - 1, old[0])
        return np.minimum(new, before).astype(new.dtype)
    return keeping_order(old, new)


def keeping_permutation(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """A permutation of another length."""
    if not permutes(old):
        return new
    ranks = new + old.size * (np.arange(new.size) // old.size)
    return np.argsort(np.argsort(ranks)).astype(new.dtype)


def keeping_order(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.sort(new, axis=-1) if is_sorted(old) else new


def in_order(old: Sequence[np.ndarray], new: Sequence[np.ndarray]) -> list[np.ndarray]:
    """New values, scalars beside arrays in the order that they had: bounds, it seems.

    Where all are scalars they are what the function is about, and take any order.
    """
    new = list(new)
    scalars = [k for k, x in enumerate(old) if not x.ndim]
    if len(scalars) == len(old):
        return new
    values = sorted(new[k] for k in scalars)
    if len(set(map(float, values))) < len({float(old[k]) for k in scalars}):
        values = sorted(old[k] for k in scalars)  # bounds with nothing between them
    ranked = sorted(scalars, key=lambda k: float(old[k]))
    for k, value in zip(ranked, values, strict=True):
        new[k] = value
    return new


def is_real(leaf: Any) -> bool:
    return is_differentiable(leaf) and not jnp.iscomplexobj(leaf)


def is_mask(x: np.ndarray) -> bool:
    """Flags, or numbers among which there are zeros and ones and no others."""
    if x.dtype == bool:
        return x.ndim > 0
    return x.ndim > 0 and np.array_equal(np.unique(x), [0, 1])


def is_one_hot(x: np.ndarray) -> bool:
    return x.ndim > 0 and x.shape[-1] > 1 and bool((x.sum(axis=-1) == 1).all())


def is_symmetric(x: np.ndarray) -> bool:
    """Square matrices, each the same as its transpose."""
    square = x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1
    return square and np.array_equal(x, np.swapaxes(x, -1, -2))


def is_permutation(x: np.ndarray) -> bool:
    """Each of 0, 1, …, n - 1 once."""
    return x.ndim == 1 and np.array_equal(np.sort(x), np.arange(x.size))


def points_back(x: np.ndarray) -> bool:
    """Numbers below their own places, after a first 0 or -1: the parents of a tree."""
    if x.ndim != 1 or x.size < 5 or x[0] not in (0, -1):
        return False
    return bool((x[1:] < np.arange(1, x.size)).all())


def permutes(x: np.ndarray) -> bool:
    """A permutation of four or more: fewer labels are one by chance."""
    return x.size > 3 and is_permutation(x)


def is_sorted(x: np.ndarray) -> bool:
    """Rows of four or more that ascend, not all equal: fewer do so by chance."""
    if not x.ndim or x.shape[-1] < 4 or x.dtype == bool:
        return False
    with np.errstate(invalid="ignore"):  # a mask's infinities
        steps = np.diff(x, axis=-1)
    return bool((steps >= 0).all() and (steps > 0).any())


def within(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """New values within the range of the old ones."""
    return np.clip(new, old.min(), old.max()) if old.size else new


def fractions(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """New values in [0, 1] where all the old ones are: probabilities it seems."""
    inside = old.size and (old >= 0).all() and (old <= 1).all()
    return np.clip(new, 0, 1) if inside else new


def positive(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """New values that are positive where all the old ones are."""
    return np.abs(new) if old.size and (old > 0).all() else new


def _sums_to_one(x: Any) -> bool:
    # Loose on purpose: probabilities of bfloat16, eight bits, are probabilities too.
    return bool((x >= 0).all() and np.allclose(x.sum(axis=-1), 1, atol=1e-3))
