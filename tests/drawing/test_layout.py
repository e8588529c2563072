"""Where things are put: across where that fits, else downwards, and not tried twice."""

import pytest

from jaxbp.drawing import _draw, _layout, _marks
from jaxbp.drawing._picture import picture
from tests.drawing.systems import SYSTEMS, drawn


def sizes_of(graph, seen):
    return _draw._sizes(graph, seen, _marks.Written())


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_layout_is_narrower_than_its_longest_way(name):
    seen = picture(drawn(name))
    sizes = sizes_of(drawn(name), seen)
    across = _layout._laid_out(seen, sizes, _layout._ACROSS)
    assert 0 < _layout._least_width(seen, sizes) <= across.width


def test_what_cannot_fit_across_is_laid_out_once(monkeypatch):
    ways, real = [], _layout._laid_out
    monkeypatch.setattr(
        _layout, "_laid_out", lambda *args: ways.append(args[2]) or real(*args)
    )
    drawn("without groups").svg()
    assert ways == [_layout._DOWN]
    ways.clear()
    drawn("t2").svg()
    assert ways == [_layout._ACROSS]
