"""optax multiplies integers and floats: no strict promotion here."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _standard(_float64_and_strict):
    with jax.numpy_dtype_promotion("standard"):
        yield
