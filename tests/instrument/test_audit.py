"""audit: every planted wrong rule is found where it is called, and no right one."""

import itertools
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxbp import _interpret, nets, ops
from jaxbp.instrument._audit import audit
from jaxbp.instrument._compiled import Programs
from jaxbp.instrument._pair import Pair

X = np.random.default_rng(3).standard_normal(4)


def rule(primal, bwd):
    """A hand-written rule whose residuals are its arguments."""
    f = jax.custom_vjp(primal)
    f.defvjp(lambda *args: (primal(*args), args), bwd)
    return f


def sine(x):
    return jnp.sin(x)


def faulty(x):
    return jnp.sin(x)


right = rule(sine, lambda res, y_bar: (y_bar * jnp.cos(res[0]),))
wrong = rule(faulty, lambda res, y_bar: (2 * y_bar * jnp.cos(res[0]),))


def in_primal(inner):
    def outer(x):
        return inner(3 * x)

    return rule(outer, lambda res, y_bar: (3 * y_bar * jnp.cos(3 * res[0]),))


def in_while(inner, x):
    return lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, inner(c[1])), (0, x))


PLACES = {
    "call": lambda inner, x: inner(x).sum(),
    "jit": lambda inner, x: jax.jit(lambda x: inner(x) * 2)(x).sum(),
    "scan": lambda inner, x: lax.scan(
        lambda c, y: (inner(c) * y, c), x, jnp.arange(1.0, 4.0)
    )[0].sum(),
    "long scan": lambda inner, x: lax.scan(
        lambda c, _: (inner(c) * 1.1, None), x, None, length=3000
    )[0].sum(),
    "while": lambda inner, x: in_while(inner, x)[1].sum(),
    "cond": lambda inner, x: lax.cond(x[0] < 9, inner, jnp.cos, x).sum(),
    "remat": lambda inner, x: jax.checkpoint(lambda x: inner(x) * x)(x).sum(),
    "vmap": lambda inner, x: jax.vmap(inner)(jnp.stack([x, 2 * x])).sum(),
    "rule": lambda inner, x: in_primal(inner)(x).sum(),
    "third of five": lambda inner, x: right(right(inner(right(right(x))))).sum(),
}
every_place = pytest.mark.parametrize("place", PLACES)


@every_place
def test_a_wrong_rule_is_found_wherever_it_is_called(place):
    found = audit(lambda x: PLACES[place](wrong, x), X)
    assert not found.ok
    first = found.first
    assert (first.rule, first.verdict, first.kind) == ("faulty", "wrong", "factor")
    assert first.worst.manual == pytest.approx(2 * first.worst.auto, rel=1e-12)
    assert first.worst.numeric == pytest.approx(first.worst.auto, rel=1e-8)
    assert [f.rule for f in found.findings if f.verdict != "right"] == ["faulty"]
    assert first.source == f"{__file__}:{faulty.__code__.co_firstlineno}"
    assert first.site.startswith(f"{__file__}:")


@every_place
def test_a_right_rule_is_right_wherever_it_is_called(place):
    found = audit(lambda x: PLACES[place](right, x), X)
    assert found.verdict == "right", found
    assert found.first is None


def test_a_while_loop_asks_with_random_cotangents_and_stops_none_after_it():
    found = audit(lambda x: right(in_while(wrong, x)[1]).sum(), X)
    after, inside = found.findings
    assert (after.verdict, inside.verdict) == ("right", "wrong")
    assert "no cotangent arrives" in inside.message
    assert "no cotangent arrives" not in after.message
    assert inside.calls == 4  # iterations 0, 1, 2 and 4 of five


def test_the_first_wrong_link_is_the_wrong_rule_nearest_to_the_loss():
    def f(x):
        a = right(x)
        b = wrong(a)
        c = right(b)
        d = wrong(c)
        return right(d).sum()

    found = audit(f, X)
    line = f.__code__.co_firstlineno
    assert found.first.site == f"{__file__}:{line + 4}"
    sites = [int(f.site.split(":")[-1]) - line for f in found.findings]
    assert sites == [5, 4, 3, 2, 1]
    verdicts = [f.verdict for f in found.findings]
    assert verdicts == ["right", "wrong", "right", "wrong", "right"]


