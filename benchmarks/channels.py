"""Ablation-CAM and Score-CAM over the 1,280 channels of the embedded model's last layer, beside pytorch-grad-cam.

Each round times both on a photo, back to back; printed are the medians of the seconds and of the rounds' ratios, and
how far the raw maps are apart. Targets: Ablation-CAM at least 50 times faster, Score-CAM at least 1.8 times.

    python benchmarks/channels.py [--rounds N] [--threads N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_grad_cam
import skimage.data
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

import seewhy
from seewhy.methods import Method
from seewhy.methods.ablation import ablation_cam, score_cam

PHOTOS = ("chelsea", "coffee", "astronaut", "rocket")


def peer(kind: Any, model: seewhy.Model, layer: str, x: Tensor, target: int) -> Tensor:
    """pytorch-grad-cam's map before it is scaled."""
    kept: list[Any] = []
    with kind(model.module, [model.module.get_submodule(layer)]) as cam:
        whole = cam.get_cam_image
        cam.get_cam_image = lambda *args: kept.append(whole(*args)) or kept[-1]
        cam(x, [ClassifierOutputTarget(target)])
    return torch.as_tensor(np.maximum(kept[0], 0))


def timed(run: Callable[..., Tensor], *args: Any, **options: Any) -> tuple[float, Tensor]:
    start = time.perf_counter()
    result = run(*args, **options)
    return time.perf_counter() - start, result


def compare(
    method: Method, kind: Any, goal: float, model: seewhy.Model, rounds: int, **options: Any
) -> None:
    layer = seewhy.list_layers(model).chosen[-1]
    photos = [seewhy.images.read_image(getattr(skimage.data, name)()) for name in PHOTOS]
    seconds, apart = [], []
    for i in range(rounds):
        x, _ = model.preprocess.batch([photos[i % len(photos)]])
        with torch.no_grad():
            top = int(model(x).argmax())
        ours, found = timed(method, model, x, top, layer=layer, **options)
        theirs, expected = timed(peer, kind, model, layer, x, top)
        seconds.append((ours, theirs))
        apart.append(float((found - expected).abs().max() / expected.abs().max()))
    ratios = [theirs / ours for ours, theirs in seconds]
    ours, theirs = (statistics.median(side) for side in zip(*seconds, strict=True))
    ratio = statistics.median(ratios)
    print(
        f"{method.title:<13} seewhy {ours:6.2f} s  pytorch-grad-cam {theirs:6.2f} s  {ratio:6.1f} times "
        f"[{min(ratios):.1f}, {max(ratios):.1f}]  target {goal:g}: {'pass' if ratio >= goal else 'FAIL'}  "
        f"maps apart {max(apart):.0e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=4, help=f"of these photos in turn: {', '.join(PHOTOS)}"
    )
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = seewhy.load_model()
    compare(ablation_cam, pytorch_grad_cam.AblationCAM, 50, model, args.rounds)
    compare(score_cam, pytorch_grad_cam.ScoreCAM, 1.8, model, args.rounds, align_corners=True)


if __name__ == "__main__":
    main()
