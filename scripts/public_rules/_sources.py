"""Where a library writes rules, read from its files without importing them."""

import ast
import importlib.util
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

_DECORATED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_MAKERS = {
    "custom_vjp",
    "custom_jvp",
    "custom_gradient",
    "filter_custom_vjp",
    "filter_custom_jvp",
}


class Written(NamedTuple):
    """One rule in the source: its function, and the first and last line of it."""

    path: str
    name: str
    line: int
    last: int


def rules_written(library: str) -> list[Written]:
    """Every function that a library gives derivatives of its own, in order."""
    spec = importlib.util.find_spec(library)
    assert spec is not None, library
    assert spec.origin is not None, library
    root = pathlib.Path(spec.origin).parent
    return [
        rule
        for path in sorted(root.rglob("*.py"))
        if not path.name.endswith("_test.py")
        for rule in _in_file(path, path.relative_to(root.parent).as_posix())
    ]


def _in_file(path: pathlib.Path, name: str) -> Iterator[Written]:
    tree, decorators = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if not isinstance(node, _DECORATED):
            continue
        for decorator in node.decorator_list:
            decorators |= {id(inner) for inner in ast.walk(decorator)}
            if _made_by(decorator) in _MAKERS:
                last = node.end_lineno or node.lineno
                yield Written(name, node.name, decorator.lineno, last)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and id(node) not in decorators:
            if _word(node.func) not in _MAKERS:
                continue
            first = node.args[0] if node.args else node.keywords[0].value
            last = node.end_lineno or node.lineno
            yield Written(name, ast.unparse(first)[:40], node.lineno, last)


def _made_by(decorator: ast.expr) -> str:
    """`custom_vjp` of `@custom_vjp`, `@jax.custom_vjp(...)`, `@partial(custom_vjp)`."""
    if isinstance(decorator, ast.Call):
        if _word(decorator.func) == "partial":
            return _word(decorator.args[0])
        return _word(decorator.func)
    return _word(decorator)


def _word(node: ast.expr) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))
