"""One contract for every op in the catalogue, and wrong rules that break it."""

import functools
import os
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import audit, compare, ops
from jaxbp.ops.catalogue import CASES

KEY = jax.random.key(7)
REGIMES = [(case, regime) for case in CASES for regime in case.inputs]
every_op = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
NAMED = {case.name: case for case in CASES}
# The first case of every file: what is asked of these alone takes long.
FIRST = [*{case.op.__module__: case for case in reversed(CASES)}.values()][::-1]
# And the first case of every op.
OPS = [*{case.op: case for case in reversed(CASES)}.values()][::-1]
# JAX 0.10.2's new representation of rules cannot remat one with a static or a None
# argument.
OLD_VJP3 = jax.__version_info__ < (0, 11) and os.environ.get("JAX_CUSTOM_VJP3") == "1"


def _inputs(case, regime="ordinary", dtype=jnp.float64, key=KEY):
    return case.inputs[regime](key, dtype)


def _is_floating(x):
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _merged(args, floats):
    """The arguments with these values on their floating leaves."""
    leaves, tree = jax.tree.flatten(args)
    rest = iter(floats)
    return tree.unflatten([next(rest) if _is_floating(x) else x for x in leaves])


def _in_floats(f, args):
    """`f` as a function of the floating leaves of its arguments, and those leaves."""

    def of_floats(*floats):
        outs = jax.tree.leaves(f(*_merged(args, floats)))
        return [y for y in outs if _is_floating(y)]

    return of_floats, [x for x in jax.tree.leaves(args) if _is_floating(x)]


def _cotangents(ys, seed=1):
    # NumPy's draws, and NumPy's what is asked of a result: JAX would compile a program
    # for every shape.
    rng = np.random.default_rng(seed)
    return [
        jnp.asarray(rng.standard_normal(y.shape), y.dtype)
        if _is_floating(y)
        else np.zeros(y.shape, jax.dtypes.float0)
        for y in ys
    ]


def _vjp(of_floats, floats, y_bars):
    ys, back = jax.vjp(of_floats, *floats)
    return ys, list(back(list(y_bars)))


def _pull(f, args, seed=1, *, run=jax.jit):
    """Floating outputs, and a cotangent for every floating leaf of the arguments.

    Compiled whole: equation by equation JAX would compile as many programs.
    """
    of_floats, floats = _in_floats(f, args)
    ys = jax.eval_shape(of_floats, *floats)
    pull = functools.partial(_vjp, of_floats)
    return run(pull)(floats, _cotangents(ys, seed))


@functools.cache
def _program(name, regime, side):
    """The compiled pullback of an op, or of its plain form, and what it is asked."""
    case = NAMED[name]
    of_floats, floats = _in_floats(getattr(case, side), _inputs(case, regime))
    y_bars = _cotangents(jax.eval_shape(of_floats, *floats))
    return jax.jit(functools.partial(_vjp, of_floats)), floats, y_bars


@functools.cache
def _pulled(name, regime, side):
    """What the op, or its plain form, gives in a regime."""
    pull, floats, y_bars = _program(name, regime, side)
    return jax.tree.map(np.asarray, pull(floats, y_bars))


def _assert_close(actual, expected):
    # The same arithmetic in another order: each of fewer than a hundred roundings on
    # the way moves an element by a unit in the last place of the largest one.
    def close(a, b):
        scale = float(np.max(np.abs(b), initial=0.0))
        chex.assert_trees_all_close(a, b, rtol=0, atol=100 * 2.3e-16 * scale)

    jax.tree.map(close, actual, expected)


@pytest.mark.slow
@every_op
def test_value_and_gradient_are_those_of_the_plain_form(case):
    expected = "surrogate" if case.surrogate else "right"
    comparison = _compared(case, _inputs(case))
    assert {f.verdict for f in comparison.findings} == {expected}, comparison


def _compared(case, args):
    against = {"reference": case.plain, "surrogate": case.surrogate}
    return compare(case.function, *args, **against, seed=3)


every_regime = pytest.mark.parametrize(
    ("case", "regime"),
    REGIMES,
    ids=[f"{case.name}-{regime}" for case, regime in REGIMES],
)


@every_regime
def test_in_every_regime_it_is_the_plain_form_where_that_is_finite(case, regime):
    _assert_plain(case, regime, _pulled(case.name, regime, "function"))


def _assert_plain(case, regime, pulled):
    (ys, bars), (plain_ys, plain_bars) = pulled, _pulled(case.name, regime, "plain")
    pairs = [*zip(ys, plain_ys, strict=True)]
    if not case.surrogate:
        pairs += zip(bars, plain_bars, strict=True)
    if not all(_near(*pair) for pair in pairs):
        # Rounding may be worse than a hundred units there: the instrument measures it.
        comparison = _compared(case, _inputs(case, regime))
        assert comparison.ok, comparison
        assert comparison.verdict != "less-accurate", comparison


