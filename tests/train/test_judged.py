"""train.fit: gradients that differ, and numbers that are none, stop a run by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxbp import train
from tests.train.bent import bent


def fit(*args, **options):
    return train.fit(*args, **{"on_log": lambda entry: None} | options)


def test_both_stops_where_the_rule_is_wrong_and_saves_the_step():
    def loss(params, batch):
        return jnp.mean((bent(params["w"] * batch) - 1.2 * batch) ** 2)

    params = {"b": jnp.zeros(2), "w": jnp.float32(0.2)}
    batch = jnp.linspace(0, 1, 8, dtype="f4")
    result = fit(loss, params, batch, optax.sgd(0.1), steps=1000, gradient="both")
    because = result.stopped_because
    assert because.startswith("gradients differ at step "), because
    assert "params['w']" in because
    assert float(result.params["w"]) > 1.02
    saved = np.load(because.split("numpy.load('")[1].split("')")[0])
    np.testing.assert_array_equal(saved["batch"], batch)
    assert saved["params['w']"] == result.params["w"]
    # The hand-written one alone does not notice.
    alone = fit(loss, params, batch, optax.sgd(0.1), steps=1000)
    assert alone.stopped_because == "steps"


@pytest.mark.parametrize(
    ("f", "said"),
    [
        (lambda p: jnp.sqrt(p), "the loss is nan at step 5, made by sqrt at "),
        (
            lambda p: jnp.where(p > 0, jnp.sqrt(jnp.maximum(p, 0)), 1),
            "the gradient of params['w'] at step 5, made by the backward pass of sqrt",
        ),
    ],
)
def test_what_is_not_finite_is_named_and_the_last_good_state_kept(f, said):
    def loss(params, batch):
        return f(params["w"]).sum() + 0 * batch.sum()

    def down(updates, state, params=None):
        return jax.tree.map(lambda u: -0.125 * jnp.ones_like(u), updates), state

    optimizer = optax.GradientTransformation(lambda params: (), down)
    params = {"w": jnp.full((2,), 0.625 if "gradient" in said else 0.5625)}
    result = fit(loss, params, jnp.ones(3), optimizer, steps=100, log_every=50)
    assert result.stopped_because.startswith(f"not finite: {said}"), result
    assert __file__ in result.stopped_because
    assert jnp.isfinite(result.params["w"]).all()
