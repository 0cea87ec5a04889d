"""`seewhy train`: a localisation network from image labels, epoch by epoch, which goes on where it was stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..data.opened import MAX_PIXELS
from ..engine.masking import keep_allocator_memory
from ..models.devices import usable_device
from ..models.networks.cards import CURVES, HISTORY
from .interrupts import InterruptError
from .show import bold, console, progress, said, table, tell_skipped

if TYPE_CHECKING:
    from ..data.dataset import LabeledImages
    from ..models.training import Trained

NO_VAL = "none"


def train_model(
    *,
    data: str = "scenes",
    val: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    backbone: str = "efficientnet_lite0",
    pooling: str = "gap",
    scratch: bool = False,
    size: int | None = None,
    epochs: int = 8,
    batch_size: int = 32,
    lr: float = 3e-3,
    augment: str = "move",
    patience: int | None = None,
    seed: int = 0,
    out: Path,
    device: str = "cpu",
    devices: int = 1,
    resume: bool = True,
    max_pixels: int = MAX_PIXELS,
    trust_paths: bool = False,
    as_json: bool = False,
) -> int:
    """Trains and writes what came out; returns the exit status.

    Args:
        data: the spec of a data set, whose split "train" is learnt from.
        val: the spec whose split "val" is held back; None is `data`, and "none" holds nothing back.
        scratch: the backbone starts from random weights.

    Raises:
        InterruptError: it was interrupted.
    """
    from ..models.training import train

    usable = usable_device(device)  # before pictures are opened
    pictures, held_back, skipped = _find(
        data, val, seed=seed, on_error=on_error, max_pixels=max_pixels, trust_paths=trust_paths
    )
    keep_allocator_memory()
    rows: list[Mapping[str, float]] = []

    def note(row: Mapping[str, float]) -> None:
        rows.append(row)
        console.print(_told(row, epochs))

    settings: dict[str, Any] = {
        "lr": lr,
        "augment": augment,
        "patience": patience,
        "seed": seed,
        "devices": devices,
    }
    start = time.monotonic()
    try:
        with progress("Training", epochs * -(-len(pictures) // batch_size)) as show:
            trained = train(
                pictures,
                val=held_back,
                backbone=backbone,
                pooling=pooling,  # type: ignore[arg-type]
                pretrained=not scratch,
                size=None if size is None else (size, size),
                epochs=epochs,
                batch_size=batch_size,
                out=out,
                resume=resume,
                device=usable,
                progress=show,
                on_epoch=note,
                **settings,
            )
    except KeyboardInterrupt as error:
        raise InterruptError(_how_to_go_on(out, epochs)) from error
    if int(os.environ.get("LOCAL_RANK", 0)):  # of several processes one tells
        return 0
    tell_skipped(skipped.values())
    if as_json:
        print(json.dumps({"skipped": skipped, "out": str(out), **_results(trained)}))
    else:
        _tell(trained, pooling, backbone, time.monotonic() - start if rows else None)
    return 0


def _results(trained: Trained) -> dict[str, Any]:
    """For programs: how good it is, and how it got there."""
    return {"scores": dict(trained.scores), "history": [dict(row) for row in trained.history]}


def _find(
    data: str, val: str | None, **asked: Any
) -> tuple[LabeledImages, LabeledImages | None, dict[str, str]]:
    """What to learn from, what is held back, and why pictures of either were left out."""
    from ..data.sources import find_data

    specs = {"train": data, "val": val or data}
    with console.status(f"Finding {said(data)}"):
        found = {
            split: find_data(spec, split=split, **asked)
            for split, spec in specs.items()
            if spec != NO_VAL
        }
        if asked["on_error"] == "skip":
            found = {split: one.readable() for split, one in found.items()}
    skipped = {name: said for one in found.values() for name, said in one.skipped.items()}
    return found["train"], found.get("val"), skipped


def _told(row: Mapping[str, float], epochs: int) -> str:
    said = f"epoch {row['epoch']} of {epochs}: loss {row['train_loss']:.3f}"
    return said + (
        f", held back {row['val_loss']:.3f}, score {row['score']:.4f}" if "score" in row else ""
    )


def _how_to_go_on(out: Path, epochs: int) -> str:
    """After an interrupt: what is on disk, and that the same command goes on from it."""
    try:
        done = len(json.loads((out / HISTORY).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return "interrupted; nothing was finished"
    return f"stopped after epoch {done} of {epochs}; the same command goes on from there (--no-resume: anew)"


def _tell(trained: Trained, pooling: str, backbone: str, seconds: float | None) -> None:
    """For people: how good it is, where it is, and what to do with it."""
    row: dict[str, Any] = {"head": pooling, "backbone": backbone, "epochs": len(trained.history)}
    if trained.scores:
        s = trained.scores
        row |= {
            str(s["metric"]): f"{s['value']:.4f}",
            "at epoch": s["epoch"],
            "pictures held back": s["pictures"],
        }
    row["minutes"] = "" if seconds is None else f"{seconds / 60:.1f}"
    table("Trained", [row])
    console.print(f"\nThe network, its card and its learning curves are in {bold(trained.folder)}")
    console.print(f"Look at {bold(trained.folder / CURVES)} first")
    command = f"seewhy explain PHOTO --method cam --model {said(str(trained.folder))}"
    console.print(f"Then at what it looks at: {command}", soft_wrap=True)
