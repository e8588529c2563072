"""Pages of the package: templates that share one style, filled in by jinja2."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxbp._errors import argument_error


class Line(NamedTuple):
    """A row of a table; `kind` is a class of the style: "wrong", or a verdict."""

    cells: Sequence[str]
    kind: str = ""


class Table(NamedTuple):
    """A table that a page shows: the first cell of every line is its head.

    `numeric` are the columns whose cells are numbers, `prose` those of sentences.
    """

    caption: str
    columns: Sequence[str]
    lines: Sequence[Line]
    numeric: Sequence[str] = ()
    prose: Sequence[str] = ()


def render(
    caller: str,
    template: str,
    *,
    otherwise: str = "",
    folder: pathlib.Path | None = None,
    **values: Any,
) -> str:
    """A template filled in, every value as text.

    Args:
        caller: whose name an error has.
        template: its file's name in `jaxbp/templates`, or else in `folder`.
        otherwise: what an error says can be done without jinja2.
    Raises:
        ModuleNotFoundError: jinja2 is not installed; says what to install.
    """
    try:
        import jinja2
    except ImportError as error:
        raise argument_error(
            caller,
            "jinja2",
            "installed, which fills the page in",
            str(error),
            f"pip install 'jaxbp[report]'{otherwise}",
            kind=ModuleNotFoundError,
        ) from error
    loaders: list[Any] = [jinja2.PackageLoader("jaxbp")]
    loaders += [jinja2.FileSystemLoader(folder)] if folder else []
    loader = jinja2.ChoiceLoader(loaders)
    settings: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    settings |= {"undefined": jinja2.StrictUndefined}
    environment = jinja2.Environment(loader=loader, autoescape=True, **settings)
    return environment.get_template(template).render(**values)