def test_a_rule_wrong_only_for_large_values_is_found_late_in_a_scan():
    def late(x):
        return jnp.sin(x)

    def bwd(res, y_bar):
        (x,) = res
        return (jnp.where(x > 3, 0.5, 1.0) * jnp.cos(x) * y_bar,)

    f = rule(late, bwd)

    def summed(x):
        return lax.scan(lambda c, _: (c + 0.1 + 0 * f(c), None), x, None, 40)[0].sum()

    (finding,) = audit(summed, jnp.zeros(2)).findings
    assert (finding.verdict, finding.calls) == ("wrong", 40)
    assert int(re.search(r"in iteration (\d+) of a scan", finding.message)[1]) >= 29
    (finding,) = audit(summed, -jnp.ones(2) * 9).findings
    assert finding.verdict == "right"


# A chain with its wires named on both sides

NET = nets.mlp((3, 4, 4, 2), output="sigmoid")
PARAMS = jax.tree.map(lambda p: p + 0.1, NET.init(jax.random.key(0)))
BATCH = (
    jax.random.normal(jax.random.key(1), (5, 3)),
    jax.random.uniform(jax.random.key(2), (5, 2)),
)


def twice(position):
    return lambda bars: tuple(
        2 * bar if k == position else bar for k, bar in enumerate(bars)
    )


@pytest.mark.parametrize(
    ("op", "call", "of", "position", "wire", "argument"),
    [
        ("squared_error", 0, 1, 0, "yhat", ""),
        ("sigmoid", 0, 3, 0, "a3", ""),
        ("dense", 0, 3, 0, "h2", ""),
        ("sigmoid", 1, 3, 0, "a2", ""),
        ("dense", 1, 3, 0, "h1", ""),
        ("dense", 1, 3, 1, "", "params[1]['w']"),
        ("dense", 2, 3, 0, "", "x"),
    ],
)
def test_the_wrong_link_of_a_chain_is_named(
    monkeypatch, op, call, of, position, wire, argument
):
    bwd, calls = getattr(ops, f"{op}_bwd"), itertools.count()

    def spoiled(res, y_bar):
        bars = bwd(res, y_bar)
        return twice(position)(bars) if next(calls) % of == call else bars

    monkeypatch.setattr(ops, f"{op}_bwd", spoiled)
    found = audit(NET.loss, PARAMS, BATCH)
    assert found.first is found.findings[0]
    assert (found.first.verdict, found.first.wire) == ("wrong", wire)
    if wire:
        assert f"{wire}_bar is the first wrong cotangent" in found.first.message
    else:
        assert found.first.argument == argument
        assert "every named wire is right" in found.first.message
    # The ops' own rules are called in the chain's primal, and are right.
    assert {f.verdict for f in found.findings[1:]} == {"right"}


def test_a_right_chain_is_right_and_its_rules_stand_on_named_wires():
    found = audit(NET.loss, PARAMS, BATCH)
    assert found.verdict == "right", found
    assert [f.wire for f in found.findings] == [
        "", "losses", "yhat", "a3", "h2", "a2", "h1", "a1",
    ]  # fmt: skip
    assert all(f.within == "_loss" for f in found.findings[1:])


def test_wires_named_in_a_loop_pair_in_the_opposite_order():
    def powers(x):
        a = x
        for _ in range(3):
            a = checkpoint_name(a * x, "a")
        return a

    def bwd(res, y_bar):
        (x,) = res
        a_bar, x_bar = y_bar, 0.0
        for k in (3, 2, 1):
            a_bar = checkpoint_name(a_bar, "a_bar")
            x_bar = x_bar + a_bar * x**k
            a_bar = a_bar * x * (1.5 if k == 3 else 1.0)
        return (x_bar + a_bar,)

    (finding,) = audit(lambda x: rule(powers, bwd)(x).sum(), X).findings
    assert (finding.verdict, finding.wire) == ("wrong", "a[1]")


