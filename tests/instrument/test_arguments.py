"""What compare, audit and cost refuse alike, and how each says so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import audit, compare, cost

X = jnp.ones(3)
FACES = [compare, audit, cost]
TOP = "call {} outside jit, grad and vmap."


@jax.custom_vjp
def sine(x):
    return jnp.sin(x)


sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, y_bar: (y_bar * jnp.cos(x),))


def refused(face, *args, kind=TypeError, **options):
    with pytest.raises(kind) as caught:
        face(*args, **options)
    function, _, text = str(caught.value).partition(": expected ")
    assert function in [f"jaxbp.{f.__name__}" for f in FACES]
    return text


@pytest.mark.parametrize("face", FACES)
def test_a_function_and_its_keywords_are_what_they_should_be(face):
    assert refused(face, 3, X) == "f to be a function; got int 3."
    expected = "kwargs to be a dict of keyword arguments; got "
    assert refused(face, sine, X, kwargs=[1]) == f"{expected}list [1]."
    assert refused(face, sine, X, kwargs={1: 2}) == f"{expected}dict {{1: 2}}."


@pytest.mark.parametrize("face", FACES)
def test_what_is_traced_is_refused(face):
    mend = TOP.format(face.__name__)
    assert refused(jax.jit(face, static_argnums=0), sine, X) == (
        f"[0] to be a concrete value; got a traced one: {mend}"
    )
    assert refused(jax.jit(lambda x: face(sine, X)), X) == (
        "the call to be at the top level; got one inside of what is being traced: "
        f"{mend}"
    )
    closing = jax.vmap(lambda c: face(lambda x: c * sine(x), X))
    assert refused(closing, X) == (
        "f to be a function of concrete values; got one that closes over a traced "
        f"value: {mend}"
    )


@pytest.mark.parametrize("face", FACES)
def test_a_function_that_decides_in_python_by_a_value_is_refused(face):
    def f(x):
        return sine(x) if x[0] > 0 else x

    line = f.__code__.co_firstlineno + 1
    assert refused(face, f, X) == (
        "f to be a function that jax.jit can trace; got one that decides in Python by "
        f"a value at {__file__}:{line}: decide by jnp.where or jax.lax.cond, or bind "
        "what is no array before."
    )


@pytest.mark.parametrize("face", FACES)
def test_a_rule_that_cannot_be_called_so_is_refused(face):
    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def power(x, n):
        return x**n

    power.defvjp(lambda x, n: (x**n, x), lambda n, x, g: (g * n * x ** (n - 1),))

    def f(x, n):
        return power(x, n)

    line = f.__code__.co_firstlineno + 1
    assert refused(face, f, X, 3.0) == (
        "f to be a function that jax.jit can trace; got one that takes a float by "
        f"nondiff_argnums at {__file__}:{line}: bind it with functools.partial."
    )
    face(functools.partial(power, n=3.0), X)
    text = refused(face, jax.custom_vjp(jnp.sin), X)
    missing = "No VJP defined for custom_vjp function sin using defvjp"
    assert text.startswith(f"f to be a function that jax.vjp can take; got {missing}")
    assert text.endswith(": define it before you ask.")


@pytest.mark.parametrize("face", [compare, cost])
def test_a_loop_without_reverse_mode_is_refused_and_says_who_asks_it(face):
    def f(x):
        return jax.lax.while_loop(lambda x: x[0] < 0.9, sine, x)

    text = refused(face, f, X, kind=ValueError)
    assert text.startswith("f to be a function that jax.vjp can take; got one that ")
    assert "Reverse-mode differentiation does not work for lax.while_loop" in text
    assert text.endswith(": audit asks each rule inside it.")


def test_the_cost_of_a_rule_that_raises_is_refused():
    def bwd(x, y_bar):
        raise KeyError("w")

    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), bwd)
    text = refused(cost, f, X, kind=ValueError)
    assert text.startswith("f to be a function that jax.vjp can take; got one that ")
    assert "raises KeyError: 'w'" in text


@pytest.mark.parametrize("face", [compare, audit])
def test_a_seed_is_a_whole_number_and_no_argument_is_nan(face):
    for seed in (-1, "a", 1.5, True):
        text = refused(face, sine, X, kind=ValueError, seed=seed)
        assert text == f"seed to be an integer from 0 on; got {seed!r}."
    assert face(sine, X, seed=np.int64(3)).ok
    assert refused(face, sine, X * jnp.nan, kind=ValueError) == (
        "[0] to be numbers; got NaN in 3 of 3 elements: ask at a point where the "
        "function is defined."
    )


def test_the_other_options_are_what_they_should_be():
    for rounds in (0, True, 1.5):
        text = refused(cost, sine, X, kind=ValueError, rounds=rounds)
        assert text == f"rounds to be an integer from 1 on; got {rounds!r}."
    for face in (compare, cost):
        text = refused(face, sine, X, reference=3)
        assert text == "reference to be a function; got int 3."
    for surrogate, got in ((3, "int 3"), (None, "None"), ((3,), "tuple (3,)")):
        text = refused(compare, sine, X, surrogate=surrogate)
        expected = "surrogate to be True, or the key paths of arguments"
        assert text == f"{expected}; got {got}."
    for name in ("order", "effort"):
        text = refused(compare, sine, X, kind=ValueError, **{name: np.ones(3)})
        assert text.startswith(f"{name} to be ")
