"""Complex numbers as a numeric derivative moves them: by real and imaginary part.

Parts lie along a last axis of two; a real array is its own. With JAX's pairing, the
real part of the sum of y_bar dy, a cotangent c of z = x + iy holds the slopes
(d/dx, d/dy) = (Re c, -Im c).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def parts(values: Any) -> np.ndarray:
    """The numbers that are moved one by one."""
    values = np.asarray(values)
    if not np.iscomplexobj(values):
        return values
    return np.stack([values.real, values.imag], axis=-1)


def from_parts(moved: jax.Array, like: Any) -> jax.Array:
    """Back to what `parts` took, traceable."""
    if not jnp.iscomplexobj(like):
        return moved
    return jax.lax.complex(moved[..., 0], moved[..., 1])


def slopes(bar: np.ndarray) -> np.ndarray:
    """A cotangent as derivatives in the parts."""
    return parts(np.conj(bar))


def cotangent(derivatives: np.ndarray, like: Any) -> np.ndarray:
    """Back to what `slopes` took."""
    if not np.iscomplexobj(like):
        return derivatives
    return derivatives[..., 0] - 1j * derivatives[..., 1]


def parts_of(elements: np.ndarray, like: Any) -> np.ndarray:
    """Flat indices of the parts of elements, those of one side by side."""
    if not np.iscomplexobj(like):
        return elements
    return np.stack([2 * elements, 2 * elements + 1], axis=-1).ravel()
