"""Annotations as Pascal VOC and ImageNet write them: one XML file a picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from ...errors import InputError
from ..intake.records import Annotation, MarkedObject

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_annotation(path: Path) -> Annotation:
    """One annotation, without masks.

    Raises:
        InputError: the file is missing or torn.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise InputError(
            f"annotation '{path}' cannot be read ({error.strerror}); check the folder"
        ) from error
    except (
        ElementTree.ParseError,
        ValueError,
        LookupError,
    ) as error:  # the last: an encoding that is not known
        raise InputError(f"annotation '{path}' is torn ({error}); get it anew") from error
    stated = root.find("size")
    return Annotation(
        [_object(place, one) for place, one in enumerate(root.findall("object"), 1)],
        None if stated is None else (stated.findtext("height"), stated.findtext("width")),
    )


def _object(place: int, one: ElementTree.Element) -> MarkedObject:
    name = (one.findtext("name") or "").strip()
    box = one.find("bndbox")
    return MarkedObject(
        f"object {place} ('{name}')",
        name,
        None if box is None else [box.findtext(corner) for corner in _CORNERS],
        difficult=(one.findtext("difficult") or "").strip(),
    )
