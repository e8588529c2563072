"""train.fit: what a user gives it, keeps of it, and is told of it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxbp import train

X = np.random.default_rng(0).standard_normal((20, 3))
Y = np.random.default_rng(1).standard_normal((20, 1))
PARAMS = {"b": jnp.zeros(1), "w": jnp.ones((3, 1))}
SGD = optax.sgd(0.1)


def plain(params, batch):
    x, y = batch
    return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


def fit(loss=plain, params=PARAMS, data=(X, Y), optimizer=SGD, **options):
    options = {"on_log": lambda entry: None, "steps": 5} | options
    return train.fit(loss, params, data, optimizer, **options)


LABELS = {"b": "still", "w": "moved"}


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.masked(optax.set_to_zero(), {"b": True, "w": False}),
        optax.masked(optax.set_to_zero(), lambda p: {k: k == "b" for k in p}),
        optax.partition({"still": optax.set_to_zero(), "moved": SGD}, LABELS),
    ],
)
def test_an_optimiser_knows_the_parameters_by_name(optimizer):
    result = fit(optimizer=optax.chain(optimizer, SGD))
    assert result.params["b"] == 0
    assert (result.params["w"] != 1).all()


def test_the_optimiser_s_state_is_a_tree_like_the_parameters():
    params = PARAMS | {"count": 3}
    result = fit(params=params, optimizer=optax.adam(0.1))
    moments = result.opt_state[0].mu
    assert moments["count"] is None
    assert moments["w"].shape == (3, 1)
    assert result.params["count"] == 3


@pytest.mark.parametrize(
    "metrics",
    [
        lambda: {"n": 3, "rate": 0.1, "flag": True},
        lambda: {"n": jnp.asarray(3) * 1, "rate": jnp.where(True, 0.1, 0)},
    ],
)
def test_numbers_are_metrics_and_states(metrics):
    def loss(params, batch, *, state):
        return plain(params, batch), state * 0.5 + 1, metrics()

    result = fit(loss, has_state=True, state=0.0, log_every=1)
    assert result.state == 1.9375
    assert len(result.history) == 5
    assert all(entry["n"] == 3 for entry in result.history)


def test_parameters_that_evaluate_keeps_are_there_after_the_run():
    kept = []
    result = fit(steps=10, evaluate=(2, lambda params: kept.append(params) or {}))
    losses = [float(plain(params, (X, Y))) for params in kept]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 5
    np.testing.assert_array_equal(kept[-1]["w"], result.params["w"])


@pytest.mark.parametrize("name", ["loss", "step", "seconds"])
def test_no_figure_takes_the_place_of_an_entry_s_own(name):
    def loss(params, batch):
        return plain(params, batch), {name: 77.0}

    said = {"evaluate": (5, lambda params: {name: 78.0})}
    (*_, entry), (*_, alone) = fit(loss, **said).history, fit().history
    assert entry[f"metrics.{name}"] == 77
    assert entry[f"evaluate.{name}"] == 78
    assert entry["loss"] == alone["loss"]
    assert entry["step"] == 5


@pytest.mark.parametrize("log_every", [1, 200])  # 200: in blocks
@pytest.mark.parametrize("rate", [np.nan, np.inf])
def test_an_update_that_is_not_finite_changes_nothing(rate, log_every):
    rates = optax.sgd(lambda count: jnp.where(count < 37, 0.1, rate))
    result = fit(optimizer=rates, steps=400, log_every=log_every)
    expected = fit(steps=37)
    said = "not finite: params['b'] after step 37, by the optimizer's update"
    assert result.stopped_because.startswith(said)
    np.testing.assert_allclose(result.params["w"], expected.params["w"], rtol=1e-12)


def test_a_complex_parameter_goes_down():
    def loss(z, batch):
        return jnp.mean(jnp.abs(z["z"] - 1j * batch) ** 2) + 0 * z["x"].sum()

    params = {"x": jnp.zeros(2), "z": jnp.zeros((), complex)}
    result = fit(loss, params, np.ones(3), steps=100)
    assert abs(result.params["z"] - 1j) < 1e-6


@jax.custom_vjp
def norms(rows):
    return jnp.linalg.norm(rows, axis=-1)


norms.defvjp(
    lambda rows: (norms(rows), rows),
    # Of a row of zeros 0, where autodiff's is no number; of the others three times it.
    lambda rows, bar: (
        3 * bar[:, None] * rows / jnp.maximum(norms(rows), 1e-9)[:, None],
    ),
)


def test_both_judges_the_elements_in_which_autodiff_is_finite():
    loss = lambda params, batch: norms(params["w"]).sum() + 0 * batch.sum()
    params = {"w": jnp.ones((3, 2)).at[1].set(0.0)}
    result = fit(loss, params, np.ones(2), gradient="both")
    assert result.stopped_because.startswith("gradients differ at step 0: of params")


@jax.custom_vjp
def slanted(x, w, more):
    return jnp.tanh(x @ w)


def _slanted_bwd(res, bar):
    x, w, more = res
    return None, x.T @ (bar * (1 - jnp.tanh(x @ w) ** 2)) * (1 + more), None


slanted.defvjp(lambda x, w, more: (slanted(x, w, more), (x, w, more)), _slanted_bwd)


def test_a_difference_at_the_very_limit_stops_the_run():
    """It grows by less a step than two programs' roundings are apart."""
    x = np.random.default_rng(0).standard_normal((64, 8)).astype("f4")

    def loss(params, batch):
        return jnp.sum((slanted(batch[0], params["w"], batch[1]) - 1) ** 2)

    data = lambda step, key: (jnp.asarray(x), (step * 2e-7).astype("f4"))
    params = {"w": jnp.full((8, 4), 0.1, "f4")}
    given = loss, params, data, optax.sgd(0.0)
    result = fit(*given, steps=3000, gradient="both", log_every=100)
    assert result.stopped_because.startswith("gradients differ at step ")