# What a rule can get wrong


@pytest.mark.parametrize(
    ("bwd", "verdict", "kind"),
    [
        (lambda res, y_bar: (-y_bar * jnp.cos(res[0]),), "wrong", "sign"),
        (lambda res, y_bar: (jnp.cos(res[0]),), "broken-contract", ""),
        (lambda res, y_bar: (None,), "broken-contract", "missing"),
        (lambda res, y_bar: (y_bar[:2],), "broken-contract", ""),
    ],
    ids=["sign", "ignored cotangent", "None", "shape"],
)
def test_each_mistake_has_its_verdict(bwd, verdict, kind):
    (finding,) = audit(lambda x: rule(sine, bwd)(x).sum(), X).findings
    assert (finding.verdict, finding.kind) == (verdict, kind), finding


def test_a_forward_pass_of_another_value_is_a_broken_contract():
    f = jax.custom_vjp(sine)
    f.defvjp(lambda x: (jnp.sin(x) + 1, x), lambda x, y_bar: (y_bar * jnp.cos(x),))
    (finding,) = audit(lambda x: f(x).sum(), X).findings
    assert (finding.verdict, finding.argument) == ("broken-contract", "value")


def test_the_argument_at_fault_is_named():
    def product(params, x):
        return params["w"] * x

    def product_fwd(params, x):
        return product(params, x), x

    f = jax.custom_vjp(product)
    f.defvjp(product_fwd, lambda x, y_bar: ({"w": y_bar * x}, y_bar * x))
    (finding,) = audit(lambda w, x: f({"w": w}, x).sum(), X, 2 * X).findings
    assert (finding.argument, finding.verdict) == ("x", "wrong")


def test_swapped_arguments_are_named_as_such():
    def product(x, y):
        return x * y

    def product_fwd(x, y):
        return product(x, y), (x, y)

    f = jax.custom_vjp(product)
    f.defvjp(product_fwd, lambda res, p_bar: (p_bar * res[0], p_bar * res[1]))
    (finding,) = audit(lambda x, y: f(x, y).sum(), X, jnp.cos(X)).findings
    assert (finding.verdict, finding.kind) == ("wrong", "swapped")


def test_custom_jvp_and_custom_gradient_are_asked():
    @jax.custom_jvp
    def square(x):
        return x * x

    square.defjvps(lambda x_dot, y, x: 3 * x * x_dot)

    @jax.custom_gradient
    def cube(x):
        return x**3, lambda y_bar: 3 * x**2 * y_bar

    square_finding, cube_finding = audit(lambda x: square(cube(x)).sum(), X).findings
    assert (square_finding.verdict, square_finding.kind) == ("wrong", "factor")
    assert cube_finding.verdict == "right"


def test_jaxs_own_rules_are_asked_and_a_kink_is_no_mistake():
    (finding,) = audit(lambda x: jax.nn.relu(x).sum(), jnp.array([-1.0, 0, 2])).findings
    assert finding.rule == "relu"
    assert finding.verdict == "kink"


