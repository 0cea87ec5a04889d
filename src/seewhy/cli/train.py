"""`seewhy train`: a localization network from image labels, epoch by epoch, which goes on where it was stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import DATA_OPTION, SeedOption
from .asked import check_request
from .groups import How
from .interrupts import InterruptError
from .results import print_json
from .show import starting

if TYPE_CHECKING:
    from ..data.dataset import LabeledImages, OnError
    from ..models.training import Trained

NO_VAL = "none"


@dataclass(frozen=True)
class Learning:
    """How a network is made and learns."""

    pooling: Annotated[
        str, typer.Option("--pooling", help="The head: gap (CAM), gmp, lse or oquab.")
    ] = "gap"
    backbone: Annotated[
        str,
        typer.Option(
            help="efficientnet_lite0, timm:NAME, torchvision:alexnet, vgg16 or googlenet; @FILE."
        ),
    ] = "efficientnet_lite0"
    scratch: Annotated[bool, typer.Option("--scratch", help="Begin from random weights.")] = False
    size: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Pixels along each edge of the input.",
            show_default="the pictures', else 224",
        ),
    ] = None
    epochs: Annotated[int, typer.Option(min=1)] = 8
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures in one step.")] = 32
    lr: Annotated[float, typer.Option("--lr", help="The highest learning rate.")] = 3e-3
    augment: Annotated[
        str, typer.Option(help="none, move (zoom, shift, light) or mirror (left-right too).")
    ] = "move"
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a better one.")
    ] = None
    seed: SeedOption = 0


@dataclass(frozen=True)
class Kept:
    """Where a training is kept, and in how many processes it runs."""

    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the network and its curves go.")
    ] = Path("seewhy-train")
    devices: Annotated[int, typer.Option(min=1)] = 1
    resume: Annotated[bool, typer.Option(help="Go on with a training that was stopped.")] = True


def train(
    data: Annotated[str, DATA_OPTION] = "scenes",
    *,
    val: Annotated[
        str | None,
        typer.Option(
            "--val",
            help="Data whose split 'val' is held back; 'none' holds nothing.",
            show_default="--data",
        ),
    ] = None,
    learning: Learning,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out what cannot be read, and count it.")
    ] = False,
    kept: Kept,
    how: How,
) -> int:
    """Trains a network on image labels that knows where things are; killed, it goes on with the same command."""
    check_request(device=how.device)
    with starting():
        from ..models.devices import usable_device
        from .show import tell_skipped

    usable = usable_device(how.device)  # before pictures are opened
    on_error: OnError = "skip" if skip_bad else "raise"
    pictures, held_back, skipped = _find_pictures(data, val, learning.seed, on_error, how)
    start = time.monotonic()
    try:
        trained, epochs = _trained_network(pictures, held_back, learning, kept, usable)
    except KeyboardInterrupt as error:
        raise InterruptError(_how_to_go_on(kept.out, learning.epochs)) from error
    if int(os.environ.get("LOCAL_RANK", 0)):  # of several processes one tells
        return 0
    tell_skipped(skipped.values())
    if how.as_json:
        print_json({"skipped": skipped, "out": str(kept.out), **_how_it_went(trained)})
    else:
        _tell_network(trained, learning, time.monotonic() - start if epochs else None)
    return 0


def _trained_network(
    pictures: LabeledImages,
    held_back: LabeledImages | None,
    learning: Learning,
    kept: Kept,
    device: str,
) -> tuple[Trained, int]:
    """The network, and how many epochs it learnt now."""
    from ..engine.masking import keep_allocator_memory
    from ..models.training import train as train_network
    from .show import console, progress

    keep_allocator_memory()
    rows: list[Mapping[str, float]] = []

    def note(row: Mapping[str, float]) -> None:
        rows.append(row)
        console.print(_line_of_epoch(row, learning.epochs))

    steps = learning.epochs * -(-len(pictures) // learning.batch_size)
    with progress("Training", steps) as show:
        trained = train_network(
            pictures,
            val=held_back,
            backbone=learning.backbone,
            pooling=learning.pooling,  # type: ignore[arg-type]
            pretrained=not learning.scratch,
            size=None if learning.size is None else (learning.size, learning.size),
            epochs=learning.epochs,
            batch_size=learning.batch_size,
            lr=learning.lr,
            augment=learning.augment,
            patience=learning.patience,
            seed=learning.seed,
            progress=show,
            on_epoch=note,
            device=device,
            **asdict(kept),
        )
    return trained, len(rows)


def _how_it_went(trained: Trained) -> dict[str, object]:
    """For programs: how good it is, and how it got there."""
    return {"scores": dict(trained.scores), "history": [dict(row) for row in trained.history]}


def _find_pictures(
    data: str, val: str | None, seed: int, on_error: OnError, how: How
) -> tuple[LabeledImages, LabeledImages | None, dict[str, str]]:
    """What to learn from, what is held back, and why pictures of either were left out."""
    from ..data.sources import find_data
    from .show import console, said

    found = {}
    with console.status(f"Finding {said(data)}"):
        for split, spec in (("train", data), ("val", val or data)):
            if spec != NO_VAL:
                one = find_data(
                    spec,
                    split=split,
                    seed=seed,
                    on_error=on_error,
                    max_pixels=how.max_pixels,
                    trust_paths=how.trust_paths,
                )
                found[split] = one.readable() if on_error == "skip" else one
    skipped = {name: why for one in found.values() for name, why in one.skipped.items()}
    return found["train"], found.get("val"), skipped


def _line_of_epoch(row: Mapping[str, float], epochs: int) -> str:
    said = f"epoch {row['epoch']} of {epochs}: loss {row['train_loss']:.3f}"
    return said + (
        f", held back {row['val_loss']:.3f}, score {row['score']:.4f}" if "score" in row else ""
    )


def _how_to_go_on(out: Path, epochs: int) -> str:
    """After an interrupt: what is on disk, and that the same command goes on from it."""
    from ..models.networks.cards import HISTORY

    try:
        done = len(json.loads((out / HISTORY).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return "interrupted; nothing was finished"
    return f"stopped after epoch {done} of {epochs}; the same command goes on from there (--no-resume: anew)"


def _tell_network(trained: Trained, learning: Learning, seconds: float | None) -> None:
    """For people: how good it is, where it is, and what to do with it."""
    from ..models.networks.cards import CURVES
    from .show import bold, console, said, table

    row: dict[str, object] = {"head": learning.pooling, "backbone": learning.backbone}
    row["epochs"] = len(trained.history)
    if trained.scores:
        s = trained.scores
        row[str(s["metric"])] = f"{s['value']:.4f}"
        row |= {"at epoch": s["epoch"], "pictures held back": s["pictures"]}
    row["minutes"] = "" if seconds is None else f"{seconds / 60:.1f}"
    table("Trained", [row])
    console.print(f"\nThe network, its card and its learning curves are in {bold(trained.folder)}")
    console.print(f"Look at {bold(trained.folder / CURVES)} first")
    command = f"seewhy explain PHOTO --method cam --model {said(str(trained.folder))}"
    console.print(f"Then at what it looks at: {command}", soft_wrap=True)
