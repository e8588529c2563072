"""compare and cost leave nothing behind: no setting of JAX's, no array."""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from hand_written import W, X, product, product_bwd, rule, spoiled

from jaxbp import audit, compare, cost


@pytest.mark.parametrize("ask", [compare, cost])
def test_jaxs_configuration_is_left_as_it_was(ask):
    def raises(x):
        raise RuntimeError("of its own")

    def bwd(x, y_bar):
        raise RuntimeError("of its own")

    def settings():
        return {name: getattr(jax.config, name, None) for name in jax.config.values}

    for wide in (False, True):
        with jax.enable_x64(wide):
            before = settings()
            ask(rule(product, product_bwd), X.astype("f4"), W.astype("f4"))
            assert settings() == before
            with pytest.raises(RuntimeError, match="of its own"):
                ask(raises, jnp.float32(1))
            assert settings() == before
            with contextlib.suppress(ValueError):  # to compare it is a finding
                ask(rule(jnp.sin, bwd), jnp.float32(1))
            assert settings() == before


def test_nan_is_an_answer_where_jax_is_told_to_stop_at_it():
    def bwd(x, g):
        return (g * jnp.exp(x) / jnp.exp(x).sum(),)

    x = jnp.array([0.5, 800.0, -0.3])
    overflows = rule(jax.nn.logsumexp, bwd)
    with jax.debug_nans(True), jax.debug_infs(True):
        assert compare(overflows, x).verdict == "wrong"
        assert compare(overflows, x / 1000).verdict == "wrong"  # seen elsewhere
        assert audit(overflows, x).verdict == "wrong"
        assert cost(overflows, x, rounds=1).manual.flops
        assert jax.config.jax_debug_nans
        assert jax.config.jax_debug_infs


def test_nothing_of_a_comparison_is_kept():
    import gc

    from jaxbp.instrument._testimony import Testimony

    compare(spoiled(1, lambda bar, res, y_bar: -bar), X, W)
    gc.collect()
    assert not [x for x in gc.get_objects() if type(x) is Testimony]
