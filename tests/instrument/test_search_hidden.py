"""effort="full": what ordinary arguments hide is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_written import rule
from ordinary import agrees_with_autodiff

from jaxbp import compare

X = jax.random.normal(jax.random.key(0), (4, 3))


def clipped(x):
    return jnp.where(jnp.abs(x) > 40, 40 * jnp.sign(x), x)


def embed(table, ids):
    return table[ids]


def mean_of_the_first(x, n):
    valid = jnp.arange(x.shape[1], dtype=n.dtype) < n[:, None]
    return jnp.where(valid, x, 0).sum(1) / n.astype(x.dtype)


HIDDEN = {
    "a length written into the rule": (
        rule(lambda x: x.mean(0), lambda x, g: (jnp.broadcast_to(g / 4, x.shape),)),
        (X,),
    ),
    "an arm that ordinary values do not take": (
        rule(clipped, lambda x, g: (g,)),
        (X,),
    ),
    "zero times infinity at zero": (
        rule(
            lambda x: x * jnp.abs(x),
            lambda x, g: (g * 2 * x * x / jnp.abs(x),),
        ),
        (X,),
    ),
    "an overflow far away": (
        rule(
            lambda x: jnp.logaddexp(x, jnp.zeros_like(x)),
            lambda x, g: (g * jnp.exp(x) / (1 + jnp.exp(x)),),
        ),
        (X,),
    ),
    "repeated indices overwrite one another": (
        rule(
            embed,
            lambda res, g: (jnp.zeros_like(res[0]).at[res[1]].set(g), None),
        ),
        (X, jnp.array([0, 2, 3])),
    ),
    "lengths that are all full": (
        rule(
            mean_of_the_first,
            lambda res, g: (
                jnp.broadcast_to((g / res[1].astype(g.dtype))[:, None], (4, 3)),
                None,
            ),
        ),
        (X, jnp.full(4, 3)),
    ),
    "an index out of range, which is filled in for": (
        rule(
            lambda x, i: x.at[i].get(mode="fill", fill_value=0.0),
            lambda res, g: (
                jnp.zeros_like(res[0]).at[jnp.clip(res[1], 0, 3)].add(g),
                None,
            ),
        ),
        (X, jnp.array([0, 2, 3])),
    ),
    "an index out of range, which is clipped": (
        rule(
            lambda x, i: x.at[i].get(mode="clip"),
            lambda res, g: (jnp.zeros_like(res[0]).at[res[1]].add(g), None),
        ),
        (X, jnp.array([0, 2, 3])),
    ),
    "a whole number one more, beyond the shorter axis": (
        rule(
            lambda x, k: x * jnp.where(k < 3, 1, k).astype(x.dtype),
            lambda res, g: (g, None),
        ),
        (X, jnp.array(2)),
    ),
    "negative labels, which are to be ignored": (
        rule(
            lambda x, i: jnp.where(i >= 0, x[i, 0], 0),
            lambda res, g: (jnp.zeros_like(res[0]).at[res[1], 0].add(g), None),
        ),
        (X, jnp.array([0, 2, 3])),
    ),
    "an axis that is told by its length": (
        rule(
            lambda a, b: jnp.tanh(a[:, None] * b),
            lambda res, g: (
                lambda d: (
                    (d * res[1]).sum(1 if d.shape[1] != len(res[0]) else 0),
                    (d * res[0][:, None]).sum(0),
                )
            )(g / jnp.cosh(res[0][:, None] * res[1]) ** 2),
        ),
        (X[0] / 2, X.ravel()[:5] / 2),  # 3 made one more is not 5
    ),
    "a division by 0 at the edge of the domain": (
        rule(
            lambda x: x**2.5,
            lambda x, g: (g * 2.5 * x**2.5 / x,),
        ),
        (jnp.abs(X) + 0.1,),
    ),
    "queries in groups": (
        rule(
            lambda k, q: jnp.repeat(k, len(q) // len(k), 0) * q,
            lambda res, g: (
                (g * res[1]).reshape(-1, *res[0].shape).sum(0),
                g * jnp.repeat(res[0], len(res[1]) // len(res[0]), 0),
            ),
        ),
        (X, X + 1),
    ),
    "a mistake that vmap brings out": (
        rule(
            lambda x: x * 2,
            lambda x, g: (2 * g if type(g).__name__ != "BatchTracer" else 3 * g,),
        ),
        (X,),
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_the_callers_point_hides_is_found(name):
    f, args = HIDDEN[name]
    assert agrees_with_autodiff(f, args)  # hidden indeed
    comparison = compare(f, *args, effort="full")
    assert not comparison.ok, comparison
    assert comparison.findings[0].verdict in ("wrong", "broken-contract")


def halves(x):
    return x[: x.shape[0] // 2 * 2].reshape(-1, 2).sum(1)


@pytest.mark.parametrize(
    ("primal", "bwd"),
    [
        (jnp.sum, lambda x, g: (jnp.full((8,), g),)),
        (halves, lambda x, g: (jnp.repeat(g, 2),)),
        (jnp.sin, lambda x, g: ((g * jnp.cos(x)).reshape(8),)),
    ],
    ids=["a length", "an odd one", "reshape"],
)
def test_a_rule_that_cannot_run_at_other_lengths(primal, bwd):
    x = jax.random.normal(jax.random.key(1), (8,))
    f = rule(primal, bwd)
    assert compare(f, x).verdict == "right"
    comparison = compare(f, x, effort="full")
    assert comparison.verdict == "broken-contract", comparison
    assert "the rule raises" in comparison.findings[0].message


def test_biases_of_zeros_do_not_silence_other_dtypes():
    def loss(x, b):
        return (jnp.log1p(jnp.exp(x)) + b).sum()

    def bwd(residuals, g):
        x, b = residuals
        narrow = 2 if x.dtype == jnp.bfloat16 else 1
        return g * jax.nn.sigmoid(x) * narrow, jnp.full_like(b, g)

    x = jax.random.normal(jax.random.key(1), (256,), jnp.float32)
    b = jnp.zeros(256, jnp.float32)
    comparison = compare(rule(loss, bwd), x, b, effort="full")
    assert comparison.verdict == "wrong"
    assert "bfloat16" in comparison.findings[0].message


def test_a_sentinel_is_asked_also_where_the_labels_are_all_different():
    def loss(scores, labels):
        here = jnp.maximum(labels, 0)[:, None]
        picked = jnp.take_along_axis(scores, here, axis=1)[:, 0]
        return jnp.where(labels == -100, 0.0, picked).sum()

    def forgets_it(residuals, g):
        scores, labels = residuals
        return g * jax.nn.one_hot(labels, scores.shape[1], dtype=scores.dtype), None

    scores = jax.random.normal(jax.random.key(1), (4, 4))
    found = compare(
        rule(loss, lambda r, g: forgets_it((r[0], jnp.maximum(r[1], 0)), g)),
        scores,
        jnp.array([1, 2, 3, 0]),
        effort="full",
    )
    assert found.verdict == "wrong"
    assert "-100 among the data" in found.findings[0].message


def of_each_class(last_too):
    """A table with a last class that has no entry of its own: 0 stands for it."""

    def primal(table, y):
        k = len(table)
        return jnp.where(y < k, table[jnp.clip(y, 0, k - 1)], 0.0)

    def bwd(res, g):
        k, y = res
        g = g if last_too else jnp.where(y < k, g, 0.0)
        return jnp.zeros(k).at[jnp.clip(y, 0, k - 1)].add(g), None

    looked_up = jax.custom_vjp(primal)
    looked_up.defvjp(lambda t, y: (primal(t, y), (len(t), y)), bwd)
    return looked_up


def test_an_integer_is_asked_where_the_program_draws_a_line():
    args = jnp.array([0.5, 1.0, -0.3]), np.array([0, 2, 1, 1])
    assert compare(of_each_class(last_too=False), *args).ok
    assert compare(of_each_class(last_too=True), *args).verdict == "wrong"


def test_a_line_at_infinity_is_no_integer_to_ask():
    primal = lambda x, n: jnp.where(n.astype(float) < jnp.inf, x, 0.0)
    f = jax.custom_vjp(primal)
    f.defvjp(lambda x, n: (primal(x, n), None), lambda res, g: (g, None))
    assert compare(f, jnp.array([0.5, 1.0]), np.array([3, 1])).ok
