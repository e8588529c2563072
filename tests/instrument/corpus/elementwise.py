"""Functions of one number: slips in the derivative, and forms that only look wrong."""

import jax
import jax.numpy as jnp
import numpy as np

from ._rule import P, Rule, V

s = jax.nn.sigmoid


WRONG = {
    "sign of sin": Rule(jnp.cos, lambda x, g: (jnp.sin(x) * g,), (V,)),
    "no 2 in square": Rule(lambda x: x * x, lambda x, g: (x * g,), (V,)),
    "half kept": Rule(lambda x: x * x / 2, lambda x, g: (2 * x * g,), (V,)),
    "degrees": Rule(
        lambda x: jnp.sin(x * np.pi / 180),
        lambda x, g: (jnp.cos(x * np.pi / 180) * g,),
        (V,),
    ),
    "log base": Rule(jnp.log2, lambda x, g: (g / x,), (P,)),
    "exponent off by one": Rule(lambda x: x**3, lambda x, g: (3 * x * g,), (V,)),
    "one percent": Rule(jnp.exp, lambda x, g: (1.01 * jnp.exp(x) * g,), (V,)),
    "one in a million": Rule(
        jnp.exp, lambda x, g: ((jnp.exp(x) * g).at[3].multiply(1 + 1e-6),), (V,)
    ),
    "softplus of minus": Rule(jax.nn.softplus, lambda x, g: (s(-x) * g,), (V,)),
    "tanh without square": Rule(jnp.tanh, lambda x, g: ((1 - jnp.tanh(x)) * g,), (V,)),
    "sigmoid of sigmoid": Rule(s, lambda x, g: (s(s(x)) * (1 - s(s(x))) * g,), (V,)),
    "sigmoid of input": Rule(s, lambda x, g: (x * (1 - x) * g,), (V,)),
    "exp of exp": Rule(jnp.exp, lambda x, g: (jnp.exp(jnp.exp(x)) * g,), (V,)),
    "silu without second term": Rule(jax.nn.silu, lambda x, g: (s(x) * g,), (V,)),
    "gelu's other form": Rule(
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x, g: jax.vjp(lambda x: jax.nn.gelu(x, approximate=True), x)[1](g),
        (V,),
    ),
}

RIGHT = {
    "exp by its value": Rule(jnp.exp, lambda x, g: (jnp.exp(x) * g,), (V,), None),
    "sigmoid by its value": Rule(s, lambda x, g: (s(x) * (1 - s(x)) * g,), (V,), None),
    "sigmoid by the other": Rule(s, lambda x, g: (s(x) * s(-x) * g,), (10 * V,), None),
    "tanh factored": Rule(
        jnp.tanh, lambda x, g: ((1 - jnp.tanh(x)) * (1 + jnp.tanh(x)) * g,), (V,), None
    ),
    "logaddexp by sigmoid": Rule(
        lambda x: jnp.logaddexp(x, 0.0 * x), lambda x, g: (s(x) * g,), (100 * V,), None
    ),
    "tiny values": Rule(
        lambda x: x**3, lambda x, g: (3 * x * x * g,), (1e-20 * V,), None
    ),
    "huge values": Rule(lambda x: x * x, lambda x, g: (2 * x * g,), (1e60 * V,), None),
    "cancelling terms": Rule(lambda x: (1e8 + x) - 1e8, lambda x, g: (g,), (V,), None),
    "log of one plus": Rule(jnp.log1p, lambda x, g: (g / (1 + x),), (1e-9 * P,), None),
    "square root at zero": Rule(
        jnp.sqrt,
        lambda x, g: (jnp.where(x > 0, g / (2 * jnp.sqrt(jnp.where(x > 0, x, 1))), 0),),
        (np.array([0.0, 0.3, 2.0]),),
        None,
    ),
}
