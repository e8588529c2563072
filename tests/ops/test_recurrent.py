"""RNN, GRU, LSTM: chunks and their remainder, lengths, errors, memory by length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare, ops
from jaxbp.ops import _gru, _lstm, _recurrent, _rnn

FAMILIES = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}
every_op = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def _case(family):
    return family.CASES[0]


def _arrays(family, *sizes, lengths=None):
    return family._at(*sizes, lengths)(jax.random.key(3), jnp.float64)


def _pull(f, args):
    """In one program: equation by equation JAX would compile as many."""

    *floats, lengths = args

    def pull(*floats):
        y, back = jax.vjp(lambda *a: f(*a, lengths), *floats)
        outs, tree = jax.tree.flatten(y)
        keys = jax.random.split(jax.random.key(1), len(outs))
        bars = [jax.random.normal(k, o.shape) for k, o in zip(keys, outs, strict=True)]
        return outs, back(jax.tree.unflatten(tree, bars))

    return jax.jit(pull)(*floats)


def _assert_close(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        # Sums over fewer than a hundred terms, of factors below 1 in size.
        assert np.abs(a - b).max() <= 100 * 2.3e-16 * np.abs(b).max()


@every_op
@pytest.mark.parametrize("t", [3, 6, 8])  # one chunk, two, and two and a rest
@pytest.mark.parametrize("lengths", [None, np.array([6, 0])])
def test_chunks_and_their_remainder_are_one_sequence(family, t, lengths, monkeypatch):
    monkeypatch.setattr(_recurrent, "_CHUNK", 3)
    case, args = _case(family), _arrays(family, (2,), t, 2, 2, lengths=lengths)
    _assert_close(_pull(case.function, args), _pull(case.plain, args))


@every_op
def test_nothing_after_the_end_counts(family):
    f, lengths = _case(family).function, np.array([2, 0, 3])
    x, *rest, _ = _arrays(family, (3,), 3, 2, 2)
    outs, bars = _pull(f, (x, *rest, lengths))
    ys, *state = outs
    assert not ys[0, 2:].any()
    assert not ys[1].any()
    assert (state[0][0] == ys[0, 1]).all()
    for last, first in zip(state, rest, strict=False):  # h0, then c0
        assert (last[1] == first[1]).all()
    assert not bars[0][0, 2:].any()
    assert not bars[0][1].any()
    changed = x.at[0, 2].set(7.0).at[1].set(-7.0)
    _assert_close((outs, bars), _pull(f, (changed, *rest, lengths)))


@every_op
def test_they_can_be_differentiated_again_in_chunks(family, monkeypatch):
    monkeypatch.setattr(_recurrent, "_CHUNK", 2)
    case, args = _case(family), _arrays(family, (), 3, 1, 1)
    comparison = compare(case.function, *args, reference=case.plain, order=2)
    assert comparison.ok, comparison


@every_op
def test_saturated_states_have_a_finite_gradient(family):
    x, *rest = _arrays(family, (2,), 3, 2, 2)
    outs, bars = _pull(_case(family).function, (1e4 * x, *rest))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((outs, bars)))


def test_what_does_not_fit_is_refused():
    x, h0, wx, wh, b, _ = _arrays(_rnn, (2,), 3, 2, 2)
    with pytest.raises(TypeError) as caught:
        ops.rnn(x, h0, wx, wh, b, np.array([1.0, 2.0]))
    assert str(caught.value) == (
        "jaxbp.rnn: expected lengths to be integers, one a sequence; got float64 (2,)."
    )
    with pytest.raises(ValueError, match=r"leading axes are \(2,\), lengths's are"):
        ops.rnn(x, h0, wx, wh, b, np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="wx's first is 2"):
        ops.rnn(x[..., :1], h0, wx, wh, b)
    with pytest.raises(ValueError, match=r"expected wh to be of shape \(h, 4h\); got"):
        ops.lstm(x, h0, h0, wx, wh, b)


def _temp_bytes(f, *sizes, family):
    *shapes, _ = jax.eval_shape(lambda: family._at(*sizes)(jax.random.key(0), "f4"))

    def step(args, y_bar):
        y, back = jax.vjp(f, *args)
        return y, back(y_bar)

    y_bar = jax.eval_shape(f, *shapes)
    compiled = jax.jit(step).lower(tuple(shapes), y_bar).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("name", "sizes", "most"),
    [
        ("rnn", ((1,), 1024, 256, 256), 1.0),
        ("gru", ((8,), 512, 256, 256), 1.1),
        ("lstm", ((8,), 512, 256, 256), 0.5),
    ],
)
@pytest.mark.optimised
def test_temporary_memory_beside_autodiff(name, sizes, most):
    case = _case(FAMILIES[name])
    manual, auto = (
        _temp_bytes(f, *sizes, family=FAMILIES[name])
        for f in (case.function, case.plain)
    )
    assert manual <= most * auto


@every_op
@pytest.mark.optimised
def test_temporary_memory_is_linear_in_the_length(family):
    f = _case(family).function
    lengths = 1024, 2048, 4096, 8192
    at = [_temp_bytes(f, (2,), t, 16, 16, family=family) for t in lengths]
    steps = np.diff(at)
    # Equal slopes: twice the length, twice the difference.
    assert np.allclose(steps[1:], 2 * steps[:-1], rtol=0.01)


def test_a_rule_that_takes_the_state_after_for_the_one_before_is_reported():
    @jax.custom_vjp
    def faulty(x, h0, wx, wh, b):
        return ops.rnn(x, h0, wx, wh, b)

    def bwd(res, bars):
        x_bar, h0_bar, wx_bar, wh_bar, b_bar, _ = ops.rnn_bwd(res, bars)
        ys, y_bar = res[-1], bars[0]
        # In its last step h after the step stands in place of h before it.
        z_bar = (y_bar[-1] + bars[1]) * (1 - ys[-1] ** 2)
        wh_bar = wh_bar + jnp.outer(ys[-1] - ys[-2], z_bar)
        return x_bar, h0_bar, wx_bar, wh_bar, b_bar

    faulty.defvjp(lambda *a: ops.rnn_fwd(*a, None), bwd)
    *args, _ = _arrays(_rnn, (), 3, 2, 2)
    findings = compare(faulty, *args).findings
    assert [f.argument for f in findings if f.verdict == "wrong"] == ["[3]"]
