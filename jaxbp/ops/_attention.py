"""Softmax attention, block by block in both directions."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxbp._errors import argument_error, as_floats, check_shapes, describe
from jaxbp.ops import _attention_blocks as blocks
from jaxbp.ops._case import Case, beside, normal
from jaxbp.ops._sharding import alike


def attention(
    q: Float[Array, "*n t d"],
    k: Float[Array, "*n s d"],
    v: Float[Array, "*n s e"],
    mask: Bool[Array, "..."] | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    block: int | None = None,
) -> Float[Array, "*n t e"]:
    r"""Softmax attention: $y = pv$ with $p = \mathrm{softmax}(c\,qk^\top)$.

    VJP, with $\bar p_{ij} = \bar y_i \cdot v_j$ and
    $\bar s_{ij} = p_{ij}(\bar p_{ij} - \bar y_i \cdot y_i)$:
    $\bar q = c\,\bar s k$, $\bar k = c\,\bar s^\top q$, $\bar v = p^\top \bar y$.

    Both passes go over blocks of scores, with a running maximum: temporary memory is
    linear in t and s, time is their product, and half of it when causal, as blocks
    above the diagonal are not visited. The second derivative is autodiff's of the plain
    form, and holds all t × s weights.

    Args:
        q: queries; heads are leading axes, as many in `q`, `k` and `v`.
        k: keys.
        v: values; their last axis may have another length.
        mask: True where query i may look at key j; broadcasts to (*n, t, s). It has no
            cotangent.
        causal: query i looks at keys 0 … i only (also where t and s differ).
        scale: the factor c of the scores; $1/\sqrt d$ if None.
        block: length of a block of queries and of keys; if None 512 for one head, and
            128 for several, whose blocks are worked on together.
    Returns:
        a mean of values a query; 0, with gradient 0, where it may look at no key.
        Residuals kept: `q`, `k`, `v`, `y` and two numbers a query, its highest score
        and the sum of exponentials below it, from which a weight is one exponential
        away; `y` is kept by whatever follows anyway.
    Raises:
        ValueError: the axes do not fit, or the mask does not broadcast to the scores,
            or `block` is below 1.
        TypeError: not floating, or of two dtypes, or a mask that is not boolean.
    Source: Vaswani et al., "Attention is all you need" (2017), eq. 1; in blocks: Dao,
        "FlashAttention-2" (2023), algorithms 1 and 2.
    """
    q, k, v = as_floats("attention", q=q, k=k, v=v)
    check_shapes("attention", "q (*n, t, d), k (*n, s, d), v (*n, s, e)", q=q, k=k, v=v)
    if mask is not None:
        mask = _checked_mask(mask, (*q.shape[:-1], k.shape[-2]))
    if block is not None and block < 1:
        raise argument_error("attention", "block", "1 or more", block)
    return _attention(*alike(q, k, v, mask), causal, scale, block)


def _checked_mask(mask, shape):
    if not jnp.issubdtype(jnp.result_type(mask), jnp.bool_):
        expected = "boolean, True where a query may look"
        raise argument_error(
            "attention", "mask", expected, describe(mask), kind=TypeError
        )
    mask = jnp.asarray(mask)
    fits = mask.ndim <= len(shape) and all(
        a in (1, b)
        for a, b in zip(mask.shape[::-1], shape[::-1][: mask.ndim], strict=True)
    )
    if not fits:
        expected = f"of a shape that broadcasts to the scores' {shape}"
        raise argument_error("attention", "mask", expected, f"shape {mask.shape}")
    return mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape)


def _setting(q, causal, scale, block) -> blocks.Setting:
    if scale is None:
        scale = max(1, q.shape[-1]) ** -0.5
    if block is None:
        block = 512 if q.ndim == 2 or q[..., 0, 0].size == 1 else 128
    return blocks.Setting(causal, scale, block)


@functools.partial(jax.custom_vjp, nondiff_argnames=("causal", "scale", "block"))
def _attention(q, k, v, mask, causal, scale, block):
    return blocks.plain_forward(q, k, v, mask, _setting(q, causal, scale, block))[0]


def attention_fwd(q, k, v, mask, causal, scale, block):
    setting = _setting(q, causal, scale, block)
    y, highest, weight = blocks.forward(q, k, v, mask, setting)
    return y, (q, k, v, mask, y, highest, weight)


def attention_bwd(causal, scale, block, res, y_bar):
    q, y = res[0], res[4]
    chex.assert_trees_all_equal_shapes_and_dtypes(y, y_bar)
    return *blocks.backward(*res, y_bar, _setting(q, causal, scale, block)), None


_attention.defvjp(attention_fwd, attention_bwd)


def _plain(q, k, v, mask=None, *, causal=False):
    s = jnp.einsum("...td,...sd->...ts", q, k) * q.shape[-1] ** -0.5
    seen = jnp.ones(s.shape, bool) if mask is None else jnp.broadcast_to(mask, s.shape)
    seen = jnp.tril(seen) if causal else seen
    weights = jax.nn.softmax(jnp.where(seen, s, jnp.finfo(s.dtype).min), axis=-1)
    return jnp.where(seen, weights, 0) @ v


def _of_jax(q, k, v, mask=None, *, causal=False):
    """`jax.nn.dot_product_attention`, which wants heads in the last axis but one."""
    b, t, s = (-1, q.shape[-2], k.shape[-2])
    turned = [x.reshape(b, *x.shape[-2:])[:, :, None] for x in (q, k, v)]
    seen = None if mask is None else jnp.broadcast_to(mask, (*q.shape[:-1], s))
    seen = None if seen is None else seen.reshape(b, 1, t, s)
    y = jax.nn.dot_product_attention(*turned, mask=seen, is_causal=causal)
    return y.reshape(*q.shape[:-1], v.shape[-1])


def _in_rows(q, k, v, mask=None, *, causal=False):
    """Autodiff of a checkpointed map over rows of blocks, all keys at a time."""
    t, block = q.shape[-2], 128
    q = jnp.moveaxis(q.reshape(*q.shape[:-2], t // block, block, -1), -3, 0)

    @jax.checkpoint
    def rows(i, q):
        row = i * block + jnp.arange(block)
        seen = jnp.arange(k.shape[-2]) <= row[:, None] if causal else mask
        return _plain(q, k, v, seen)

    y = jax.lax.map(lambda pair: rows(*pair), (jnp.arange(t // block), q))
    return jnp.moveaxis(y, 0, -3).reshape(*y.shape[1:-2], t, -1)


def _at(*shapes, mask=None, scale=1.0):
    return beside(normal(*shapes, scale=scale), mask)


_uneven = np.arange(20).reshape(5, 4) % 3 > 0
_uneven[2] = False  # a query that sees nothing
_of_keys = np.array([[[1, 1, 0, 1]], [[0, 0, 0, 0]]], bool)
_long, _wide = _at(*[(4096, 64)] * 3), _at(*[(4, 1024, 64)] * 3)
CASES = (
    Case(
        attention,
        _plain,
        {
            "ordinary": _at((2, 4, 3), (2, 5, 3), (2, 5, 2)),
            "no leading axis": _at((4, 3), (5, 3), (5, 2)),
            "one key": _at((2, 3, 2), (2, 1, 2), (2, 1, 2)),
            "a query without keys": _at((5, 3), (4, 3), (4, 2), mask=_uneven),
            "a mask of keys": _at((2, 3, 2), (2, 4, 2), (2, 4, 2), mask=_of_keys),
            "far apart": _at((3, 2), (4, 2), (4, 2), scale=30.0),
            "empty batch": _at((0, 4, 3), (0, 5, 3), (0, 5, 2)),
            "no keys": _at((2, 3), (0, 3), (0, 2)),
        },
        {"T=1024, four heads of 64": _wide},
        "Vaswani et al. (2017), eq. 1",
        24 + 30 + 20 + 16 + 2 * 8,
        rivals={"jax.nn": _of_jax, "checkpointed rows": _in_rows},
    ),
    Case(
        functools.partial(attention, causal=True),
        functools.partial(_plain, causal=True),
        {
            "ordinary": _at((5, 3), (5, 3), (5, 3)),
            "more keys": _at((3, 2), (6, 2), (6, 2)),
            "more queries": _at((2, 6, 2), (2, 3, 2), (2, 3, 2)),
            "one query": _at((1, 2), (1, 2), (1, 2)),
            "masked": _at((5, 3), (4, 3), (4, 2), mask=_uneven),
        },
        {"T=4096, one head of 64": _long, "T=1024, four heads of 64": _wide},
        "Dao (2023), algorithms 1 and 2",
        4 * 15 + 2 * 5,
        variant="causal",
        rivals={
            "jax.nn": functools.partial(_of_jax, causal=True),
            "checkpointed rows": functools.partial(_in_rows, causal=True),
        },
    ),
)
