"""`seewhy influence`: the training pictures that taught an answer."""

from __future__ import annotations

import typer

from .groups import inlined
from .influence_fit import fit
from .influence_mislabeled import mislabeled
from .influence_query import query

influence = typer.Typer(
    help="Finds the training pictures that taught a model its answers.", no_args_is_help=True
)
for command in (fit, query, mislabeled):
    influence.command()(inlined(command))
