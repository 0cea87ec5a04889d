"""Annotations as Pascal VOC and ImageNet write them: one XML file a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ...errors import InputError
from .marks import Box


@dataclass(frozen=True)
class Marked:
    """One object: its class's name, xmin, ymin, xmax, ymax as they are written, and whether it is difficult."""

    name: str
    corners: Box
    difficult: bool


def read_objects(path: Path) -> list[Marked]:
    """The objects of one annotation.

    Raises:
        InputError: the file is missing or torn, or an object has no name or no box.
    """
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
        return [
            Marked(
                str(one.findtext("name")).strip(),
                (_corner(one, "xmin"), _corner(one, "ymin"), _corner(one, "xmax"), _corner(one, "ymax")),
                (one.findtext("difficult") or "0").strip() == "1",
            )
            for one in objects
        ]
    except OSError as error:
        raise InputError(f"annotation '{path}' cannot be read ({error.strerror}); check the folder") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"annotation '{path}' is torn ({error}); get it anew") from error


def _corner(one: ElementTree.Element, name: str) -> float:
    text = one.findtext(f"bndbox/{name}")
    if text is None or one.findtext("name") is None:
        raise ValueError(f"an object without name or bndbox/{name}")
    return float(text)
