"""What a training leaves: weights and the card that says what they are, each written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...data.disk import own_version, write_whole
from ...data.preprocess import Preprocess
from ...errors import ModelError, TrainingError

FORMAT, VERSION = "seewhy-localisation", 1
CARD, WEIGHTS, STATE, HISTORY, CURVES = "card.json", "model.safetensors", "last.ckpt", "history.json", "learning.png"


def keep(path: Path, data: bytes) -> None:
    """Writes a file of a training, whole or not at all.

    Raises:
        TrainingError: the disk is full, or cannot be written; the old file stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror or str(error)
        way_out = "make room" if full else "give a folder that can be written"
        stays = (
            f"the last good one stays; {way_out} and run the same again to go on" if os.path.exists(path) else way_out
        )
        raise TrainingError(f"'{path}' cannot be written: {why}; {stays}") from error


def make_card(preprocess: Preprocess, **entries: Any) -> dict[str, Any]:
    """A card of this version, with the versions of what made it."""
    import timm
    import torch

    versions = {"seewhy": own_version(), "torch": torch.__version__, "timm": timm.__version__}
    return {"format": FORMAT, "version": VERSION, **entries, "preprocess": asdict(preprocess), "versions": versions}


def read_card(folder: Path) -> dict[str, Any]:
    """Reads the card of a trained model.

    Raises:
        ModelError: there is none, it is damaged, or a newer version wrote it.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"folder '{folder}' has no {CARD}; give one that 'seewhy train' wrote") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"card '{path}' cannot be read: {str(error).splitlines()[0]}; train again") from error
    if not isinstance(card, Mapping) or card.get("format") != FORMAT:
        raise ModelError(f"card '{path}' is not of the format '{FORMAT}'; give a folder that 'seewhy train' wrote")
    if not isinstance(card.get("version"), int) or card["version"] > VERSION:
        raise ModelError(f"card '{path}' has version {card.get('version')}; this seewhy reads {VERSION}: update it")
    missing = {"architecture", "labels", "preprocess"} - card.keys()
    if missing:
        raise ModelError(f"card '{path}' lacks {', '.join(sorted(missing))}; train again")
    return dict(card)


def card_preprocess(card: Mapping[str, Any]) -> Preprocess:
    """How photos become inputs, as a card says it."""
    said = card["preprocess"]
    try:
        entries: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in said.items()}
        return Preprocess(**entries)
    except (AttributeError, TypeError) as error:
        raise ModelError(f"the card's preprocess {said!r} is none of this version; train again") from error
