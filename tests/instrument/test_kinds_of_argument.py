"""compare on any function: what is stopped, complex, opaque, empty, a key or static."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp import audit, compare

_rng = np.random.default_rng(7)
V, U = _rng.standard_normal((2, 4))
Z = _rng.standard_normal(3) + 1j * _rng.standard_normal(3)


def rule(primal, bwd):
    @jax.custom_vjp
    def f(*args):
        return primal(*args)

    def fwd(*args):
        return primal(*args), args if len(args) > 1 else args[0]

    f.defvjp(fwd, bwd)
    return f


def stopped(x, y):
    return x * jax.lax.stop_gradient(jnp.sin(x)) * y


def as_autodiff(res, g):
    x, y = res
    return g * jnp.sin(x) * y, g * x * jnp.sin(x)


@pytest.mark.parametrize("effort", ["quick", "full"])
def test_a_stopped_gradient_is_not_held_against_the_rule(effort):
    f = rule(stopped, as_autodiff)
    comparison = compare(f, V, U, numeric=True, effort=effort)
    assert comparison.verdict == "right", comparison
    # The numeric witness ignores it: its figure stands there, and decides nothing.
    assert not np.allclose(comparison.numeric[0], comparison.manual[0])


def test_a_mistake_beside_a_stopped_gradient_is_reported():
    def ignores(res, g):
        x, y = res
        return g * (jnp.sin(x) + x * jnp.cos(x)) * y, g * x * jnp.sin(x)

    comparison = compare(rule(stopped, ignores), V, U)
    assert not comparison.ok, comparison


def test_a_surrogate_is_held_to_its_contract_with_full_effort_too():
    f = rule(jnp.round, lambda x, g: (g,))
    assert compare(f, V, surrogate=True, effort="full").verdict == "surrogate"

    def leaks(x, g):  # but not where few have a cotangent
        return (jnp.where((g == 0).any(), g + 1, g),)

    assert not compare(rule(jnp.round, leaks), V, surrogate=True, effort="full").ok


def _sinc(z):
    return jnp.where(z == 0, 1, jnp.sin(z) / z)


def _sinc_bwd(z, g):
    safe = jnp.where(z == 0, 1, z)
    slope = jnp.cos(safe) / safe - jnp.sin(safe) / safe**2
    return (jnp.where(z == 0, 0, g * slope),)


def test_a_rule_that_rescues_a_complex_point_is_no_mistake():
    z = jnp.array([1 + 2j, 0, 3 - 1j])
    (finding,) = compare(rule(_sinc, _sinc_bwd), z).findings
    assert finding.verdict == "autodiff-wrong", finding
    assert finding.worst.index == (1,)
    assert abs(finding.worst.numeric) < 1e-9

    def off(z, g):
        return (jnp.where(z == 0, 0.5j * g, _sinc_bwd(z, g)[0]),)

    (finding,) = compare(rule(_sinc, off), z).findings
    assert finding.verdict == "wrong", finding


def test_one_part_of_a_complex_gradient_alone_is_wrong():
    def bwd(z, g):
        bar = 2 * z * g
        return (jax.lax.complex(bar.real, 1.01 * bar.imag),)

    z = jnp.array([1 + 2j, 0.3, 3 - 1j])
    (finding,) = compare(rule(jnp.square, bwd), z).findings
    assert finding.verdict == "wrong"
    worst = finding.worst
    assert abs(worst.numeric - worst.auto) < 1e-9 < abs(worst.manual - worst.auto)


def test_an_opaque_complex_function_is_held_against_its_secants():
    def squared(z):
        shape = jax.ShapeDtypeStruct(z.shape, z.dtype)
        return jax.pure_callback(lambda z: np.asarray(z) ** 2, shape, z)

    z = jnp.array([1 + 2j, 0.3, 3 - 1j])
    right = rule(squared, lambda z, g: (2 * z * g,))
    wrong = rule(squared, lambda z, g: (jnp.conj(2 * z) * g,))
    for f, verdict in ((right, "right"), (wrong, "wrong")):
        assert compare(f, z).verdict == verdict
        (link,) = audit(lambda z, f=f: (jnp.abs(f(z)) ** 2).sum(), z).findings
        assert link.verdict == verdict, link


def test_complex_arguments_and_outputs():
    right = rule(
        lambda z, x: (z * jnp.asarray(x, z.dtype), jnp.abs(z) ** 2),
        lambda r, g: (
            g[0] * jnp.asarray(r[1], g[0].dtype)
            + 2 * jnp.conj(r[0]) * jnp.asarray(g[1], g[0].dtype),
            jnp.real(g[0] * r[0]),
        ),
    )
    comparison = compare(right, Z, V[:3], effort="full")
    assert comparison.verdict == "right", comparison
    wrong = rule(
        lambda z: z * z,
        lambda z, g: (2 * jnp.conj(z) * g,),
    )
    finding = compare(wrong, Z).findings[0]
    assert finding.verdict == "wrong"


def dropout(key, x, rate, mode, skip):
    assert (mode, skip) == ("train", None)
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


def dropping(bwd):
    @jax.custom_vjp
    def f(key, x):
        return dropout(key, x, 0.25, "train", None)

    f.defvjp(lambda key, x: (f(key, x), key), bwd)
    return f


@pytest.mark.parametrize("effort", ["quick", "full"])
def test_keys_none_and_static_arguments_stay_in_place(effort):
    def bwd(key, g):
        return None, dropout(key, g, 0.25, "train", None)

    f = dropping(bwd)
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        call = lambda key, x, mode, skip: f(key, x)
        comparison = compare(call, key, V, "train", None, effort=effort)
        assert comparison.verdict == "right", comparison
        assert comparison.manual[0] is None
    other = dropping(lambda key, g: (None, g))
    assert not compare(other, jax.random.key(0), V, effort=effort).ok


@pytest.mark.parametrize("effort", ["quick", "full"])
def test_an_empty_array_beside_one_that_is_not(effort):
    def join(x, y):
        return jnp.concatenate([x, y]) ** 2

    f = rule(join, lambda r, g: (2 * r[0] * g[: r[0].size], 2 * r[1] * g[r[0].size :]))
    comparison = compare(f, np.zeros(0), V, effort=effort)
    assert comparison.ok, comparison
    off = rule(join, lambda r, g: (r[0] * g[: r[0].size], r[1] * g[r[0].size :]))
    assert compare(off, np.zeros(0), V, effort=effort).findings[1].verdict == "wrong"


@pytest.mark.parametrize("effort", ["quick", "full"])
def test_an_opaque_primal_is_judged_by_the_numeric_witness(effort):
    def opaque(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        call = lambda x: np.sin(np.asarray(x)) if np.isfinite(x).all() else 1 / 0
        return jax.pure_callback(call, shape, x, vmap_method="expand_dims")

    right = compare(rule(opaque, lambda x, g: (g * jnp.cos(x),)), V, effort=effort)
    assert right.verdict == "right", right
    assert "no autodiff" in right.note
    wrong = rule(opaque, lambda x, g: (g * jnp.cos(x) * 1.01,))
    assert compare(wrong, V, effort=effort).verdict == "wrong"
