"""What people hand over, small and of every kind, and the plain networks that have the same weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.data.dataset import Example, LabeledImages
from seewhy.data.truth import Truth
from tiny_models import randomised

CLASSES, SIZE = 4, 16


class Plain(nn.Module):
    """Two stages, and a head on the mean of their places: (N, K) logits."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(8, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.features(x).mean((2, 3)))


def plain(classes: int = CLASSES) -> Plain:
    net = randomised(Plain(classes))
    if classes == 1:
        net.fc.bias.data -= 2  # no number in [0, 1], which might be a probability
    return net


def linear() -> nn.Module:
    return randomised(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES)))


class Ended(nn.Module):
    """What it makes of the logits is not to be told from its parts."""

    def __init__(self, end: Callable[[Tensor], Any], classes: int = CLASSES, **said: Any) -> None:
        super().__init__()
        self.net, self.end = plain(classes), end
        for name, value in said.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Any:
        return self.end(self.net(x))


class Beside(Plain):
    """The pooled features before the logits."""

    def forward(self, x: Tensor) -> Any:
        pooled = self.features(x).mean((2, 3))
        return pooled, self.fc(pooled)


class WithLoss(Plain):
    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return logits.logsumexp(1).mean(), logits


class AtEveryPlace(Plain):
    """Its head is applied to every place, whose channels come last."""

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.features(x).permute(0, 2, 3, 1)).mean((1, 2))


class OnTokens(Plain):
    """The same, of tokens."""

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.features(x).flatten(2).mT).mean(1)


class Dense(Plain):
    """A segmentation: (N, K, h, w) logits."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.fc = nn.Conv2d(8, classes, 1)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.features(x))


class WholeNumbers(Plain):
    """Takes pixel values; as floats none at all, or those that are whole."""

    def __init__(self, *, floats: bool) -> None:
        super().__init__()
        self.floats = floats

    def forward(self, x: Tensor) -> Any:
        if x.is_floating_point() and not self.floats:
            raise TypeError("expected pixels")
        return super().forward(x.float().round().clamp(0, 255) / 64 - 2)


class Keeping(Plain):
    """Keeps a tensor from its first call."""

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        if self.kept is None:
            self.kept = torch.linspace(0.5, 1.5, CLASSES)
        return super().forward(x) * self.kept


def kept_from_inference() -> nn.Module:
    net = randomised(Keeping())
    with torch.inference_mode():
        net(torch.zeros(1, 3, SIZE, SIZE))
    return net


def configured(names: Mapping[Any, str]) -> nn.Module:
    """Says its names as transformers' models do."""
    return Ended(
        lambda logits: SimpleNamespace(logits=logits), config=SimpleNamespace(id2label=names)
    )


def configured_for_several() -> nn.Module:
    """Says that a picture may show several classes, as transformers' models do."""
    several = SimpleNamespace(problem_type="multi_label_classification")
    return Ended(lambda logits: SimpleNamespace(logits=logits), config=several)


# ---------------------------------------------------------------- black boxes


def of_arrays(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return plain()(torch.as_tensor(pictures)).softmax(1).detach().numpy()


class Estimator:
    """An estimator of rows whose channels come last, as picture libraries have them; with `linear`'s weights."""

    classes_ = np.array(["first", "second", "third", "fourth"])

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {}

    def predict_proba(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        pictures = torch.as_tensor(rows).view(-1, SIZE, SIZE, 3).permute(0, 3, 1, 2)
        return linear()(pictures).softmax(1).detach().numpy()


class Session:
    """An ONNX Runtime session that gives labels before scores."""

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="x", shape=["n", 3, SIZE, SIZE])]

    def get_outputs(self) -> list[Any]:
        kinds = {"label": "tensor(int64)", "of_each": "tensor(float)"}
        return [SimpleNamespace(name=name, type=kind) for name, kind in kinds.items()]

    def run(self, names: Sequence[str], given: Mapping[str, Any]) -> list[Any]:
        scores = plain()(torch.as_tensor(given["x"])).detach()
        said = {"label": scores.argmax(1).numpy(), "of_each": scores.numpy()}
        return [said[name] for name in names]


# ---------------------------------------------------------------- pictures with boxes


class Drawn(LabeledImages):
    """Three pictures of noise, each with a box around a thing of another class."""

    boxes = ((2, 2, 9, 9), (6, 3, 15, 12), (1, 8, 8, 15))

    def __init__(self, classes: Sequence[str]) -> None:
        self.title, self.classes, self.multi_label = "drawn", tuple(classes), False
        self.names, self.skipped = ["a", "b", "c"], {}
        self.labels = [(i % len(self.classes),) for i in range(3)]

    def __getitem__(self, index: int) -> Example:
        pixels = np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        label = torch.tensor(self.labels[index])
        truth = Truth((SIZE, SIZE), boxes=torch.tensor([self.boxes[index]]), labels=label)
        return Example(self.names[index], Image.fromarray(pixels), self.labels[index], truth)
