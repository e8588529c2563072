"""The convolutional network: shapes, any leading axes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import nets
from tests.nets.networks import NETWORKS
from tests.nets.planted import gradients

NET = nets.cnn((5, 4, 2), 3, channels=(2, 3), hidden=(4,), window=3)
PARAMS, (X, Y) = NETWORKS["images"].args


def test_by_default_it_is_le_net_in_size():
    net = nets.cnn()
    params = jax.eval_shape(net.init, jax.random.key(0))
    shapes = {name: layer["w"].shape for name, layer in params.items()}
    assert shapes == {
        "conv1": (5, 5, 1, 6),
        "conv2": (5, 5, 6, 16),
        "dense1": (7 * 7 * 16, 120),
        "dense2": (120, 84),
        "dense3": (84, 10),
    }
    images = jax.ShapeDtypeStruct((2, 3, 28, 28, 1), jnp.zeros(()).dtype)
    assert jax.eval_shape(net.forward, params, images).shape == (2, 3, 10)


def test_leading_axes_are_examples():
    flat = gradients(lambda p: NET.loss(p, (X, Y)), PARAMS)
    one = gradients(lambda p: NET.loss(p, (X[:, None], Y[:, None])), PARAMS)
    # Sums of a few dozen terms, in another order.
    for leaf, bar in flat.items():
        assert np.abs(one[leaf] - bar).max() <= 100 * 2.3e-16 * np.abs(bar).max()


def test_the_chain_can_be_called_without_jax_grad():
    value, res = NET.loss_fwd(PARAMS, X, Y)
    params_bar, x_bar, y_bar = NET.loss_bwd(res, jnp.ones_like(value))
    assert jax.tree.structure(params_bar) == jax.tree.structure(PARAMS)
    assert x_bar.shape == X.shape
    assert y_bar is None


def test_init_is_he_s():
    params = nets.cnn(hidden=(500,)).init(jax.random.key(0))
    for name, expected in (("dense1", 2 / 784), ("dense2", 1 / 500)):
        # Of 5,000 draws at least the variance is within 10 % by five of its own.
        assert abs(params[name]["w"].var() / expected - 1) <= 0.1
        assert not params[name]["b"].any()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: nets.cnn((28, 28)),
            ValueError,
            ": expected image to be height, width and channels; got (28, 28).",
        ),
        (
            lambda: nets.cnn((3, 8, 1)),
            ValueError,
            ": expected image to be at least 4 high and wide; got (3, 8, 1).",
        ),
        (
            lambda: nets.cnn(channels=6),
            TypeError,
            ": expected channels to be a sequence of lengths; got int 6.",
        ),
        (
            lambda: nets.cnn(channels=(6, 0)),
            ValueError,
            ": expected channels[1] to be at least 1; got 0.",
        ),
        (
            lambda: NET.loss(PARAMS, (X[:, :4], Y)),
            ValueError,
            ".loss: expected x (*n, 5, 4, 2); got x (3, 4, 4, 2): x's first axis is 4, "
            "not 5.",
        ),
        (
            lambda: NET.loss(PARAMS, (X, Y[:2])),
            ValueError,
            ".loss: expected x (*n, 5, 4, 2), y (*n); got x (3, 5, 4, 2), y (2,): x's "
            "leading axes are (3,), y's are (2,).",
        ),
        (
            lambda: NET.loss(PARAMS, (X, Y.astype(float))),
            TypeError,
            ".loss: expected y to be integers; got float64 (3,).",
        ),
        (
            lambda: NET.forward(PARAMS, X.astype("float32")),
            TypeError,
            ".forward: expected x, params of one dtype; got x float32 (3, 5, 4, 2), "
            "params float64 (4,): cast them to one, a rule never changes dtype.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, text):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == f"jaxbp.cnn{text}"
