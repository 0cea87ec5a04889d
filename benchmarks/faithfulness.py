"""Deletion beside Quantus' pixel-flipping for the same curve, on the embedded model.

    python benchmarks/faithfulness.py [--photos 1] [--step 224] [--rounds 3] [--threads 2]

Quantus flips colour values, not pixels, and asserts that the values of a step divide the pixels of the image; with
three times 224 values a step, and that assertion left out, its curve is the one of deletion in 224 steps less its first
point. Each contender has a process of its own, since the allocator's setting (`keep_allocator_memory`) is the
process's; they start from the same maps and the same tensors, and take turns. Times are medians of the rounds. Quantus
runs all photos together, one step after the other; a larger --step shortens runs of many photos.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import seewhy
from seewhy.engine.masking import Running, keep_allocator_memory
from seewhy.metrics.faithfulness.curves import Deletion, pixel_ranks

TARGET = 3.0  # times faster
LAST: dict[str, Any] = {"memory_format": "channels_last", "batch_size": 16}
WAYS = {
    "seewhy as it comes": Running(),
    "seewhy float32": Running(**LAST),
    "seewhy bfloat16": Running(**LAST, precision="bfloat16"),
}
QUANTUS = "Quantus"


def inputs(model: seewhy.Model, n: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """The sample photos, preprocessed, a map of each in which no two pixels tie, and the classes."""
    import skimage.data
    from PIL import Image

    assert model.preprocess is not None
    shots = [
        skimage.data.chelsea(),
        skimage.data.coffee(),
        skimage.data.rocket(),
        skimage.data.astronaut(),
    ]
    x, _ = model.preprocess.batch([Image.fromarray(shots[i % len(shots)]) for i in range(n)])
    with torch.no_grad():
        classes = model.module(x).argmax(1).tolist()
    coarse = seewhy.methods.grad_cam(model, x, classes)
    return (
        x,
        -pixel_ranks(seewhy.maps.resize(coarse, (x.shape[2], x.shape[3])), x, 0).float(),
        classes,
    )


def contender(name: str, model: seewhy.Model, n: int, step: int) -> Callable[[], np.ndarray]:
    x, maps, classes = inputs(model, n)
    if name != QUANTUS:
        keep_allocator_memory()

        def ours() -> np.ndarray:
            metric = Deletion(step=step, running=WAYS[name])
            metric.update(maps, model, x, classes)
            return np.stack(metric.compute().curves)[:, 1:]

        return ours
    import quantus

    metric = quantus.PixelFlipping(
        features_in_step=3 * step,
        abs=False,
        normalise=False,
        perturb_baseline=0.0,
        disable_warnings=True,
    )
    metric.custom_preprocess = lambda **kwargs: None  # the assertion

    def theirs() -> np.ndarray:
        given = {"a_batch": maps[:, None].numpy(), "softmax": True, "device": "cpu"}
        return np.array(metric(model.module, x.numpy(), np.array(classes), **given))

    return theirs


def work(args: argparse.Namespace) -> None:
    """Runs once for every line that comes in, and says how long it took; leaves its curves in a file."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    name, path = args.worker
    run = contender(name, seewhy.load_model(), args.photos, args.step)
    for _ in sys.stdin:
        start = time.perf_counter()
        curves = run()
        seconds = time.perf_counter() - start
        np.save(path, curves)
        print(seconds, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=1)
    parser.add_argument("--step", type=int, default=224, help="pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    names = [QUANTUS, *WAYS]
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{i}.npy" for i, name in enumerate(names)}
        workers = {name: start(name, files[name], args) for name in names}
        times = {name: [] for name in names}
        for turn in range(args.rounds + 1):
            for name, worker in workers.items():
                assert worker.stdin
                assert worker.stdout
                worker.stdin.write("go\n")
                worker.stdin.flush()
                took = float(worker.stdout.readline())
                times[name] += [took] if turn else []  # the first warms
        curves = {name: np.load(path) for name, path in files.items()}
        for worker in workers.values():
            worker.communicate()
    report(times, curves, args)


def start(name: str, path: Path, args: argparse.Namespace) -> subprocess.Popen[str]:
    numbers = {"--photos": args.photos, "--threads": args.threads, "--step": args.step}
    options = [text for option, value in numbers.items() for text in (option, str(value))]
    command = [sys.executable, __file__, *options, "--worker", name, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def report(
    times: dict[str, list[float]], curves: dict[str, np.ndarray], args: argparse.Namespace
) -> None:
    theirs, base = curves[QUANTUS], np.median(times[QUANTUS])
    print(
        f"{args.photos} photo(s), {theirs.shape[1]} steps of {args.step} pixels, {args.threads} threads"
    )
    for name, took in times.items():
        print(f"  {name:<20} {np.median(took):7.2f} s  [{min(took):.2f}, {max(took):.2f}]", end="")
        if name != QUANTUS:
            ratio, apart = base / np.median(took), np.abs(curves[name] - theirs).max()
            verdict = "pass" if ratio >= TARGET else f"below {TARGET:g}"
            print(
                f"  {ratio:.2f} x faster ({verdict}), curves differ by {apart:.1e} at most", end=""
            )
        print(flush=True)


if __name__ == "__main__":
    main()
