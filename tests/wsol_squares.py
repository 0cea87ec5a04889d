"""A data set that is learnt in a moment, and the training of tiny networks on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seewhy.data.dataset import Example, LabeledImages
from seewhy.data.preprocess import Preprocess
from seewhy.data.truth import Truth
from seewhy.models.training import train

TINY: dict[str, Any] = {
    "backbone": "timm:test_resnet",
    "pretrained": False,
    "stages": 3,
    "units": 16,
    "adaptation": 16,
    "epochs": 3,
    "batch_size": 10,
    "lr": 4e-3,
}
PLAIN = Preprocess((32, 32), None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")


class Squares(LabeledImages):
    """A dark square with the class's colour, on grey noise; with several labels one square for each.

    Shaded, the colour is weak at the square's left and strong at its right.
    """

    def __init__(
        self,
        count: int = 40,
        *,
        multi_label: bool = False,
        split: str = "train",
        edge: int = 8,
        shaded: bool = False,
    ) -> None:
        self.title, self.classes, self.multi_label = (
            f"squares, {split}",
            ("red", "green", "blue"),
            multi_label,
        )
        self.key, self.edge, self.weakest = sum(map(ord, split)), edge, 80 if shaded else 220
        self.names = [f"{split}-{i}" for i in range(count)]
        kinds = (
            [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), ()] if multi_label else [(0,), (1,), (2,)]
        )
        self.labels = [kinds[i % len(kinds)] for i in range(count)]

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self.key, index))
        pixels = rng.normal(110, 20, (32, 32, 1)).repeat(3, 2)
        edge, boxes = self.edge, []
        for label in self.labels[index]:
            y, x = rng.integers(33 - edge, size=2)
            pixels[y : y + edge, x : x + edge] = 40
            pixels[y : y + edge, x : x + edge, label] = np.linspace(self.weakest, 220, edge)
            boxes.append((x, y, x + edge, y + edge))
        truth = Truth((32, 32), torch.tensor(boxes).float(), torch.tensor(self.labels[index]))
        photo = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        return Example(self.names[index], photo, tuple(self.labels[index]), truth)


def fit(out: Path, **more: Any) -> Any:
    several = more.pop("several", False)
    data = more.pop("data", None) or Squares(multi_label=several)
    val = more.pop("val", Squares(20, multi_label=several, split="val"))
    return train(data, val=val, out=out, **{**TINY, **more})


def weights(out: Path) -> dict[str, Tensor]:
    state = torch.load(out / "last.ckpt", weights_only=True)
    return dict(state["fitting"]["net"])


def assert_same(one: Path, other: Path) -> None:
    for (name, a), (_, b) in zip(weights(one).items(), weights(other).items(), strict=True):
        assert torch.equal(a, b), name
    for file in ("model.safetensors", "history.json", "card.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def one_thread() -> Iterator[None]:
    """A fixture: so little work is slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fixture: the folder of a training that nothing disturbed."""
    out = tmp_path_factory.mktemp("trained") / "alone"
    fit(out, dropout=0.3)
    return out
