"""Localisation metrics beside the released evaluation of weakly supervised localisation, clovaai/wsolevaluation.

    python benchmarks/localization.py CHECKOUT [--maps 20] [--rounds 7] [--noise 2] [--memory]

CHECKOUT is a folder with the repository's evaluation.py, util.py and data_loaders.py; opencv-python has to be there.
Both sides get the same raw maps of 224 x 224, scale them to [0, 1] and score them at 1,000 thresholds, on one thread.
The released code reads masks and boxes from files; here it gets them from memory, which is to its advantage. They take
turns, map set by map set. Times are medians of the rounds in CPU time of this process.

--memory scores 500 and 5,000 maps in processes of their own and prints the highest memory that each needed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seewhy.data.truth import Truth
from seewhy.metrics import MaxBoxAccuracy, PixelAveragePrecision

SIZE, THRESHOLDS, TARGET, BATCH = 224, 1000, 5.0, 50
BOX = (30, 40, 150, 180)


def maps_of(kind: str, n: int, seed: int = 0) -> torch.Tensor:
    """(n, 224, 224): a coarse map as a CAM gives it, enlarged; the same with noise of some pixels' size; or noise."""
    generator = torch.Generator().manual_seed(seed)
    grid = {"CAM 7 x 7": 7, "CAM 14 x 14": 14, "gradient-like": SIZE // 4, "noise": SIZE}[kind]
    coarse = torch.rand(n, 1, grid, grid, generator=generator)
    return torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic")[:, 0].contiguous()


def official(checkout: Path) -> Any:
    """The released module, which needs names that NumPy dropped and a package that only its configuration uses."""
    vars(np)["float"] = float
    sys.modules.setdefault("munch", types.SimpleNamespace(Munch=dict))  # type: ignore[arg-type]
    sys.path.insert(0, str(checkout))
    import cv2
    import evaluation

    cv2.setNumThreads(1)
    return evaluation


def theirs(module: Any, metric: str, maps: np.ndarray) -> Callable[[], float]:
    thresholds = list(np.arange(0, 1, 1 / THRESHOLDS))
    made = object.__new__(module.MaskEvaluator if metric == "PxAP" else module.BoxEvaluator)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    module.get_mask = lambda *files: mask

    def run() -> float:
        made.cam_threshold_list, made.iou_threshold_list, made.cnt = (
            thresholds,
            [30, 50, 70] if metric == "MaxBoxAccV2" else [50],
            0,
        )
        made.multi_contour_eval = metric == "MaxBoxAccV2"
        made.num_correct = {i: np.zeros(THRESHOLDS) for i in made.iou_threshold_list}
        made.gt_bboxes, made.split = {"": [BOX]}, ""
        made.mask_root, made.mask_paths, made.ignore_paths = "", {"": ""}, {"": ""}
        made.threshold_list_right_edge = np.append(thresholds, [1.0, 2.0, 3.0])
        made.gt_true_score_hist, made.gt_false_score_hist = (
            np.zeros(THRESHOLDS + 2),
            np.zeros(THRESHOLDS + 2),
        )
        for one in maps:
            low, high = one.min(), one.max()
            made.accumulate(((one - low) / (high - low)).astype(np.float64), "")
        return float(np.mean(made.compute()))

    return run


def ours(metric: str, maps: torch.Tensor) -> Callable[[], float]:
    truth: Any = [Truth((SIZE, SIZE), torch.tensor([BOX]), torch.zeros(1))] * len(maps)
    if metric == "PxAP":
        truth = torch.stack([one.region() for one in truth])
    kind = {
        "PxAP": PixelAveragePrecision,
        "MaxBoxAccV2": MaxBoxAccuracy,
        "MaxBoxAcc": MaxBoxAccuracy,
    }[metric]
    options = {"version": 1} if metric == "MaxBoxAcc" else {}

    def run() -> float:
        made = kind(thresholds=THRESHOLDS, **options)
        for start in range(0, len(maps), BATCH):
            made.update(maps[start : start + BATCH], truth[start : start + BATCH])
        return 100 * made.compute().mean

    return run


def compare(metric: str, kind: str, args: argparse.Namespace, module: Any) -> None:
    slow = kind == "noise" and metric != "PxAP"
    count = args.noise if slow else 50 * args.maps if metric == "PxAP" else args.maps
    maps = maps_of(kind, count)
    runs = {"theirs": theirs(module, metric, maps.numpy()), "ours": ours(metric, maps)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    said: dict[str, float] = {}
    for turn in range(2 if slow else args.rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            said[name] = run()
            times[name] += [time.process_time() - start] if turn else []  # the first warms
    each = {name: 1000 * float(np.median(took)) / count for name, took in times.items()}
    ratio = each["theirs"] / each["ours"]
    verdict = "pass" if ratio >= TARGET else f"below {TARGET:g}"
    print(
        f"  {metric:<12} {kind:<14} released {each['theirs']:9.2f} ms/map ({said['theirs']:.2f} %)   "
        f"seewhy {each['ours']:6.2f} ms/map ({said['ours']:.2f} %)   {ratio:6.1f} x ({verdict})",
        flush=True,
    )


def memory(metric: str, count: int) -> None:
    """Scores maps in batches of 20, made as they are needed, and prints the highest memory of this process in MiB."""
    made = PixelAveragePrecision() if metric == "PxAP" else MaxBoxAccuracy()
    maps = maps_of("CAM 7 x 7", 20)
    truth = [Truth((SIZE, SIZE), torch.tensor([BOX]), torch.zeros(1))] * 20
    for _ in range(count // 20):
        made.update(maps, truth)
    found = made.compute()
    print(f"{found.n} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--maps", type=int, default=20, help="a round; 50 times as many for PxAP")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--noise", type=int, default=2, help="maps of noise, on which the released code takes long"
    )
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    parser.add_argument("--worker", nargs=2, metavar=("METRIC", "MAPS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.worker:
        memory(args.worker[0], int(args.worker[1]))
        return
    if args.memory:
        for metric in ("PxAP", "MaxBoxAccV2"):
            for count in ("500", "5000"):
                command = [sys.executable, __file__, str(args.checkout), "--worker", metric, count]
                said = subprocess.run(
                    command, capture_output=True, text=True, check=True
                ).stdout.split()
                print(f"  {metric:<12} {said[0]:>5} maps: {said[1]} MiB at most", flush=True)
        return
    module = official(args.checkout)
    print(f"{THRESHOLDS} thresholds, maps of {SIZE} x {SIZE}, one thread, {args.maps} maps a round")
    for metric in ("PxAP", "MaxBoxAcc", "MaxBoxAccV2"):
        for kind in ("CAM 7 x 7", "CAM 14 x 14", "gradient-like", "noise"):
            compare(metric, kind, args, module)


if __name__ == "__main__":
    main()
