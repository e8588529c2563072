"""cost: exact counts and residuals of known programs, and ratios that make sense."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import autodiff, ops
from jaxbp._jaxpr import live
from jaxbp.instrument._cost import cost
from jaxbp.instrument._count import count

# NumPy's: an array of JAX's made here would be of the dtype before conftest's.
A = np.ones((4, 5))
B = np.ones((5, 6))


def counted(f, *args):
    return count(live(jax.make_jaxpr(f)(*args)))


# Counting


def test_a_product_and_its_activation():
    found = counted(lambda a, b: jnp.tanh(a @ b), A, B)
    assert (found.flops, found.transcendentals) == (2 * 4 * 5 * 6, 4 * 6)
    assert found.bytes == 8 * (20 + 30 + 24) + 8 * (24 + 24)
    assert found.notes == ()


def test_a_batch_of_products():
    batch = counted(jnp.matmul, jnp.ones((7, 4, 5)), jnp.ones((7, 5, 6)))
    assert batch.flops == 7 * 2 * 4 * 5 * 6


def stack(n, square):
    def f(x):
        return jax.lax.scan(lambda c, _: (c @ square, None), x, length=n)[0]

    return f


def test_a_scan_counts_its_length_and_loops_multiply():
    square = jnp.ones((5, 5))
    one = 2 * 4 * 5 * 5
    assert counted(stack(11, square), A).flops == 11 * one
    nested = jax.jit(
        lambda x: jax.lax.fori_loop(0, 3, lambda _, c: stack(11, square)(c), x)
    )
    assert counted(nested, A).flops == 3 * 11 * one
    assert counted(stack(0, square), A).flops == 0


def test_a_gradient_through_a_scan():
    square = jnp.ones((5, 5))
    step = jax.grad(lambda w: stack(11, w)(A).sum())
    # forward; then x_bar and w_bar of every iteration, and the sum of the w_bars
    assert counted(step, square).flops == 11 * (3 * 2 * 4 * 5 * 5 + 25)


def test_a_while_loop_is_counted_once_and_said():
    found = counted(
        lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c * 2, x), A
    )
    assert found.flops == (20 - 1) + 1 + 20
    (note,) = found.notes
    assert "test_cost.py" in note
    assert "trip count unknown, counted once" in note


def test_a_cond_costs_its_dearest_branch():
    def f(x, flag):
        return jax.lax.cond(flag, lambda x: (x @ B).sum(), lambda x: x[0, 0], x)

    assert counted(f, A, True).flops == 2 * 4 * 5 * 6 + 23


def test_jit_remat_and_rules_are_descended():
    inner = jax.jit(jax.checkpoint(lambda x: x + x))
    assert counted(inner, A).flops == 20
    assert counted(lambda x: ops.sigmoid(inner(x)), A).transcendentals >= 20


def test_arithmetic_of_integers_moves_and_reshapes_are_no_flops():
    found = counted(lambda k: (k + 1).astype(float), jnp.arange(6))
    assert (found.flops, found.bytes) == (0, 4 * 6 * 8)
    assert counted(lambda x: x.reshape(-1), A).bytes == 0
    table = np.ones((1000, 5))
    assert counted(lambda x: x[jnp.array([0, 2])], table).bytes < table.nbytes / 10


def test_what_no_output_needs_is_not_counted():
    assert counted(lambda x: (x + 1, x @ B)[0], A).flops == 20


@pytest.mark.parametrize(
    ("f", "flops"),
    [
        (lambda x: x.sum(), 19),
        (lambda x: jnp.max(x, axis=1), 16),
        (lambda x: jnp.cumsum(x, axis=1), 16),
        (lambda x: jax.lax.integer_pow(x, 7), 4 * 20),
        (lambda x: jax.lax.integer_pow(x, -2), 2 * 20),
        (lambda x: jax.lax.complex(x, x) * jax.lax.complex(x, x), 6 * 20),
        (lambda x: jax.lax.complex(x, x) @ jax.lax.complex(B, B), 4 * 240),
        (lambda x: x.at[jnp.array([0, 0])].add(1.0), 2 * 5),
    ],
)
def test_other_formulas(f, flops):
    assert counted(f, A).flops == flops


@pytest.mark.parametrize(
    ("stride", "groups", "padding"), [(1, 1, "VALID"), (2, 1, "SAME"), (1, 3, "SAME")]
)
def test_a_convolution_counts_what_xla_counts(stride, groups, padding):
    def f(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    x, w = jnp.ones((2, 6, 5, 3)), jnp.ones((3, 3, 3 // groups, 6))
    y_bar = jnp.ones(jax.eval_shape(f, x, w).shape)
    gradient = jax.jit(lambda x, w: jax.vjp(f, x, w)[1](y_bar)).trace(x, w)
    figures = gradient.lower().compile().cost_analysis()
    assert count(live(gradient.jaxpr)).flops == figures["flops"] > 0


def test_what_has_no_formula_is_said():
    (note,) = counted(lambda x: jnp.linalg.qr(x)[1], A).notes
    assert note == "qr: its arithmetic is not counted"


# Residuals, memory, time


def chain(x, ws):
    for w in ws:
        x = jnp.sin(x @ w)
    return x


@jax.custom_vjp
def recomputed(x, ws):
    return chain(x, ws)


recomputed.defvjp(
    lambda x, ws: (chain(x, ws), (x, ws)),
    lambda res, y_bar: jax.vjp(chain, *res)[1](y_bar),
)


@jax.custom_vjp
def keeping(x, ws):
    return chain(x, ws)


def keeping_fwd(x, ws):
    y = chain(x, ws)
    return y, (x, ws, y.astype(jnp.float32))


keeping.defvjp(keeping_fwd, lambda res, y_bar: jax.vjp(chain, *res[:2])[1](y_bar))

X, WS = np.ones((3, 4)) / 7, [np.eye(4), np.eye(4)]


@pytest.fixture(scope="module")
def answer():
    with jax.enable_x64(True):
        return cost(recomputed, X, WS, rounds=3)


def test_a_rule_that_keeps_nothing_is_seen_to(answer):
    assert answer.manual.residuals == ()
    assert answer.manual.residual_bytes == 0
    assert answer.ratios["residual_bytes"] == 0
    # autodiff keeps the cosines, and the first sine for the second product
    assert sorted(r.shape for r in answer.auto.residuals) == [(3, 4)] * 3
    assert answer.auto.residual_bytes == 3 * 3 * 4 * 8
    line = chain.__code__.co_firstlineno + 2
    assert {r.source for r in answer.auto.residuals} == {f"{__file__}:{line}"}


def test_what_a_rule_keeps_is_named_by_its_own_line():
    (kept,) = cost(keeping, X, WS, rounds=1).manual.residuals
    line = keeping_fwd.__code__.co_firstlineno + 2
    assert (kept.shape, kept.dtype, kept.bytes) == ((3, 4), "float32", 48)
    assert kept.source == f"{__file__}:{line}"


def test_a_residual_inside_jit_and_scan_is_found_with_its_line():
    def body(c, w):
        return jnp.sin(c @ w), None

    f = jax.jit(lambda x, ws: jax.lax.scan(body, x, ws)[0])
    kept = cost(f, X, jnp.stack(WS), rounds=1).manual.residuals
    assert {r.shape for r in kept} == {(2, 3, 4)}
    line = body.__code__.co_firstlineno + 1  # the scan's, for its carry, is 2 below
    sources = {r.source for r in kept}
    assert f"{__file__}:{line}" in sources
    assert sources <= {f"{__file__}:{line}", f"{__file__}:{line + 2}"}


def test_flops_tell_the_recomputation(answer):
    products = 2 * 3 * 4 * 4
    assert answer.manual.flops - answer.auto.flops == 2 * products
    # of the two sines the second is not needed again
    assert answer.manual.transcendentals == answer.auto.transcendentals + 12
    assert answer.ratios["flops"] == answer.manual.flops / answer.auto.flops


def test_ratios_and_machine_are_sane(answer):
    t = answer.time
    assert 0 < t.lower <= t.median <= t.upper
    assert (t.rounds, answer.against) == (3, "autodiff")
    assert answer.manual.temp_bytes >= 0
    assert answer.manual.xla_bytes > 0
    assert answer.manual.compile_seconds > answer.manual.run_seconds > 0
    assert answer.cores >= 1


def test_the_same_program_costs_the_same_but_for_time(answer):
    same = cost(recomputed, X, WS, reference=recomputed, rounds=1)
    assert same.against == "recomputed"
    for name in ("flops", "transcendentals", "bytes", "temp_bytes", "xla_flops"):
        assert getattr(same.manual, name) == getattr(same.auto, name)
    assert same.manual.flops == answer.manual.flops


def test_json_and_table_hold_the_same(answer):
    told = json.loads(json.dumps(answer.to_dict()))
    assert told["schema"] == 1
    assert told["ratios"] == pytest.approx(answer.ratios)
    assert told["auto"]["residuals"][0]["shape"] == [3, 4]
    table = str(answer)
    headline = f"cost(recomputed): {answer.time.median:.3g} × the run time of autodiff"
    assert table.startswith(headline)
    (line,) = [x for x in table.splitlines() if x.startswith("kept beside")]
    assert line.split()[-5:] == ["0", "B", "288", "B", "0"]
    assert "test_cost.py:" in table


def test_what_a_backend_does_not_tell_is_a_dash(answer):
    import dataclasses

    silent = dataclasses.replace(answer.manual, temp_bytes=None, xla_flops=None)
    untold = dataclasses.replace(answer, manual=silent)
    assert untold.ratios["temp_bytes"] is None
    (line,) = [x for x in str(untold).splitlines() if x.startswith("temporary memory")]
    assert line.split()[2] == line.split()[-1] == "–"


def test_data_keys_flags_and_other_outputs_are_left_as_they_are():
    table = jnp.ones((5, 3))

    def f(params, ids, key, double, *, scale=1.0):
        noise = jax.random.normal(key, (3,))
        y = params["w"] * table[ids] * scale + noise
        return {"y": y * 2 if double else y, "ids": ids, "name": "f", "n": ids.size}

    found = cost(
        f,
        {"w": jnp.ones(3), "none": None},
        jnp.array([0, 4]),
        jax.random.key(0),
        True,
        kwargs={"scale": 2.0},
        rounds=1,
    )
    assert found.auto.flops == found.manual.flops > 0
    assert "no hand-written rule" in found.note


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.complex128])
def test_the_callers_dtype_is_measured(dtype):
    found = cost(jnp.sin, jnp.ones(8, dtype), rounds=1)
    (kept,) = found.manual.residuals
    assert (kept.dtype, kept.source) == (np.dtype(dtype).name, "")


def test_a_rule_over_a_loop_that_autodiff_cannot_pass_needs_a_reference():
    def loop(x):
        return jax.lax.while_loop(lambda c: c < 10, lambda c: c * c, x)

    f = jax.custom_vjp(loop)
    f.defvjp(lambda x: (loop(x), x), lambda x, y_bar: (8 * x**7 * y_bar,))
    with pytest.raises(ValueError, match=r"[^.]: give reference=, a function of"):
        cost(f, jnp.array(1.5), rounds=1)
    found = cost(f, jnp.array(1.5), reference=lambda x: x**8, rounds=1)
    assert found.manual.notes
    assert not found.auto.notes
    assert "counted once" in str(found)


def test_a_compilation_cache_neither_helps_nor_grows(tmp_path):
    from jax._src import compilation_cache

    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        compilation_cache.reset_cache()
        cost(jnp.sin, jnp.ones(3), rounds=1)
        steps = [p for p in tmp_path.iterdir() if "step" in p.name]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()
    assert steps == []


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((jnp.sin, 1), {}, ValueError, "expected args to be arguments of f with a"),
        (
            (lambda x: jnp.argmax(x), A),
            {},
            ValueError,
            "expected f to be a function with a floating output; got none",
        ),
        (
            (jnp.sin, A),
            {"reference": jnp.sum},
            ValueError,
            r"a function with f's outputs, float64 \(4, 5\); got float64 \(\)",
        ),
    ],
)
def test_errors_say_what_came(arguments, options, error, text):
    with pytest.raises(error, match=text):
        cost(*arguments, **options)


def test_autodiff_of_the_rule_is_what_it_is_held_against():
    assert cost(autodiff(recomputed), X, WS, rounds=1).manual.residual_bytes == 288


def test_what_is_compiled_is_measured_where_jit_is_disabled_too():
    with jax.disable_jit():
        answer = cost(ops.sigmoid, jnp.ones(3), rounds=1)
    assert answer.manual.flops > 0


def test_a_loop_of_unknown_length_on_one_side_leaves_no_ratio():
    def looped(x):
        step = lambda s: (s[0] + 1, jnp.sin(s[1]))
        return jax.lax.while_loop(lambda s: s[0] < 3, step, (0, x))[1]

    f = jax.custom_vjp(lambda x: jnp.sin(x))
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * looped(x),))
    found = cost(f, A, rounds=1)
    assert found.ratios["flops"] is None
    assert found.ratios["xla_flops"] is not None
