"""One contract for every op in the catalogue, and wrong rules that break it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops.catalogue import CASES

KEY = jax.random.key(7)
REGIMES = [(case, regime) for case in CASES for regime in case.inputs]
every_op = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

# Elements kept between forward and backward at the "ordinary" inputs, argument shapes
# (5, 3), dense (5, 3) x (3, 4): a rule that starts to keep more must say so here.
RESIDUALS = {
    "add": 0,
    "multiply": 30,
    "square": 15,
    "reciprocal": 15,
    "exp": 15,
    "sigmoid": 15,
    "softmax": 15,
    "dense": 27,
    "squared_error": 15,
    "half_squared_error": 15,
    "binary_cross_entropy": 30,
    "binary_cross_entropy_with_logits": 30,
    "cross_entropy": 30,
    "softmax_cross_entropy": 35,
}


def _inputs(case, regime="ordinary", dtype=jnp.float64):
    return case.inputs[regime](KEY, dtype)


def _cotangent(y, seed=1):
    return jax.random.normal(jax.random.key(seed), y.shape, y.dtype)


def _pull(f, args, seed=1):
    y, back = jax.vjp(f, *args)
    return y, back(_cotangent(y, seed))


def _assert_close(actual, expected):
    # The same arithmetic in another order: a few units in the last place of the largest
    # element, since the sums run over at most 20 terms of its magnitude.
    def close(a, b):
        scale = float(jnp.max(jnp.abs(b), initial=0.0))
        chex.assert_trees_all_close(a, b, rtol=0, atol=20 * 2.3e-16 * scale)

    jax.tree.map(close, actual, expected)


@pytest.mark.parametrize(
    ("case", "regime"),
    REGIMES,
    ids=[f"{case.name}-{regime}" for case, regime in REGIMES],
)
def test_value_and_gradient_are_those_of_the_plain_form(case, regime):
    comparison = compare(
        case.function, *_inputs(case, regime), reference=case.plain, seed=3
    )
    empty = all(0 in leaf.shape for leaf in _inputs(case, regime))
    expected = {"unproven"} if empty else {"right"}
    assert {finding.verdict for finding in comparison.findings} == expected, comparison


@every_op
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_dtype_and_shape_of_value_and_cotangents_are_the_arguments(case, dtype):
    args = _inputs(case, dtype=dtype)
    y, bars = _pull(case.function, args)
    assert y.dtype == dtype
    chex.assert_trees_all_equal_shapes_and_dtypes(bars, args)


@every_op
def test_jit_remat_scan_and_vmap_give_the_same_gradient(case):
    args = _inputs(case)
    expected = _pull(case.function, args)
    _assert_close(jax.jit(lambda *a: _pull(case.function, a))(*args), expected)
    _assert_close(_pull(jax.checkpoint(case.function), args), expected)

    def scanned(*args):
        return jax.lax.scan(lambda c, _: (c, case.function(*args)), 0, None, length=1)[
            1
        ]

    y, back = jax.vjp(scanned, *args)
    _assert_close((y[0], back(_cotangent(y[0])[None])), expected)

    batch = [_inputs_of(case, seed) for seed in (1, 2, 3)]
    stacked = [jnp.stack(leaves) for leaves in zip(*batch, strict=True)]
    mapped = jax.vmap(lambda *a: _pull(case.function, a))(*stacked)
    one_by_one = [_pull(case.function, args) for args in batch]
    _assert_close(mapped, jax.tree.map(lambda *x: jnp.stack(x), *one_by_one))


def _inputs_of(case, seed):
    return case.inputs["ordinary"](jax.random.key(seed), jnp.float64)


@every_op
def test_a_zero_cotangent_gives_zero(case):
    y, back = jax.vjp(case.function, *_inputs(case))
    for bar in back(jnp.zeros_like(y)):
        assert not bar.any()


@every_op
def test_second_derivatives_are_those_of_the_plain_form(case):
    args = _inputs(case)

    def energy(f):
        return lambda *a: jnp.vdot(jax.vjp(f, *a)[1](_cotangent(f(*a)))[0], args[0])

    hand, plain = (
        jax.grad(energy(f), tuple(range(len(args))))(*args)
        for f in (case.function, case.plain)
    )
    for a, b in zip(hand, plain, strict=True):
        scale = max(1.0, float(jnp.abs(b).max()))
        # Two passes of some ten roundings each, amplified by probabilities down to
        # about 1e-2, which the log losses divide by twice.
        chex.assert_trees_all_close(a, b, rtol=0, atol=1e4 * 20 * 2.3e-16 * scale)


@every_op
def test_residuals_are_those_that_the_docstring_names(case):
    _, res = getattr(ops, f"{case.name}_fwd")(*_inputs(case))
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(res)) == RESIDUALS[case.name]


@every_op
def test_a_jitted_gradient_is_traced_once(case):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def gradient(*args):
        return _pull(case.function, args)[1]

    gradient(*_inputs_of(case, 1))
    gradient(*_inputs_of(case, 2))


@every_op
def test_forward_mode_is_refused_by_jax(case):
    args = _inputs(case)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(case.function, args, args)


def _sign(bar, y_bar):
    return -bar


def _one_percent_in_one_element(bar, y_bar):
    return bar.ravel().at[0].mul(1.01).reshape(bar.shape)


def _dropped(bar, y_bar):
    return jnp.zeros_like(bar)


def _ignores_its_cotangent(bar, y_bar):
    return bar / jnp.where(y_bar == 0, 1, y_bar).ravel()[0]


@every_op
@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (_sign, "sign"),
        (_one_percent_in_one_element, ""),
        (_dropped, "missing"),
        (_ignores_its_cotangent, None),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_wrong_rule_is_reported_at_its_leaf_as_what_it_is(case, wrong, kind):
    args = _inputs(case)
    leaf = len(args) - 1

    @jax.custom_vjp
    def faulty(*args):
        return case.function(*args)

    def bwd(args, y_bar):
        bars = list(jax.vjp(case.function, *args)[1](y_bar))
        bars[leaf] = wrong(bars[leaf], y_bar)
        return tuple(bars)

    faulty.defvjp(lambda *args: (case.function(*args), args), bwd)
    comparison = compare(faulty, *args, reference=case.plain)
    assert not comparison.ok
    bad = [f for f in comparison.findings if f.verdict in ("wrong", "broken-contract")]
    assert [f.argument for f in bad] == [f"[{leaf}]"]
    if kind is not None:
        assert bad[0].kind == kind


def test_every_public_op_is_in_the_catalogue():
    rules = {name.removesuffix("_bwd") for name in ops.__all__ if name.endswith("_bwd")}
    assert rules == {case.name for case in CASES}
    for name in rules:
        assert {name, f"{name}_fwd", f"{name}_bwd"} <= set(ops.__all__)
        assert "Source:" in getattr(ops, name).__doc__


def test_losses_at_certain_labels_stay_finite():
    certain, labels = jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 1.0]])
    for loss in (ops.cross_entropy, ops.binary_cross_entropy):
        value, p_bar = jax.value_and_grad(lambda p, f=loss: f(p, labels)[0])(certain)
        assert value == 0
        assert jnp.isfinite(p_bar).all()
    logits = jnp.array([[1e4, -1e4]])
    for loss in (ops.softmax_cross_entropy, ops.binary_cross_entropy_with_logits):
        value, bar = jax.value_and_grad(lambda x, f=loss: f(x, labels)[0])(logits)
        assert jnp.isfinite(value)
        assert jnp.isfinite(bar).all()


def test_integer_and_boolean_labels_are_numbers():
    logits, classes = jnp.array([[0.3, -1.2]]), jnp.array([[1, 0]])
    as_floats = ops.softmax_cross_entropy(logits, classes.astype(float))
    assert ops.softmax_cross_entropy(logits, classes) == as_floats
    assert ops.softmax_cross_entropy(logits, classes.astype(bool)) == as_floats
