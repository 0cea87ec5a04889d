"""RISE on the embedded model: what it costs over bare forward passes, how many it needs, and its memory.

    python benchmarks/masking.py [--quick] [--part overhead|error|memory]... [--size PIXELS] [--threads N]

overhead  processor time of RISE over as many bare forward passes in the same batches, format and precision; both in
          turns, so that a busy machine spoils rounds and not the result. Printed are the median and quartiles of the
          ratios.
error     on five photos, the squared error of maps over their squared signal, about their means over the picture: of
          the authors' estimator (independent masks, no centring) from the variance of its terms, of the default from
          how far repeated samples differ. Both fall as 1 / N; the ratio is how many times fewer forward passes the
          default takes for the same error.
memory    peak resident memory of a process that draws 1,000, and of one that draws 20,000 masks (Linux).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import skimage.data
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.engine.call import Call
from seewhy.engine.masking import Running, Zeros, keep_allocator_memory, masked_scores, settle
from seewhy.engine.targets.classes import Probability
from seewhy.maps.attribution import Estimate
from seewhy.methods.rise.rise import rise
from seewhy.methods.rise.sampling import draw_grids

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "camera")
OFFICIAL = 8000  # masks that the authors take for ResNet-50
GOAL = 0.1


@cache
def photo(name: str, size: int) -> Tensor:
    """The middle square of a photo of scikit-image, as the embedded model takes it: (1, 3, size, size)."""
    picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    w, h = picture.size
    edge = min(w, h)
    box = ((w - edge) // 2, (h - edge) // 2, (w + edge) // 2, (h + edge) // 2)
    model = seewhy.load_model()
    assert model.preprocess is not None
    square = picture.crop(box).resize((size, size), Image.Resampling.BICUBIC)
    low, high = model.preprocess.bounds
    pixels = (
        torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
        .view(size, size, 3)
        .permute(2, 0, 1)
    )
    return (low + pixels / 255 * (high - low))[None]


def sample(module: nn.Module, x: Tensor, label: int, **options: Any) -> Estimate:
    assert rise.sample is not None
    return rise.run(
        Call(module), x, [Probability(label)], layer=None, **{**rise.options, **options}
    )[0]


def seconds(run: Callable[[], object]) -> float:
    """The processor's time, which other processes do not take part in."""
    start = time.process_time()
    run()
    return time.process_time() - start


