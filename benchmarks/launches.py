"""How many operations a method launches over a forward pass, and how often it reads numbers back.

On an accelerator these two are what an explanation of few pictures costs, and neither needs one to be counted. The
second call is counted: layers and layouts are remembered from the first.

    python benchmarks/launches.py [MODEL ...] [--methods NAME ...] [--size PIXELS] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import timm
import torch
import torchvision
from torch import nn

import seewhy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from launches import counted

MODELS = (
    "resnet50",
    "efficientnet_lite0",
    "convnext_tiny",
    "vit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
)
FEW = {
    "integrated_gradients": {"steps": 2},
    "smooth_grad": {"samples": 2},
    "rise": {"samples": 16},
    "lime": {"samples": 16, "superpixels": "slic"},
}
THOUSANDS_OF_PASSES = ("score_cam", "ablation_cam", "occlusion")


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in torchvision.models.list_models():
        return torchvision.models.get_model(name, weights=None).eval()
    return timm.create_model(name).eval()


def row(name: str, module: nn.Module, x: torch.Tensor, forward: int) -> dict[str, object]:
    """One method's figures, or why there are none."""
    method = seewhy.METHODS[name]
    try:
        found = counted(lambda: method(module, x, target=1, **FEW.get(name, {})))
    except seewhy.SeewhyError as error:
        return {"method": name, "error": str(error)}
    return {
        "method": name,
        "launches": found.launched,
        "forwards": found.launched / forward,
        "reads": found.read,
        "uploads": found.uploaded,
        "most": dict(found.operations.most_common(5)),
    }


def table(name: str, methods: list[str], size: int) -> list[dict[str, object]]:
    module, x = network(name), torch.randn(2, 3, size, size)
    with torch.no_grad():
        forward = counted(lambda: module(x)).launched
    print(f"\n{name}: a forward pass launches {forward}")
    print("| method | launches | over a forward pass | reads | uploads |\n|---|---|---|---|---|")
    rows = []
    for method in methods:
        found = row(method, module, x, forward)
        if "error" in found:
            print(f"| {method} | {str(found['error'])[:80]} | | | |", flush=True)
        else:
            ratio = f"{found['forwards']:.1f}"
            cells = (method, found["launches"], ratio, found["reads"], found["uploads"])
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
        rows.append({"model": name, "forward": forward, **found})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    usual = [name for name in seewhy.METHODS if name not in THOUSANDS_OF_PASSES]
    rows = [row for name in args.models for row in table(name, args.methods or usual, args.size)]
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
