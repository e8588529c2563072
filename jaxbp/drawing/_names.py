"""What wires are called: the user's arguments, named wires, and v1, v2, …"""

import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax


class Names:
    """Names that are given once each: a second `d` is `d_2`."""

    def __init__(self, before_number: str = "_"):
        self._before_number = before_number
        self._taken: set[str] = set()
        self._counts: dict[str, itertools.count] = {}

    def named(self, name: str) -> str:
        free = name
        for k in itertools.count(2):
            if free not in self._taken:
                break
            free = f"{name}{self._before_number}{k}"
        self._taken.add(free)
        return free

    def numbered(self, letter: str) -> str:
        """The next of v1, v2, …"""
        count = self._counts.setdefault(letter, itertools.count(1))
        free = next(name for k in count if (name := f"{letter}{k}") not in self._taken)
        self._taken.add(free)
        return free


def argument_names(
    f: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """Every leaf with its name: the parameter's, and the path in it, `params[0]['w']`.

    A function of one dict has names enough in it: `w1`, not `v['w1']`.
    """
    parameters = _parameters(f, len(args))
    pairs = jax.tree_util.tree_leaves_with_path((args, dict(kwargs)))
    alone = len(args) + len(kwargs) == 1

    def name(path) -> str:
        top, *rest = path[1:]
        called = parameters[top.idx] if hasattr(top, "idx") else str(top.key)
        key = getattr(rest[0], "key", None) if rest else None
        if alone and isinstance(key, str) and key.isidentifier():
            called, rest = key, rest[1:]
        return called + jax.tree_util.keystr(tuple(rest))

    return [(name(path), leaf) for path, leaf in pairs]


def _parameters(f: Callable[..., Any], count: int) -> list[str]:
    """What `f` calls its positional arguments; `[0]` where that cannot be known."""
    plain = [f"[{k}]" for k in range(count)]
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        return plain
    kinds = inspect.Parameter
    named = [
        p.name
        for p in parameters
        if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    rest = next((p.name for p in parameters if p.kind is kinds.VAR_POSITIONAL), "")
    more = [f"{rest}[{k}]" for k in range(count - len(named))] if rest else []
    return (named + more + plain[len(named) + len(more) :])[:count]