def overhead(module: nn.Module, size: int, rounds: int, masks: int) -> None:
    """RISE and bare forward passes, in turns."""
    x = photo("chelsea", size)
    grids = draw_grids("sobol", 4000, cells=7, p=0.5, blocks=8, size=(size, size), seed=0)
    print(f"\noverhead at {size} x {size}, {masks} masks, {rounds} rounds")
    for precision in ("float32", "bfloat16"):
        asked = Running(precision=precision)  # type: ignore[arg-type]
        took = seconds(
            lambda asked=asked: settle(
                module, x, [grids], [Probability(285)], baseline=Zeros(), running=asked
            )
        )
        running = settle(module, x, [grids], [Probability(285)], baseline=Zeros(), running=asked)
        batch, last = running.batch_size or 1, running.memory_format == "channels_last"
        pictures = torch.randn(batch, *x.shape[1:]).contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )

        def bare(pictures: Tensor = pictures, rough: bool = precision == "bfloat16") -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=rough):
                for _ in range(masks // len(pictures)):
                    module(pictures)

        ratios, alone = [], []
        for i in range(rounds + 1):
            base = seconds(bare)
            ratio = (
                seconds(lambda r=running: sample(module, x, 285, samples=masks, running=r)) / base
            )
            again = seconds(bare)
            if i:  # the first warms
                ratios.append(ratio * 2 / (1 + again / base))
                alone.append((base + again) / 2 / masks)
        low, median, high = statistics.quantiles(ratios, n=4)
        print(
            f"  {precision}, batches of {batch}, {running.memory_format} (found in {took:.1f} s): a forward "
            f"{1e3 * statistics.median(alone):.1f} ms, RISE over it {median:.3f} [{low:.3f}, {high:.3f}]",
            flush=True,
        )


def about_mean(maps: Tensor) -> Tensor:
    return maps - maps.mean((-2, -1), keepdim=True)


def official_variance(
    module: nn.Module, x: Tensor, label: int, masks: int, running: Running
) -> float:
    """The squared error of the authors' estimator times its number of masks: the variance of f M / p over masks."""
    grids = draw_grids(
        "iid", masks, cells=7, p=0.5, blocks=8, size=(x.shape[2], x.shape[3]), seed=1
    )
    total, squares = torch.zeros(x.shape[2:]).double(), 0.0
    for chunk in masked_scores(
        module, x, [grids], [Probability(label)], baseline=Zeros(), running=running
    ):
        terms = about_mean(chunk.scores[:, :, None] * chunk.masks / 0.5)  # (B, H, W)
        total += terms.sum(0)
        squares += float(terms.square().sum())
    return (squares - float(total.square().sum()) / masks) / (masks - 1)


def error(module: nn.Module, size: int, masks: int, repeats: int) -> None:
    """How many forward passes the default takes for the error that the authors' estimator has."""
    print(
        f"\nerror at {size} x {size}: {repeats} samples of {masks} masks, and {2 * masks} independent ones"
    )
    for name in PHOTOS:
        x = photo(name, size)
        with torch.no_grad():
            label = int(module(x).argmax())
        grids = draw_grids("iid", 600, cells=7, p=0.5, blocks=8, size=(size, size), seed=0)
        running = settle(
            module, x, [grids], [Probability(label)], baseline=Zeros(), running=Running()
        )
        variance = official_variance(module, x, label, 2 * masks, running)
        found = [
            sample(module, x, label, samples=masks, seed=seed, running=running)
            for seed in range(repeats)
        ]
        maps = about_mean(torch.cat([estimate.map for estimate in found]).double())
        squared = float(maps.var(0).sum())
        signal = float(maps.mean(0).square().sum()) - squared / repeats
        said = statistics.mean(estimate.facts[0]["relative_error"] for estimate in found)
        needed = masks * squared / signal / GOAL
        print(
            f"  {name:<12} class {label:>3}: error of {masks} official masks {variance / masks / signal:.3f}, of the "
            f"default {squared / signal:.3f} (says {said:.3f}): {variance / masks / squared:.1f} x fewer passes; error "
            f"{GOAL} after {needed:.0f} masks, {OFFICIAL / needed:.1f} x sooner than {OFFICIAL} "
            f"(official: {variance / signal / GOAL:.0f})",
            flush=True,
        )


def early(module: nn.Module, size: int) -> None:
    """Where the default stops by itself."""
    x = torch.cat([photo(name, size) for name in PHOTOS])
    with torch.no_grad():
        labels = tuple(module(x).argmax(1).tolist())
    found = sample(module, x, labels, precision=GOAL)  # type: ignore[arg-type]
    each = ", ".join(
        f"{name} {facts['samples']}" for name, facts in zip(PHOTOS, found.facts, strict=True)
    )
    print(f"\nprecision={GOAL} at {size} x {size} stops after: {each} masks", flush=True)


def peak(masks: int) -> None:
    """Runs RISE on a small network, and prints the most memory there was."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    running = Running(batch_size=32, memory_format="contiguous")
    torch.manual_seed(0)
    sample(module, torch.randn(1, 3, 224, 224), 1, samples=masks, running=running)
    status = Path(
        "/proc/self/status"
    ).read_text()  # getrusage would count the parent's memory at the fork
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def memory() -> None:
    found = []
    for masks in (1000, 20000):
        command = [sys.executable, __file__, "--peak", str(masks)]
        found.append(
            float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        )
    few, many = found
    print(
        f"\nmemory: {few:.0f} MB at 1000 masks, {many:.0f} MB at 20000: {many / few:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, samples and masks")
    parser.add_argument(
        "--part", action="append", choices=("overhead", "error", "memory"), default=[]
    )
    parser.add_argument(
        "--size", type=int, default=224, help="of the pictures on which errors are measured"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        peak(args.peak)
        return
    keep_allocator_memory()
    parts = args.part or ["overhead", "error", "memory"]
    module = seewhy.load_model().module
    if "overhead" in parts:
        overhead(module, 224, 5 if args.quick else 11, 256 if args.quick else 1024)
    if "error" in parts:
        error(module, args.size, 512 if args.quick else 1024, 3 if args.quick else 4)
        if not args.quick:
            early(module, args.size)
    if "memory" in parts:
        memory()


if __name__ == "__main__":
    main()
