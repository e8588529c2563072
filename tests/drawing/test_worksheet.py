"""The worksheet: as a person would write it, with the right numbers."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _layers, t12
from jaxbp import graph, nets, ops
from jaxbp.drawing import _symbols
from tests.drawing.test_formulas import evaluated
from tests.drawing.wrong import tripled


def rows(text, title):
    """The lines of one of its tables, by what they begin with."""
    after = text.split(f"\n{title}", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return {re.split(r"  +", line)[0]: re.split(r"  +", line) for line in after}


def number(text):
    return float(text.strip("()").replace("−", "-"))


@pytest.fixture(scope="module")
def t12_graph():
    transposed = [list(zip(*w, strict=True)) for w in (t12.W1, t12.W2)]
    inputs = _layers.inputs(transposed, t12.X, ((0.0,) * 4, (0.0,) * 2))
    net = nets.mlp((4, 4, 2), output="softmax")
    with jax.enable_x64(True):
        return graph(_layers.system(net, t12.TARGET), inputs)


def test_three_gates_read_as_on_the_page():
    text = graph(nets.three_gates, 1.0, -2.0, -3.0).worksheet()
    assert rows(text, "Forward")["e"] == ["e", "c · d", "3"]
    back = rows(text, "Backward")
    assert back["∂f/∂e"][1:] == [
        "f(1 − f)",
        "0.04517666",
        "1 × 0.04517666 = 0.04517666",
    ]
    assert back["∂e/∂d"][1:3] == ["c", "−3"]
    assert back["∂d/∂a"][-1] == "(−0.13553) × 1 = −0.13553"
    assert list(back) == ["∂f/∂e", "∂e/∂c", "∂e/∂d", "∂d/∂a", "∂d/∂b"]


def test_where_a_variable_branches_its_terms_are_added_up():
    back = rows(graph(nets.staged_rational, 3.0, -4.0).worksheet(), "Backward")
    *terms, total = re.split(r" [+=] ", back["∂f/∂x"][-1])
    assert sum(map(number, terms)) == pytest.approx(2.0595697955721652, rel=1e-6)
    assert total == "2.05957"


def test_the_4_4_2_network_reads_as_on_the_page(t12_graph):
    text = t12_graph.worksheet(name=_layers.numbered)
    forward, back = rows(text, "Forward"), rows(text, "Backward")
    assert forward["a1"] == ["a1", "x w1 + b1", "[2.9, 1.4, 2.1, 2.3]"]
    assert back["∂ŷ1/∂a21"][1:3] == ["ŷ1(1 − ŷ1)", "0.1769185"]
    assert back["∂ŷ1/∂a22"][1] == "−ŷ1 · ŷ2"
    assert back["∂a21/∂w212"][1:3] == ["h12", "0.8021839"]
    assert back["∂a21/∂w212"][-1].endswith("= −0.1303767")
    assert back["∂a13/∂w131"][1:] == ["x1", "2", "0.001579678 × 2 = 0.003159357"]
    assert back["∂h13/∂a13"][1:3] == ["h13(1 − h13)", "0.0971947"]
    assert "c2" not in "".join(back)  # nobody asks for the target's gradient


def test_every_symbol_comes_to_the_number_beside_it(t12_graph):
    """Evaluated at the values of the wires: in all of the formulas between elements."""
    letters = dict(
        zip("wxhabycl", ["w", "x", "h", "a", "b", "y", "c", "l"], strict=True)
    )

    def name(wire, index):
        number = wire.strip("".join(letters)) if wire[0] in letters else ""
        return f"{wire[0]}{number}_{'_'.join(map(str, index))}"

    values = {
        name(wire.name, index): float(wire.value[index])
        for wire in t12_graph.wires.values()
        for index in np.ndindex(np.shape(wire.value))
    }
    asked = 0
    for line in rows(t12_graph.worksheet(name=name), "Backward").values():
        if len(line) == 4:
            formula = re.sub(r"(\w+_\d)\((?=1)", r"\1*(", line[1])
            formula = re.sub(r"2\(", "2*(", formula)
            assert evaluated(formula, values) == pytest.approx(
                number(line[2]), rel=1e-6, abs=1e-9
            )
            asked += 1
    assert asked > 40


@pytest.mark.parametrize(
    "loss", ["half_squared_error", "cross_entropy", "binary_cross_entropy"]
)
def test_every_loss_has_its_symbol(loss):
    x, t = np.array([0.3, 0.7]), np.array([0.2, 0.8])
    g = graph(lambda x, t: getattr(ops, loss)(x, t).sum(), x, t)
    (node,) = (n for n in g.nodes if n.label == loss)
    assert _symbols._PAIRS.keys() >= {loss}
    text = g.worksheet(name=lambda wire, index: wire + "".join(map(str, index)))
    back = rows(text, "Backward")
    values = {f"{w}{k}": a[k] for w, a in (("x", x), ("t", t)) for k in range(2)}
    for edge in node.edges:
        for k in range(2):
            (line,) = (v for n, v in back.items() if n.endswith(f"/∂{edge.wire}{k}"))
            formula = re.sub(r"(\w)\(1", r"\1*(1", line[1])
            formula = re.sub(r"ln (\w+)", r"ln(\1)", formula)
            value = evaluated(formula, values)
            assert value == pytest.approx(number(line[2]), rel=1e-6)


def test_large_arrays_stand_whole(t12_graph):
    back = rows(t12_graph.worksheet(limit=3), "Backward")
    assert back["∂a2/∂w2"][1].startswith("w2_bar += h1ᵀ a2_bar = 4×2, rms 0.1445")
    x = np.ones((40, 30))
    whole = graph(lambda x, w: ops.tanh(x @ w).sum(), x, x.T).worksheet()
    assert "x_bar += v1_bar wᵀ = 40×30" in whole


def test_a_wrong_link_is_marked_and_the_numbers_are_right():
    text = graph(lambda x: ops.sigmoid(tripled(x)), 0.5).worksheet()
    (marked,) = (line for line in text.splitlines() if "←" in line)
    gradients = rows(text, "Gradients")["∂y/∂x"]
    assert number(gradients[1]) == pytest.approx(1.5 * number(gradients[2]), rel=1e-6)
    assert re.match(rf"∂v1/∂x +2 .* = {gradients[2]} +←", marked)
    assert marked.endswith(f"the first wrong link, by hand {gradients[1]}")


def test_what_adds_up_past_a_wrong_rule_is_the_right_gradient():
    def f(x):
        return jnp.sin(x) * jnp.sin(tripled(x))

    right = math.sin(1) * math.cos(0.5) + math.sin(0.5) * 2 * math.cos(1)
    back = rows(graph(f, 0.5).worksheet(), "Backward")
    *terms, total = re.split(r" [+=] ", back["∂y/∂x"][-1])
    assert sum(map(number, terms)) == pytest.approx(right, rel=1e-6)
    assert number(total) == pytest.approx(right, rel=1e-6)
    whole = rows(graph(f, 0.5).worksheet(limit=0), "Backward")
    (marked,) = (line for line in whole.values() if "←" in line[-1])
    assert marked[1] == "2"  # where the rule says 3


@pytest.mark.parametrize(
    "bwd", [lambda res, y_bar: 1 / 0, lambda res, y_bar: (jnp.ones(3),)]
)
def test_where_a_rules_bwd_raises_there_is_autodiffs_derivation(bwd):
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), bwd)
    g = graph(lambda x: 2 * sine(x), 0.5)
    back = rows(g.worksheet(), "Backward")["∂v1/∂x"]
    assert any(cell.startswith("2 × 0.8775826 = 1.755165") for cell in back)
    assert "sum 1.755165, gradient at x 1.755165" in str(g.paths("x", "y"))
    assert "the first wrong link" in g.html()


def test_a_number_that_is_none_warns_of_nothing():
    g = graph(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0), 0.0)
    assert "0 × inf = nan" in g.worksheet()


@pytest.mark.parametrize(
    ("options", "error", "expected"),
    [
        ({"limit": "a"}, ValueError, "limit to be an integer from 0 on; got 'a'"),
        ({"name": "x"}, TypeError, "name to be a function; got str 'x'"),
    ],
)
def test_what_it_cannot_be_asked_is_refused(options, error, expected):
    with pytest.raises(error, match=f"jaxbp.Graph.worksheet: expected {expected}"):
        graph(jnp.sin, 0.5).worksheet(**options)


def test_markdown_says_the_same_and_hostile_names_stay_text():
    def hostile(v):
        return ops.square(v["<script>alert(1)</script>|`x`\n# *a*"])

    g = graph(lambda v: hostile(v), {"<script>alert(1)</script>|`x`\n# *a*": 3.0})
    text = g.worksheet(markdown=True)
    assert "<script>" not in text.replace("\\<script\\>", "")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} <= {3, 4, 5}
    assert re.search(r"^### Backward", text, re.MULTILINE)
    assert "| 2v" in text or "| 6 |" in text
    plain = g.worksheet()
    assert len(plain.splitlines()) < 30
