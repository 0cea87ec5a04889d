"""Which index of influence is asked, where what it was made of is now, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

SheetsOption = Annotated[
    Path, typer.Option("--out", "-o", help="Where the sheets and a JSON file go.")
]


# brackets in a help text would be taken for markup: what holds unless given goes to show_default
@dataclass(frozen=True)
class OfIndex:
    """An index, and what differs from what it says of itself."""

    index: Annotated[
        Path, typer.Option("--index", "-i", help="The folder that 'seewhy influence fit' wrote.")
    ] = Path("seewhy-index")
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Where the index's model is now.",
            show_default="the model that the index was made with",
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="Where the index's data are now.",
            show_default="the data that the index was made of",
        ),
    ] = None


@dataclass(frozen=True)
class Question:
    """What is asked about a photo."""

    k: Annotated[
        int, typer.Option("-k", min=1, help="Helpful and harmful training pictures of each photo.")
    ] = 5
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="Ask about a score in place of a loss: top1, a class, probability:A, ...",
        ),
    ] = None
    label: Annotated[
        str | None,
        typer.Option(
            help="Ask about the loss of this class, a name or a number.",
            show_default="the class that the model says",
        ),
    ] = None
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer",
            "-l",
            help="Where the maps are read.",
            show_default="the last that is a picture",
        ),
    ] = None
