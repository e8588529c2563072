"""A picture read back from its SVG: boxes, labels, and what is wrong with it."""

import itertools
from xml.etree import ElementTree

import matplotlib
from matplotlib.ft2font import FT2Font, LoadFlags

SVG = "{http://www.w3.org/2000/svg}"
_LEAST = 9  # px
_FONTS = {
    bold: FT2Font(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSansMono{bold}.ttf")
    for bold in ("", "-Bold")
}


def parsed(svg):
    return ElementTree.fromstring(svg)


def rects(tree, *kinds):
    """Every box, plate or group with its corners and the part that it belongs to."""
    for part in tree.iter(f"{SVG}g"):
        for rect in part.findall(f"{SVG}rect"):
            if rect.get("class") in kinds:
                x, y, w, h = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
                yield part, (x, y, x + w, y + h)


def extent(text):
    """What a label covers, set in the font by FreeType."""
    font = _FONTS["-Bold" if text.get("font-weight") == "bold" else ""]
    size = float(text.get("font-size"))
    font.set_size(size, 72)
    font.set_text(text.text, flags=LoadFlags.NO_HINTING)
    width, x, y = (
        font.get_width_height()[0] / 64,
        *map(float, (text.get("x"), text.get("y"))),
    )
    return x, y - 0.8 * size, x + width, y + 0.25 * size


def faults(svg):
    """What is wrong with a picture, in words."""
    tree = parsed(svg)
    boxes = [box for _, box in rects(tree, "box", "plate")]
    for a, b in itertools.combinations(boxes, 2):
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]:
            yield f"{a} and {b} intersect"
    for part, box in rects(tree, "box", "plate"):
        for text in part.iter(f"{SVG}text"):
            if not _inside(extent(text), box):
                yield f"{text.text} leaves its box"
    whole = 0, 0, float(tree.get("width")), float(tree.get("height"))
    for text in tree.iter(f"{SVG}text"):
        if float(text.get("font-size")) < _LEAST:
            yield f"{text.text} is small"
        if not _inside(extent(text), whole):
            yield f"{text.text} leaves the picture"
    for element in tree.iter():
        if "transform" in element.attrib:  # sizes are then not what they say
            yield "a transform"


def _inside(inner, outer):
    return (
        inner[0] >= outer[0] - 0.1
        and inner[1] >= outer[1] - 0.1
        and inner[2] <= outer[2] + 0.1
        and inner[3] <= outer[3] + 0.1
    )


def texts(svg):
    return [t.text for t in parsed(svg).iter(f"{SVG}text")]
