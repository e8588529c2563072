"""The gradient of a loss: hand-written, autodiff's, or both at once."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxbp._autodiff import autodiff
from jaxbp._errors import argument_error, describe, first_line, function_name
from jaxbp._jaxpr import find_rules, is_differentiable, trace
from jaxbp.train._mesh import Layout

Route = Literal["manual", "auto", "both"]


class Aux(NamedTuple):
    """What a loss returns beside the scalar."""

    state: Any
    metrics: Any


class Leaves(NamedTuple):
    """The parameters that are trained, and how they are put back among the others.

    `masters` is the tree that was given, with None where a leaf is not trained. Narrow
    floats (bfloat16, float16) are trained as float32; `merge` rounds them to the dtype
    that they had.
    """

    masters: Any
    paths: list[str]
    merge: Callable[[Any], Any]


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
        values = iter(zip(jax.tree.leaves(masters), dtypes, strict=True))
        leaves = []
        for leaf, t in zip(kept, trained, strict=True):
            if t:
                leaf, dtype = next(values)
                leaf = leaf.astype(dtype)
            leaves.append(leaf)
        return jax.tree.unflatten(tree, leaves)

    wide = iter([x.astype(_master(x.dtype)) for x in layout.placed(arrays)])
    masters = jax.tree.unflatten(tree, [next(wide) if t else None for t in trained])
    return Leaves(masters, paths, merge)


def _master(dtype):
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.float32 if narrow else dtype


def called(loss: Callable[..., Any], merge, has_state: bool) -> Callable[..., Any]:
    """`of(masters, batch, state, key) -> (scalar, Aux)` of a loss of either signature.

    A loss has the key if it takes one, the state with `has_state`; what it returns
    after the scalar (and the state) are metrics.
    """
    given = _given(loss, has_state)

    def of(masters, batch, state, key):
        found = {"key": key, "state": state}
        named = {name: found[name] for name in given}
        value, *rest = _several(loss(merge(masters), batch, **named))
        if has_state:
            if not rest:
                expected = "a loss that returns (scalar, state) with has_state=True"
                raise argument_error("fit", "loss", expected, "one value")
            state, *rest = rest
        if len(rest) > 1:
            expected = "at most metrics beside the scalar"
            raise argument_error("fit", "loss", expected, f"{len(rest)} more")
        if not _is_real_scalar(value):
            raise argument_error("fit", "the loss", "a real scalar", describe(value))
        metrics = rest[0] if rest else {}
        for what, tree in (("metrics", metrics), ("state", state)):
            _check_arrays(what, tree)
        return firm(value), Aux(firm(state), firm(metrics))

    return of


def _given(loss: Callable[..., Any], has_state: bool) -> list[str]:
    """What a loss is given by name.

    Raises:
        TypeError: it does not take (params, batch) and these.
    """
    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):  # of what is not written in Python
        return ["state"] if has_state else []
    named = ["key"] if "key" in signature.parameters else []
    named += ["state"] if has_state else []
    try:
        signature.bind(None, None, **dict.fromkeys(named))
    except TypeError as error:
        expected = ", ".join(("params", "batch", *(f"{name}={name}" for name in named)))
        got = f"{function_name(loss)}{signature}: {first_line(error)}"
        raise argument_error(
            "fit", "loss", f"a function of ({expected})", got, kind=TypeError
        ) from None
    return named


def _is_real_scalar(value: Any) -> bool:
    number = isinstance(value, float) or hasattr(value, "dtype")
    return number and is_differentiable(value) and jnp.shape(value) == ()


def _check_arrays(what: str, tree: Any) -> None:
    """TypeError for what is no array or number in what a loss returns."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if not hasattr(x, "dtype") and not isinstance(x, (bool, int, float, complex)):
            name = f"the loss's {what}{jax.tree_util.keystr(path)}"
            expected = "an array or a number"
            raise argument_error("fit", name, expected, describe(x), kind=TypeError)


def firm(tree: Any) -> Any:
    """Its numbers as arrays of a dtype that gives way to no other.

    A program is compiled again for what does.
    """

    def one(x):
        dtype = jnp.result_type(x)
        keys = jnp.issubdtype(dtype, jax.dtypes.extended)
        return x if keys else jax.lax.convert_element_type(x, dtype)

    return jax.tree.map(one, tree)


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
        pairs = zip(*map(jax.tree.leaves, (grads, others)), strict=True)
        return found, _descent(grads), jnp.stack([relative(*pair) for pair in pairs])

    def alone(*args):
        found, grads = (manual if route == "manual" else auto)(*args)
        return found, _descent(grads), jnp.zeros(0, jnp.float32)

    return both if route == "both" else alone


def _descent(grads: Any) -> Any:
    """Less of it is less loss: of a complex parameter JAX's gradient, conjugated."""
    return jax.tree.map(lambda g: g.conj() if jnp.iscomplexobj(g) else g, grads)


def relative(manual: jax.Array, auto: jax.Array) -> jax.Array:
    """The largest difference over autodiff's largest element; of zeros 0.

    Elements in which autodiff's is not finite, as at a bad point, tell nothing.
    """
    told = jnp.isfinite(auto)
    off, size = (
        jnp.max(jnp.abs(x), initial=0, where=told) for x in (manual - auto, auto)
    )
    return jnp.where(off == 0, 0.0, off / size).astype(jnp.float32)
