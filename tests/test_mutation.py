"""The mutants are what they claim, and the judge of the survivors is not fooled."""

import ast
import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp.ops.catalogue import CASES
from scripts.mutation import equivalence
from scripts.mutation import run as trials
from scripts.mutation.__main__ import main, report, to_dict
from scripts.mutation.equivalence import Judge
from scripts.mutation.inputs import batches, squared
from scripts.mutation.mutants import mutants
from scripts.mutation.run import Fate, Result, run

CASE = {case.name: case for case in CASES}
X, W, G = jnp.array([0.3, 2.0]), jnp.array([0.7, -1.1]), jnp.array([1.5, -0.4])


def _values(bwd, *args):
    """What each mutant gives for its first output, by operator and equation."""
    found = {}
    for mutant in mutants(bwd, args):
        value = np.asarray(mutant.of(bwd)(*args)[0])
        found.setdefault(mutant.what, []).append(value)
    return found


def test_operators_do_what_they_say():
    def bwd(res, g):
        x, w = res
        return (jnp.sin(x) * g - 3.0 * w,)

    found = _values(bwd, (X, W), G)
    expected = {
        "sin → cos": [jnp.cos(X) * G - 3 * W],
        "left out": [X * G - 3 * W],
        "mul → div": [jnp.sin(X) / G - 3 * W, jnp.sin(X) * G - 3 / W],
        "sub → add": [jnp.sin(X) * G + 3 * W],
        "operands swapped": [3 * W - jnp.sin(X) * G],
        "constant 3.0: c + 1": [jnp.sin(X) * G - 4 * W],
        "constant 3.0: 1.01c": [jnp.sin(X) * G - 3.03 * W],
        "negated": [-jnp.sin(X) * G - 3 * W, jnp.sin(X) * G + 3 * W],
        "twice": [2 * (jnp.sin(X) * G - 3 * W)],
    }
    for what, values in expected.items():
        for value in values:
            close = [np.allclose(value, v, rtol=1e-14) for v in found[what]]
            assert any(close), (what, value, found[what])
    dropped = found["operand 0 dropped"]
    assert any(np.allclose(v, -3 * W) for v in dropped)
    assert any(np.allclose(v, G - 3 * W) for v in dropped)


def test_a_comparison_a_branch_and_a_constant_of_one_call_alone():
    def bwd(res, g):
        # Two calls of one jitted function: a change in one leaves the other.
        return (jnp.where(res > 1, g, 0.0) + jnp.where(res > 0, 0.0, 2.0),)

    found = _values(bwd, X, G)
    assert any(np.allclose(v, [1.5, 0.0]) for v in found["branches swapped"])
    assert any(np.allclose(v, [0.0 + 2, -0.4 + 2]) for v in found["branches swapped"])
    assert any(np.allclose(v, [1.5, 0.0]) for v in found["gt → le"])
    assert len(found["branches swapped"]) == 2


def test_axes_and_operands_are_exchanged_where_shapes_allow():
    def bwd(w, g):
        return g @ w.T, g.sum(axis=0)

    rng = np.random.default_rng(0)
    w, g = (jnp.asarray(rng.standard_normal(s)) for s in [(3, 4), (2, 4)])
    whats = {m.what for m in mutants(bwd, (w, g))}
    assert {"first product for the sum", "mean for the sum"} <= whats
    assert not any("axes=(0,) → (1,)" in what for what in whats)
    w, g = squared((w, g))
    found = {m.what: m for m in mutants(bwd, (w, g))}
    other = found["axes=(0,) → (1,)"].of(bwd)(w, g)
    np.testing.assert_allclose(other[1], g.sum(axis=1))
    np.testing.assert_allclose(
        found["permutation=(1, 0) → (0, 1)"].of(bwd)(w, g)[0], g @ w
    )


def test_the_body_of_a_scan_is_mutated_in_every_step():
    def bwd(res, g):
        return jax.lax.scan(lambda c, x: (c * x, ()), g, res)[:1]

    xs, g = jnp.array([2.0, 3.0]), jnp.array(5.0)
    found = _values(bwd, xs, g)
    assert 5.0 / 2 / 3 in found["mul → div"]
    assert found["operand 0 dropped"] == [3.0]


def test_the_start_of_a_slice_as_long_as_its_axis_is_left_alone():
    def bwd(res, g):
        return (jax.lax.dynamic_slice(res, (0, g), (2, 1)),)

    whats = [m.what for m in mutants(bwd, (jnp.ones((2, 3)), jnp.array(1)))]
    shifted = [what for what in whats if what.startswith("index")]
    assert [what[:7] for what in shifted] == ["index 2", "index 2"], whats


def test_no_mutant_reads_like_the_rule_or_like_another():
    def bwd(res, g):
        return (g * 0.0 + res,)  # 2c and 1.01c of 0 are 0

    whats = [m.what for m in mutants(bwd, (X, G))]
    assert "operand 1 dropped" in whats  # so c + 1 is not counted again
    assert not any("constant 0.0" in what for what in whats)


