"""The one place where messages are built: function, expected, got, and the mend."""

import functools
import re

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

_TRACEBACK = "Traceback (most recent call last)"


def check_shapes(function: str, expected: str, **arrays: jax.Array) -> None:
    """Hold shapes against a signature such as ``"x (*n, i), w (i, o), b (o,)"``.

    A name stands for one length wherever it occurs, a number for itself, and ``*n`` for
    any leading axes, the same wherever `*n` occurs.

    Raises:
        ValueError: naming the first axis that does not fit, and where its length came
            from.
    """
    seen: dict[str, tuple[int, str]] = {}
    leading: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, axes in _signature(expected):
        shape = jnp.shape(arrays[name])
        star = axes[0] if axes and axes[0].startswith("*") else None
        fixed = axes[1:] if star else axes
        if len(shape) < len(fixed) or (not star and len(shape) > len(fixed)):
            need = f"at least {len(fixed)}" if star else len(fixed)
            why = f"{name} needs {need} axes, has {len(shape)}"
            raise _shape_error(function, expected, arrays, why)
        lead = shape[: len(shape) - len(fixed)]
        if star:
            first, owner = leading.setdefault(star, (lead, name))
            if first != lead:
                why = f"{owner}'s leading axes are {first}, {name}'s are {lead}"
                raise _shape_error(function, expected, arrays, why)
        for k, axis in enumerate(fixed):
            length = shape[len(lead) + k]
            where = f"{name}'s {_ordinal(k, len(fixed))}"
            first, owner = seen.setdefault(axis, (length, where))
            if axis.isdigit() and int(axis) != length:
                why = f"{where} axis is {length}, not {axis}"
                raise _shape_error(function, expected, arrays, why)
            if first != length:
                why = f"{owner} axis is {first}, {where} is {length}"
                raise _shape_error(function, expected, arrays, why)


def as_floats(function: str, **values: ArrayLike) -> list[jax.Array]:
    """The arguments as arrays of one floating dtype; Python scalars take the others'.

    Raises:
        TypeError: an argument is no number, holds integers, booleans or keys, or the
            dtypes differ.
    """
    for name, value in values.items():
        if not _is_scalar(value) and not _is_floating(value):
            raise argument_error(
                function,
                name,
                "floating-point numbers",
                describe(value),
                f"cast it: jnp.asarray({name}, dtype=float)",
                kind=TypeError,
            )
    strong = {jnp.result_type(v) for v in values.values() if not _is_scalar(v)}
    if len(strong) > 1:
        got = ", ".join(f"{k} {describe(v)}" for k, v in values.items())
        raise TypeError(
            f"jaxbp.{function}: expected {', '.join(values)} of one dtype; got {got}: "
            "cast them to one, a rule never changes dtype."
        )
    dtype = strong.pop() if strong else jnp.result_type(float)
    return [jnp.asarray(v, dtype) for v in values.values()]


def argument_error(
    function: str,
    argument: str,
    expected: str,
    got: object,
    mend: str = "",
    *,
    kind: type[Exception] = ValueError,
) -> Exception:
    """The exception, to be raised by the caller: what was expected, came, and mends."""
    tail = f": {mend}." if mend else "."
    return kind(
        f"jaxbp.{function}: expected {argument} to be {expected}; got {got}{tail}"
    )


def not_differentiable(function: str, error: Exception) -> Exception:
    """That `f` has no VJP, by what JAX says of it."""
    got = f"one that raises {type(error).__name__}: {first_line(error).rstrip('.')}"
    mend = "audit asks each rule inside it"
    return argument_error(function, "f", "a function that jax.vjp can take", got, mend)


def describe(value: object) -> str:
    """``float32 (3, 4)`` for an array, the type's name for anything else."""
    if value is None:
        return "None"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {tuple(value.shape)}"  # pyright: ignore
    return f"{type(value).__name__} {value!r}"


def first_line(error: Exception) -> str:
    """What JAX says first, to the end of the sentence: the rest is advice.

    Of a callback that raised it gives the traceback: what counts is its last line.
    """
    first, *rest = (str(error).strip() or type(error).__name__).splitlines()
    if _TRACEBACK in first:
        return rest[-1].strip()
    more = rest[:3] if first.endswith(":") else []
    return " ".join([first, *(line.strip() for line in more)])


def function_name(f: object) -> str:
    """What a report calls a function; of a partial, the function in it."""
    inner = f if hasattr(f, "__name__") else getattr(f, "func", f)
    return getattr(inner, "__name__", type(inner).__name__)


def _is_scalar(value: object) -> bool:
    """A Python number, whose dtype is whatever the arrays beside it have."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_floating(value: object) -> bool:
    if value is None:  # which JAX takes for a float in places
        return False
    try:
        return jnp.issubdtype(jnp.result_type(value), jnp.floating)  # pyright: ignore
    except (TypeError, ValueError):
        return False


@functools.cache
def _signature(expected: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    pairs = re.findall(r"(\w+) \(([^)]*)\)", expected)
    return tuple(
        (name, tuple(a.strip() for a in axes.split(",") if a.strip()))
        for name, axes in pairs
    )


def _shape_error(function, expected, arrays, why) -> ValueError:
    got = ", ".join(f"{name} {jnp.shape(a)}" for name, a in arrays.items())
    return ValueError(f"jaxbp.{function}: expected {expected}; got {got}: {why}.")


def _ordinal(k: int, n: int) -> str:
    if k == n - 1:
        return "last"
    return ("first", "second", "third", "fourth", "fifth")[k]