def test_the_reproducer_has_all_that_the_loss_was_given():
    def loss(params, batch, *, key, state):
        x, drawn = batch
        noise = jax.random.normal(key) + jax.random.normal(drawn)
        y = slanted(x.astype("f4"), params["w"], jnp.float32(1))
        return jnp.sum(y) + 0 * noise, state + 1

    def data(step, key):
        return jnp.ones((4, 2), jnp.bfloat16) * 0.3, key

    params = {"w": jnp.full((2, 3), 0.1, "f4")}
    options = {"gradient": "both", "has_state": True, "state": jnp.float32(7)}
    result = fit(loss, params, data, **options)
    because = result.stopped_because
    assert because.startswith("gradients differ at step 0"), because
    saved = np.load(because.split("numpy.load('")[1].split("')")[0])
    assert set(saved) == {"params['w']", "batch[0]", "batch[1]", "state", "key"}
    assert saved["state"] == 7
    x = jnp.asarray(saved["batch[0]"], jnp.bfloat16)
    keys = (jax.random.wrap_key_data(saved[name]) for name in ("key", "batch[1]"))
    key, drawn = keys
    given = {"w": saved["params['w']"]}, (x, drawn)
    assert jnp.isfinite(loss(*given, key=key, state=saved["state"])[0])


def test_it_is_said_where_rounding_hides_a_mistake():
    narrow = jax.tree.map(lambda p: p.astype(jnp.bfloat16), (PARAMS, (X, Y)))
    zero = jnp.zeros((), jnp.bfloat16)

    def loss(params, batch):
        h = slanted(batch[0], params["w"], zero)
        return jnp.mean((slanted(h, params["b"][None], zero) - batch[1]) ** 2)

    params = narrow[0] | {"b": jnp.full((1,), 0.1, jnp.bfloat16)}
    with pytest.warns(RuntimeWarning, match="rounding alone explains half of"):
        fit(loss, params, narrow[1], gradient="both", steps=1)
    wide = jax.tree.map(lambda x: x.astype("f4"), (params, narrow[1]))
    zero = jnp.zeros((), "f4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(loss, *wide, gradient="both", steps=1)


class Loader:
    def __iter__(self):
        yield X, Y


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": Loader()}, "data to be arrays with one leading axis; got Loader: of"),
        ({"data": {"x": X, "y": "text"}}, "data['y'] to be arrays with one leading"),
        ({"data": lambda step: X}, "data to be a function of (step, key); got"),
        ({"loss": lambda params: 0.0}, "loss to be a function of (params, batch); got"),
        ({"loss": lambda p, b, rng: 0.0}, "loss to be a function of (params, batch);"),
        ({"has_state": True}, "loss to be a function of (params, batch, state=state)"),
        ({"loss": lambda p, b: None}, "the loss to be a real scalar; got None"),
        ({"loss": lambda p, b: [plain(p, b), {}]}, "the loss to be a real scalar; got"),
        (
            {"loss": lambda p, b: (plain(p, b), {"m": "text"})},
            "the loss's metrics['m'] to be an array or a number; got str 'text'",
        ),
        (
            {
                "loss": lambda p, b, state: (plain(p, b), {"m": state["m"][:2]}),
                "has_state": True,
                "state": {"m": jnp.ones(3, "f4")},
            },
            "state['m'] to be float32 (2,), which the loss returns for it; got float32",
        ),
        (
            {
                "loss": lambda p, b, state: (plain(p, b), {"m": 1.0}),
                "has_state": True,
                "state": 0.0,
            },
            "state to be the tree that the loss returns; got",
        ),
        ({"state": 1.0}, "state to be None; got float 1.0: give has_state=True"),
        ({"on_log": 3}, "on_log to be a function; got int 3"),
        ({"loss_below": "low"}, "loss_below to be a real number; got str 'low'"),
        ({"loss_below": np.nan}, "loss_below to be a real number; got float nan"),
        ({"steps": 10**12}, "steps to be an integer of at most 2,147,483,647; got"),
        ({"epochs": 2**31}, "epochs to be an integer of at most"),
        ({"seed": 2**40}, "seed to be an integer of at most 4,294,967,295; got"),
        ({"optimizer": optax.lbfgs()}, "optimizer to be one that takes the gradients"),
        ({"checkpoint": ""}, "checkpoint to be a folder or (every, folder); got str"),
        ({"resume": "yes"}, "resume to be True or False; got str 'yes'"),
    ],
)
def test_what_is_given_is_checked_before_the_first_step(given, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        fit(**given)
    assert str(caught.value).startswith(f"jaxbp.fit: expected {message}")


def test_a_loss_that_takes_anything_is_given_what_it_asks_for():
    def loss(*args, **others):
        return plain(*args, **others)

    assert fit(loss).stopped_because == "steps"
