"""Networks trained on image labels of Scenes, and how well their maps find the digits: the claims of CAM's paper.

For each head and seed: the minutes of training, the score on the split "test", then MaxBoxAcc, MaxBoxAccV2, PxAP, the
pointing game and Oquab's location AP of CAM and of three baselines that go back to the pixels, with the centre beside
them; and how much of the objects' pixels lies above 20 % of the map's maximum. At the end the directions that have to
hold: GAP covers more of the object than GMP, and CAM finds it better than backpropagation does. The tolerances of the
pointing game and of location AP, 15 and 18 pixels as published, are brought to pictures of 96 pixels: 6.4, which is 15
of 224, and 4, which is half a cell of the map as 18 is of theirs.

    python benchmarks/wsol.py [--heads gap gmp oquab] [--seeds 0 1 2] [--multi-label] [--count N] [--val N] [--test N]
                              [--epochs N] [--out FOLDER] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import seewhy
from seewhy.data import LabeledImages
from seewhy.data.sources import find_data
from seewhy.data.truth import Truth
from seewhy.engine.masking import keep_allocator_memory
from seewhy.maps.values import normalize, resize
from seewhy.metrics import (
    LocationAveragePrecision,
    MaxBoxAccuracy,
    PixelAveragePrecision,
    PointingGame,
)
from seewhy.metrics.baselines import ChanceMethod
from seewhy.models.training import Trained, train

METHODS = ("cam", "saliency", "input_x_gradient", "guided_backprop")
BATCH = 50
POINTING_PIXELS, LOCATION_PIXELS = 15 * 96 / 224, 4
COLUMNS = ("MaxBoxAcc", "MaxBoxAccV2", "PxAP", "pointing", "location AP", "covered")


def maps_of(method: str, model: seewhy.Model, x: Tensor, targets: Sequence[int]) -> Tensor:
    """(N, h, w) for one class of each picture: CAM as it is, of what goes back to the pixels the magnitude."""
    if method == "centre":
        return ChanceMethod("centre")(model, x)
    maps = seewhy.METHODS[method](model, x, target=list(targets))
    return maps if method == "cam" else maps.abs()


def covered(maps: Tensor, truths: Sequence[Truth], labels: Sequence[int]) -> list[float]:
    """For each picture the share of its objects' pixels that lies above 20 % of the map's maximum."""
    shares = []
    for one, truth, label in zip(maps, truths, labels, strict=True):
        region = truth.of(label).region()
        heat = normalize(resize(one[None].clamp(min=0), truth.size))[0]
        shares.append(float((heat[region] > 0.2).float().mean()))
    return shares


def localisation(model: seewhy.Model, data: LabeledImages, method: str) -> dict[str, float]:
    """The scores of one method: of every class that a picture shows, and for location AP of every class there is."""
    metrics = {
        "MaxBoxAcc": MaxBoxAccuracy(version=1),
        "MaxBoxAccV2": MaxBoxAccuracy(),
        "PxAP": PixelAveragePrecision(),
        "pointing": PointingGame(tolerance=POINTING_PIXELS),
    }
    location, shares = LocationAveragePrecision(tolerance=LOCATION_PIXELS), []
    for start in range(0, len(data), BATCH):
        examples = [data[i] for i in range(start, min(start + BATCH, len(data)))]
        x, _ = model.preprocess.batch([example.photo for example in examples])
        with torch.no_grad():
            scores = model(x)
        for label in range(len(data.classes)):
            maps, truths = (
                maps_of(method, model, x, [label] * len(x)),
                [example.truth for example in examples],
            )
            location.update(maps, truths, labels=[label] * len(x), scores=scores[:, label])
            shown = [i for i, example in enumerate(examples) if label in example.labels]
            if shown:
                there, classes = [truths[i] for i in shown], [label] * len(shown)
                for metric in metrics.values():
                    metric.update(maps[shown], there, labels=classes)
                shares += covered(maps[shown], there, classes)
    found = {name: float(metric.compute().mean) for name, metric in metrics.items()}
    return {
        **found,
        "location AP": float(location.compute().mean),
        "covered": statistics.mean(shares),
    }


def accuracy(model: seewhy.Model, data: LabeledImages) -> float:
    """Top-1 accuracy, or the mean average precision over classes."""
    from torchmetrics.functional.classification import multilabel_average_precision

    marked = torch.zeros(len(data), len(data.classes), dtype=torch.long)
    for row, labels in zip(marked, data.labels, strict=True):
        row[list(labels)] = 1
    with torch.no_grad():
        scores = torch.cat(
            [
                model(
                    model.preprocess.batch(
                        [data[i].photo for i in range(start, min(start + BATCH, len(data)))]
                    )[0]
                )
                for start in range(0, len(data), BATCH)
            ]
        )
    if data.multi_label:
        return float(multilabel_average_precision(scores, marked, len(data.classes)))
    return float((scores.argmax(1) == marked.argmax(1)).float().mean())


def trained_for(head: str, seed: int, args: argparse.Namespace, spec: str) -> tuple[Trained, float]:
    """One network, and the minutes that it took; a folder with a finished one is read instead."""
    start = time.perf_counter()
    settings: dict[str, Any] = {} if args.epochs is None else {"epochs": args.epochs}
    trained = train(
        find_data(f"{spec},count={args.count}", split="train"),
        val=find_data(f"{spec},count={args.val}", split="val"),
        pooling=head,
        seed=seed,
        out=args.out / f"{head}-{'multi' if args.multi_label else 'single'}-{seed}",
        **settings,
    )
    return trained, (time.perf_counter() - start) / 60


def tell(rows: Sequence[dict[str, Any]]) -> None:
    """The means over seeds, and whether the paper's directions hold for each seed."""
    print(f"\n| head | method | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for head in dict.fromkeys(row["head"] for row in rows):
        for method in dict.fromkeys(row["method"] for row in rows):
            chosen = [row for row in rows if (row["head"], row["method"]) == (head, method)]
            means = [statistics.mean(row[column] for row in chosen) for column in COLUMNS]
            print(f"| {head} | {method} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    value = {(row["head"], row["seed"], row["method"]): row for row in rows}
    for seed in dict.fromkeys(row["seed"] for row in rows):
        if {("gap", seed, "cam"), ("gmp", seed, "cam")} <= value.keys():
            gap, gmp = (value[head, seed, "cam"]["covered"] for head in ("gap", "gmp"))
            print(
                f"seed {seed}: GAP covers {gap:.3f}, GMP {gmp:.3f}: {'holds' if gap > gmp else 'DOES NOT HOLD'}"
            )
    for (head, seed, method), row in value.items():
        for column in COLUMNS[:-1] if method not in ("cam", "centre") else ():
            if row[column] >= value[head, seed, "cam"][column]:
                print(f"{head}, seed {seed}: {method} is not worse than CAM in {column}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", nargs="+", default=["gap", "gmp", "oquab"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--multi-label", action="store_true")
    parser.add_argument("--count", type=int, default=4000, help="pictures to learn from")
    parser.add_argument("--val", type=int, default=1000, help="pictures held back in training")
    parser.add_argument("--test", type=int, default=300, help="pictures to score maps on")
    parser.add_argument("--epochs", type=int, help="in place of the default")
    parser.add_argument("--out", type=Path, default=Path("wsol-benchmark"))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_allocator_memory()
    spec = f"scenes:multi_label={str(args.multi_label).lower()}"
    test = find_data(f"{spec},count={args.test}", split="test")
    rows: list[dict[str, Any]] = []
    for head in args.heads:
        for seed in args.seeds:
            trained, minutes = trained_for(head, seed, args, spec)
            score = accuracy(trained.model, test)
            print(
                f"{head}, seed {seed}: {minutes:.1f} minutes, held back {trained.scores['value']:.4f}, test {score:.4f}"
            )
            for method in (*METHODS, "centre"):
                found = localisation(trained.model, test, method)
                print(
                    "  ",
                    method,
                    {name: round(value, 3) for name, value in found.items()},
                    flush=True,
                )
                rows.append(
                    {
                        "head": head,
                        "seed": seed,
                        "method": method,
                        "minutes": minutes,
                        "score": score,
                        **found,
                    }
                )
            (args.out / "wsol.json").write_text(json.dumps(rows, indent=2))
    tell(rows)


if __name__ == "__main__":
    main()
