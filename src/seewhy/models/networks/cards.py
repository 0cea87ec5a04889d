"""What a training or `Model.save` leaves: weights and the card that says what they are, written whole or not at all."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict
from pathlib import Path

from ...data.disk import Json, own_version, read_json, write_whole
from ...data.preprocess import Preprocess
from ...errors import ModelError, TrainingError

TRAINED = "seewhy-localisation"
SAVED = "seewhy-model"
VERSION = 1
CARD, WEIGHTS, STATE, HISTORY, CURVES = (
    "card.json",
    "model.safetensors",
    "last.ckpt",
    "history.json",
    "learning.png",
)
_NEEDED = {
    TRAINED: {"architecture", "labels", "preprocess"},
    SAVED: {
        "source",
        "name",
        "labels",
        "preprocess",
        "output",
        "gives",
        "multi_label",
        "takes",
        "tensors",
    },
}
_BY = "give one that 'seewhy train' or model.save wrote"


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
            f"the last good one stays; {way_out} and run the same again to go on"
            if os.path.exists(path)
            else way_out
        )
        raise TrainingError(f"'{path}' cannot be written: {why}; {stays}") from error


def make_card(preprocess: Preprocess | None, *, form: str = TRAINED, **entries: object) -> Json:
    """A card of this version, with the versions of what made it."""
    import timm
    import torch

    versions = {"seewhy": own_version(), "torch": torch.__version__, "timm": timm.__version__}
    said = None if preprocess is None else asdict(preprocess)
    return {"format": form, "version": VERSION, **entries, "preprocess": said, "versions": versions}


def read_card(folder: Path) -> Json:
    """Reads the card of a trained or saved model; its "format" says which.

    Raises:
        ModelError: there is none, it is damaged, or a newer version wrote it.
    """
    path = folder / CARD
    try:
        card = read_json(path)
    except FileNotFoundError as error:
        raise ModelError(f"folder '{folder}' has no {CARD}; {_BY}") from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"card '{path}' cannot be read: {str(error).splitlines()[0]}; make it again"
        ) from error
    form = card.get("format")
    if not isinstance(form, str) or form not in _NEEDED:
        raise ModelError(
            f"card '{path}' is not of the format {' or '.join(map(repr, _NEEDED))}; {_BY}"
        )
    if not isinstance(card.get("version"), int) or card["version"] > VERSION:
        raise ModelError(
            f"card '{path}' has version {card.get('version')}; this seewhy reads {VERSION}: update it"
        )
    missing = _NEEDED[form] - card.keys()
    if missing:
        raise ModelError(f"card '{path}' lacks {', '.join(sorted(missing))}; make it again")
    return dict(card)


def card_preprocess(card: Json) -> Preprocess:
    """How photos become inputs, as a card says it."""
    said = card["preprocess"]
    try:
        entries: Json = {key: tuple(v) if isinstance(v, list) else v for key, v in said.items()}
        return Preprocess(**entries)
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the card's preprocess {said!r} is none of this version; make it again"
        ) from error