@pytest.mark.parametrize("case", OPS, ids=lambda case: case.name)
@pytest.mark.optimised
def test_compiled_as_users_do_it_is_the_plain_form(case):
    _assert_plain(case, "ordinary", _pull(case.function, _inputs(case)))


def _near(hand, plain):
    hand, plain = np.asarray(hand), np.asarray(plain)
    told = np.isfinite(plain)
    scale = np.max(np.abs(plain), initial=0.0, where=told)
    with np.errstate(invalid="ignore"):  # inf - inf, which is not told
        off = np.max(np.abs(hand - plain), initial=0.0, where=told)
    return off <= 100 * 2.3e-16 * scale and (hand == plain)[~told].all()


@pytest.mark.slow
@every_regime
def test_in_every_regime_the_instrument_finds_nothing(case, regime):
    args = _inputs(case, regime)
    comparison = _compared(case, args)
    if all(x.size == 0 for x in _in_floats(case.function, args)[1]):
        expected = "surrogate" if case.surrogate else "unproven"
        assert {f.verdict for f in comparison.findings} == {expected}, comparison
        return
    assert comparison.ok, comparison
    assert comparison.verdict != "less-accurate", comparison


@pytest.mark.slow
@every_op
def test_every_rule_inside_is_right_where_it_is_met(case):
    if case.surrogate:
        pytest.skip("its gradient is not its primal's, on purpose")
    audited = audit(case.function, *_inputs(case))
    assert audited.ok, audited


@every_op
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_dtype_and_shape_of_value_and_cotangents_are_the_arguments(case, dtype):
    args = _inputs(case)
    of_floats, _ = _in_floats(case.function, args)
    floats = jax.tree.leaves(jax.eval_shape(lambda: _inputs(case, dtype=dtype)))
    floats = [x for x in floats if _is_floating(x)]
    pull = lambda *floats: _pull(of_floats, floats, run=lambda f: f)
    ys, bars = jax.eval_shape(pull, *floats)  # types are known before anything runs
    assert {y.dtype for y in ys} == {jnp.dtype(dtype)}
    chex.assert_trees_all_equal_shapes_and_dtypes(bars, floats)


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.name)
def test_it_gives_the_same_gradient_without_jit(case):
    expected = _pulled(case.name, "ordinary", "function")
    actual = _pull(case.function, _inputs(case), run=lambda pull: pull)
    _assert_close(actual, expected)


@every_op
def test_scan_and_vmap_give_the_same_gradient(case):
    pull, floats, y_bars = _program(case.name, "ordinary", "function")
    of_floats, _ = _in_floats(case.function, _inputs(case))
    expected = _pulled(case.name, "ordinary", "function")

    def scanned(*floats):
        step = lambda carry, _: (carry, of_floats(*floats))
        return [y[0] for y in jax.lax.scan(step, 0, None, length=1)[1]]

    @jax.jit
    def both(floats, stacked):
        mapped = jax.vmap(lambda *a: _vjp(of_floats, a, y_bars))
        return _vjp(scanned, floats, y_bars), mapped(*stacked)

    other = _in_floats(case.function, _inputs(case, key=jax.random.key(8)))[1]
    stacked = [np.stack(leaves) for leaves in zip(floats, other, strict=True)]
    in_a_loop, mapped = both(floats, stacked)
    _assert_close(in_a_loop, expected)
    one_by_one = expected, pull(other, y_bars)
    _assert_close(mapped, jax.tree.map(lambda *x: np.stack(x), *one_by_one))


@every_op
def test_remat_gives_the_same_gradient(case):
    args = _inputs(case)
    of_floats, floats = _in_floats(case.function, args)
    if OLD_VJP3 and (case.options or any(arg is None for arg in args)):
        pytest.skip("jax 0.10.2 with JAX_CUSTOM_VJP3: no remat of such arguments")
    expected = _pulled(case.name, "ordinary", "function")
    _assert_close(_pull(jax.checkpoint(of_floats), floats), expected)


@every_op
def test_a_zero_cotangent_gives_zero(case):
    pull, floats, y_bars = _program(case.name, "ordinary", "function")
    for bar in pull(floats, [np.zeros_like(g) for g in y_bars])[1]:
        assert not np.any(bar)


@pytest.mark.slow
@every_op
def test_second_derivatives_are_those_of_the_plain_form(case):
    if case.surrogate or not case.twice:
        pytest.skip("its docstring says why it has no second derivative")
    args = _inputs(case)
    comparison = compare(case.function, *args, reference=case.plain, order=2)
    assert comparison.ok, comparison


@every_op
def test_residuals_are_those_that_the_docstring_names(case):
    _, res = jax.eval_shape(lambda: case.fwd(*_inputs(case)))
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(res)) == case.residuals


