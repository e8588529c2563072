"""Every network's chain is right, and a wrong link in it is seen where it acts.

A link is planted by replacing one call of an op's backward rule inside the chain. What
it may spoil is known beforehand: the leaves below it, and no other.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import pytest

from jaxbp import compare, nets
from jaxbp._tape import wires
from tests.nets.planted import factor, missing_path, plant, sign, transposed

KEY = jax.random.key(11)


def _scalars(count):
    return tuple(jax.random.normal(KEY, (count,)).tolist())


def _batch(sizes, n):
    x = jax.random.normal(KEY, (*n, sizes[0]))
    y = jax.nn.softmax(jax.random.normal(jax.random.key(12), (*n, sizes[-1])))
    return x, y if sizes[-1] > 1 else jax.random.uniform(KEY, (*n, 1))


class Network(NamedTuple):
    function: Callable
    args: tuple


def _mlp(sizes, *, n=(5,), **options):
    net = nets.mlp(sizes, **options)
    params = jax.tree.map(lambda p: p + 0.1, net.init(KEY))
    return Network(net.loss, (params, _batch(sizes, n)))


NETWORKS = {
    "sigmoid unit": Network(nets.sigmoid_unit, (-2.0,)),
    "gate circuit": Network(nets.gate_circuit, (-2.0, 5.0, -4.0)),
    "three gates": Network(nets.three_gates, (1.0, -2.0, -3.0)),
    "staged rational": Network(nets.staged_rational, (3.0, -4.0)),
    "exp square": Network(nets.exp_square, (0.5,)),
    "exp exp square": Network(nets.exp_exp_square, (1.0,)),
    "reciprocal exp square": Network(nets.reciprocal_exp_square, (1.0,)),
    "one layer": _mlp(
        (3, 1),
        output="sigmoid",
        loss="half_squared_error",
        bias=False,
        reduction="sum",
    ),
    "two layers": _mlp(
        (3, 4, 1),
        output="sigmoid",
        loss="half_squared_error",
        bias=False,
        reduction="sum",
    ),
    "scalar chain": _mlp((1, 1, 1, 1), n=(), output="sigmoid", bias=False),
    "scalar chain, cross-entropy": _mlp(
        (1, 1, 1, 1), n=(), output="sigmoid", loss="binary_cross_entropy", bias=False
    ),
    "deep": _mlp((2, 3, 3, 1), output="sigmoid", loss="binary_cross_entropy"),
    "deep, logits": _mlp((2, 3, 3, 1), loss="binary_cross_entropy_with_logits"),
    "softmax": _mlp((4, 4, 2), n=(), output="softmax", loss="squared_error"),
    "softmax, cross-entropy": _mlp((4, 4, 2), output="softmax", loss="cross_entropy"),
    "softmax, logits": _mlp((4, 4, 2), n=(2, 3), loss="softmax_cross_entropy"),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


@every_network
def test_the_hand_written_gradient_is_the_gradient(name):
    network = NETWORKS[name]
    comparison = compare(network.function, *network.args, numeric=True)
    # Where a sigmoid saturates, autodiff of a logarithm may be 0 · inf: whether it is
    # depends on how the machine's exp rounds.
    assert {f.verdict for f in comparison.findings} <= {"right", "autodiff-wrong"}, (
        comparison
    )
    for hand, auto, numeric in zip(
        *map(jax.tree.leaves, (comparison.manual, comparison.auto, comparison.numeric)),
        strict=True,
    ):
        scale = abs(auto).max()
        assert abs(hand - auto).max() <= 1e-13 * scale
        assert abs(numeric - auto).max() <= 1e-9 * scale


def test_a_saturated_network_is_not_accused():
    # Where 1 - p is 1 the loss is flat, and its derivative is not 0.
    net = nets.mlp((2, 3, 3, 1), output="sigmoid", loss="binary_cross_entropy")
    key = jax.random.key(8)
    params = jax.tree.map(lambda p: p + 0.1, net.init(key))
    batch = jax.random.normal(key, (5, 2)), jax.random.uniform(key, (5, 1))
    comparison = compare(net.loss, params, batch, seed=1)
    assert comparison.ok, comparison


@every_network
def test_every_wire_is_named_once_on_each_side(name):
    network = NETWORKS[name]
    names = set(wires(jax.grad(network.function), *network.args))
    forward = {name for name in names if not name.endswith("_bar")}
    assert forward
    assert {f"{name}_bar" for name in forward} <= names


def _swapped(res, y_bar, bars):
    return tuple(reversed(bars))


def _diagonal(res, y_bar, bars):
    y = res
    return (y * (1 - y) * y_bar,)


def _layers(*layers, x=True, b=True):
    """Paths of these layers' parameters, and of the input."""
    names = ("b", "w") if b else ("w",)
    found = {f"[0][{k}]['{name}']" for k in layers for name in names}
    return found | ({"[1][0]"} if x else set())


