"""results/index.html: all experiments of a run on one page, from the rows at hand."""

import base64
import datetime
import importlib.util
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from experiments._results import Report, drawn, versions, write_whole
from experiments._rows import Row
from experiments._systems import Drawn, draw
from experiments._told import LEGEND, errata, is_trained, number, published, summary
from experiments.errata import wrong
from jaxbp._page import Line, Table, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "index.html"
_NEEDED = ("jinja2", "pygraphviz")
_DIGITS = 7
_WITNESSES = ("hand-written", "autodiff", "numeric")
# What a page of paper holds of a picture, in px, and repeats of it on the next one:
# about a box. Wider ones are made smaller, and more of their height goes on it.
_WIDEST, _WIDTH_SHARED = 1100, 220
_PAGE_WIDTH, _PAGE_HEIGHT, _HEIGHT_SHARED = 680, 820, 110


class Image(NamedTuple):
    """A figure, as the address of an SVG that holds it, and in words."""

    source: str
    words: str


class Picture(NamedTuple):
    """A system's graph, and its parts on paper: x, y, width and height of each."""

    id: str
    drawn: Drawn
    svg: str
    parts: list[tuple[float, float, float, float]]


class Section(NamedTuple):
    """One experiment: what was claimed, what was derived besides, and all it shows."""

    id: str
    title: str
    claims: Table | None
    derived: Table | None
    text: str
    images: list[Image]
    pictures: list[Picture]


def missing() -> list[str]:
    """What the page needs, and is not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def write(
    folder: pathlib.Path, reports: Mapping[str, Report], titles: Mapping[str, str]
) -> pathlib.Path:
    """Write the page; its path.

    Args:
        reports: by the experiment's name, in the order of the page.
        titles: of each experiment.
    """
    sections = [_section(name, titles[name], r) for name, r in reports.items()]
    found = [row for report in reports.values() for row in wrong(report.rows)]
    text = render(
        "experiments",
        "report.html",
        folder=pathlib.Path(__file__).parent / "templates",
        title="jaxbp: tutorials and networks, number by number",
        summary=[*summary(reports), LEGEND],
        errata=_errata(found, sections),
        sections=sections,
        facts=_facts(),
    )
    path = folder / NAME
    write_whole(path, lambda stream: stream.write(text.encode()))
    return path


def _section(name: str, title: str, report: Report) -> Section:
    claims = [row for row in report.rows if row.verdict != "derived"]
    derived = [row for row in report.rows if row.verdict == "derived"]
    table = _trained_table if is_trained(report) else _table
    faulty, system = wrong(report.rows), title.partition(":")[0]
    pictures = [
        _picture(f"{name}-graph-{k}", draw(system, faulty))
        for k, system in enumerate(report.systems, 1)
    ]
    return Section(
        name,
        title,
        _table(f"{system}: what the page claims", claims) if claims else None,
        table(f"{system}: what was found besides", derived) if derived else None,
        report.text,
        [_image(name, figure) for name, figure in report.figures.items()],
        pictures,
    )


def _table(caption: str, rows: Sequence[Row]) -> Table:
    columns = ("quantity", "published", *_WITNESSES, "verdict", "remark")
    lines = []
    for row in rows:
        values = [number(v, _DIGITS) for v in (row.manual, row.auto, row.numeric)]
        verdict = f"{row.verdict} {row.erratum}".strip()
        cells = (row.quantity, published(row, _DIGITS), *values, verdict, row.note)
        lines.append(Line(cells, "wrong" if row.verdict == "erratum" else row.verdict))
    return Table(caption, columns, lines, columns[1:5], columns[6:])


def _trained_table(caption: str, rows: Sequence[Row]) -> Table:
    columns = ("quantity", "hand-written", "autodiff", "apart", "rounding explains")
    lines = []
    for row in rows:
        apart = None if row.auto is None else abs(row.auto - row.manual)
        values = [number(v, _DIGITS) for v in (row.manual, row.auto)]
        spread = [number(v, 2) for v in (apart, row.rounding)]
        lines.append(Line((row.quantity, *values, *spread)))
    return Table(caption, columns, lines, columns[1:])


def _errata(rows: Sequence[Row], sections: Sequence[Section]) -> list[tuple]:
    """Of every wrong claim its cells, and the picture and the place that show it."""
    shown = {
        (section.id, quantity): (picture.id, place)
        for section in sections
        for picture in section.pictures
        for quantity, place in picture.drawn.shown.items()
    }
    found = []
    for line in errata(rows):
        system, quantity = line.row.system.lower(), line.row.quantity
        target = shown.get((system, quantity), ("", "no link of the graph"))
        if line.stands_for_more:
            target = system, "in its table"
        found.append((line.cells, *target))
    return found


def _picture(id: str, found: Drawn) -> Picture:
    svg = found.svg.replace("<svg ", f'<svg id="{id}-svg" ', 1)
    return Picture(id, found, svg, _parts(*found.size))


def _parts(width: float, height: float) -> list[tuple[float, float, float, float]]:
    columns = _cut(width, _WIDEST, _WIDTH_SHARED)
    tallest = _PAGE_HEIGHT * max(1, columns[0][1] / _PAGE_WIDTH)
    rows = _cut(height, tallest, _HEIGHT_SHARED)
    return [(x, y, wide, tall) for x, wide in columns for y, tall in rows]


def _cut(length: float, most: float, shared: float) -> list[tuple[float, float]]:
    """Start and length of equal pieces, each with the end of the one before."""
    count = max(1, math.ceil((length - shared) / (most - shared)))
    step = (length - shared) / count
    return [(k * step, step + shared) for k in range(count)]


def _image(name: str, figure: "Figure") -> Image:
    data = base64.b64encode(drawn(name, figure, "svg")).decode()
    return Image(f"data:image/svg+xml;base64,{data}", "; ".join(_words(figure)))


def _words(figure: "Figure") -> Iterator[str]:
    """What a figure shows: titles, axes and curves, panel by panel."""
    if title := figure.get_suptitle():
        yield title
    for axes in figure.axes:
        _, names = axes.get_legend_handles_labels()
        labels = [axes.get_ylabel(), axes.get_xlabel()]
        over = " over ".join(label for label in labels if label)
        parts = [axes.get_title(), over, ", ".join(names)]
        if any(parts):
            yield ": ".join(part for part in parts if part)


def _facts() -> list[tuple[str, str]]:
    now = datetime.datetime.now(datetime.UTC)
    facts = {"date": f"{now:%Y-%m-%d %H:%M} UTC", **versions()}
    return [*facts.items(), ("cores", str(os.cpu_count()))]
