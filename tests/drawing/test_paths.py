"""A gradient as a sum over paths: listed, counted, and held against the gradient."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import graph, nets, ops
from tests.drawing.wrong import tripled

SIZES = (2, 3, 2, 1)


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=pair) for pair in itertools.pairwise(SIZES)]
    net = nets.mlp(SIZES, output="sigmoid", loss="binary_cross_entropy")
    params = tuple({"w": w, "b": np.ones(w.shape[1])} for w in weights)
    with jax.enable_x64(True):
        return graph(net.loss, params, (np.array([0.5, -1.0]), np.array([1.0])))


def test_every_path_is_there_and_their_products_add_up_to_the_gradient(network):
    found = network.paths("params[0]['w']", "losses")
    assert found.count == len(found.listed) == 6 * 2
    ways = {tuple(str(e) for e in p.elements[1:]) for p in found.listed}
    expected = {
        (f"a1[{i}]", f"h1[{i}]", f"a2[{j}]", f"h2[{j}]", "a3[0]", "yhat[0]", "losses")
        for i in range(3)
        for j in range(2)
    }
    assert ways == expected
    gradient = network.wires["params[0]['w']"].gradient
    for element, total in found.sums.items():
        mine = [p.product for p in found.listed if p.elements[0] == element]
        assert total == math.fsum(mine)
        assert total == pytest.approx(gradient[element.at], rel=1e-13)
        assert found.gradients[element] == gradient[element.at]


def test_multiplications_are_those_of_walking_and_of_sharing(network):
    found = network.paths([f"params[{k}]['w']" for k in range(3)], "losses")
    assert found.by_paths == sum(len(p.factors) - 1 for p in found.listed)
    # 1 + 2 + 2 of the last layer, 2 + 6 + 6 of the middle, 3 + 6 of the first.
    assert found.by_backpropagation == 28
    assert found.saved == found.by_paths - 28 > 0
    link = {
        pair
        for p in found.listed
        for pair in itertools.pairwise(p.elements)
        if pair[1].wire != "losses"
    }
    assert len(link) == 28


def test_above_the_limit_they_are_counted_and_the_sum_is_the_same(network):
    listed = network.paths("params[0]['w'][1, 2]", "y")
    counted = network.paths("params[0]['w'][1, 2]", "y", limit=1)
    assert (counted.count, counted.listed) == (2, ())
    assert counted.by_paths == listed.by_paths == 2 * 7
    ((element, total),) = counted.sums.items()
    assert total == pytest.approx(listed.sums[element], rel=1e-14)
    assert f"sum {total:.7g}".replace("-", "−") in str(counted)


def test_more_paths_than_anyone_could_list_are_counted():
    def f(x):
        for _ in range(80):
            x = jnp.sin(x) * x
        return x

    found = graph(f, 0.5).paths("x", "y")
    assert found.count == 2**80
    assert not found.listed
    ((_, total),) = found.sums.items()
    assert total == pytest.approx(float(jax.grad(f)(0.5)), rel=1e-12)
    # Of every product two links, of every sine one, the last product's free.
    assert found.by_backpropagation == 3 * 80 - 2


def test_a_weight_of_0_and_a_unit_at_rest_are_links_nevertheless():
    def f(x, w):
        return (jax.nn.relu(w * x) * jnp.array([2.0, 3.0])).sum()

    x, w = np.array([1.0, -1.0]), np.array([0.0, 1.0])
    found = graph(f, x, w).paths("x", "y")
    assert [p.product for p in found.listed] == [0, 0]


def test_where_a_rule_is_wrong_the_sum_of_a_chains_own_links_is_not(monkeypatch):
    real = ops.sigmoid_bwd
    monkeypatch.setattr(ops, "sigmoid_bwd", lambda res, bar: (2 * real(res, bar)[0],))
    found = graph(nets.three_gates, 1.0, -2.0, -3.0).paths("a", "f")
    ((element, total),) = found.sums.items()
    assert found.gradients[element] == pytest.approx(2 * total)
    rule = graph(lambda x: jnp.sin(tripled(x)), 0.5).paths("x", "y")
    assert [p.factors[0] for p in rule.listed] == [3]  # a rule by what it says


def test_a_scan_is_walked_too():
    def f(x):
        def body(c, y):
            return jnp.sin(c) * y, c

        c, cs = jax.lax.scan(body, x, jnp.array([0.3, 0.4, 0.5, 0.6]))
        return c * cs.sum()

    found = graph(f, 0.3).paths("x", "y")
    assert found.count == 5
    ((element, total),) = found.sums.items()
    assert total == pytest.approx(float(jax.grad(f)(0.3)), rel=1e-13)
    assert found.gradients[element] == pytest.approx(total, rel=1e-13)


@pytest.mark.parametrize(
    "solve", [jnp.linalg.solve, lambda a, b: jnp.linalg.inv(a) @ b]
)
def test_a_linear_solve_is_walked_in_its_matrix_and_its_side(solve):
    a, b = np.array([[3.0, 1], [0.5, 2]]), np.array([1.0, -2])
    g = graph(lambda a, b: jnp.sin(solve(a, b)).sum(), a, b)
    for name in "ab":
        found = g.paths(name, "y")
        sums = np.reshape(list(found.sums.values()), np.shape(g.wires[name].value))
        np.testing.assert_allclose(sums, g.wires[name].gradient, rtol=1e-13)
    assert "∂y/∂a" in g.worksheet()


def test_of_another_end_than_the_graphs_no_gradient_is_claimed(network):
    found = network.paths("params[0]['w'][0, 0]", "h2[1]")
    assert list(found.gradients.values()) == [None]
    assert "gradient at params[0]['w'][0, 0] –" in str(found)
    # And where a way leads past it.
    past = graph(lambda x: jnp.sin(x) + x, 0.5).paths("x", "v1")
    assert list(past.gradients.values()) == [None]


def test_what_is_printed_and_json_hold_every_path(network):
    found = network.paths("params[2]['w'][0, 0]", "losses")
    (line,) = (line for line in str(found).splitlines() if "→" in line)
    (path,) = found.listed
    assert line.startswith("  params[2]['w'][0, 0] → a3[0] → yhat[0] → losses: ")
    told = json.loads(json.dumps(found.to_dict()))
    assert told["paths"][0]["factors"] == list(path.factors)
    assert told["count"] == 1
    assert told["gradient"] == told["sum"] or told["sum"]


@pytest.mark.parametrize(
    ("src", "dst", "message"),
    [
        ("nothing", "y", "expected src to be a wire (params"),
        ("params[0]['w'][5, 5]", "y", "expected src to be in params[0]['w'], of shape"),
        ("params[0]['w']", "h1", "expected dst to be one element of h1, h1[0] or"),
    ],
)
def test_what_is_no_element_is_refused(network, src, dst, message):
    with pytest.raises(ValueError, match=r"jaxbp\.Graph\.paths: ") as refused:
        network.paths(src, dst)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("src", "dst", "named"),
    [(1, "y", "src"), (["y", None], "y", "src"), ("y", ["y"], "dst")],
)
def test_what_is_no_name_is_refused(network, src, dst, named):
    message = f"expected {named} to be the name of a wire or of an element; got "
    with pytest.raises(TypeError, match=r"jaxbp\.Graph\.paths: ") as refused:
        network.paths(src, dst)
    assert message in str(refused.value)


def test_a_limit_that_is_none_is_refused(network):
    with pytest.raises(ValueError, match="limit to be an integer from 0 on; got 'a'"):
        network.paths("params[0]['w'][1, 2]", "y", limit="a")


def test_all_wires_are_named_where_they_are_few():
    with pytest.raises(
        ValueError, match=r"a wire \(x, y\) or an element of one; got q"
    ):
        graph(jnp.sin, 0.5).paths("q", "y")


def test_from_a_wire_to_itself_nothing_is_multiplied():
    found = graph(lambda x: jnp.sin(x) * x, 0.5).paths(["x", "v1"], "v1")
    assert [p.factors for p in found.listed] == [(np.cos(0.5),), ()]
    assert (found.by_paths, found.by_backpropagation, found.saved) == (0, 0, 0)


def test_where_there_is_no_way_there_is_no_path():
    g = graph(lambda x, y: x * 2 + 0 * y, 1.0, 3.0)
    found = g.paths("y", "v1")  # x · 2
    assert (found.count, found.listed, list(found.sums.values())) == (0, (), [0.0])
    assert "0 paths" in str(found)


def test_complex_numbers_are_refused_and_their_worksheet_stands_whole():
    g = graph(lambda x: jnp.abs(jnp.fft.fft(x)).sum(), np.ones(4))
    with pytest.raises(ValueError, match="to be real, as paths are; got complex128"):
        g.paths("x", "y")
    assert "x_bar += " in g.worksheet()


def test_the_precision_is_the_recorded_one(network):
    with jax.enable_x64(False):
        found = network.paths("params[0]['w'][1, 2]", "losses")
    ((element, total),) = found.sums.items()
    assert total == pytest.approx(found.gradients[element], rel=1e-13)


def test_arrays_too_large_to_be_taken_apart_are_refused():
    x = np.ones(3000)
    with pytest.raises(ValueError, match="one example"):
        graph(lambda x: jnp.sin(x).sum(), x).paths("x", "y")
