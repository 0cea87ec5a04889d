"""An explanation on disk: pictures, maps as numbers, and explanation.json, complete after every batch."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from . import __version__, maps
from .errors import InputError
from .results import Attribution

if TYPE_CHECKING:
    from .explanation import Explanation

JSON_NAME, SCHEMA = "explanation.json", 1


class ExplanationWriter:
    """Writes explanations into a folder, batch by batch; what was added is on disk and listed, also after an interrupt.

    ```
    with ExplanationWriter("out") as writer:
        for part in explain_batches(model, photos):
            writer.add(part)
    ```

    For a photo cat.jpg: cat/sheet.png, cat/METHOD.LAYER.TARGET.png, and cat/maps.npz with the maps as the paper has
    them (float32, h x w), under the same names; NAME.interval holds the half-width of the 95 % interval of each place.

    Args:
        folder: made if it does not exist; files of the same names in it are replaced.
        style: how pictures are drawn, see `seewhy.render.attribution_picture`.
        sheets: also one sheet for each photo.
    """

    def __init__(self, folder: str | os.PathLike[str], *, style: str | None = None, sheets: bool = True) -> None:
        self.folder, self.style, self.sheets = Path(folder), style, sheets
        self.json_path = self.folder / JSON_NAME
        self.entries: list[dict[str, Any]] = []
        self._head: dict[str, Any] = {}
        self._taken = {JSON_NAME, "report.html"}

    def __enter__(self) -> ExplanationWriter:
        writable_folder(self.folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.entries:
            self._write_json()

    def add(self, part: Explanation) -> None:
        """Writes the photos of one explanation, and lists them."""
        self._head = summary_head(part)
        for i, name in enumerate(part.names):
            stem = self._free_stem(Path(name).stem)
            (self.folder / stem).mkdir(exist_ok=True)
            entry = image_entry(part, i)
            arrays: dict[str, Any] = {}
            for attribution, key, told in zip(part, file_keys(part), entry["attributions"], strict=True):
                arrays[key] = attribution.map[i].numpy()
                if attribution.interval is not None:
                    arrays[f"{key}.interval"] = attribution.interval[i].numpy()
                path = self.folder / stem / f"{key}.png"
                part.picture(attribution, i, style=self.style).save(path)
                told["picture"] = str(path.relative_to(self.folder))
                told["map"] = {"file": f"{stem}/maps.npz", "key": key, "shape": list(attribution.map.shape[1:])}
            np.savez(self.folder / stem / "maps.npz", **arrays)
            if self.sheets:
                part.sheet(i, style=self.style).save(self.folder / stem / "sheet.png")
                entry["sheet"] = f"{stem}/sheet.png"
            self.entries.append(entry)
        self._write_json()

    def _free_stem(self, stem: str) -> str:
        """A folder name that no other photo of this explanation has."""
        return _free(re.sub(r"[^\w.-]+", "_", stem).strip(".") or "image", self._taken)

    def _write_json(self) -> None:
        write_json(self.json_path, {**self._head, "images": self.entries})


def writable_folder(folder: Path) -> None:
    """Makes a folder to write into.

    Raises:
        InputError: it cannot be made, or not written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"out={str(folder)!r} cannot be made a folder: {error.strerror}; give one where you may write"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"out={str(folder)!r} cannot be written into; change its rights, or give another folder")


def write_json(path: Path, told: Mapping[str, Any]) -> None:
    """Writes a JSON file that at any moment is there whole, the old one or the new one."""
    text = json.dumps(told, indent=2, allow_nan=False, ensure_ascii=False)
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(path)


def file_keys(attributions: Iterable[Attribution]) -> list[str]:
    """METHOD.LAYER.TARGET for each, of characters that every file system takes; no two are the same."""
    taken: set[str] = set()
    named = [(a.method, a.layer, a.target) for a in attributions]
    keys = [".".join(re.sub(r"[^\w+-]+", "_", part).strip("_") for part in parts if part)[:180] for parts in named]
    return [_free(key, taken) for key in keys]


def _free(name: str, taken: set[str]) -> str:
    """The name, or the first of name-2, name-3 ... that is not taken; and takes it."""
    free, n = name, 2
    while free.lower() in taken:  # some file systems do not tell A from a
        free, n = f"{name}-{n}", n + 1
    taken.add(free.lower())
    return free


def summary_head(explanation: Explanation) -> dict[str, Any]:
    """What explanation.json says of the whole."""
    import torch

    return {
        "schema": SCHEMA,
        "seewhy": __version__,
        "torch": torch.__version__,
        "model": explanation.model,
    }


def image_entry(explanation: Explanation, i: int) -> dict[str, Any]:
    """What explanation.json says of one photo: plain numbers and strings; what is not finite is null."""
    placement = explanation.placements[i]
    return {
        "name": explanation.names[i],
        "size": list(placement.photo_size),
        "seen_box": [round(v, 2) for v in placement.box],
        "predictions": [
            {"index": p.index, "label": p.label, "probability": _number(p.probability)}
            for p in explanation.predictions[i]
        ],
        "attributions": [_attribution_entry(a, explanation, i) for a in explanation],
    }


def _attribution_entry(a: Attribution, explanation: Explanation, i: int) -> dict[str, Any]:
    values = a.map[i]
    return {
        "method": a.method,
        "layer": a.layer,
        "target": a.target,
        "label": a.labels[i],
        "score": _number(a.scores[i]),
        "probability": _number(a.probabilities[i]),
        "status": a.status[i],
        "signed": a.signed,
        "minimum": _number(float(values.min())),
        "maximum": _number(float(values.max())),
        "peak": _peak(a, explanation, i),
        "options": _plain(a.options),
        **({"facts": dict(a.facts[i])} if a.facts else {}),
        **({"ledger": [asdict(entry) for entry in a.ledgers[i].entries]} if a.ledgers else {}),
    }


def _peak(a: Attribution, explanation: Explanation, i: int) -> list[float] | None:
    """The photo's pixel (x, y) under the centre of the map's strongest place."""
    if a.status[i] not in maps.READABLE:
        return None
    h, w = a.map.shape[1:]
    y, x = divmod(int(a.map[i].argmax()), w)
    x0, y0, x1, y1 = explanation.placements[i].box
    return [round(x0 + (x + 0.5) / w * (x1 - x0), 1), round(y0 + (y + 0.5) / h * (y1 - y0), 1)]


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, str | int | float | bool | None) else repr(v)[:80] for k, v in options.items()}


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)
