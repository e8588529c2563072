"""Results on disk: one JSON an experiment, its figures as SVG and PNG."""

import importlib.metadata
import io
import json
import math
import os
import pathlib
import platform
import tempfile
import tomllib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp

from experiments._rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments._systems import System

ROOT = pathlib.Path(__file__).parent.parent
_LIBRARIES = ("jax", "jaxlib", "numpy")
_COLUMNS = ("system", "quantity", "published", "published_formula")
_COLUMNS += ("manual", "auto", "numeric", "verdict", "note")


class Report(NamedTuple):
    """What an experiment found: rows, figures by file name, more for the terminal, and
    the systems that the page draws."""

    rows: list[Row]
    figures: "dict[str, Figure]" = {}  # noqa: RUF012 - read, never written
    text: str = ""
    systems: "tuple[System, ...]" = ()


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        "jaxbp": _own_version(),
        "platform": f"{platform.system()} {platform.machine()}, {_device()}",
    }


def _device() -> str:
    """Where what is computed now is computed."""
    (device,) = jnp.zeros(()).devices()
    return f"{device.platform}:{device.id}"


def check_folder(folder: pathlib.Path) -> None:
    """Make the folder, and hold that files can be written in it.

    Raises:
        OSError: they cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write(folder: pathlib.Path, experiment: str, report: Report) -> list[pathlib.Path]:
    """Write `<experiment>.json` and every figure; the paths written."""
    rows = [{k: _plain(getattr(row, k)) for k in _COLUMNS} for row in report.rows]
    content = {"experiment": experiment, "versions": versions(), "rows": rows}
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    path = folder / f"{experiment}.json"
    write_whole(path, lambda stream: stream.write(text.encode()))
    return [path, *(_ for n, f in report.figures.items() for _ in _draw(folder, n, f))]


def _draw(folder: pathlib.Path, name: str, figure: "Figure") -> list[pathlib.Path]:
    paths = [folder / f"{name}.{kind}" for kind in ("svg", "png")]
    for path in paths:
        content = drawn(name, figure, path.suffix[1:])
        write_whole(path, lambda stream, content=content: stream.write(content))
    return paths


def drawn(name: str, figure: "Figure", kind: str) -> bytes:
    """A figure as SVG or PNG, the same bytes whenever it is drawn."""
    import matplotlib

    data, stream = {"Date": None} if kind == "svg" else {}, io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(stream, format=kind, metadata=data, dpi=150)
    return stream.getvalue()


def write_whole(path: pathlib.Path, write: Callable) -> None:
    """Beside, then renamed: a reader meets the old file or the new one, never half."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _plain(value):
    """As JSON has it: NumPy scalars as Python's, the non-finite as strings."""
    if value is None or isinstance(value, str):
        return value
    value = float(value)
    return value if math.isfinite(value) else str(value)


def _own_version() -> str:
    try:
        return importlib.metadata.version("jaxbp")
    except importlib.metadata.PackageNotFoundError:
        with open(ROOT / "pyproject.toml", "rb") as stream:
            return tomllib.load(stream)["project"]["version"]
