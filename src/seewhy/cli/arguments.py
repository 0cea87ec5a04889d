"""Arguments and options that several commands take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ImageError
from ..no_file import check_is_local

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="efficientnet_lite0, timm:NAME, torchvision:NAME, hf:NAME, or your package.module:factory, whose code "
        "runs; each with @FILE for weights; or a folder that train or model.save wrote.",
    ),
]


def path_of(text: str) -> Path:
    """A path, "~" too, which an empty text is none of (it would be the current folder), nor a web address."""
    if not text:
        raise typer.BadParameter("an empty text is no path; give pictures, or folders of them")
    try:
        check_is_local(text)
    except ImageError as error:
        raise typer.BadParameter(str(error)) from error
    return Path(os.path.expanduser(text))


PhotosArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Pictures, or folders of them.", show_default=False, parser=path_of, metavar="PHOTOS"
    ),
]
MethodsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "-M",
        help="One or more; 'seewhy methods' lists them. auto is layer_relevance, and grad_cam of a named --layer.",
        show_default="auto",
    ),
]
TargetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        help="top1, top3, a class or label, 'A rather than B', 'A rather than the rest' (log_odds:A), probability:A, "
        "margin:A/B, counterfactual:A.",
        show_default="top1",
    ),
]
LayersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        "-l",
        help="Names, also with commas, or all-stages.",
        show_default="the last that is a picture",
    ),
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-O",
        help="METHOD.OPTION=VALUE, as rise.samples=2000; 'seewhy methods' lists them.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, mps ...")]
LabelsOption = Annotated[
    Path | None, typer.Option("--labels", help="A file of class names: one a line, JSON or CSV.")
]
CropOption = Annotated[
    str | None,
    typer.Option(
        "--crop",
        help="center, or none to let the model see the whole photo.",
        show_default="the model's own",
    ),
]
ResizeOption = Annotated[
    str | None,
    typer.Option(
        "--resize",
        help="squash or pad the whole photo into the input, or so many pixels of the shorter side before the crop.",
        show_default="the model's own",
    ),
]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Photos in one pass.")]
DATA_OPTION = typer.Option(
    "--data",
    "-d",
    help="scenes, folder:PATH, csv:, voc:, coco:, imagenet:, cub:, openimages:, stl10: ...",
)
RULES_HELP = "How maps become boxes: mean, cam2016, cam2016_code, grad_cam, wsol_v1 or wsol_v2."
RuleOption = Annotated[str, typer.Option(help=RULES_HELP)]
FuseOption = Annotated[str | None, typer.Option(help="Fuse maps over 'layer' or 'method' as well.")]
StyleOption = Annotated[
    str | None,
    typer.Option(help="How to draw: heatmap, jet, signed, grey, mask, map, sure or superpixels."),
]
LedgerOption = Annotated[
    bool, typer.Option("--ledger", help="Print where relevance went, operation by operation.")
]
MaxPixelsOption = Annotated[
    int,
    typer.Option(
        "--max-pixels",
        min=1,
        help="A picture of more pixels is refused.",
        show_default="200 million",
    ),
]
TrustPathsOption = Annotated[
    bool,
    typer.Option(
        "--trust-paths",
        help="Follow paths in lists, manifests and cards that lead out of their folders.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of all that is drawn.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, and nothing else there.")
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Where to put pictures, maps and explanation.json.")
]
