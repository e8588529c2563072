"""Each kind of mistake is named where it was made, and not where it only looks so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import compare

_rng = np.random.default_rng(11)
X, W = _rng.standard_normal((4, 3)), _rng.standard_normal((3, 3))
V, U, B = _rng.standard_normal((3, 5))
Z = _rng.standard_normal(4) + 1j * _rng.standard_normal(4)
IDS = np.array([2, 0, 2, 0, 1, 2])

s = jax.nn.sigmoid


def rule(primal, bwd):
    @jax.custom_vjp
    def f(*args):
        return primal(*args)

    def fwd(*args):
        return primal(*args), args if len(args) > 1 else args[0]

    f.defvjp(fwd, bwd)
    return f


def softmax(x):
    return jax.nn.softmax(x, axis=-1)


def norm(x):
    return jnp.sqrt(jnp.sum(x * x, axis=-1))


def affine(x, b):
    return x * 2 + b


def pair(x):
    return jnp.sin(x), x * x


def embed(table):
    return table[IDS]


def overwriting(table, g):
    new = np.zeros(table.shape)
    for k, i in enumerate(IDS):
        new = jnp.asarray(new).at[i].set(g[k])
    return (new,)


# primal, bwd, args, kind, what the evidence says
NAMED = {
    "degrees": (
        lambda x: jnp.sin(x * np.pi / 180),
        lambda x, g: (jnp.cos(x * np.pi / 180) * g,),
        (V,),
        "factor",
        "57.2958 in every element = 180/π",
    ),
    "the output is missing": (
        lambda x: x**2 * jnp.exp(x),
        lambda x, g: (g * (2 + x) * x * jnp.exp(x) * x**2 * jnp.exp(x),),
        (V,),
        "factor",
        "hand-written / autodiff is output",
    ),
    "an argument is missing": (
        lambda x: x**3,
        lambda x, g: (3 * x * g,),
        (V,),
        "factor",
        "autodiff / hand-written is argument [0]",
    ),
    "a row's output is missing": (
        norm,
        lambda x, g: (x * g[:, None],),
        (X,),
        "factor",
        "hand-written / autodiff is output",
    ),
    "an intermediate is missing": (
        lambda x, y: jnp.sin(jnp.cosh(x) * y),
        lambda r, g: (
            jnp.cos(jnp.cosh(r[0]) * r[1]) * jnp.sinh(r[0]) * r[1] * g,
            jnp.cos(jnp.cosh(r[0]) * r[1]) * g,
        ),
        (V, U),
        "factor",
        "is cosh at",
    ),
    "1 - y is missing": (
        s,
        lambda x, g: (s(x) * g,),
        (V,),
        "factor",
        "autodiff / hand-written is (1 - output)",
    ),
    "sign of some": (
        lambda x: x * jnp.abs(x),
        lambda x, g: (2 * x * g,),
        (V,),
        "sign",
        "equal in the others",
    ),
    "conjugate": (
        lambda z: z**2,
        lambda z, g: (jnp.conj(2 * z * g),),
        (Z,),
        "conjugate",
        "complex conjugate",
    ),
    "axes of three": (
        lambda x: x * x.sum(),
        lambda x, g: (jnp.swapaxes(g * x.sum() + jnp.sum(g * x), 0, 2),),
        (_rng.standard_normal((2, 3, 2)),),
        "transposed",
        "in axes 0 and 2",
    ),
    "second output": (
        pair,
        lambda x, g: (jnp.cos(x) * g[0],),
        (V,),
        "ignored cotangent",
        "output[1] is left out",
    ),
    "at the output": (
        s,
        lambda x, g: (s(s(x)) * (1 - s(s(x))) * g,),
        (V,),
        "at the output",
        "f'(f(x))",
    ),
    "at the input": (
        jnp.tanh,
        lambda x, g: ((1 - x**2) * g,),
        (V,),
        "at the input",
        "1 - y² of the argument",
    ),
    "one row": (
        affine,
        lambda r, g: (2 * g, g[-1]),
        (X, X[0]),
        "missing sum",
        "index 3 of the output's axis 0",
    ),
    "overwritten": (embed, overwriting, (W,), "overwritten", "has the last alone"),
    "cotangent summed": (
        jnp.sin,
        lambda x, g: (jnp.cos(x) * g.sum(),),
        (V,),
        "summed cotangent",
        "sum of the cotangent",
    ),
    "cotangent averaged over rows": (
        jnp.sin,
        lambda x, g: (jnp.cos(x) * g.mean(0),),
        (X,),
        "summed cotangent",
        "mean of the cotangent over axis 0",
    ),
    "diagonal": (
        softmax,
        lambda x, g: (softmax(x) * (1 - softmax(x)) * g,),
        (X,),
        "diagonal",
        "other entries are left out",
    ),
    "skip connection": (
        lambda x: x + jnp.sin(x),
        lambda x, g: (jnp.cos(x) * g,),
        (V,),
        "term",
        "autodiff - hand-written is the cotangent",
    ),
    "term with the wrong sign": (
        lambda x: jnp.sin(x) - x**2 / 2,
        lambda x, g: ((jnp.cos(x) + x) * g,),
        (V,),
        "term",
        "a term has the wrong sign",
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_mistake_is_named_with_what_shows_it(name):
    primal, bwd, args, kind, said = NAMED[name]
    findings = compare(rule(primal, bwd), *args).findings
    (wrong,) = [f for f in findings if f.verdict != "right"]
    assert (wrong.verdict, wrong.kind) == ("wrong", kind), wrong
    assert said in wrong.message


# Near each of them, and of no kind: primal, bwd, args.
NEAR = {
    "nearly the output": (
        lambda x: x**2 * jnp.exp(x),
        lambda x, g: (g * (2 + x) * x * jnp.exp(x) * (x**2 * jnp.exp(x) + 1e-4),),
        (V,),
    ),
    "an argument in all but one": (
        lambda x: x**3,
        lambda x, g: ((3 * x * g).at[1].multiply(0.99),),
        (V,),
    ),
    "sign and size": (
        lambda x: x * jnp.abs(x),
        lambda x, g: ((2 * x * g).at[0].multiply(1.001),),
        (V,),
    ),
    "conjugate in all but one": (
        lambda z: z**2,
        lambda z, g: (jnp.conj(2 * z * g).at[0].multiply(1.1),),
        (Z,),
    ),
    "two outputs in unequal parts": (
        pair,
        lambda x, g: (jnp.cos(x) * g[0] + 1.9 * x * g[1],),
        (V,),
    ),
    "nearly at the output": (
        s,
        lambda x, g: (s(1.01 * s(x)) * (1 - s(s(x))) * g,),
        (V,),
    ),
    "row and a half": (
        affine,
        lambda r, g: (2 * g, g[-1] + 0.5 * g[0]),
        (X, X[0]),
    ),
    "overwritten and accumulated": (
        embed,
        lambda x, g: (overwriting(x, g)[0] + 0.1 * jax.vjp(embed, x)[1](g)[0],),
        (W,),
    ),
    "cotangent of half summed": (
        jnp.sin,
        lambda x, g: (jnp.cos(x) * g[:3].sum(),),
        (V,),
    ),
    "more than the diagonal": (
        softmax,
        lambda x, g: (
            softmax(x) * (g - 0.9 * (g * softmax(x)).sum(-1, keepdims=True)),
        ),
        (X,),
    ),
    "times 1 - output, where that is 0": (
        lambda x: jnp.heaviside(x - 0.5, x),
        lambda x, g: (jnp.where(x > 0.5, g, 0.0),),
        (np.array([0.7, 0.3, 0.2]),),
    ),
    "nearly a term": (
        lambda x: x + jnp.sin(x),
        lambda x, g: ((0.001 + jnp.cos(x)) * g,),
        (V,),
    ),
}


@pytest.mark.parametrize("name", NEAR)
def test_what_only_looks_like_a_mistake_is_not_named(name):
    primal, bwd, args = NEAR[name]
    findings = compare(rule(primal, bwd), *args).findings
    (wrong,) = [f for f in findings if f.verdict != "right"]
    assert (wrong.verdict, wrong.kind) == ("wrong", ""), wrong


def test_residuals_of_another_call_are_named():
    kept = jnp.asarray(V)

    def bwd(x, g):
        return (jnp.cos(kept) * g,)

    f = rule(jnp.sin, bwd)
    comparison = compare(f, V)
    assert comparison.findings[0].kind == "stale residual", comparison
    elsewhere = rule(jnp.sin, lambda x, g: (jnp.cos(kept + 0.1) * g,))
    assert compare(elsewhere, V).findings[0].kind == ""


def test_a_gradient_that_needs_no_residuals_is_not_called_stale():
    # 3 x, halved where x is negative: at the caller's positive point it is 3 g.
    def leaky(x):
        return jnp.where(x > 0, 3 * x, x)

    forgetful = rule(leaky, lambda x, g: (3 * g,))
    positive = np.abs(V) + 0.1
    comparison = compare(forgetful, positive, effort="full")
    assert comparison.verdict == "wrong", comparison
    assert comparison.findings[0].kind != "stale residual", comparison


def test_one_element_alone_is_not_called_unsummed():
    # No element of sin has a second contribution that could have been left out.
    first_only = rule(
        jnp.sin, lambda x, g: (jnp.zeros_like(x).at[0].set(g[0] * jnp.cos(x[0])),)
    )
    comparison = compare(first_only, V)
    assert comparison.verdict == "wrong", comparison
    assert comparison.findings[0].kind != "missing sum", comparison


def test_the_output_that_shows_a_mistake_is_named():
    def off(x, g):
        return (jnp.cos(x) * g[0] + 3 * x * g[1],)

    assert compare(rule(pair, off), V).findings[0].output == "[1]"
    both = rule(pair, lambda x, g: (jnp.cos(2 * x) * g[0] + 3 * x * g[1],))
    assert compare(both, V).findings[0].output == ""


def test_one_number_alone_is_a_multiple_of_any_other():
    def product(c, x):
        return c * x

    for seed in range(3):
        f = rule(product, lambda r, g: (g[0] * r[1][0], g * r[0]))
        first = compare(f, 3.0, V, seed=seed).findings[0]
        assert first.verdict in ("wrong", "broken-contract")
        assert first.kind != "factor", first
    twice = rule(product, lambda r, g: (2 * (g * r[1]).sum(), g * r[0]))
    assert compare(twice, 3.0, V).findings[0].kind == "factor"
    # Of one output too no cotangent tells: a factor is what a person may have written.
    for factor, kind in ((1.5, "factor"), (2 / 3, "factor"), (0.8070312, "")):
        f = rule(jnp.sin, lambda x, g, c=factor: (c * jnp.cos(x) * g,))
        assert compare(f, 0.4).findings[0].kind == kind


def test_a_length_is_of_the_array_that_has_it():
    def row_means(x):
        return x.mean(axis=1)

    f = rule(row_means, lambda x, g: (jnp.broadcast_to(g[:, None], x.shape),))
    said = "is 3 in every element, a length of this array: a sum where a mean belongs;"
    assert said in compare(f, X).findings[0].message
    spread = rule(lambda x: jnp.ones(3) * x, lambda x, g: (g.mean(),))
    said = "= 1/3, a length of an output: a mean where a sum belongs;"
    assert said in compare(spread, 0.4).findings[0].message
    slope = rule(jnp.square, lambda x, g: (x * g,))
    said = "= 1/2, a length of this array: a mean where a sum belongs, or a 2 is miss"
    assert said in compare(slope, V[:2]).findings[0].message


def test_a_sign_is_not_taken_for_another_arguments_cotangent():
    absolute = rule(jnp.abs, lambda x, g: (g,))
    f = lambda a, b: (absolute(a) + absolute(b)).sum()
    assert compare(f, V, np.abs(U)).findings[0].kind == "sign"


def test_a_factor_of_complex_numbers_is_one():
    f = rule(lambda z: z * z, lambda z, g: (3 * z * g,))
    assert compare(f, Z).findings[0].kind == "factor"
