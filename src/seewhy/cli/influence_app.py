"""`seewhy influence`: the training pictures that taught an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..no_file import check_any_there
from .arguments import (
    DATA_OPTION,
    BatchOption,
    DeviceOption,
    JsonOption,
    LabelsOption,
    MaxPixelsOption,
    ModelOption,
    PhotosArgument,
    SeedOption,
    TrustPathsOption,
)
from .asked import check_request, check_solver
from .show import starting

influence = typer.Typer(
    help="Finds the training pictures that taught a model its answers.", no_args_is_help=True
)

IndexOption = Annotated[
    Path, typer.Option("--index", "-i", help="The folder that 'seewhy influence fit' wrote.")
]
# brackets in a help text would be taken for markup: what holds unless given goes to show_default
OtherModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Where the index's model is now.",
        show_default="the model that the index was made with",
    ),
]
OtherDataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        help="Where the index's data are now.",
        show_default="the data that the index was made of",
    ),
]
LayerOption = Annotated[
    str | None,
    typer.Option(
        "--layer", "-l", help="Where the maps are read.", show_default="the last that is a picture"
    ),
]
SheetsOption = Annotated[
    Path, typer.Option("--out", "-o", help="Where the sheets and a JSON file go.")
]
_SOLVERS = (
    "last_layer, hessian, conjugate_gradient, lissa, arnoldi, ekfac, gradient_dot, tracin, trak, representer; and to "
    "compare with: embedding, loss, random. docs/influence.md says which when."
)


@influence.command("fit")
def influence_fit(
    data: Annotated[str, DATA_OPTION],
    model: ModelOption = "efficientnet_lite0",
    solver: Annotated[str, typer.Option("--solver", "-s", help=_SOLVERS)] = "last_layer",
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-O",
            help="A setting of the solver, NAME=VALUE, as damping=0.01.",
            show_default="the solver's",
        ),
    ] = None,
    l2: Annotated[
        float,
        typer.Option(
            "--l2",
            min=0,
            help="That the model was trained with: mean loss + l2/2 |weights|^2. weight_decay of torch's SGD is this.",
        ),
    ] = 0.0,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            help="The name of a weight that counts, for one or more.",
            show_default="what the solver takes",
        ),
    ] = None,
    labels: LabelsOption = None,
    split: Annotated[str, typer.Option(help="Of the data: train, val or test.")] = "train",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out what cannot be read, and count it.")
    ] = False,
    seed: SeedOption = 0,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float16, float32 or float64 on disk.", show_default="as the solver gives it"
        ),
    ] = None,
    self_influence: Annotated[
        bool,
        typer.Option(
            "--self-influence", help="Compute at once what 'mislabelled' else computes first."
        ),
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures.")] = 0,
    batch_size: BatchOption = 64,
    device: DeviceOption = "cpu",
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the index goes.")] = Path(
        "seewhy-index"
    ),
    trust_paths: TrustPathsOption = False,
    max_pixels: MaxPixelsOption = 200_000_000,
    as_json: JsonOption = False,
) -> int:
    """Indexes a training set, once; killed, it goes on with the same command."""
    check_solver(solver, option or [])
    check_request(device=device)
    with starting():
        from .influence import fit_index

    return fit_index(
        data,
        model=model,
        solver=solver,
        options=option or [],
        l2=l2,
        parameters=parameter or [],
        labels=labels,
        out=out,
        split=split,
        seed=seed,
        on_error="skip" if skip_bad else "raise",
        device=device,
        batch_size=batch_size,
        workers=workers,
        dtype=dtype,
        self_influence=self_influence,
        trust_paths=trust_paths,
        max_pixels=max_pixels,
        as_json=as_json,
    )


@influence.command("query")
def influence_query(
    photos: PhotosArgument,
    index: IndexOption = Path("seewhy-index"),
    k: Annotated[
        int, typer.Option("-k", min=1, help="Helpful and harmful training pictures of each photo.")
    ] = 5,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="Ask about a score in place of a loss: top1, a class, probability:A, ...",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Ask about the loss of this class, a name or a number.",
            show_default="the class that the model says",
        ),
    ] = None,
    layer: LayerOption = None,
    model: OtherModelOption = None,
    data: OtherDataOption = None,
    device: DeviceOption = "cpu",
    out: SheetsOption = Path("seewhy-influence"),
    trust_paths: TrustPathsOption = False,
    max_pixels: MaxPixelsOption = 200_000_000,
    as_json: JsonOption = False,
) -> int:
    """Draws the training pictures that helped and harmed most what a model says of your photos."""
    check_request(device=device)
    check_any_there(photos)
    with starting():
        from .influence import query_photos

    how: dict[str, Any] = {
        "device": device,
        "trust_paths": trust_paths,
        "max_pixels": max_pixels,
        "as_json": as_json,
    }
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
        **how,
    )


@influence.command("mislabelled")
def influence_mislabelled(
    index: IndexOption = Path("seewhy-index"),
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 24,
    model: OtherModelOption = None,
    data: OtherDataOption = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = "cpu",
    out: SheetsOption = Path("seewhy-mislabelled"),
    trust_paths: TrustPathsOption = False,
    max_pixels: MaxPixelsOption = 200_000_000,
    as_json: JsonOption = False,
) -> int:
    """Lists the training pictures whose labels to check first; the first time it computes self-influence."""
    check_request(device=device)
    with starting():
        from .influence import list_mislabelled

    return list_mislabelled(
        index=index,
        top=top,
        model=model,
        data=data,
        out=out,
        device=device,
        batch_size=batch_size,
        trust_paths=trust_paths,
        max_pixels=max_pixels,
        as_json=as_json,
    )
