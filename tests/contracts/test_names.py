"""Names that do not fit the columns of an answer are refused by every function that could use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.data.dataset import Example, LabeledImages
from seewhy.data.preprocess import Preprocess
from seewhy.data.truth import Truth
from seewhy.errors import ModelError
from seewhy.influence import InfluenceIndex
from seewhy.methods.catalog import find_method
from tiny_models import pictures

SIZE = 16
FAST: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 8, "stride": 8},
    "rise": {"samples": 8, "cells": 2},
}


class Striped(nn.Module):
    """Class c is how bright the c-th stripe is; column 0 is the background."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3, 1, 1), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.conv(x).relu().mean((2, 3)))
        return scores


def black_box(pictures: Tensor) -> Tensor:
    with torch.no_grad():
        scores: Tensor = Striped()(pictures)
    return scores


class Marked(LabeledImages):
    """Four grey pictures with a box, of things 1 to 3."""

    def __init__(self) -> None:
        self.title, self.classes, self.multi_label = (
            "marked",
            ("thing 1", "thing 2", "thing 3"),
            False,
        )
        self.names, self.labels, self.skipped = ["a", "b", "c"], [(0,), (1,), (2,)], {}

    def __getitem__(self, index: int) -> Any:
        truth = Truth(
            (SIZE, SIZE),
            boxes=torch.tensor([[2, 2, 9, 9]]),
            labels=torch.tensor(self.labels[index]),
        )
        photo = Image.fromarray(np.full((SIZE, SIZE, 3), 90, np.uint8))
        return Example(self.names[index], photo, self.labels[index], truth)


def misnamed(module: Any) -> seewhy.Model:
    preprocess = Preprocess((SIZE, SIZE), None, (0.5,) * 3, (0.1,) * 3, "bilinear")
    return seewhy.wrap(module, labels=["thing 1", "thing 2", "thing 3"], preprocess=preprocess)


USES: dict[str, Callable[[seewhy.Model], object]] = {
    "explain": lambda model: seewhy.explain(
        model, pictures(2, SIZE), methods="occlusion", options=FAST
    ),
    "callable": lambda model: seewhy.explain(
        model, pictures(2, SIZE), methods="rise", targets=lambda o: o[:, 0]
    ),
    "evaluate": lambda model: seewhy.evaluate(
        model, pictures(2, SIZE), methods="occlusion", metrics="deletion", options=FAST
    ),
    "localize": lambda model: seewhy.evaluate_localization(
        model, Marked(), methods="occlusion", metrics="energy_pointing", options=FAST
    ),
    "metric": lambda model: seewhy.metrics.Deletion().update(
        torch.rand(2, SIZE, SIZE), model, pictures(2, SIZE), 0
    ),
    **{
        name: lambda model, name=name: find_method(name)(model, pictures(2, SIZE), 1, **FAST[name])
        for name in FAST
    },
}
USES_WITH_GRADIENTS: dict[str, Callable[[seewhy.Model], object]] = {
    name: lambda model, name=name: find_method(name)(model, pictures(2, SIZE), "thing 1")
    for name in ("saliency", "grad_cam", "lrp", "score_cam")
} | {
    "influence": lambda model: InfluenceIndex.fit(
        model, (pictures(3, SIZE), torch.tensor([1, 2, 3]))
    ),
    "sanity": lambda model: seewhy.metrics.ParameterRandomization("saliency").update(
        torch.rand(2, SIZE, SIZE), model, pictures(2, SIZE), 0
    ),
}


@pytest.mark.parametrize("use", [*USES, *USES_WITH_GRADIENTS])
def test_as_many_names_as_columns(use: str) -> None:
    run = {**USES, **USES_WITH_GRADIENTS}[use]
    for module in [Striped()] + [black_box] * (use in USES):
        with pytest.raises(
            ModelError, match=r"labels has 3 names, the model gives 4 columns.*labels="
        ) as raised:
            run(misnamed(module))
        assert "\n" not in str(raised.value)


def test_names_of_another_output_can_be_left_out() -> None:
    model = seewhy.wrap(Striped(), labels=[])
    assert (
        seewhy.explain(model, pictures(1, SIZE), methods="saliency")[0]
        .labels[0]
        .startswith("class ")
    )