ALL = {"[0]", "[1]", "[2]"}
PLANTS = [
    ("sigmoid unit", "sigmoid_bwd", (0, 1), factor(0), {"[0]"}),
    ("sigmoid unit", "sigmoid_bwd", (0, 1), sign(0), {"[0]"}),
    ("sigmoid unit", "sigmoid_bwd", (0, 1), missing_path(0), {"[0]"}),
    ("gate circuit", "multiply_bwd", (0, 1), factor(0), {"[0]", "[1]"}),
    ("gate circuit", "multiply_bwd", (0, 1), sign(1), {"[2]"}),
    ("gate circuit", "add_bwd", (0, 1), missing_path(1), {"[1]"}),
    ("three gates", "sigmoid_bwd", (0, 1), factor(0), ALL),
    ("three gates", "multiply_bwd", (0, 1), _swapped, ALL),
    ("three gates", "multiply_bwd", (0, 1), sign(1), {"[0]", "[1]"}),
    ("three gates", "add_bwd", (0, 1), missing_path(1), {"[1]"}),
    ("staged rational", "reciprocal_bwd", (0, 1), sign(0), {"[0]", "[1]"}),
    ("staged rational", "sigmoid_bwd", (0, 2), factor(0), {"[0]"}),
    ("staged rational", "sigmoid_bwd", (1, 2), factor(0), {"[1]"}),
    ("staged rational", "add_bwd", (1, 3), missing_path(0), {"[0]"}),
    ("staged rational", "add_bwd", (2, 3), missing_path(1), {"[1]"}),
    ("exp square", "exp_bwd", (0, 1), factor(0), {"[0]"}),
    ("exp square", "square_bwd", (0, 1), sign(0), {"[0]"}),
    ("exp square", "square_bwd", (0, 1), missing_path(0), {"[0]"}),
    ("exp exp square", "exp_bwd", (0, 2), factor(0), {"[0]"}),
    ("exp exp square", "exp_bwd", (1, 2), sign(0), {"[0]"}),
    ("exp exp square", "square_bwd", (0, 1), factor(0), {"[0]"}),
    ("reciprocal exp square", "reciprocal_bwd", (0, 1), sign(0), {"[0]"}),
    ("reciprocal exp square", "exp_bwd", (0, 1), factor(0), {"[0]"}),
    ("reciprocal exp square", "square_bwd", (0, 1), missing_path(0), {"[0]"}),
    ("one layer", "sigmoid_bwd", (0, 1), factor(0), _layers(0, b=False)),
    ("one layer", "dense_bwd", (0, 1), sign(1), _layers(0, b=False, x=False)),
    ("one layer", "dense_bwd", (0, 1), missing_path(0), {"[1][0]"}),
    ("two layers", "sigmoid_bwd", (0, 2), factor(0), _layers(0, 1, b=False)),
    ("two layers", "sigmoid_bwd", (1, 2), sign(0), _layers(0, b=False)),
    ("two layers", "dense_bwd", (0, 2), missing_path(0), _layers(0, b=False)),
    ("two layers", "dense_bwd", (0, 2), sign(1), _layers(1, b=False, x=False)),
    ("scalar chain", "sigmoid_bwd", (0, 3), factor(0), _layers(0, 1, 2, b=False)),
    ("scalar chain", "dense_bwd", (1, 3), sign(0), _layers(0, b=False)),
    ("scalar chain", "sigmoid_bwd", (1, 3), missing_path(0), _layers(0, 1, b=False)),
    (
        "scalar chain, cross-entropy",
        "binary_cross_entropy_bwd",
        (0, 1),
        sign(0),
        _layers(0, 1, 2, b=False),
    ),
    (
        "scalar chain, cross-entropy",
        "binary_cross_entropy_bwd",
        (0, 1),
        factor(1),
        {"[1][1]"},
    ),
    (
        "scalar chain, cross-entropy",
        "dense_bwd",
        (2, 3),
        factor(1),
        _layers(0, b=False, x=False),
    ),
    ("deep", "dense_bwd", (1, 3), transposed, _layers(0)),
    ("deep", "dense_bwd", (1, 3), sign(2), {"[0][1]['b']"}),
    ("deep", "sigmoid_bwd", (1, 3), factor(0), _layers(0, 1)),
    ("deep", "dense_bwd", (2, 3), missing_path(0), {"[1][0]"}),
    ("deep, logits", "dense_bwd", (1, 3), transposed, _layers(0)),
    ("deep, logits", "sigmoid_bwd", (0, 2), sign(0), _layers(0, 1)),
    ("deep, logits", "dense_bwd", (0, 3), factor(1), {"[0][2]['w']"}),
    ("softmax", "softmax_bwd", (0, 1), _diagonal, _layers(0, 1)),
    ("softmax", "dense_bwd", (1, 2), transposed, {"[1][0]"}),
    ("softmax", "sigmoid_bwd", (0, 1), sign(0), _layers(0)),
    ("softmax", "squared_error_bwd", (0, 1), factor(0), _layers(0, 1)),
    ("softmax, cross-entropy", "softmax_bwd", (0, 1), _diagonal, _layers(0, 1)),
    ("softmax, cross-entropy", "dense_bwd", (1, 2), transposed, {"[1][0]"}),
    ("softmax, cross-entropy", "cross_entropy_bwd", (0, 1), sign(1), {"[1][1]"}),
    ("softmax, logits", "softmax_cross_entropy_bwd", (0, 1), factor(0), _layers(0, 1)),
    ("softmax, logits", "dense_bwd", (1, 2), transposed, {"[1][0]"}),
    ("softmax, logits", "dense_bwd", (0, 2), missing_path(0), _layers(0)),
]


def test_at_least_three_wrong_links_are_planted_in_every_network():
    for name in NETWORKS:
        assert sum(planted[0] == name for planted in PLANTS) >= 3, name


@pytest.mark.parametrize(
    ("name", "rule", "call", "wrong", "below"),
    PLANTS,
    ids=[f"{p[0]}-{p[1]}{p[2][0]}-{p[3].__name__}" for p in PLANTS],
)
def test_a_wrong_link_spoils_the_leaves_below_it_and_no_other(
    monkeypatch, name, rule, call, wrong, below
):
    plant(monkeypatch, rule, call, wrong)
    network = NETWORKS[name]
    comparison = compare(network.function, *network.args)
    assert not comparison.ok
    assert {f.argument for f in comparison.findings if f.verdict != "right"} == below
    for finding in comparison.findings:
        assert finding.verdict in ("right", "wrong", "broken-contract"), comparison
