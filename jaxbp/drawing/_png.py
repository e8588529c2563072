"""A scene as PNG, painted by matplotlib's Agg and set in the font it brings."""

import io
from functools import partial
from typing import Any

import numpy as np

from jaxbp._errors import argument_error, describe
from jaxbp.drawing._shapes import Curve, Rect, Scene, Text

_FONT = "DejaVu Sans Mono"
_LARGEST = 2**15  # dots to a side: more than that is painted smaller


def png(scene: Scene, scale: float) -> bytes:
    """The scene at `scale` dots to the pixel."""
    is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if not is_number or not 0 < scale < float("inf"):
        kind = ValueError if is_number else TypeError
        expected, got = "a number above 0", describe(scale)
        raise argument_error("Graph.png", "scale", expected, got, kind=kind)
    paint = _Painter(scene, min(scale, _LARGEST / max(scene.width, scene.height)))
    for shape in scene.flat():
        if isinstance(shape, Text):
            paint.text(shape)
        elif isinstance(shape, Rect):
            paint.rect(shape)
        else:
            paint.curve(shape)
    return paint.finish()


class _Painter:
    """Agg without figure and axes, whose artists take a hundred times as long."""

    def __init__(self, scene: Scene, scale: float):
        agg = _agg()
        from matplotlib import rc_context
        from matplotlib.font_manager import FontProperties
        from matplotlib.transforms import Affine2D

        size = round(scene.width * scale), round(scene.height * scale)
        self._scale = scale
        self._unhinted = partial(rc_context, {"text.hinting": "none"})
        self._agg = agg.RendererAgg(*size, 72 * scale)  # a point is then a pixel
        self._place = Affine2D().scale(scale, -scale).translate(0, size[1])
        self._fonts = {
            bold: FontProperties(family=_FONT, weight="bold" if bold else "normal")
            for bold in (False, True)
        }

    def text(self, text: Text) -> None:
        font = self._fonts[text.bold].copy()
        font.set_size(text.size)
        x, y = text.x * self._scale, text.y * self._scale
        with self._unhinted():  # or letters are a whole number of dots wide
            self._agg.draw_text(self._pen(text.fill), x, y, text.text, font, 0)

    def rect(self, rect: Rect) -> None:
        from matplotlib.patches import BoxStyle

        outline: Any = BoxStyle("Round", pad=0, rounding_size=rect.radius or 1e-9)
        path = outline(rect.x, rect.y, rect.width, rect.height, 1)
        thick = rect.thick if rect.stroke != "none" else 0
        pen = self._pen(rect.stroke, thick)
        if rect.dashed:
            pen.set_dashes(0, [4 * self._scale, 3 * self._scale])
        self._agg.draw_path(pen, path, self._place, _rgba(rect.fill))

    def curve(self, curve: Curve) -> None:
        from matplotlib.path import Path

        codes = [Path.MOVETO, *[Path.CURVE4] * (len(curve.points) - 1)]
        pen = self._pen(curve.stroke, curve.thick)
        self._agg.draw_path(pen, Path(curve.points, codes), self._place)
        if curve.arrow:
            head, fill = Path([*curve.head(), (0, 0)], closed=True), curve.stroke
            self._agg.draw_path(self._pen(fill, 0), head, self._place, _rgba(fill))

    def finish(self) -> bytes:
        from matplotlib.image import imsave

        out, dots = io.BytesIO(), np.asarray(self._agg.buffer_rgba())
        settings: Any = {"metadata": {"Software": "jaxbp"}}
        imsave(out, dots, format="png", pil_kwargs={"compress_level": 2}, **settings)
        return out.getvalue()

    def _pen(self, colour: str, thick: float = 1.0) -> Any:
        pen = self._agg.new_gc()
        pen.set_foreground(_rgba(colour) or (0, 0, 0, 0), isRGBA=True)
        pen.set_linewidth(thick * self._scale)
        return pen


def _rgba(colour: str) -> tuple[float, ...] | None:
    from matplotlib.colors import to_rgba

    return None if colour == "none" else to_rgba(colour)


def _agg() -> Any:
    try:
        from matplotlib.backends import backend_agg
    except ImportError as error:
        raise argument_error(
            "Graph.png",
            "matplotlib",
            "installed, which paints the picture",
            str(error),
            "pip install 'jaxbp[report]', or take .svg()",
            kind=ModuleNotFoundError,
        ) from error
    return backend_agg
