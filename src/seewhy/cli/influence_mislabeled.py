"""`seewhy influence mislabeled`: the training pictures whose labels to check first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import BatchOption
from .asked import check_request
from .groups import How
from .influence_asked import OfIndex, SheetsOption
from .results import print_json
from .show import starting

if TYPE_CHECKING:
    from ..influence import InfluenceIndex, Suspect

NAME = "mislabeled"


def mislabeled(
    of_index: OfIndex,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 24,
    batch_size: BatchOption = 32,
    out: SheetsOption = Path("seewhy-mislabeled"),
    *,
    how: How,
) -> int:
    """Lists the training pictures whose labels to check first; the first time it computes self-influence."""
    check_request(device=how.device)
    with starting():
        from ..data.disk import writable_folder, write_json
        from ..influence import mislabeled as suspects_of
        from ..influence.answers.sheets import mislabeled_sheet, own_losses
        from .influence_data import limits_of, open_index, what_is_indexed
        from .influence_telling import first_of_all, forecasting_self_influence, told_of
        from .interrupts import interruptible
        from .show import progress

    first = first_of_all()
    writable_folder(out)
    opened = open_index(of_index, limits_of(how), device=how.device, batch_size=batch_size)
    with (
        interruptible(lambda: what_is_indexed(of_index.index)),
        progress("Self-influence", len(opened), told=True) as show,
    ):
        suspects = suspects_of(opened, top, progress=forecasting_self_influence(show))
    sheet, losses = out / f"{NAME}.png", own_losses(opened, suspects)
    examples = [{**asdict(one), "loss": loss} for one, loss in zip(suspects, losses, strict=True)]
    told = {**told_of(opened), "examples": examples, "sheet": str(sheet)}
    if first:
        mislabeled_sheet(opened, suspects).save(sheet)
        write_json(out / f"{NAME}.json", told)
    if how.as_json and first:
        print_json(told)
    elif not how.as_json:
        _tell_suspects(opened, list(map(_line_of_suspect, suspects, losses)), sheet)
    return 0


def _tell_suspects(opened: InfluenceIndex, rows: Sequence[dict[str, str]], sheet: Path) -> None:
    """For people: the suspects, and where they are drawn."""
    from .show import bold, console, table, tell_remarks

    table(f"Labels to check first, of {len(opened):,}", rows)
    tell_remarks(opened.remarks)
    console.print(f"\nLook at {bold(sheet)} first")


def _line_of_suspect(one: Suspect, loss: float) -> dict[str, str]:
    return {
        "example": one.name,
        "labelled": one.label_name,
        "the model says": one.predicted,
        "probability": f"{one.probability:.0%}",
        "loss": f"{loss:.3g}",
        "self-influence": f"{one.score:.3g}",
    }
