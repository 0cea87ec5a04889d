"""What a large picture costs in memory: measured in a process of its own, over what the model takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHILD = """
import sys, tempfile
import torch
from PIL import Image
from torch import nn
import seewhy

def kilobytes(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))

def explained(path):
    with tempfile.TemporaryDirectory() as folder:
        found = seewhy.explain(model, path, targets=1)
        found.save(folder)
    return found

torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
model = seewhy.wrap(net, preprocess=seewhy.IMAGENET)
Image.effect_noise((300, 200), 60).save(sys.argv[1] + ".small.png")
explained(sys.argv[1] + ".small.png")
before = kilobytes("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
found = explained(sys.argv[1])
print((kilobytes("VmHWM") - before) / 1000, *found.placements[0].photo_size, *found.photos[0].size)
"""


def cost(path: Path) -> tuple[float, list[int]]:
    """Megabytes over the model's, and the sizes: of the photo (height, width), and as drawn (width, height)."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(path)], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    megabytes, *sizes = done.stdout.split()
    return float(megabytes), list(map(int, sizes))


def tiles(width: int, height: int) -> Image.Image:
    small = np.random.default_rng(0).integers(
        0, 256, (height // 100, width // 100, 3), dtype=np.uint8
    )
    return Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST)


@pytest.mark.long
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks are set back where /proc has them"
)
@pytest.mark.parametrize(
    ("ending", "make", "size", "most", "options"),
    [
        ("png", lambda: Image.new("1", (12_000, 12_000)), 12_000, 600, {}),
        ("jpg", lambda: tiles(10_000, 10_000), 10_000, 600, {}),
        ("png", lambda: tiles(12_000, 12_000), 12_000, 1.3 * 432 + 200, {"compress_level": 1}),
        ("png", lambda: tiles(7_000, 7_000), 7_000, 1.3 * 147 + 200, {"compress_level": 1}),
    ],
    ids=["one bit", "jpeg", "rgb", "not reduced"],
)
def test_a_large_picture_stays_within_bounds(
    tmp_path: Path, ending: str, make: Any, size: int, most: float, options: dict[str, Any]
) -> None:
    make().save(tmp_path / f"large.{ending}", **options)
    megabytes, sizes = cost(tmp_path / f"large.{ending}")
    assert sizes == [size, size, 2048, 2048]
    assert megabytes < most
