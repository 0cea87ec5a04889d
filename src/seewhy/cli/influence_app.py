"""`seewhy influence`: the training pictures that taught an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import (
    DATA_OPTION,
    BatchOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    OutOption,
    PhotosArgument,
    SeedOption,
)

influence = typer.Typer(help="Finds the training pictures that taught a model its answers.", no_args_is_help=True)

IndexOption = Annotated[Path, typer.Option("--index", "-i", help="The folder that 'seewhy influence fit' wrote.")]
OtherModelOption = Annotated[str | None, typer.Option("--model", "-m", help="[the model the index was made with]")]
OtherDataOption = Annotated[str | None, typer.Option("--data", "-d", help="[the data the index was made of]")]


@influence.command("fit")
def influence_fit(
    data: Annotated[str, DATA_OPTION],
    model: ModelOption = "efficientnet_lite0",
    solver: Annotated[
        str, typer.Option("--solver", "-s", help="last_layer, ekfac, trak, conjugate_gradient, gradient_dot, ...")
    ] = "last_layer",
    option: Annotated[
        list[str] | None, typer.Option("--option", "-O", help="Of the solver, NAME=VALUE, as damping=0.01.")
    ] = None,
    l2: Annotated[float, typer.Option("--l2", min=0, help="Of the training: loss + l2/2 |weights|^2.")] = 0.0,
    split: Annotated[str, typer.Option(help="Of the data: train, val or test.")] = "train",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out what cannot be read, and count it.")] = False,
    seed: SeedOption = 0,
    dtype: Annotated[
        str | None, typer.Option(help="float16, float32 or float64 on disk. [as the solver gives]")
    ] = None,
    self_influence: Annotated[
        bool, typer.Option("--self-influence", help="Compute at once what 'mislabelled' else computes first.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures.")] = 0,
    batch_size: BatchOption = 64,
    device: DeviceOption = "cpu",
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the index goes.")] = Path("seewhy-index"),
    as_json: JsonOption = False,
) -> int:
    """Indexes a training set, once; killed, it goes on with the same command."""
    from .influencing import fit_index

    return fit_index(
        data,
        model=model,
        solver=solver,
        options=option or [],
        l2=l2,
        out=out,
        split=split,
        seed=seed,
        on_error="skip" if skip_bad else "raise",
        device=device,
        batch_size=batch_size,
        workers=workers,
        dtype=dtype,
        self_influence=self_influence,
        as_json=as_json,
    )


@influence.command("query")
def influence_query(
    photos: PhotosArgument,
    index: IndexOption = Path("seewhy-index"),
    k: Annotated[int, typer.Option("-k", min=1, help="Helpful and harmful training pictures of each photo.")] = 5,
    target: Annotated[str | None, typer.Option("--target", "-t", help="Ask about a score, as top1 or cat.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Ask about the loss of this class. [the loss of the model's answer]")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="Of the maps. [the last that is a picture]")
    ] = None,
    model: OtherModelOption = None,
    data: OtherDataOption = None,
    device: DeviceOption = "cpu",
    out: OutOption = Path("seewhy-out"),
    as_json: JsonOption = False,
) -> int:
    """Draws the training pictures that helped and harmed most what a model says of your photos."""
    from .influencing import query_photos

    return query_photos(
        photos,
        index=index,
        model=model,
        data=data,
        k=k,
        target=target,
        label=label,
        layer=layer,
        out=out,
        device=device,
        as_json=as_json,
    )


@influence.command("mislabelled")
def influence_mislabelled(
    index: IndexOption = Path("seewhy-index"),
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 24,
    model: OtherModelOption = None,
    data: OtherDataOption = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = "cpu",
    out: OutOption = Path("seewhy-out"),
    as_json: JsonOption = False,
) -> int:
    """Lists the training pictures whose labels to check first; the first time it computes self-influence."""
    from .influencing import list_mislabelled

    return list_mislabelled(
        index=index,
        top=top,
        model=model,
        data=data,
        out=out,
        device=device,
        batch_size=batch_size,
        as_json=as_json,
    )