def test_a_mutant_changes_the_same_thing_at_other_shapes():
    def bwd(res, g):
        return ((res * g[..., None]),)

    (mutant,) = (m for m in mutants(bwd, (X[None], G[:1])) if "mul → add" in m.what)
    x, g = jnp.ones((4, 3)), jnp.arange(4.0)
    np.testing.assert_allclose(mutant.of(bwd)(x, g)[0], x + g[:, None])
    with pytest.raises((TypeError, LookupError)):
        mutant.of(lambda res, g: (res / g[:, None],))(x, g)


def _fwd(x, y):
    return x * y + x, (x, y)


def _bwd(res, g):
    return (res[1] + 1) * g, res[0] * g


def _judged(mutated, fwd=_fwd, bwd=_bwd):
    args = next(batches(CASE["multiply"], square=False))
    return Judge(fwd, bwd, [args])(mutated)


def test_the_judge_passes_what_only_rounds_differently():
    commuted = _judged(lambda res, g: (g * (1 + res[1]), g * res[0]))
    assert commuted.verdict == "equivalent"
    assert commuted.inputs >= 1000
    distributed = _judged(lambda res, g: (res[1] * g + g, res[0] * g))
    assert distributed.verdict == "equivalent"


def test_the_judge_does_not_blame_a_rule_for_how_xla_fuses_it(monkeypatch):
    """Where compiled answers differ too much, the same operations one by one decide."""

    def none(bwd, y, res, true):
        return jnp.full_like(true, -1)

    monkeypatch.setattr(equivalence, "_allowed", none)
    assert _judged(lambda res, g: _bwd(res, g)).verdict == "equivalent"
    other = _judged(lambda res, g: ((1 + 2**-50) * (res[1] + 1) * g, res[0] * g))
    assert other.verdict == "different"


def test_the_judge_sees_a_mistake_at_one_edge_alone():
    def at_zero(res, g):
        x, y = res
        return jnp.where(x == 0, -1, 1) * (y + 1) * g, x * g

    found = _judged(at_zero)
    assert found.verdict == "different"
    assert (np.asarray(found.example[0]) == 0).any()

    def one_part_in_a_million(res, g):
        return (1 + 1e-6) * (res[1] + 1) * g, res[0] * g

    assert _judged(one_part_in_a_million).verdict == "different"


def test_the_judge_knows_a_choice_of_subgradient_from_a_mistake():
    def fwd(x, y):
        return jnp.maximum(x, 0.0) + y, x

    def bwd(x, g):
        return jnp.where(x > 0, g, 0.0), g

    def rule(at_kink):
        return lambda x, g: (jnp.where(x == 0, at_kink * g, bwd(x, g)[0]), g)

    assert _judged(rule(0.0), fwd, bwd).verdict == "equivalent"
    assert _judged(rule(1.0), fwd, bwd).verdict == "kink"
    assert _judged(rule(-1.0), fwd, bwd).verdict == "different"


def test_mutants_of_an_op_are_killed_and_counted():
    result = run(CASE["exp"], limit=3)
    assert [fate.outcome for fate in result.fates] == ["quick"] * 3
    assert not result.alarms
    assert report(result)
    assert to_dict([result], result)["kill_rate"] == 1


def test_what_the_instrument_lets_pass_is_a_survivor(monkeypatch, capsys):
    class Ok:
        ok, verdict = True, "right"

    monkeypatch.setattr(trials, "compare", lambda *args, **options: Ok)
    assert main(["--only", "exp", "--limit", "2"]) == 1
    out = capsys.readouterr().out
    assert "killed: 0 of 2" in out
    assert "survived: `compare` is ok" in out
    Ok.ok = False
    Ok.verdict = "wrong"
    assert main(["--only", "exp", "--limit", "2"]) == 1
    out = capsys.readouterr().out
    assert "false alarm: the true rule of exp: wrong at ordinary, full" in out


def test_too_many_equivalent_mutants_are_not_taken_for_an_answer(capsys):
    fate = Fate("op", "mul a b", "negated", "quick", "wrong")
    same = dataclasses.replace(fate, outcome="equivalent")
    assert report(Result("total", (fate,) * 17 + (same,) * 3, (), 1.0))
    assert not report(Result("total", (fate,) * 16 + (same,) * 4, (), 1.0))
    assert "equivalent: 4 of 20, 20.00% (at most 15%)" in capsys.readouterr().out


def test_the_judge_imports_nothing_of_the_instrument():
    imports = ast.walk(ast.parse(inspect.getsource(equivalence)))
    imports = [n for n in imports if isinstance(n, (ast.Import, ast.ImportFrom))]
    modules = {getattr(n, "module", None) or n.names[0].name for n in imports}
    assert "jax" in modules
    assert not any(module.startswith(("jaxbp", "scripts")) for module in modules)
