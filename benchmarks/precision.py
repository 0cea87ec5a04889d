"""What half precision costs: correlations of maps with those of float32, on three photographs.

Of weights and pictures that are rounded to bfloat16, float32's own maps show what no arithmetic mends.

python benchmarks/precision.py [--cuda]
"""

from __future__ import annotations

import copy
import sys
import warnings

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor

import seewhy

METHODS = (
    "grad_cam", "hires_cam", "layer_cam", "grad_cam_pp", "eigen_cam", "fem", "saliency", "input_x_gradient",
    "guided_backprop", "layer_relevance", "lrp", "clrp", "sglrp", "relevance_cam",
)  # fmt: skip


def correlations(a: Tensor, b: Tensor) -> Tensor:
    """Of each photograph (N,)."""
    a, b = (x.flatten(1).double() for x in (a, b))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-300)


def maps(net: torch.nn.Module, x: Tensor, cast: torch.dtype | None = None) -> dict[str, Tensor]:
    device = next(net.parameters()).device.type
    with torch.autocast(device, cast or torch.bfloat16, enabled=cast is not None):
        found = seewhy.explain(net, x, methods=list(METHODS), targets=["top1"])
    return {one.method: one.map for one in found}


def main() -> None:
    warnings.simplefilter("ignore")
    device = "cuda" if "--cuda" in sys.argv else "cpu"
    model = seewhy.load_model("efficientnet_lite0", device=device)
    photos = [
        Image.fromarray(np.asarray(make())) for make in (data.chelsea, data.coffee, data.astronaut)
    ]
    x = torch.stack([model.preprocess(photo)[0] for photo in photos]).to(device)
    net = model.module
    exact = maps(net, x)
    rounded = copy.deepcopy(net).bfloat16().float()
    ways = {
        "rounded weights": maps(rounded, x.bfloat16().float()),
        "autocast, bfloat16": maps(net, x, torch.bfloat16),
        "module in bfloat16": maps(copy.deepcopy(net).bfloat16(), x),
    }
    print(f"{'median (least)':<18}" + "".join(f"{way:>22}" for way in ways))
    for name in METHODS:
        row = [correlations(found[name], exact[name]) for found in ways.values()]
        print(
            f"{name:<18}"
            + "".join(f"{float(r.median()):>13.4f} ({float(r.min()):.4f})" for r in row)
        )


if __name__ == "__main__":
    main()
