"""The commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..no_file import check_any_there
from .arguments import (
    DATA_OPTION,
    BatchOption,
    DeviceOption,
    FuseOption,
    JsonOption,
    LabelsOption,
    LayersOption,
    LedgerOption,
    MaxPixelsOption,
    MethodOptions,
    MethodsOption,
    ModelOption,
    OutOption,
    PhotosArgument,
    RuleOption,
    SeedOption,
    StyleOption,
    TargetsOption,
    TrustPathsOption,
    path_of,
)
from .asked import asked_fuse, check_metrics, check_request, checked
from .influence_app import influence
from .show import starting

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


@app.command()
def explain(
    photos: PhotosArgument,
    model: ModelOption = "efficientnet_lite0",
    method: MethodsOption = None,
    target: TargetsOption = None,
    layer: LayersOption = None,
    fuse: FuseOption = None,
    style: StyleOption = None,
    out: OutOption = Path("seewhy-out"),
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html, one page to look at.")
    ] = False,
    ledger: LedgerOption = False,
    option: MethodOptions = None,
    device: DeviceOption = "cpu",
    labels: LabelsOption = None,
    batch_size: BatchOption = 8,
    trust_paths: TrustPathsOption = False,
    max_pixels: MaxPixelsOption = 200_000_000,
    as_json: JsonOption = False,
) -> int:
    """Explains what a model says of your photos."""
    methods = checked(
        method, option, targets=target, model=model, labels=labels, device=device, style=style
    )
    how: dict[str, Any] = {
        "device": device,
        "labels": labels,
        "batch_size": batch_size,
        "as_json": as_json,
    }
    how |= {
        "trust_paths": trust_paths,
        "max_pixels": max_pixels,
        "fuse": asked_fuse(fuse, methods, layer),
    }
    check_any_there(photos)
    with starting():
        from .explain import explain_photos

    return explain_photos(
        photos,
        model=model,
        methods=methods,
        targets=target or ["top1"],
        layers=layer,
        style=style,
        out=out,
        report=report,
        ledger=ledger,
        options=option or [],
        **how,
    )


@app.command()
def evaluate(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures, or folders of them.", show_default=False, parser=path_of),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="faithfulness, of photos; or localisation, over --data with boxes or masks."
        ),
    ] = "faithfulness",
    data: Annotated[str | None, DATA_OPTION] = None,
    split: Annotated[str, typer.Option(help="Of the data: train, val or test.")] = "test",
    validation: Annotated[
        str | None,
        typer.Option(
            help="The split on which localisation thresholds are fitted.", show_default="none"
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Of the data, at most so many pictures.", show_default="all"),
    ] = None,
    rule: RuleOption = "cam2016",
    model: ModelOption = "efficientnet_lite0",
    method: MethodsOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="One or more, as deletion or deletion:step=1792,output=logit.",
            show_default="the task's",
        ),
    ] = None,
    target: TargetsOption = None,
    layer: LayersOption = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the table and the curves go.")
    ] = Path("seewhy-evaluation"),
    chance: Annotated[
        bool, typer.Option(help="Also score maps that know nothing of the model.")
    ] = True,
    option: MethodOptions = None,
    device: DeviceOption = "cpu",
    labels: LabelsOption = None,
    batch_size: BatchOption = 8,
    seed: SeedOption = 0,
    trust_paths: TrustPathsOption = False,
    max_pixels: MaxPixelsOption = 200_000_000,
    as_json: JsonOption = False,
) -> int:
    """Scores how faithful methods' maps are, or how well they localise, beside maps that know nothing of the model."""
    methods = checked(
        method, option, targets=target, model=model, labels=labels, device=device, rule=rule
    )
    check_metrics(metric or [])
    shared: dict[str, Any] = {
        "model": model,
        "methods": methods,
        "layers": layer,
        "out": out,
        "chance": chance,
        "options": option or [],
        "device": device,
        "labels": labels,
        "batch_size": batch_size,
        "trust_paths": trust_paths,
        "max_pixels": max_pixels,
        "as_json": as_json,
    }
    if task in ("localisation", "localization"):
        if photos or target:
            raise typer.BadParameter(
                "localisation scores the true classes of --data, and takes no photos or targets"
            )
        with starting():
            from .evaluate_data import evaluate_data

        return evaluate_data(
            data or "scenes",
            split=split,
            validation=validation,
            count=count,
            rule=rule,
            metrics=metric,
            seed=seed,
            **shared,
        )
    if task != "faithfulness":
        raise typer.BadParameter("use 'faithfulness' or 'localisation'", param_hint="'--task'")
    if not photos or data:
        raise typer.BadParameter(
            "give photos for --task faithfulness, or --data for --task localisation",
            param_hint="'PHOTOS'",
        )
    check_any_there(photos)
    with starting():
        from .evaluate import evaluate_photos

    return evaluate_photos(
        photos, metrics=metric or ["insertion", "deletion"], targets=target or ["top1"], **shared
    )