def host_sine(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(lambda x: np.sin(x), shape, x, vmap_method="sequential")


def root(x):
    return lax.while_loop(
        lambda y: jnp.abs(y * y - x).max() > 1e-14 * x.max(),
        lambda y: (y + x / y) / 2,
        x,
    )


@pytest.mark.parametrize(
    ("primal", "slope"),
    [(host_sine, jnp.cos), (root, lambda x: 0.5 / jnp.sqrt(x))],
    ids=["callback", "while"],
)
def test_a_primal_without_autodiff_is_held_against_the_numeric_derivative(
    primal, slope
):
    x = jnp.array([0.7, 1.9])
    hand = rule(primal, lambda res, y_bar: (y_bar * slope(res[0]),))
    off = rule(primal, lambda res, y_bar: (1.01 * y_bar * slope(res[0]),))
    assert audit(lambda x: hand(x).sum(), x).verdict == "right"
    assert audit(lambda x: off(x).sum(), x).verdict == "wrong"


def test_static_arguments_that_only_bwd_reads_are_told_apart():
    f = jax.custom_vjp(lambda scale, x: jnp.sin(x), nondiff_argnums=(0,))
    f.defvjp(
        lambda scale, x: (jnp.sin(x), x),
        lambda scale, x, y_bar: (scale * y_bar * jnp.cos(x),),
    )

    def twice(x):
        x = f(1.0, x)
        return f(2.0, x).sum()

    assert [g.verdict for g in audit(twice, X).findings] == ["wrong", "right"]


def test_closed_over_arrays_that_only_bwd_reads_are_told_apart():
    def scaled(scale):
        return rule(sine, lambda res, y_bar: (scale * y_bar * jnp.cos(res[0]),))

    ones, off = np.ones(4), np.array([1, 1, 1 + 1e-9, 1])

    def f(x):
        x = scaled(ones)(x)
        return scaled(off)(x).sum()

    assert [g.verdict for g in audit(f, X).findings] == ["wrong", "right"]


def test_a_rule_that_closes_over_what_f_computes_is_out_of_reach():
    def f(x):
        scale = jnp.ones(4) + x.shape[0]
        g = rule(sine, lambda res, y_bar: (y_bar * jnp.cos(res[0]) * scale,))
        return g(x).sum()

    (finding,) = audit(f, X).findings
    assert finding.verdict == "unproven"
    assert "closes over" in finding.message


@pytest.mark.parametrize("slope", [1.0, 2.0])
@pytest.mark.parametrize("batched", [False, True])
def test_an_array_that_a_rule_closes_over_is_no_argument(slope, batched):
    scale = jnp.arange(1.0, 5.0)

    def scaled(x):
        return scale * jnp.sin(x)

    f = rule(scaled, lambda res, y_bar: (slope * scale * y_bar * jnp.cos(res[0]),))
    f = jax.vmap(f) if batched else f
    x = np.stack([X, 2 * X]) if batched else X
    (finding,) = audit(lambda x: f(x).sum(), x).findings
    assert finding.verdict == ("right" if slope == 1.0 else "wrong"), finding


def test_what_custom_root_takes_twice_is_differentiated_as_one():
    def f(x):
        def excess(y):
            return y**3 - x

        def solve(g, y):
            return lax.fori_loop(0, 60, lambda k, y: y - g(y) / (3 * y**2), y)

        start = jnp.ones_like(x)
        return lax.custom_root(excess, start, solve, lambda g, y: y / g(1.0))

    found = audit(f, 2.0)
    assert found.verdict in ("right", "autodiff-wrong"), found


# Dtypes, notes, faces


def test_float32_arguments_are_asked_in_float64_and_nothing_is_left_changed():
    with jax.enable_x64(False):
        x = X.astype(np.float32)
        tiny = rule(sine, lambda res, y_bar: (y_bar * jnp.cos(res[0]) * (1 + 1e-9),))
        found = audit(lambda x: tiny(x).sum() + wrong(x).sum(), x)
        assert [f.verdict for f in found.findings] == ["wrong", "wrong"]
        assert found.findings[1].worst.manual == pytest.approx(
            found.findings[1].worst.auto, rel=1e-8
        )
        assert not jax.config.jax_enable_x64


def test_what_does_not_trace_in_float64_is_asked_in_its_own_dtype():
    def f(x):
        start = jnp.zeros(4, jnp.float32)
        return lax.scan(lambda c, _: (c + wrong(x), None), start, None, 2)[0].sum()

    found = audit(f, X.astype(np.float32))
    assert found.first.rule == "faulty"
    assert "float64 does not trace" in found.note


def test_a_rule_in_a_branch_that_is_not_taken_is_told():
    def f(x):
        return lax.cond(x[0] > 0, wrong, jnp.sin, x).sum()

    taken = audit(f, jnp.abs(X))
    assert (taken.verdict, taken.note) == ("wrong", "")
    assert audit(f, -jnp.abs(X)).note.startswith(
        "never taken, though a hand-written rule is there: cond at test_audit.py:"
    )


def test_a_rule_that_raises_is_not_blamed_on_float64():
    def bwd(res, y_bar):
        raise RuntimeError("in bwd")

    stops = rule(sine, bwd)
    found = audit(lambda x: stops(x).sum(), X.astype(np.float32))
    assert (found.verdict, found.note) == ("broken-contract", "")


def test_of_links_that_fail_the_first_wrong_one_comes_first():
    unknown = rule(jnp.sqrt, lambda res, y_bar: (y_bar / (2 * jnp.sqrt(res[0])),))
    found = audit(lambda x: unknown(-2 - wrong(x)).sum(), X)
    assert [f.verdict for f in found.findings] == ["unproven", "wrong"], found
    assert found.first is found.findings[1]
    only = audit(lambda x: unknown(-2 - x**2).sum(), X)
    assert str(only).splitlines()[1].startswith("first unproven link from the loss: ")


@pytest.mark.parametrize("x64", [False, True])
def test_what_jax_is_set_to_is_left_alone_also_by_what_raises(x64):
    def raises(x):
        raise RuntimeError("in f")

    def bwd(res, y_bar):
        raise RuntimeError("in bwd")

    stops = rule(sine, bwd)
    with jax.enable_x64(x64):
        before = dict(jax.config.values)
        audit(lambda x: wrong(x).sum(), X.astype(np.float32))
        found = audit(lambda x: stops(x).sum(), X.astype(np.float32))
        assert "raises RuntimeError: in bwd" in found.first.message
        with pytest.raises(RuntimeError, match="in f"):
            audit(raises, X)
        assert dict(jax.config.values) == before
        assert jax.config.jax_enable_x64 is x64
        assert jnp.zeros(1).dtype == (np.float64 if x64 else np.float32)


def test_a_loop_under_vmap_ends_when_the_last_example_does():
    def halved(x):
        count = lax.while_loop(
            lambda c: c[1] > 1, lambda c: (c[0] + 1, c[1] / 2), (0, jnp.abs(x))
        )[0]
        return right(x) * count

    found = audit(lambda x: jax.vmap(halved)(x).sum(), jnp.array([0.5, 3.0, 40.0]))
    assert found.verdict == "right", found
    inside = audit(lambda x: jax.vmap(lambda x: in_while(wrong, x)[1])(x).sum(), X)
    assert inside.first.rule == "faulty"


def entropy(x):
    return x * jnp.log(x)


@pytest.mark.parametrize("slope", [1.0, 2.0])
def test_an_element_that_is_not_finite_hides_nothing_beside_it(slope):
    f = rule(entropy, lambda res, y_bar: (slope * y_bar * (jnp.log(res[0]) + 1),))
    for point in (jnp.array([0.0, 0.5]), jnp.array([0.5, jnp.inf])):
        (finding,) = audit(lambda x: f(x).sum(), point).findings
        assert finding.verdict == ("right" if slope == 1.0 else "wrong"), finding


def test_a_call_without_a_float_has_nothing_to_ask():
    count = rule(lambda k: k + 1, lambda res, y_bar: (None,))
    found = audit(lambda x: right(x).sum() * count(3), X)
    assert [f.rule for f in found.findings] == ["sine"]


def test_nothing_asked_is_unproven():
    assert audit(lambda x: x.sum(), X).verdict == "unproven"
    hidden = audit(lambda x: jax.grad(lambda x: wrong(x).sum())(x), X)
    assert hidden.verdict == "unproven"
    assert "out of reach" in hidden.note
    empty = audit(lambda x: right(x).sum(), X[:0])
    assert empty.verdict == "unproven"


def sharded(f):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    return jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec)


