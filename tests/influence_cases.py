"""The small network and data that the tests of the influence index share, and its scores example by example."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.data.dataset import Example, LabeledImages
from seewhy.influence import InfluenceIndex
from tiny_models import TinyCNN, pictures, randomised

N, K = 43, 5
# the networks' weights are random
NOT_TRAINED = pytest.mark.filterwarnings(
    "ignore:the model has not converged:seewhy.errors.SeewhyWarning"
)


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(seed: int = 0) -> TinyCNN:
    return randomised(TinyCNN(K), seed).double()


def training(count: int = N) -> tuple[Tensor, Tensor]:
    return pictures(count, 12).double(), torch.arange(count) % K


def held_back() -> tuple[Tensor, Tensor]:
    return pictures(4, 12, seed=1).double(), torch.tensor([0, 3, 3, 1])


def prepared(net: nn.Module, **options: Any) -> seewhy.Model:
    """The network with a preprocess, which photos need."""
    size = (12, 12)
    return seewhy.wrap(
        net, preprocess=seewhy.Preprocess(size, size, (0.5,) * 3, (0.5,) * 3, "bilinear"), **options
    )


def fit(net: Any, data: Any, **options: Any) -> InfluenceIndex:
    return InfluenceIndex.fit(
        net, data, **{"solver": "gradient_dot", "batch_size": 8, "shard_rows": 10, **options}
    )


def gradient(net: nn.Module, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(net.parameters()))])


def slow_scores(net: nn.Module, data: Any, tested: Any) -> Tensor:
    """The gradient dot product, picture by picture."""
    sides = [
        torch.stack(
            [
                gradient(net, F.cross_entropy(net(x[None]), y[None]))
                for x, y in zip(*pairs, strict=True)
            ]
        )
        for pairs in (tested, data)
    ]
    return sides[0] @ sides[1].T / len(data[0])


class Photos(LabeledImages):
    """Photos in memory."""

    title, multi_label = "photos", False

    def __init__(
        self, photos: list[Image.Image], labels: list[int], names: list[str] | None = None
    ) -> None:
        self.photos, self.classes = photos, tuple("abcde")
        self.labels = [(label,) for label in labels]
        self.names = names or [f"photo-{i}" for i in range(len(photos))]

    def __getitem__(self, index: int) -> Example:
        return Example(self.names[index], self.photos[index], self.labels[index])


def some_photos(count: int = 20) -> Photos:
    pixels = (pictures(count, 12) * 40 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return Photos([Image.fromarray(one) for one in pixels], [i % K for i in range(count)])