@every_op
def test_the_public_halves_are_the_rule(case):
    args = _inputs(case)
    floats = [x for x in jax.tree.leaves(args) if _is_floating(x)]

    @jax.jit
    def halves(*floats):
        y, res = case.fwd(*_merged(args, floats))
        outs, tree = jax.tree.flatten(y)
        return outs, case.bwd(res, jax.tree.unflatten(tree, _cotangents(outs)))

    outs, bars = halves(*floats)
    given = [
        bar
        for bar, arg in zip(bars, args, strict=True)
        for bar in jax.tree.leaves(bar)
        if arg is not None
    ]
    ys, expected = _pulled(case.name, "ordinary", "function")
    _assert_close(([y for y in outs if _is_floating(y)], given), (ys, expected))


@every_op
def test_a_jitted_gradient_is_traced_once(case):
    of_floats, floats = _in_floats(case.function, _inputs(case))
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def gradient(*floats):
        return _pull(of_floats, floats, run=lambda pull: pull)[1]

    # Shapes are what a program is traced for: nothing need run.
    gradient.trace(*floats)
    gradient.trace(*(np.asarray(x) + 1 for x in floats))


@every_op
def test_forward_mode_is_refused_by_jax(case):
    of_floats, floats = _in_floats(case.function, _inputs(case))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(of_floats, floats, floats)


def test_every_op_is_right_under_shard_map_with_replicated_arguments():
    script = pathlib.Path(__file__).with_name("sharded.py")
    root = pathlib.Path(__file__).parents[2]
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _sign(bar, y_bar):
    return -bar


def _one_percent_in_one_element(bar, y_bar):
    sizes = abs(bar).ravel()
    largest = (np.arange(sizes.size) == sizes.argmax()).astype(bar.dtype)
    return bar * (1 + 0.01 * largest.reshape(bar.shape))


def _dropped(bar, y_bar):
    return np.zeros(bar.shape, bar.dtype)


def _ignores_its_cotangent(bar, y_bar):
    return bar / jnp.where(y_bar == 0, 1, y_bar).ravel()[0]


def _not_zero_for_a_zero_cotangent(bar, y_bar):
    return bar + 1


def _faulty(of_floats, leaf, wrong):
    """`of_floats` with one leaf's cotangent made wrong."""

    @jax.custom_vjp
    def faulty(*floats):
        return of_floats(*floats)

    def bwd(floats, y_bars):
        bars = list(jax.vjp(of_floats, *floats)[1](y_bars))
        bars[leaf] = wrong(bars[leaf], y_bars[0])
        return tuple(bars)

    faulty.defvjp(lambda *floats: (of_floats(*floats), floats), bwd)
    return faulty


@every_op
def test_the_contract_rejects_a_wrong_gradient(case):
    if case.surrogate:
        pytest.skip("of a surrogate only the contract is held")
    (_, bars), (ys, plain) = (
        _pulled(case.name, "ordinary", side) for side in ("function", "plain")
    )
    for wrong in (_sign, _one_percent_in_one_element, _dropped):
        assert any(
            not _near(wrong(bar, ys[0]), other)
            for bar, other in zip(bars, plain, strict=True)
        )


def _mistakes():
    """Each of every op, the slow ones; one of each file's first op."""
    for case in CASES:
        for wrong, kind in (
            (_sign, "sign"),
            (_one_percent_in_one_element, ""),
            (_dropped, "missing"),
            (_ignores_its_cotangent, None),
            (_not_zero_for_a_zero_cotangent, None),
        ):
            # Of a surrogate only the contract is held, and a clip is not linear.
            if case.surrogate == (wrong is _not_zero_for_a_zero_cotangent):
                few = wrong in (
                    _one_percent_in_one_element,
                    _not_zero_for_a_zero_cotangent,
                )
                marks = () if few and case in FIRST else pytest.mark.slow
                name = f"{wrong.__name__}-{case.name}"
                yield pytest.param(case, wrong, kind, marks=marks, id=name)


@pytest.mark.parametrize(("case", "wrong", "kind"), [*_mistakes()])
def test_a_wrong_rule_is_reported_at_its_leaf_as_what_it_is(case, wrong, kind):
    of_floats, floats = _in_floats(case.function, _inputs(case))
    largest = [float(np.abs(bar).max()) for bar in _pull(of_floats, floats)[1]]
    leaf = int(np.argmax(largest))
    plain, _ = _in_floats(case.plain, _inputs(case))
    comparison = compare(
        _faulty(of_floats, leaf, wrong),
        *floats,
        reference=plain,
        surrogate=case.surrogate,
    )
    assert not comparison.ok
    bad = [f for f in comparison.findings if f.verdict in ("wrong", "broken-contract")]
    assert [f.argument for f in bad] == [f"[{leaf}]"]
    if kind is not None:
        assert bad[0].kind == kind


def test_every_public_op_is_in_the_catalogue():
    rules = {name.removesuffix("_bwd") for name in ops.__all__ if name.endswith("_bwd")}
    assert rules == {case.op.__name__ for case in CASES}
    for name in rules:
        assert {name, f"{name}_fwd", f"{name}_bwd"} <= set(ops.__all__)
        assert "Source:" in getattr(ops, name).__doc__