def test_of_the_rules_inside_a_shard_map_the_wrong_one_is_told():
    f = sharded(lambda x: right(wrong(right(x))))
    found = audit(lambda x: right(f(x)).sum(), X)
    told = [(g.rule, g.verdict, g.calls) for g in found.findings]
    assert told == [("sine", "right", 1), ("sine", "right", 2), ("faulty", "wrong", 1)]
    assert found.first.kind == "factor"
    assert found.first.source == f"{__file__}:{faulty.__code__.co_firstlineno}"


def test_right_rules_inside_a_shard_map_are_right():
    def block(x):
        total = lax.psum(right(x).sum(), "d")  # a collective: it runs nowhere else
        return lax.scan(lambda c, _: (right(c), None), x * total, None, 3)[0]

    found = audit(lambda x: sharded(block)(x).sum(), X)
    assert found.verdict == "right", found
    assert len(found.findings) == 2
    assert "shard_map around it" in found.findings[0].message


def test_a_rule_inside_what_is_run_whole_is_said_not_to_be_asked():
    def f(x):
        def solve(_, b):
            return b + 0 * wrong(b)

        return lax.custom_linear_solve(lambda y: y, x, solve, solve)

    found = audit(lambda x: right(f(x)).sum(), X)
    assert found.verdict == "unproven"
    assert "rules inside custom_linear_solve" in found.note


