"""How much an explanation costs over one plain forward pass, beside captum, torch-cam and pytorch-grad-cam.

Each round times a forward pass and then every contender, back to back; printed are the median and the quartiles of the
rounds' ratios, so that a machine that is busy for a while spoils rounds and not the result.

    python benchmarks/speed.py [--quick] [--device cuda] [--only REGEX]
"""

from __future__ import annotations

import argparse
import gc
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import captum.attr
import numpy as np
import psutil
import pytorch_grad_cam
import torch
import torchcam.methods
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from seewhy.engine.call import Call
from seewhy.methods import shared_pass
from seewhy.methods.catalog import METHODS

CAMS = (
    *("grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam"),
    *("elementwise_grad_cam", "eigen_cam", "eigen_grad_cam", "fem"),
)
STAGES = ("layer1", "layer2", "layer3", "layer4")
TARGET = 281


@dataclass(frozen=True)
class Contender:
    """Something to time; `most` is the target: its ratio over one forward pass should not be more."""

    name: str
    run: Callable[[], object]
    most: float | None = None


@dataclass
class Bench:
    device: torch.device
    rounds: int
    only: str

    def picture(self, n: int) -> Tensor:
        return torch.randn(n, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(
            self.device
        )

    def wanted(self, title: str) -> bool:
        return re.search(self.only, title) is not None

    def seconds(self, run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def compare(self, title: str, base: Callable[[], object], contenders: list[Contender]) -> None:
        """Prints each contender's time over that of `base`."""
        if not self.wanted(title):
            return
        for run in (base, *(c.run for c in contenders)):
            self.seconds(run)  # warm
        times = np.array(
            [
                [self.seconds(r) for r in (base, *(c.run for c in contenders))]
                for _ in range(self.rounds)
            ]
        )
        print(f"\n{title}: {self.rounds} rounds, forward {1e3 * np.median(times[:, 0]):.1f} ms")
        for i, contender in enumerate(contenders, 1):
            low, median, high = np.percentile(times[:, i] / times[:, 0], (25, 50, 75))
            verdict = ""
            if contender.most is not None:
                verdict = (
                    f"target {contender.most:.2f}: {'pass' if median <= contender.most else 'FAIL'}"
                )
            print(
                f"  {contender.name:<42} {median:6.2f}  [{low:.2f}, {high:.2f}]  {verdict}",
                flush=True,
            )


def forward(module: nn.Module, x: Tensor) -> Callable[[], object]:
    @torch.no_grad()
    def run() -> object:
        return module(x)

    return run


def grad_cam(bench: Bench, name: str, module: nn.Module, layer: str, most: float) -> None:
    """Grad-CAM at the last layer, one class."""
    part = module.get_submodule(layer)
    for n in (1, 4):
        x = bench.picture(n)

        def captum_run(x: Tensor = x) -> object:
            return captum.attr.LayerGradCam(module, part).attribute(x, TARGET)

        def torchcam_run(x: Tensor = x, n: int = n) -> object:
            with torchcam.methods.GradCAM(module, part) as extractor:
                return extractor([TARGET] * n, module(x))

        def pytorch_grad_cam_run(x: Tensor = x, n: int = n) -> object:
            with pytorch_grad_cam.GradCAM(module, [part]) as extractor:
                return extractor(x, [ClassifierOutputTarget(TARGET)] * n)

        def seewhy_run(x: Tensor = x) -> object:
            return METHODS["grad_cam"](module, x, target=TARGET, layer=layer)

        contenders = [
            Contender("seewhy", seewhy_run, most),
            Contender("captum LayerGradCam", captum_run),
            Contender("torch-cam GradCAM", torchcam_run),
            Contender("pytorch-grad-cam GradCAM (upsampled)", pytorch_grad_cam_run),
        ]
        bench.compare(f"Grad-CAM, {name}, {layer}, batch {n}", forward(module, x), contenders)


def shared(bench: Bench, module: nn.Module) -> None:
    """Many maps from one shared pass."""
    x = bench.picture(1)
    classes = [TARGET, 7, 100, 500, 900]

    def maps(names: list[str], targets: list[int], layers: tuple[str, ...]) -> Callable[[], object]:
        methods = [METHODS[name] for name in names]
        return lambda: shared_pass(Call(module), x, methods=methods, targets=targets, layers=layers)

    contenders = [
        Contender(
            "180 maps: 9 methods, 4 layers, 5 classes", maps(list(CAMS), classes, STAGES), 6.0
        ),
        Contender("20 maps: Grad-CAM, 4 layers, 5 classes", maps(["grad_cam"], classes, STAGES)),
        Contender("45 maps: 9 methods, layer4, 5 classes", maps(list(CAMS), classes, ("layer4",))),
    ]
    bench.compare("One shared pass, ResNet-50, batch 1", forward(module, x), contenders)
    plan = [*CAMS, "saliency", "guided_grad_cam"]

    def apart() -> None:
        for name in plan:
            METHODS[name](
                module,
                x,
                target=TARGET,
                **({"layer": "layer4"} if METHODS[name].at == "layer" else {}),
            )

    contenders = [
        Contender(f"one shared pass ({len(plan)} methods)", maps(plan, [TARGET], ("layer4",))),
        Contender("one by one", apart),
    ]
    bench.compare(
        "9 CAMs at layer4, saliency and Guided Grad-CAM, ResNet-50", forward(module, x), contenders
    )


def guided(bench: Bench, module: nn.Module) -> None:
    x = bench.picture(1)
    part = module.get_submodule("layer4")

    def captum_run() -> object:
        return captum.attr.GuidedGradCam(module, part).attribute(x, TARGET)

    def seewhy_run() -> object:
        return METHODS["guided_grad_cam"](module, x, target=TARGET, layer="layer4")

    contenders = [
        Contender("seewhy", seewhy_run, 2.3),
        Contender("captum GuidedGradCam", captum_run),
    ]
    bench.compare("Guided Grad-CAM, ResNet-50, layer4, batch 1", forward(module, x), contenders)


def memory(bench: Bench, module: nn.Module, calls: int) -> None:
    """Memory after many calls; what grows without end is a leak."""
    x = bench.picture(1)[:, :, :128, :128]
    for name, many in (("grad_cam", calls), ("guided_grad_cam", calls // 5)):
        if not bench.wanted(f"Memory, {name}"):
            continue
        print(f"\nMemory, {name}, ResNet-50 at 128 x 128")
        for call in range(1, many + 1):
            METHODS[name](module, x, target=TARGET, layer="layer4")
            if call in (many // 10, many // 2, many):
                gc.collect()
                print(
                    f"  after {call:>4} calls {psutil.Process().memory_info().rss / 2**20:8.1f} MiB",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="5 rounds, and 100 calls for the memory"
    )
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="measurements whose title this expression finds")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    bench = Bench(torch.device(args.device), 5 if args.quick else args.rounds, args.only)
    resnet = torchvision.models.resnet50().eval().to(bench.device)
    vgg = torchvision.models.vgg16().eval().to(bench.device)
    print("time over one forward pass without a graph: median [quartiles] of rounds")
    grad_cam(bench, "ResNet-50", resnet, "layer4", 1.05)
    grad_cam(bench, "VGG-16", vgg, "features.29", 1.15)
    guided(bench, resnet)
    shared(bench, resnet)
    memory(bench, resnet, 100 if args.quick else 1000)


if __name__ == "__main__":
    main()
