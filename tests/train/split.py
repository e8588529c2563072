"""fit over meshes of eight devices, held against fit on one.

Run by the test beside it, in a process that has the eight. Prints by name of the check
what is wrong, as JSON.
"""

import functools
import json
import os
import sys
import tempfile

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxbp import nets, train
from jaxbp.train import _mesh
from tests import unoptimised
from tests.train.bent import bent
from tests.train.rounding import difference, spread

jax.config.update("jax_enable_x64", True)
NET = nets.mlp((6, 16, 4), output="softmax", loss="softmax_cross_entropy")
LINE = jax.make_mesh((8,), ("batch",))  # of explicit axes, as JAX makes them
PLANE = jax.make_mesh((2, 4), ("batch", "model"))
# The first layer's units, which the second layer's products sum over.
UNITS = ({"w": P(None, "model"), "b": P("model")}, {"w": P("model"), "b": P()})


def params_on(mesh):
    params = jax.tree.map(lambda x: x.astype(float), NET.init(jax.random.key(0)))
    if mesh is not PLANE:
        return params
    put = lambda x, spec: jax.device_put(x, NamedSharding(PLANE, spec))
    return jax.tree.map(put, params, UNITS)


def made(step, key, rows=16):
    x = jax.random.normal(jax.random.fold_in(key, step), (rows, 6), float)
    return x, jax.nn.one_hot(jnp.arange(rows) % 4, 4, dtype=float)


DATA = made(0, jax.random.key(1), 48)
ROUTES = {
    "all rows": {"data": DATA},
    "minibatches": {"data": DATA, "batch_size": 16},
    "made": {"data": made},
}


def run(mesh=None, *, data=DATA, loss=NET.loss, **options):
    options = {"on_log": lambda entry: None, "steps": 20} | options
    sgd = optax.sgd(0.3, momentum=0.9)
    return train.fit(loss, params_on(mesh), data, sgd, mesh=mesh, **options)


@functools.cache
def on_one_device(route):
    return spread(NET.loss, lambda loss: run(loss=loss, **ROUTES[route]).params)


def same(mesh, route, gradient):
    found = run(mesh, gradient=gradient, **ROUTES[route])
    assert found.stopped_because == "steps", found.stopped_because
    return difference(found.params, *on_one_device(route))


@jax.custom_vjp
def summed_twice(x):
    return x


summed_twice.defvjp(lambda x: (x, None), lambda res, x_bar: (8 * x_bar,))


@jax.custom_vjp
def nearly(x):
    return x


nearly.defvjp(lambda x: (x, None), lambda res, x_bar: (x_bar * (1 + 1e-12),))

