"""A scene as SVG, every name in it as text."""

from collections.abc import Iterator
from html import escape

from jaxbp.drawing._shapes import Curve, Part, Rect, Scene, Text

FONT = "DejaVu Sans Mono, Menlo, Consolas, Liberation Mono, monospace"
_DRAWN = {"node", "wire"}  # parts that have a name of their own


def svg(scene: Scene, *, buttons: bool = False) -> str:
    """One `<svg>` of the scene's size in pixels; a picture, or one with `buttons`: its
    boxes and plates, to be chosen."""
    width, height = f"{scene.width:.0f}", f"{scene.height:.0f}"
    role, title = "group" if buttons else "img", escape(scene.title)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="{role}" aria-label="{title}" '
        f'font-family="{FONT}">',
        f"<title>{title}</title>",
        f"<desc>{escape(scene.words)}</desc>",
        *_written(scene.shapes, buttons),
        "</svg>",
    ]
    return "\n".join(lines)


def _written(shapes, buttons: bool) -> Iterator[str]:
    for shape in shapes:
        if isinstance(shape, Part):
            key = f' data-key="{escape(shape.key)}"' if shape.key else ""
            chosen = buttons and shape.kind in _DRAWN
            button = (
                f' role="button" tabindex="0" aria-label="{escape(shape.words)}"'
                if chosen
                else ""
            )
            yield f'<g class="{shape.kind}"{key}{button}>'
            if shape.kind in _DRAWN:
                yield f"<title>{escape(shape.words)}</title>"
            yield from _written(shape.shapes, buttons)
            yield "</g>"
        else:
            yield _shape(shape)


def _shape(shape: Rect | Text | Curve) -> str:
    if isinstance(shape, Rect):
        return _rect(shape)
    if isinstance(shape, Text):
        bold = ' font-weight="bold"' if shape.bold else ""
        place = f'x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size:g}"'
        paint = f'fill="{shape.fill}"{bold} xml:space="preserve"'
        return f"<text {place} {paint}>{escape(shape.text)}</text>"
    return _curve(shape)


def _rect(rect: Rect) -> str:
    kind = f' class="{rect.kind}"' if rect.kind else ""
    round_ = f' rx="{rect.radius:g}"' if rect.radius else ""
    dash = ' stroke-dasharray="4 3"' if rect.dashed else ""
    stroke = f' stroke="{rect.stroke}" stroke-width="{rect.thick:g}"'
    return (
        f'<rect{kind} x="{rect.x:.1f}" y="{rect.y:.1f}" width="{rect.width:.1f}" '
        f'height="{rect.height:.1f}"{round_} fill="{rect.fill}"'
        f"{stroke if rect.stroke != 'none' else ''}{dash}/>"
    )


def _curve(curve: Curve) -> str:
    (x, y), *rest = curve.points
    path = f"M{x:.1f} {y:.1f}C" + " ".join(f"{a:.1f} {b:.1f}" for a, b in rest)
    line = (
        f'<path d="{path}" fill="none" stroke="{curve.stroke}" '
        f'stroke-width="{curve.thick:g}"/>'
    )
    if not curve.arrow:
        return line
    corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in curve.head())
    return f'{line}<polygon points="{corners}" fill="{curve.stroke}"/>'
