"""Networks of layers as the tutorials count them: units, weights, links."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from experiments._rows import Witness
from experiments._witnesses import Inputs, Link, Measured, System
from jaxbp import nets, ops

Index = tuple[int, ...]
_SYMBOLS = {"yhat": "ŷ", "losses": "L"}


def inputs(weights: Sequence, x, biases: Sequence = ()) -> dict[str, np.ndarray]:
    """x, w1, w2, …, b1, b2, …; weights as the library stores them, (in, out)."""
    named = {"x": x}
    named |= {f"w{k}": w for k, w in enumerate(weights, 1)}
    named |= {f"b{k}": b for k, b in enumerate(biases, 1)}
    return {name: np.asarray(value, float) for name, value in named.items()}


def system(net: nets.Net, y) -> System:
    """The network's loss, the target a constant, as a function of the named inputs."""

    def loss(v: Inputs):
        depth = sum(name.startswith("w") for name in v)
        params = tuple(
            {s: v[f"{s}{k}"] for s in "wb" if f"{s}{k}" in v}
            for k in range(1, depth + 1)
        )
        return net.loss(params, (v["x"], jnp.asarray(y, float)))

    return loss


def links(depth: int, output: Callable, *, bias: bool) -> list[Link]:
    """The chain in order: each layer's sum and activation. The loss is its end."""
    chain = []
    for k in range(1, depth + 1):
        before = "x" if k == 1 else f"h{k - 1}"
        sources = (before, f"w{k}", f"b{k}") if bias else (before, f"w{k}")
        after, op = ("yhat", output) if k == depth else (f"h{k}", ops.sigmoid)
        chain.append(Link(f"a{k}", ops.dense if bias else dense, sources))
        chain.append(Link(after, op, (f"a{k}",)))
    return chain


def dense(x, w):
    """The affine map without a bias."""
    return ops.dense(x, w, jnp.zeros_like(w[0]))


def unit(x, w):
    """Sum and sigmoid, the two links that the pages write as one."""
    return ops.sigmoid(dense(x, w))


def numbered(name: str, index: Index) -> str:
    """An element as the pages write it: a21, ŷ1, w212 (layer, unit, input)."""
    return symbol(name) + "".join(str(i + 1) for i in reversed(index))


def symbol(name: str, index: Index = ()) -> str:
    """The name alone, for layers of one unit."""
    del index
    return _SYMBOLS.get(name, name)


def elements(
    found: Measured, name_of: Callable[[str, Index], str] = numbered
) -> dict[str, Witness]:
    """Every element of every wire, gradient and local derivative, by the pages' names.

    Local derivatives that are 0 by construction (of a unit in another unit's weights)
    are left out.
    """
    rows = {}
    for name, value in found.values.items():
        for i in np.ndindex(value.manual.shape):
            rows[name_of(name, i)] = value.at(*i)
    for name, cotangent in found.cotangents.items():
        for i in np.ndindex(cotangent.manual.shape):
            rows[f"∂L/∂{name_of(name, i)}"] = cotangent.at(*i)
    for (output, source), local in found.local.items():
        rank = found.values[output].manual.ndim
        for i in np.ndindex(local.manual.shape):
            if _depends(output, i[:rank], source, i[rank:]):
                pair = f"∂{name_of(output, i[:rank])}/∂{name_of(source, i[rank:])}"
                rows[pair] = local.at(*i)
    return rows


def _depends(output: str, i: Index, source: str, j: Index) -> bool:
    if source[0] in "wb":
        return i[-1] == j[-1]
    return not (output[0] == "h" and source[0] == "a") or i == j