@app.command()
def localize(
    photos: PhotosArgument,
    model: ModelOption = "efficientnet_lite0",
    method: MethodsOption = None,
    target: TargetsOption = None,
    layer: LayersOption = None,
    rule: RuleOption = "cam2016",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the map's scale, instead of the rule's."),
    ] = None,
    every: Annotated[bool, typer.Option("--every", help="Boxes around all components.")] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where pictures and boxes.json go.")
    ] = Path("seewhy-boxes"),
    option: MethodOptions = None,
    device: DeviceOption = "cpu",
    labels: LabelsOption = None,
    batch_size: BatchOption = 8,
    trust_paths: TrustPathsOption = False,
    max_pixels: MaxPixelsOption = 200_000_000,
    as_json: JsonOption = False,
) -> int:
    """Draws and prints boxes around what a map marks."""
    methods = checked(
        method, option, targets=target, model=model, labels=labels, device=device, rule=rule
    )
    check_any_there(photos)
    with starting():
        from .localize import localize_photos

    how: dict[str, Any] = {
        "device": device,
        "labels": labels,
        "batch_size": batch_size,
        "as_json": as_json,
    }
    how |= {"trust_paths": trust_paths, "max_pixels": max_pixels}
    return localize_photos(
        photos,
        model=model,
        methods=methods,
        targets=target or ["top1"],
        layers=layer,
        rule=rule,
        threshold=threshold,
        every=every,
        out=out,
        options=option or [],
        **how,
    )


@app.command()
def train(
    data: Annotated[str, DATA_OPTION] = "scenes",
    val: Annotated[
        str | None,
        typer.Option(
            "--val",
            help="Data whose split 'val' is held back; 'none' holds nothing.",
            show_default="--data",
        ),
    ] = None,
    pooling: Annotated[
        str, typer.Option("--pooling", help="The head: gap (CAM), gmp, lse or oquab.")
    ] = "gap",
    backbone: Annotated[
        str,
        typer.Option(
            help="efficientnet_lite0, timm:NAME, torchvision:alexnet, vgg16 or googlenet; @FILE."
        ),
    ] = "efficientnet_lite0",
    scratch: Annotated[bool, typer.Option("--scratch", help="Begin from random weights.")] = False,
    size: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Pixels along each edge of the input.",
            show_default="the pictures', else 224",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 8,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures in one step.")] = 32,
    lr: Annotated[float, typer.Option("--lr", help="The highest learning rate.")] = 3e-3,
    augment: Annotated[
        str, typer.Option(help="none, move (zoom, shift, light) or mirror (left-right too).")
    ] = "move",
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a better one.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out what cannot be read, and count it.")
    ] = False,
    seed: SeedOption = 0,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the network and its curves go.")
    ] = Path("seewhy-train"),
    device: DeviceOption = "cpu",
    devices: Annotated[int, typer.Option(min=1)] = 1,
    resume: Annotated[bool, typer.Option(help="Go on with a training that was stopped.")] = True,
    trust_paths: TrustPathsOption = False,
    max_pixels: MaxPixelsOption = 200_000_000,
    as_json: JsonOption = False,
) -> int:
    """Trains a network on image labels that knows where things are; killed, it goes on with the same command."""
    check_request(device=device)
    with starting():
        from .train import train_model

    return train_model(
        data=data,
        val=val,
        on_error="skip" if skip_bad else "raise",
        backbone=backbone,
        pooling=pooling,
        scratch=scratch,
        size=size,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        augment=augment,
        patience=patience,
        seed=seed,
        out=out,
        device=device,
        devices=devices,
        resume=resume,
        trust_paths=trust_paths,
        max_pixels=max_pixels,
        as_json=as_json,
    )


@app.command()
def demo(out: OutOption = Path("seewhy-demo"), as_json: JsonOption = False) -> int:
    """Explains two sample photos, a cat and a cup of coffee, with the model that comes with seewhy."""
    with starting():
        from .explain import explain_photos, sample_photos

    return explain_photos(
        sample_photos(out),
        methods=["grad_cam", "layer_relevance", "guided_grad_cam"],
        targets=["top2"],
        out=out,
        report=True,
        as_json=as_json,
    )


@app.command()
def methods(as_json: JsonOption = False) -> None:
    """Lists the attribution methods."""
    from . import sources
    from .show import table

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "title": m.title,
            "paper": m.paper,
            "map over": {"head": "the pooled layer", "layer": "any layer", "input": "the input"}[
                m.at
            ],
            "signed": m.signed,
            "options": m.defaults,
        }
        for name, m in sources.methods().items()
    ]
    if as_json:
        print(json.dumps({"methods": rows}))
    else:
        told = [
            {**row, "options": ", ".join(f"{k}={v}" for k, v in row["options"].items())}
            for row in rows
        ]
        table("Methods", told)


@app.command()
def layers(
    model: Annotated[
        str, typer.Argument(help="As --model of 'seewhy explain'; weights are not downloaded.")
    ],
    every: Annotated[bool, typer.Option("--all", help="Also layers that are no picture.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Lists the layers of a model with their shapes, and marks the ones that would be chosen."""
    from .show import table

    with starting():
        from .. import list_layers

        flow = list_layers(model)
    rows = flow.table(every=every)
    if as_json:
        print(
            json.dumps(
                {
                    "model": model,
                    "default": flow.chosen[-1],
                    "all-stages": flow.chosen,
                    "layers": rows,
                }
            )
        )
    else:
        table(f"Layers of {model}", rows, highlight=lambda row: bool(row["chosen"]))


@app.command()
def labels(
    model: Annotated[
        str, typer.Argument(help="As --model of 'seewhy explain'; weights are not downloaded.")
    ],
    part: Annotated[
        str, typer.Argument(help="Only labels with this in them.", show_default="all")
    ] = "",
    as_json: JsonOption = False,
) -> int:
    """Lists the labels of a model's classes: what --target takes."""
    from .labels import list_labels

    return list_labels(model, part, as_json=as_json)
