"""What a photo of a folder costs `seewhy explain` in processor seconds, and the memory, by the number of photos.

Target: from the fewest to the most photos the cost of one changes by no more than a tenth, and the memory by 50 MB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

TARGET, MEMORY = 0.1, 50.0
FACTORY = """
import torch, seewhy
from torch import nn

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(8, 5))
    plain = seewhy.Preprocess((32, 32), (32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear")
    return seewhy.wrap(net.eval(), preprocess=plain, labels=list("abcde"), gives="logits", name="tiny")
"""
RUN = """
import json, sys, time
import psutil
from seewhy.cli import run

import seewhy.methods.explanation as explanation

times, memory = [], []
add = explanation.ExplanationWriter.add

def timed(self, part):
    add(self, part)
    times.append(time.process_time())
    memory.append(psutil.Process().memory_info().rss / 2**20)

explanation.ExplanationWriter.add = timed
status = run(sys.argv[1:])
ended = time.process_time()
tenth = max(1, len(times) // 10)
print(json.dumps({
    "status": status,
    "all": ended - times[0],
    "first_tenth": (times[tenth] - times[0]) / tenth,
    "last_tenth": (times[-1] - times[-1 - tenth]) / tenth,
    "end": ended - times[-1],
    "memory": [memory[tenth], memory[-1], psutil.Process().memory_info().rss / 2**20],
}))
"""


def measured(count: int, folder: Path, *more: str) -> dict[str, float]:
    """A run over so many photos of 32 x 32 pixels, in a process of its own."""
    photos, chance = folder / f"photos-{count}", np.random.default_rng(0)
    if not photos.exists():
        photos.mkdir()
        for i in range(count):
            Image.fromarray(chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                photos / f"{i:05d}.png"
            )
    command = [
        "explain",
        str(photos),
        "--model",
        f"{folder / 'tiny.py'}:make",
        "--out",
        str(folder / f"out-{count}"),
    ]
    code = [sys.executable, "-W", "ignore", "-c", RUN, *command, *more]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["status"] == 0, done.stderr
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 1000, 2000])
    counts = parser.parse_args().counts
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.py").write_text(FACTORY)
        print(
            "photos   ms a photo   first, last tenth   at the end, s   MB after a tenth, last photo, report"
        )
        for count in counts:
            told = found[count] = measured(count, folder, "--report")
            first, last = (1000 * told[f"{which}_tenth"] / 8 for which in ("first", "last"))
            memory = ", ".join(f"{value:.0f}" for value in told["memory"])
            each = f"{count:6,d} {1000 * told['all'] / count:12.1f} {first:9.1f}, {last:6.1f} {told['end']:15.1f}"
            print(f"{each}   {memory}", flush=True)
    fewest, most = found[min(counts)], found[max(counts)]
    cost = most["all"] / max(counts) / (fewest["all"] / min(counts)) - 1
    grown = most["memory"][1] - fewest["memory"][1]
    for what, value, target in (
        ("cost, %", 100 * cost, 100 * TARGET),
        ("memory, MB", grown, MEMORY),
    ):
        verdict = "pass" if value <= target else "FAIL"
        print(f"{what}, most photos over fewest: {value:+.0f}  target {target:.0f}: {verdict}")


if __name__ == "__main__":
    main()
