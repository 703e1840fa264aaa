"""Figures made fit to stand in a page: only what draws is kept, and ids are the figure's own.

An SVG in a page shares the page's ids, styles and scripts. So elements and attributes that are not known to draw are
left out, references lead nowhere but into the figure itself, and every id gets the figure's prefix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

_ELEMENTS = frozenset(
    {
        "svg", "g", "defs", "symbol", "use", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text",
        "tspan", "image", "clipPath", "mask", "marker", "pattern", "linearGradient", "radialGradient", "stop",
    }
)  # fmt: skip
_REFERENCE = re.compile(r"""url\(\s*["']?#([^"')]*)["']?\s*\)""")
_PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/=\s]*")
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_LENGTH = re.compile(r"\s*([0-9.]+)\s*(?:pt|px)?\s*")
# What matplotlib says of every element by a style sheet, which would hold for the whole page; said of the root instead.
_ROOT_STYLE = "stroke-linejoin:round;stroke-linecap:butt"


def embedded(svg: str, prefix: str, label: str) -> str:
    """An SVG document as an element of a page.

    Args:
        svg: the document.
        prefix: of its ids; no other figure of the page has it.
        label: what the picture shows, for those who do not see it.

    Raises:
        ValueError: it is no SVG, or has entities of its own.
    """
    if "<!ENTITY" in svg:
        raise ValueError("an SVG with entities of its own is not taken into a page.")
    try:
        root = ElementTree.fromstring(svg.encode("utf-8", "replace"))
    except ElementTree.ParseError as error:
        raise ValueError(f"the figure is no SVG: {error}.") from error
    clean = _cleaned(root, prefix)
    if clean is None or clean.tag != "svg":
        raise ValueError(f"the figure is no SVG but <{root.tag}>.")
    box = root.get("viewBox") or _box(root.attrib)
    clean.attrib = {
        "viewBox": box, "role": "img", "aria-label": label, "style": _ROOT_STYLE,
        **{name: value for name, value in clean.attrib.items() if name in ("preserveAspectRatio", "fill", "stroke")},
    }  # fmt: skip
    return ElementTree.tostring(clean, encoding="unicode", short_empty_elements=True)


def _box(attributes: Mapping[str, str]) -> str:
    sides = [_LENGTH.fullmatch(attributes.get(name, "")) for name in ("width", "height")]
    if None in sides:
        raise ValueError("the figure has neither a viewBox nor a size in points or pixels.")
    return "0 0 " + " ".join(side.group(1) for side in sides if side)


def _cleaned(element: ElementTree.Element, prefix: str) -> ElementTree.Element | None:
    """A copy without namespaces and without what does not draw; None where nothing is left."""
    name = _local(element.tag)
    if name not in _ELEMENTS:
        return None
    copy = ElementTree.Element(name)
    for full_name, value in element.attrib.items():
        attribute = _local(full_name)
        kept = _attribute(attribute, value, name, prefix)
        if kept is not None:
            copy.set(attribute, kept)
    if name in ("text", "tspan"):
        copy.text = element.text
    for child in element:
        kept_child = _cleaned(child, prefix)
        if kept_child is not None:
            kept_child.tail = child.tail if name in ("text", "tspan") else None
            copy.append(kept_child)
    return copy


def _local(name: object) -> str:
    return str(name).rpartition("}")[2]


def _attribute(name: str, value: str, element: str, prefix: str) -> str | None:
    """An attribute's value as it may stand in a page; None where it may not."""
    lowered = name.lower()
    if not _ATTRIBUTE.fullmatch(name) or lowered.startswith(("on", "aria")) or lowered in ("class", "role", "tabindex"):
        return None
    if name == "id":
        return prefix + value
    if name == "href":
        if element == "image":
            return value if _PICTURE.fullmatch(value) else None
        return f"#{prefix}{value[1:]}" if value.startswith("#") and element != "a" else None
    if "\\" in value or "@" in value:  # escapes would hide what follows from the eyes of the next lines
        return None
    lower = value.lower()
    if lower.count("url(") != len(_REFERENCE.findall(value)) or "script" in lower or "expression" in lower:
        return None
    return _REFERENCE.sub(lambda found: f"url(#{prefix}{found.group(1)})", value)
