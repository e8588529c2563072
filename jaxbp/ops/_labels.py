"""What the losses share: each maps (*n, k) predictions and labels to (*n,).

A dense label is a number in the prediction's dtype (integer and boolean labels are
cast) and has a cotangent like any other input. A class is an integer, which has none.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxbp._errors import argument_error, as_floats, check_shapes, describe
from jaxbp.ops._case import Case, normal, then
from jaxbp.ops._chunks import over_rows
from jaxbp.ops._dtypes import accumulator
from jaxbp.ops._sharding import alike

Labels = Float[Array, "*n k"] | Int[Array, "*n k"] | Bool[Array, "*n k"]


def summed(x: jax.Array) -> jax.Array:
    """The sum over the last axis."""
    wide = accumulator(x.dtype)
    return x.sum(axis=-1, dtype=wide).astype(x.dtype)


def summed_rows(elementwise, *arrays: jax.Array) -> jax.Array:
    """The sum over the last axis of a function of the arrays' elements."""

    def step(carry, rows):
        return carry, summed(elementwise(*rows))

    return over_rows(step, (), arrays)[1]


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


def check_classes(function: str, labels) -> jax.Array:
    """Labels as an array of integers.

    Raises:
        TypeError: of another dtype.
    """
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise argument_error(
            function,
            "labels",
            "classes, as integers",
            describe(labels),
            "for weights of the classes use softmax_cross_entropy",
            kind=TypeError,
        )
    return jnp.asarray(labels)


class ClassLoss(NamedTuple):
    """-ln softmax(z)_t of each row of logits z, and what its gradient needs.

    The log-sum-exp is kept in two parts, the largest logit and the logarithm of the sum
    of e^(z - largest): their sum would round off what the differences hold.
    """

    loss: jax.Array
    largest: jax.Array
    log_sum: jax.Array


def class_loss(logits: jax.Array, classes: jax.Array) -> ClassLoss:
    """The losses of integer classes, accurate also where they are nearly 0.

    A class outside [0, k) gives NaN.
    """
    k = logits.shape[-1]
    largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    # Negative indices would count from the end.
    index = jnp.where(classes < 0, k, classes)[..., None]
    chosen = jnp.take_along_axis(
        logits, index, axis=-1, mode="fill", fill_value=jnp.nan
    )
    others = _others(logits, classes, largest)
    # The sum is 1 + a rest that may be far below 1: log1p sees it, log would not.
    rest = others.sum(axis=-1, keepdims=True) + jnp.expm1(chosen - largest)
    log_sum = jnp.log1p(rest)
    loss = (largest - chosen) + log_sum
    return ClassLoss(loss[..., 0], largest[..., 0], log_sum[..., 0])


def class_loss_gradient(
    logits: jax.Array, classes: jax.Array, of: ClassLoss
) -> jax.Array:
    """The softmax less 1 at the class, which is expm1(-loss): no difference near 0."""
    y = (
        _others(logits, classes, of.largest[..., None])
        * jnp.exp(-of.log_sum)[..., None]
    )
    return jnp.where(_at(logits, classes), jnp.expm1(-of.loss)[..., None], y)


def _at(logits, classes):
    return classes[..., None] == jnp.arange(logits.shape[-1], dtype=classes.dtype)


def _others(logits, classes, largest):
    """e^(z - largest) of the other classes: written once, so that one jit over both
    passes computes it once."""
    return jnp.where(_at(logits, classes), 0, jnp.exp(logits - largest))


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