def test_the_table_leads_with_the_first_wrong_link_and_the_dict_is_json():
    def f(x):
        return right(wrong(x)).sum()

    found = audit(f, X)
    lines = str(found).splitlines()
    assert lines[0] == "audit(f): wrong, 2 calls of rules"
    assert lines[1].startswith("first wrong link from the loss: faulty, ")
    assert lines[2].split() == ["rule", "verdict", "wire", "calls", "called", "at"]
    assert "hand-written" in str(found)
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["ok"], told["verdict"], told["first"]) == (False, "wrong", 1)
    assert told["findings"][1]["rule"] == "faulty"
    assert told["schema"] == 1


def test_alike_calls_share_their_compiled_programs():
    def f(x):
        return wrong(wrong(wrong(x)))

    eqns = jax.make_jaxpr(f)(X).eqns
    programs = Programs()
    pairs = [Pair(eqn, [X], programs) for eqn in eqns]
    for pair in pairs:
        pair.ask([X], [X])
    assert len(pairs) == 3
    assert len(programs) == 2


def test_five_hundred_equations_are_a_matter_of_seconds(monkeypatch):
    def f(x):
        for _ in range(100):
            x = right(x) * 1.1 + jnp.cos(x) - 0.3 * x
        return x.sum()

    runs = []
    once = _interpret.run_equation
    monkeypatch.setattr(
        _interpret, "run_equation", lambda *args: (runs.append(1), once(*args))[1]
    )
    start = time.perf_counter()
    found = audit(f, X)
    assert time.perf_counter() - start < 60  # 4 s where nothing else runs
    assert found.verdict == "right"
    assert found.findings[0].calls == 100
    # Each of 501 once forward; of the rules' calls each is traced once more, to be
    # compiled. One run of what lies before every call would be 25,000.
    assert 501 <= len(runs) < 4 * 501


def test_a_rule_for_the_callers_narrower_dtype_may_answer_in_that():
    def of(factor):
        def bwd(res, g):
            return (factor * g * jnp.cos(res[0].astype(jnp.float32)),)

        return rule(lambda x: jnp.sin(x.astype(jnp.float32)), bwd)

    x = jnp.array([0.3, -1.2, 2.0], jnp.float32)
    assert audit(of(1), x).verdict == "right"
    assert audit(of(1.001), x).verdict == "wrong"
    (finding,) = audit(of(1), x.astype(jnp.float64)).findings
    assert finding.message == "a cotangent of dtype float32 for float64"
