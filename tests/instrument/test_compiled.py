"""Sparing the compiler: what is spared answers alike, and an unknown option is left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbp.instrument import _compiled
from jaxbp.instrument._equations import LARGE


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options of the CPU's")
def test_options_that_the_compiler_does_not_know_are_left_out(monkeypatch):
    known = _compiled.unoptimised()
    assert known.get("xla_backend_optimization_level") == 0
    more = {**known, "xla_of_no_version": True}
    monkeypatch.setattr(_compiled, "_UNOPTIMISED", more)
    assert _compiled.unoptimised() == known


def test_small_and_large_arguments_have_a_program_each():
    traces = []

    def f(x, scale):
        traces.append(x.size)
        return jnp.tanh(x) * scale["by"]

    called = _compiled.jitted(f)
    for size in (8, LARGE + 1, 8, LARGE + 1):
        x = np.linspace(-1, 1, size)
        # Unoptimised code may round otherwise by a unit or two.
        np.testing.assert_allclose(called(x, {"by": 3.0}), np.tanh(x) * 3, rtol=1e-6)
    assert traces == [8, LARGE + 1]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options of the CPU's")
def test_flags_are_reckoned_with_as_written_where_xla_can():
    share = lambda on: on.astype(float) / on.sum().astype(float)
    assert np.isnan(_compiled.jitted(share)(jnp.zeros(3, bool))).all()
    # A pad of less than nothing it cannot compile without its algebra.
    both = lambda x: (jax.lax.pad(x, 0.0, [(-1, -2, 1)]), share(x > 0))
    x = jnp.arange(8.0)
    for called in [_compiled.jitted(both)] * 2:
        for one, other in zip(called(x), both(x), strict=True):
            np.testing.assert_array_equal(one, other)