PLANTED = {
    "summed twice": lambda params, batch: summed_twice(NET.loss(params, batch)),
    "not summed": lambda params, batch: NET.loss(
        params, jax.tree.map(lambda x: x[: len(x) // 8], batch)
    ),
    "off by more than rounding": lambda params, batch: nearly(NET.loss(params, batch)),
}


def planted(name, route):
    found = run(LINE, loss=PLANTED[name], **ROUTES[route])
    return (
        ""
        if difference(found.params, *on_one_device(route))
        else "it passes for the same"
    )


def split_rows(route):
    """Whether a device has an eighth of the rows that the loss is given."""
    seen = []

    def loss(params, batch):
        jax.debug.inspect_array_sharding(batch[0], callback=seen.append)
        return jnp.mean((batch[0] @ params[0]["w"]) ** 2)

    run(LINE, loss=loss, **ROUTES[route])
    shards = {sharding.shard_shape((48, 6)) for sharding in seen}
    return "" if shards == {(6, 6)} else f"devices have {shards} of (48, 6)"


def unsplit_rows(route):
    before = _mesh.Layout.split
    _mesh.Layout.split = lambda self, tree: tree
    try:
        return "" if split_rows(route) else "it passes for split"
    finally:
        _mesh.Layout.split = before


def split_params():
    found = run(PLANE)
    for tree in (found.params, found.opt_state[0].trace):
        leaves = tree if isinstance(tree, list) else jax.tree.leaves(tree)
        specs = [x.sharding.spec for x in leaves]
        if specs != jax.tree.leaves(UNITS, is_leaf=lambda x: isinstance(x, P)):
            return f"split as {specs}"
    chex.assert_trees_all_equal(run(PLANE, steps=0).params, params_on(None))
    return ""


def resumed(mesh, then):
    """Half of the steps over one mesh, half over another."""
    options = ROUTES["minibatches"] | {"log_every": 4}
    with tempfile.TemporaryDirectory() as folder:
        run(mesh, **options | {"steps": 11}, checkpoint=folder)
        found = run(then, **options, checkpoint=folder, resume=True)
    if mesh is then:
        chex.assert_trees_all_equal(found.params, run(mesh, **options).params)
        chex.assert_trees_all_equal_shapes_and_dtypes(found.params, params_on(None))
    return difference(found.params, *on_one_device("minibatches"))


def judged():
    """A rule that is wrong beyond a point is found on the way, and a NaN's equation."""
    options = {"on_log": lambda entry: None, "steps": 1000, "mesh": LINE}
    rows, start, sgd = jnp.linspace(0, 1, 8), {"w": jnp.array(0.2)}, optax.sgd(0.1)

    def loss(params, batch):
        return jnp.mean((bent(params["w"] * batch) - 1.2 * batch) ** 2)

    def sinking(params, batch):
        return jnp.mean(jnp.sqrt(params["w"]) + batch)

    found = train.fit(loss, start, rows, sgd, gradient="both", **options)
    because = found.stopped_because
    assert because.startswith("gradients differ at step "), because
    saved = np.load(because.split("numpy.load('")[1].split("')")[0])
    np.testing.assert_array_equal(saved["batch"], rows)
    because = train.fit(sinking, start, rows, sgd, **options).stopped_because
    return "" if ", made by sqrt at " in because else because


def refused(**given):
    """The message of what fit does not take."""
    mesh = given.pop("mesh", LINE)
    params, data = given.pop("params", params_on(None)), given.pop("data", DATA)
    try:
        train.fit(NET.loss, params, data, optax.sgd(0.1), steps=1, mesh=mesh, **given)
    except ValueError as error:
        return str(error)
    return "no error"


def odd(step, key):
    return made(step, key, 12)


REFUSED = {
    "all rows": {"data": jax.tree.map(lambda x: x[:44], DATA)},
    "batch size": {"batch_size": 12},
    "made": {"data": odd},
    "idle axis": {"mesh": PLANE},
    "another mesh": {"params": params_on(PLANE)},
}

CHECKS = {
    **{
        f"{name}, {route}, {gradient}": functools.partial(same, mesh, route, gradient)
        for route in ROUTES
        for name, mesh, gradient in [
            ("line", LINE, "both"),  # which updates by the hand-written one
            ("line", LINE, "auto"),
            ("plane", PLANE, "manual"),
        ]
    },
    **{f"planted, {n}": functools.partial(planted, n, "made") for n in PLANTED},
    **{f"split, {route}": functools.partial(split_rows, route) for route in ROUTES},
    "unsplit": functools.partial(unsplit_rows, "made"),
    "split parameters": split_params,
    "resumed over a line": functools.partial(resumed, LINE, LINE),
    "resumed over a plane": functools.partial(resumed, PLANE, PLANE),
    "resumed on one device": functools.partial(resumed, PLANE, None),
    "resumed over more": functools.partial(resumed, None, LINE),
    "judged": judged,
    **{f"refused, {n}": functools.partial(refused, **g) for n, g in REFUSED.items()},
}


def _said(check) -> str:
    try:
        return check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    unoptimised.switch(True)
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAXBP_CACHE"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    chosen = sys.argv[1:] or CHECKS
    print(json.dumps({name: _said(CHECKS[name]) for name in chosen}))
