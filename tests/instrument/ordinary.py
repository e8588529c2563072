"""What a comparison at the caller's own arguments, and nowhere else, would say."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import autodiff


def agrees_with_autodiff(f, args):
    """Whether both gradients are close at these arguments, for a random cotangent."""
    leaves, tree = jax.tree.flatten(args)
    is_float = [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves]

    def pulled(f):
        def of_floats(*floats):
            rest = iter(floats)
            pairs = zip(leaves, is_float, strict=True)
            merged = [next(rest) if yes else x for x, yes in pairs]
            return f(*jax.tree.unflatten(tree, merged))

        floats = [
            jnp.asarray(x) for x, yes in zip(leaves, is_float, strict=True) if yes
        ]
        y, back = jax.vjp(of_floats, *floats)
        rng = np.random.default_rng(0)
        return back(jax.tree.map(lambda y: _random(rng, y), y))

    pairs = zip(pulled(f), pulled(autodiff(f)), strict=True)
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs)


def _random(rng, y):
    return jnp.asarray(rng.standard_normal(y.shape), y.dtype)
