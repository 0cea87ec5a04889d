"""The commands; each has a file, which loads what is slow when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from .evaluate import evaluate
from .explain import demo, explain
from .groups import inlined
from .influence_app import influence
from .lists import labels, layers, methods
from .localize import localize
from .train import train

app = typer.Typer(
    name="seewhy",
    help="Shows why an image model gave its answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="--debug, anywhere, shows tracebacks.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (explain, evaluate, localize, train, demo, methods, layers, labels):
    app.command()(inlined(command))
app.add_typer(influence, name="influence")


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        print(f"seewhy {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
