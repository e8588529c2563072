"""The gradient of a loss: hand-written, autodiff's, or both at once."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxbp._autodiff import autodiff
from jaxbp._errors import argument_error, function_name
from jaxbp._jaxpr import find_rules, is_differentiable, trace
from jaxbp.train._mesh import Layout

Route = Literal["manual", "auto", "both"]


class Aux(NamedTuple):
    """What a loss returns beside the scalar."""

    state: Any
    metrics: Any


class Leaves(NamedTuple):
    """The parameters that are trained, and how they are put back among the others.

    Narrow floats (bfloat16, float16) are trained as float32: `masters`. `merge` rounds
    them to the dtype that they had.
    """

    masters: list[jax.Array]
    paths: list[str]
    merge: Callable[[list[Any]], Any]


def split(params: Any, layout: Layout) -> Leaves:
    """Floating leaves on one side, on the mesh, all others kept as they are.

    Raises:
        ValueError: there is no floating leaf.
    """
    pairs, tree = jax.tree_util.tree_flatten_with_path(params)
    trained = [is_differentiable(x) for _, x in pairs]
    paths = [
        jax.tree_util.keystr(p) for (p, _), t in zip(pairs, trained, strict=True) if t
    ]
    if not paths:
        expected = "a tree with floating arrays"
        got = "none" if pairs else "an empty tree"
        raise argument_error("fit", "params", expected, got)
    arrays = [jnp.asarray(x) for (_, x), t in zip(pairs, trained, strict=True) if t]
    dtypes = [x.dtype for x in arrays]
    kept = [
        layout.whole(x) if isinstance(x, jax.Array) and not t else x
        for (_, x), t in zip(pairs, trained, strict=True)
    ]

    def merge(masters):
        values = iter(zip(masters, dtypes, strict=True))
        leaves = []
        for leaf, t in zip(kept, trained, strict=True):
            if t:
                leaf, dtype = next(values)
                leaf = leaf.astype(dtype)
            leaves.append(leaf)
        return jax.tree.unflatten(tree, leaves)

    masters = [x.astype(_master(x.dtype)) for x in layout.placed(arrays)]
    return Leaves(masters, paths, merge)


def _master(dtype):
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.float32 if narrow else dtype


def called(loss: Callable[..., Any], merge, has_state: bool) -> Callable[..., Any]:
    """`of(masters, batch, state, key) -> (scalar, Aux)` of a loss of either signature.

    A loss has the key if it takes one, the state with `has_state`; what it returns
    after the scalar (and the state) are metrics.
    """
    takes = inspect.signature(loss).parameters
    keyed = "key" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values())

    def of(masters, batch, state, key):
        given: dict[str, Any] = {"key": key} if keyed else {}
        if has_state:
            given["state"] = state
        value, *rest = _several(loss(merge(masters), batch, **given))
        if has_state:
            if not rest:
                expected = "a loss that returns (scalar, state) with has_state=True"
                raise argument_error("fit", "loss", expected, "one value")
            state, *rest = rest
        if len(rest) > 1:
            expected = "at most metrics beside the scalar"
            raise argument_error("fit", "loss", expected, f"{len(rest)} more")
        if jnp.shape(value) != () or not jnp.issubdtype(
            jnp.result_type(value), jnp.floating
        ):
            got = f"{jnp.result_type(value)} {jnp.shape(value)}"
            raise argument_error("fit", "the loss", "a real scalar", got)
        return value, Aux(state, rest[0] if rest else {})

    return of


def _several(out):
    return out if isinstance(out, tuple) else (out,)


def has_rule(of: Callable[..., Any], *args: Any) -> bool:
    """Whether a hand-written rule, none of JAX's own, is met."""
    return not all(r.from_jax for r in find_rules(trace(of, args).jaxpr))


def route_of(gradient: Any, loss: Any, of: Callable[..., Any], *args: Any) -> Route:
    """The gradient that was asked for.

    Raises:
        ValueError: no such route; a hand-written gradient of a loss that has none.
    """
    if gradient not in (None, "manual", "auto", "both"):
        expected = "'manual', 'auto', 'both' or None"
        raise argument_error("fit", "gradient", expected, repr(gradient))
    by_hand = gradient != "auto" and has_rule(of, *args)
    if gradient in ("manual", "both") and not by_hand:
        got = f"{gradient!r} for {function_name(loss)}, which holds none"
        mend = "leave gradient out, or write a jax.custom_vjp into the loss"
        expected = "'auto' for a loss without hand-written rules"
        raise argument_error("fit", "gradient", expected, got, mend)
    return gradient or ("manual" if by_hand else "auto")


def slope(of: Callable[..., Any], route: Route) -> Callable[..., Any]:
    """`(masters, batch, state, key) -> ((scalar, Aux), gradients, apart)`.

    `apart`, with "both", is by leaf the largest difference of the two gradients over
    autodiff's largest element; else there are none.
    """
    manual = jax.value_and_grad(of, has_aux=True)
    auto = jax.value_and_grad(autodiff(of), has_aux=True)

    def both(*args):
        found, grads = manual(*args)
        _, others = auto(*args)
        return found, grads, jnp.stack(list(map(relative, grads, others)))

    def alone(*args):
        one = manual if route == "manual" else auto
        return *one(*args), jnp.zeros(0, jnp.float32)

    return both if route == "both" else alone


def relative(manual: jax.Array, auto: jax.Array) -> jax.Array:
    """The largest difference over autodiff's largest element; of zeros 0."""
    off, size = (jnp.max(jnp.abs(x), initial=0) for x in (manual - auto, auto))
    return jnp.where(off == 0, 0.0, off / size).astype(jnp.float32)
