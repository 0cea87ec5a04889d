"""What an evaluation is of, and by what it scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from .arguments import DATA_OPTION, RuleOption, SeedOption


@dataclass(frozen=True)
class OfData:
    """Which pictures localisation is scored on, and how maps become boxes there."""

    data: Annotated[str | None, DATA_OPTION] = None
    split: Annotated[str, typer.Option(help="Of the data: train, val or test.")] = "test"
    validation: Annotated[
        str | None,
        typer.Option(
            help="The split on which localisation thresholds are fitted.", show_default="none"
        ),
    ] = None
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of the data, at most so many pictures; of pairs and mosaics that are made, so many.",
            show_default="all; 40 that are made",
        ),
    ] = None
    confidence: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Of photos that pairs and mosaics are made of: the least probability of their class.",
        ),
    ] = 0.5
    rule: RuleOption = "cam2016"
    seed: SeedOption = 0


@dataclass(frozen=True)
class Scoring:
    """By what maps are scored, and where the scores go."""

    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="One or more, as deletion or deletion:step=1792,output=logit.",
            show_default="the task's",
        ),
    ] = None
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the table and the curves go.")] = (
        Path("seewhy-evaluation")
    )
    chance: Annotated[
        bool, typer.Option(help="Also score maps that know nothing of the model.")
    ] = True
