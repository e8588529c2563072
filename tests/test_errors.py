"""Messages are part of the interface: their texts are pinned."""

import jax.numpy as jnp
import pytest

from jaxbp import nets, ops


def _params(*shapes):
    return tuple({"w": jnp.ones(w), "b": jnp.ones(b)} for w, b in shapes)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (
            lambda: ops.dense(jnp.ones((8, 3)), jnp.ones((4, 2)), jnp.ones(2)),
            ValueError,
            "jaxbp.dense: expected x (*n, i), w (i, o), b (o,); got x (8, 3), "
            "w (4, 2), b (2,): x's last axis is 3, w's first is 4.",
        ),
        (
            lambda: ops.dense(jnp.ones(3), jnp.ones((3, 2)), jnp.ones((2, 2))),
            ValueError,
            "jaxbp.dense: expected x (*n, i), w (i, o), b (o,); got x (3,), "
            "w (3, 2), b (2, 2): b needs 1 axes, has 2.",
        ),
        (
            lambda: ops.add(jnp.ones(3), jnp.ones((3, 1))),
            ValueError,
            "jaxbp.add: expected x (*n), y (*n); got x (3,), y (3, 1): x's leading "
            "axes are (3,), y's are (3, 1).",
        ),
        (
            lambda: ops.softmax(1.0),
            ValueError,
            "jaxbp.softmax: expected x to be of shape (*n, k) with k at least 1; got "
            "shape ().",
        ),
        (
            lambda: ops.exp(jnp.arange(3)),
            TypeError,
            "jaxbp.exp: expected x to be floating-point numbers; got int64 (3,): cast "
            "it: jnp.asarray(x, dtype=float).",
        ),
        (
            lambda: ops.exp("x"),
            TypeError,
            "jaxbp.exp: expected x to be floating-point numbers; got str 'x': cast it: "
            "jnp.asarray(x, dtype=float).",
        ),
        (
            lambda: ops.multiply(jnp.ones(3), jnp.ones(3, jnp.float32)),
            TypeError,
            "jaxbp.multiply: expected x, y of one dtype; got x float64 (3,), y float32 "
            "(3,): cast them to one, a rule never changes dtype.",
        ),
        (
            lambda: ops.cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 2))),
            ValueError,
            "jaxbp.cross_entropy: expected prediction (*n, k), labels (*n, k); got "
            "prediction (2, 3), labels (2, 2): prediction's last axis is 3, labels's "
            "last is 2.",
        ),
        (
            lambda: nets.mlp((3, 0, 1)),
            ValueError,
            "jaxbp.mlp: expected sizes[1] to be at least 1; got 0.",
        ),
        (
            lambda: nets.mlp((3,)),
            ValueError,
            "jaxbp.mlp: expected sizes to be an input and an output length at least; "
            "got (3,).",
        ),
        (
            lambda: nets.mlp((3, 1.5)),  # pyright: ignore[reportArgumentType]
            TypeError,
            "jaxbp.mlp: expected sizes[1] to be an integer; got float 1.5.",
        ),
        (
            lambda: nets.mlp((3, 1), activation="sigmod"),
            ValueError,
            "jaxbp.mlp: expected activation to be one of identity, sigmoid, softmax; "
            "got sigmod.",
        ),
        (
            lambda: nets.mlp((3, 1)).loss(
                _params(((3, 1), (1,))), (jnp.ones((4, 2)), jnp.ones((4, 1)))
            ),
            ValueError,
            "jaxbp.mlp.loss: expected x (*n, 3), y (*n, 1); got x (4, 2), y (4, 1): "
            "x's last axis is 2, not 3.",
        ),
        (
            lambda: nets.mlp((3, 1)).loss(
                _params(((3, 1), (1,))), (jnp.ones((0, 3)), jnp.ones((0, 1)))
            ),
            ValueError,
            "jaxbp.mlp.loss: expected x to be a batch of at least one example; got "
            "shape (0, 3).",
        ),
        (
            lambda: nets.mlp((3, 2, 1)).forward(
                _params(((3, 1), (1,))), jnp.ones((4, 3))
            ),
            ValueError,
            "jaxbp.mlp.forward: expected params to be a tuple of 2 layers; got a tuple "
            "of 1.",
        ),
        (
            lambda: nets.mlp((3, 1)).forward({"w": 1}, jnp.ones((4, 3))),
            ValueError,
            "jaxbp.mlp.forward: expected params to be a tuple of 1 layers; got a dict.",
        ),
        (
            lambda: nets.mlp((3, 1)).forward(
                _params(((3, 1), (1,))), jnp.ones((4, 3), int)
            ),
            TypeError,
            "jaxbp.mlp.forward: params[0]: expected x to be floating-point numbers; "
            "got int64 (4, 3): cast it: jnp.asarray(x, dtype=float).",
        ),
        (
            lambda: nets.mlp((3, 1)).loss(_params(((3, 1), (1,))), jnp.ones((4, 3))),
            TypeError,
            "jaxbp.mlp.loss: expected batch to be a pair (x, y); got float64 (4, 3).",
        ),
        (
            lambda: nets.mlp(4),  # pyright: ignore[reportArgumentType]
            TypeError,
            "jaxbp.mlp: expected sizes to be a sequence of lengths; got int 4.",
        ),
        (
            lambda: ops.sigmoid(None),  # pyright: ignore[reportArgumentType]
            TypeError,
            "jaxbp.sigmoid: expected x to be floating-point numbers; got None: cast "
            "it: jnp.asarray(x, dtype=float).",
        ),
        (
            lambda: nets.mlp((3, 2, 1)).forward(
                _params(((3, 2), (2,)), ((1, 2), (1,))), jnp.ones((4, 3))
            ),
            ValueError,
            "jaxbp.mlp.forward: params[1]: expected w (2, 1), b (1,); got w (1, 2), "
            "b (1,): w's first axis is 1, not 2.",
        ),
    ],
)
def test_a_bad_argument_is_named_with_what_was_expected_and_came(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text
