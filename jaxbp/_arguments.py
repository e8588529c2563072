"""What `compare`, `audit`, `cost` and `record` are all given, checked in one place."""

import contextlib
import inspect
import numbers
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._errors import argument_error, describe, first_line, function_name
from jaxbp._jaxpr import is_differentiable, is_tracer

Leaves = list[tuple[str, Any]]


def leaves_with_paths(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Leaves:
    """Every leaf with its key path in the argument tuple, or after its keyword."""
    pairs = jax.tree_util.tree_leaves_with_path((args, kwargs))
    return [(jax.tree_util.keystr(path[1:]), leaf) for path, leaf in pairs]


def checked(
    function: str, f: object, args: tuple[Any, ...], kwargs: object
) -> dict[str, Any]:
    """The keyword arguments as a dict.

    Raises:
        TypeError: `f` is not callable, `kwargs` no mapping of names, or `f` does not
            take such arguments.
    """
    check_function(function, "f", f)
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(kwargs, Mapping) or not all(isinstance(k, str) for k in kwargs):
        expected, got = "a dict of keyword arguments", describe(kwargs)
        raise argument_error(function, "kwargs", expected, got, kind=TypeError)
    _check_taken(function, f, args, kwargs)
    return dict(kwargs)


def _check_taken(function, f, args, kwargs) -> None:
    """TypeError where `f` takes fewer arguments, or more, or others."""
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):  # of what is not written in Python
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        expected = f"as {function_name(f)}{signature} takes them"
        got = first_line(error).removeprefix("got ")
        name = "the arguments of f"
        raise argument_error(function, name, expected, got, kind=TypeError) from None


def check_concrete(function: str, leaves: Leaves) -> None:
    """TypeError where an argument is traced, or the call itself is."""
    mend = f"call {function} outside jit, grad and vmap"
    for path, leaf in leaves:
        if is_tracer(leaf):
            expected, got = "a concrete value", "a traced one"
            raise argument_error(function, path, expected, got, mend, kind=TypeError)
    if is_tracer(jnp.zeros(())):  # then whatever is computed here is traced
        expected, got = "at the top level", "one inside of what is being traced"
        raise argument_error(function, "the call", expected, got, mend, kind=TypeError)


def check_numbers(function: str, leaves: Leaves) -> None:
    """ValueError where there is NaN among the arguments."""
    for path, leaf in leaves:
        if is_differentiable(leaf) and (bad := int(np.isnan(np.asarray(leaf)).sum())):
            got = f"NaN in {bad} of {np.size(leaf)} elements"
            mend = "ask at a point where the function is defined"
            raise argument_error(function, path, "numbers", got, mend)


def check_closed(function: str, jaxpr: Any) -> None:
    """TypeError where a traced function closes over a value that is traced itself."""
    if any(map(is_tracer, jaxpr.consts)):
        expected = "a function of concrete values"
        mend = f"call {function} outside jit, grad and vmap"
        got = "one that closes over a traced value"
        raise argument_error(function, "f", expected, got, mend, kind=TypeError)


_NOT_THE_USERS = (
    os.path.dirname(jax.__file__),
    os.path.dirname(__file__),
    contextlib.__file__,
    "<",
)
_UNDEFINED = re.compile(r"No J?VJ?P defined for custom_")
_UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


@contextlib.contextmanager
def traceable(function: str) -> Iterator[None]:
    """A TypeError where `f` cannot be traced or differentiated, and what mends it.

    Where it decides in Python by a value, which `jax.grad` alone lets pass, since its
    values are concrete; hands a float to a rule as what is no array; or calls a rule
    that is not there.
    """
    try:
        yield
    except jax.errors.TracerArrayConversionError as error:
        got = f"one that hands a traced array to NumPy or Python{_own_line(error)}"
        mend = "call jax.numpy there, or bind what is no array before"
        raise _refused(function, "jax.jit can trace", got, mend) from error
    except _UNTRACEABLE as error:
        got = f"one that decides in Python by a value{_own_line(error)}"
        mend = "decide by jnp.where or jax.lax.cond, or bind what is no array before"
        raise _refused(function, "jax.jit can trace", got, mend) from error
    except jax.errors.UnexpectedTracerError as error:
        if "nondiff_argnums" not in str(error):
            got = f"one that keeps a traced value outside{_own_line(error)}"
            mend = "hand it from fwd to bwd as a residual, and return it"
            raise _refused(function, "has no side effects", got, mend) from error
        got = f"one that takes a float by nondiff_argnums{_own_line(error)}"
        mend = "bind it with functools.partial"
        raise _refused(function, "jax.jit can trace", got, mend) from error
    except AttributeError as error:
        if not _UNDEFINED.match(str(error)):
            raise
        got, mend = first_line(error).rstrip("."), "define it before you ask"
        raise _refused(function, "jax.vjp can take", got, mend) from error


def _refused(function: str, which: str, got: str, mend: str) -> Exception:
    expected = f"a function that {which}"
    return argument_error(function, "f", expected, got, mend, kind=TypeError)


def _own_line(error: BaseException) -> str:
    """The user's line that an error came by, " at file:line"."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_NOT_THE_USERS)]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def check_function(function: str, name: str, value: object) -> None:
    """TypeError unless the value can be called."""
    if not callable(value):
        got = describe(value)
        raise argument_error(function, name, "a function", got, kind=TypeError)


def whole(
    function: str, name: str, value: object, least: int, most: int | None = None
) -> int:
    """The value as an int; a ValueError unless it is a whole number in these bounds."""
    number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    high = most is not None and number and int(value) > most  # pyright: ignore
    if not number or int(value) < least or high:  # pyright: ignore - it is one
        bound = f"of at most {most:,}" if high else f"from {least} on"
        expected = f"an integer {bound}"
        raise argument_error(function, name, expected, repr(value))
    return int(value)  # pyright: ignore
