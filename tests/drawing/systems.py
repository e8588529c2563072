"""What is drawn in the tests: the tutorials' systems, networks, functions of others."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.ad_checkpoint import checkpoint_name

from experiments import _descent, _layers, t5, t10, t12
from jaxbp import Graph, graph, nets, ops

RNG = np.random.default_rng(0)


def _network(sizes, x, target, **options):
    net = nets.mlp(sizes, **options)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=pair) for pair in itertools.pairwise(sizes)]
    biases = [np.zeros(size) for size in sizes[1:]]
    return _layers.system(net, target), _layers.inputs(weights, x, biases)


def t12_of(loss="squared_error"):
    """The 4-4-2 network with the page's weights."""
    transposed = [list(zip(*w, strict=True)) for w in (t12.W1, t12.W2)]
    inputs = _layers.inputs(transposed, t12.X, ((0.0,) * 4, (0.0,) * 2))
    net = nets.mlp((4, 4, 2), output="softmax", loss=loss)
    return _layers.system(net, t12.TARGET), inputs


def lstm_cell(x, h, c, w, u, b):
    i, f, g, o = jnp.split(x @ w + h @ u + b, 4)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return (jax.nn.sigmoid(o) * jnp.tanh(c)).sum()


def transformer_block(p, x):
    with jax.named_scope("attention"):
        n = jax.nn.standardize(x)
        q, k, v = (n @ p[s] for s in "qkv")
        x = x + jax.nn.softmax(q @ k.T / 2) @ v @ p["o"]
    with jax.named_scope("feed forward"):
        n = jax.nn.standardize(x)
        x = x + jax.nn.gelu(n @ p["up"]) @ p["down"]
    return (x**2).mean()


def deep(x):
    """500 equations and more, in groups of 25."""
    for k in range(100):
        with jax.named_scope(f"layer {k // 5}"):
            x = jnp.sin(x) * x + jnp.tanh(x) * 0.5
    return x


def without_groups(x):
    for _ in range(125):
        x = jnp.sin(x) * x + jnp.tanh(x)
    return x


SCRIPT = "<script>alert(1)</script>\"'&\n\t]]>" + "long" * 30


def hostile(v):
    with jax.named_scope("<b>&scope"):
        h = checkpoint_name(jnp.sin(v[SCRIPT]), "<img src=x onerror=alert(2)>\nsecond")
    return h * v["漢字かな名前"]


hostile.__name__ = "</svg><script>alert(3)</script>"
_BLOCK = {s: RNG.normal(size=(4, 4)) for s in "qkvo"}
_BLOCK |= {"up": RNG.normal(size=(4, 8)), "down": RNG.normal(size=(8, 4))}
_BATCH = RNG.normal(size=(32, 8)), np.eye(4)[RNG.integers(0, 4, 32)]
_LABELS = np.array([0, 2, 1])
SYSTEMS = {
    "t1": lambda: (nets.sigmoid_unit, (-2.0,)),
    "t2": lambda: (nets.three_gates, (1.0, -2.0, -3.0)),
    "t3": lambda: (nets.staged_rational, (3.0, -4.0)),
    "t4": lambda: (lambda x: ops.sigmoid(x).sum(), (np.arange(-10, 10, 0.2),)),
    "t5": lambda: _system((3, 1), _descent.X, t5.Y, loss="half_squared_error"),
    "t6": lambda: _system(
        (3, 4, 1), _descent.X, np.array([[0.0], [1], [1], [0]]), output="sigmoid"
    ),
    "t7": lambda: (nets.gate_circuit, (-2.0, 5.0, -4.0)),
    "t8": lambda: (nets.exp_exp_square, (0.5,)),
    "t9": lambda: _system((1, 1, 1, 1), (1.5,), (1.0,), output="sigmoid"),
    "t10": lambda: _system(
        t10.SIZES, t10.X, t10.TARGET, output="sigmoid", loss="binary_cross_entropy"
    ),
    "t11": lambda: _system(
        (2, 3, 3, 1),
        np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]),
        np.array([[0.0], [1], [1], [0]]),
        output="sigmoid",
        loss="binary_cross_entropy",
    ),
    "t12": lambda: _one_argument(t12_of()),
    "multilayer": lambda: _system(
        (8, 16, 16, 4), *_BATCH, loss="softmax_cross_entropy"
    ),
    "lstm cell": lambda: (
        lstm_cell,
        [RNG.normal(size=s) for s in (3, 4, 4, (3, 16), (4, 16), 16)],
    ),
    "transformer block": lambda: (transformer_block, (_BLOCK, RNG.normal(size=(5, 4)))),
    "gelu": lambda: (lambda x: jax.nn.gelu(x).mean(), (_BATCH[0],)),
    "log_softmax": lambda: (lambda x: jax.nn.log_softmax(x)[0, 1], (_BATCH[0],)),
    "optax integer labels": lambda: (
        lambda x, labels: optax.losses.softmax_cross_entropy_with_integer_labels(
            x, labels
        ).mean(),
        (_BATCH[0][:3], _LABELS),
    ),
    "optax huber": lambda: (lambda x: optax.losses.huber_loss(x).sum(), (_BATCH[0],)),
    "deep": lambda: (deep, (0.5,)),
    "without groups": lambda: (without_groups, (0.5,)),
    "hostile": lambda: (hostile, ({SCRIPT: 0.5, "漢字かな名前": 2.0},)),
}


@functools.cache
def drawn(name: str) -> Graph:
    """The graph of a system, in float64."""
    f, args = SYSTEMS[name]()
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        return graph(f, *args)


def _system(sizes, x, target, **options):
    return _one_argument(_network(sizes, np.asarray(x), target, **options))


def _one_argument(found):
    f, inputs = found
    return f, (inputs,)
