"""The commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="seewhy",
    help="Shows why an image model gave its answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="--debug, anywhere, shows tracebacks.",
)

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="efficientnet_lite0, timm:NAME, torchvision:NAME or hf:NAME; @FILE for weights."
    ),
]
PhotosArgument = Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.", show_default=False)]
MethodsOption = Annotated[
    list[str] | None, typer.Option("--method", "-M", help="One or more; 'seewhy methods' lists them. [grad_cam]")
]
TargetsOption = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="top1, top3, a class or label, margin:A/B, counterfactual:A. [top1]"),
]
LayersOption = Annotated[
    list[str] | None, typer.Option("--layer", "-l", help="Names, or all-stages. [the last that is a picture]")
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", help="METHOD.OPTION=VALUE, as rise.samples=2000; 'seewhy methods' lists them."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, mps ...")]
LabelsOption = Annotated[Path | None, typer.Option("--labels", help="A text file with a class name a line.")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Photos in one pass.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, and nothing else there.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Where to put pictures, maps and explanation.json.")]


def _version(asked: bool) -> None:
    if asked:
        from seewhy import __version__

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
    fuse: Annotated[str | None, typer.Option(help="Fuse maps over 'layer' or 'method' as well.")] = None,
    style: Annotated[
        str | None, typer.Option(help="How to draw: heatmap, jet, signed, grey, mask, map, sure or superpixels.")
    ] = None,
    out: OutOption = Path("seewhy-out"),
    report: Annotated[bool, typer.Option("--report", help="Also write report.html, one page to look at.")] = False,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Print where relevance went, operation by operation.")
    ] = False,
    option: MethodOptions = None,
    device: DeviceOption = "cpu",
    labels: LabelsOption = None,
    batch_size: BatchOption = 8,
    as_json: JsonOption = False,
) -> int:
    """Explains what a model says of your photos."""
    from .running import explain_photos

    return explain_photos(
        photos,
        model=model,
        methods=method or ["grad_cam"],
        targets=target or ["top1"],
        layers=layer,
        fuse=fuse,
        style=style,
        out=out,
        report=report,
        ledger=ledger,
        device=device,
        labels=labels,
        options=option or [],
        batch_size=batch_size,
        as_json=as_json,
    )


@app.command()
def evaluate(
    photos: PhotosArgument,
    model: ModelOption = "efficientnet_lite0",
    method: MethodsOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="One or more, as deletion or deletion:step=1792,output=logit. [both]"),
    ] = None,
    target: TargetsOption = None,
    layer: LayersOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the table and the curves go.")] = Path("seewhy-out"),
    chance: Annotated[bool, typer.Option(help="Also score maps that know nothing of the model.")] = True,
    option: MethodOptions = None,
    device: DeviceOption = "cpu",
    labels: LabelsOption = None,
    batch_size: BatchOption = 8,
    as_json: JsonOption = False,
) -> int:
    """Scores how faithful methods' maps are, beside maps that know nothing of the model."""
    from .evaluating import evaluate_photos

    return evaluate_photos(
        photos,
        model=model,
        methods=method or ["grad_cam"],
        metrics=metric or ["insertion", "deletion"],
        targets=target or ["top1"],
        layers=layer,
        out=out,
        chance=chance,
        options=option or [],
        device=device,
        labels=labels,
        batch_size=batch_size,
        as_json=as_json,
    )


@app.command()
def demo(out: OutOption = Path("seewhy-demo"), as_json: JsonOption = False) -> int:
    """Explains two sample photos, a cat and a cup of coffee, with the model that comes with seewhy."""
    from .running import explain_photos, sample_photos

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
    from ..methods import HOW_IT_RUNS, METHODS
    from .showing import table

    rows: list[dict[str, Any]] = [
        {
            "name": m.name,
            "title": m.title,
            "paper": m.paper,
            "map over": {"head": "the pooled layer", "layer": "any layer", "input": "the input"}[m.at],
            "signed": m.signed,
            "options": {k: v for k, v in m.options.items() if k not in HOW_IT_RUNS},
        }
        for m in METHODS.values()
    ]
    if as_json:
        print(json.dumps({"methods": rows}))
    else:
        told = [{**row, "options": ", ".join(f"{k}={v}" for k, v in row["options"].items())} for row in rows]
        table("Methods", told)


@app.command()
def layers(
    model: Annotated[str, typer.Argument(help="As --model of 'seewhy explain'; weights are not downloaded.")],
    every: Annotated[bool, typer.Option("--all", help="Also layers that are no picture.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Lists the layers of a model with their shapes, and marks the ones that would be chosen."""
    from .. import list_layers
    from .showing import table

    flow = list_layers(model)
    rows: list[dict[str, Any]] = [
        {
            "layer": r.name or "(the model)",
            "kind": r.kind,
            "shape": "x".join(map(str, r.shape[1:])),
            "grid": "x".join(map(str, r.layout.grid)) if r.layout else "",
            "layout": r.layout.kind.replace("_", " ") if r.layout else "",
            "prefix tokens": r.layout.prefix if r.layout else 0,
            "chosen": "default" if r.name == flow.chosen[-1] else "all-stages" if r.name in flow.chosen else "",
        }
        for r in flow.records
        if every or r.layout
    ]
    if as_json:
        print(json.dumps({"model": model, "default": flow.chosen[-1], "all-stages": flow.chosen, "layers": rows}))
    else:
        table(f"Layers of {model}", rows, highlight=lambda row: bool(row["chosen"]))
