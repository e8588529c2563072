"""What the losses share: each maps (*n, k) predictions and labels to (*n,).

A label is a number in the prediction's dtype (integer and boolean labels are cast) and
has a cotangent like any other input.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxbp._errors import as_floats, check_shapes
from jaxbp.ops._case import Case, normal, then
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike

Labels = Float[Array, "*n k"] | Int[Array, "*n k"] | Bool[Array, "*n k"]


def summed(x: jax.Array) -> jax.Array:
    """The sum over the last axis."""
    wide = accumulator(x.dtype)
    return x.sum(axis=-1, dtype=wide).astype(x.dtype)


def checked(function: str, prediction, labels) -> tuple[jax.Array, jax.Array]:
    """Prediction and labels as arrays of one shape and one floating dtype."""
    if jnp.issubdtype(jnp.result_type(labels), jnp.integer) or (
        jnp.result_type(labels) == np.bool_
    ):
        labels = jnp.asarray(labels).astype(jnp.result_type(prediction))
    prediction, labels = as_floats(function, prediction=prediction, labels=labels)
    expected = "prediction (*n, k), labels (*n, k)"
    check_shapes(function, expected, prediction=prediction, labels=labels)
    return alike(prediction, labels)


def loss_case(function, plain, domain, edge, source, residuals):
    """The shapes and regimes that every loss is asked at."""
    shapes = {
        "ordinary": ((5, 3), (5, 3)),
        "one example": ((4,), (4,)),
        "two leading axes": ((2, 3, 2), (2, 3, 2)),
        "one class": ((3, 1), (3, 1)),
        "empty batch": ((0, 3), (0, 3)),
    }
    inputs = {k: then(normal(*s), domain, jax.nn.sigmoid) for k, s in shapes.items()}
    cost = then(normal((8192, 1000), (8192, 1000)), domain, jax.nn.sigmoid)
    inputs["edge"] = edge
    return Case(function, plain, inputs, {"8192×1000": cost}, source, residuals)
