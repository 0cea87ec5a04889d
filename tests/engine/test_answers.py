"""Which part of what a model returns is its answer."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.engine.answers import as_adapter, main_output
from seewhy.engine.call import Call
from seewhy.errors import ArgumentTypeError, ModelError, TargetError
from seewhy.methods.catalog import METHODS
from tiny_models import pictures, randomised

TABLE, FEATURES = torch.randn(2, 3), torch.randn(2, 8)
PICTURE, LOSS = torch.randn(2, 4, 5, 5), torch.tensor(0.5)
Named = namedtuple("Named", ["features", "scores_of_classes"])


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor


@pytest.mark.parametrize(
    "raw",
    [
        TABLE,
        (TABLE,),
        (LOSS, TABLE),
        [TABLE, PICTURE],
        (TABLE, (FEATURES, FEATURES)),
        {"loss": LOSS, "scores_of_classes": TABLE},
        {"features": FEATURES, "logits": TABLE},
        Output(TABLE, FEATURES),
    ],
)
def test_the_one_answer(raw: Any) -> None:
    assert main_output(raw) is TABLE


@pytest.mark.parametrize(
    "raw",
    [
        (FEATURES, TABLE),
        (TABLE, FEATURES),
        (PICTURE, TABLE),
        [PICTURE, PICTURE],
        {"a": TABLE, "b": FEATURES},
        (),
        "text",
    ],
)
def test_several_of_equal_standing_stay_as_they_are(raw: Any) -> None:
    assert main_output(raw) is raw


@pytest.mark.parametrize(
    ("raw", "which"),
    [
        ((FEATURES, TABLE), 1),
        ([FEATURES, TABLE], -1),
        (Named(FEATURES, TABLE), "scores_of_classes"),
        (Named(FEATURES, TABLE), 1),
        ({"features": FEATURES, "classes": TABLE}, "classes"),
        ({"features": FEATURES, "classes": TABLE}, 1),
        (Output(TABLE, FEATURES), "logits"),
    ],
)
def test_a_part_by_name_or_number(raw: Any, which: str | int) -> None:
    assert as_adapter(which)(raw) is TABLE


def test_what_is_no_part_is_told() -> None:
    with pytest.raises(
        ModelError, match=r"output=2 is no part of .*: \(2, 8\) as 0, \(2, 3\) as 1"
    ):
        as_adapter(2)((FEATURES, TABLE))
    with pytest.raises(
        ModelError,
        match=r"output='logit' is no part .*: \(2, 3\) as 'logits', \(2, 8\) as 'hidden'",
    ):
        as_adapter("logit")(Output(TABLE, FEATURES))
    for wrong in (True, None, 1.5, TABLE):
        with pytest.raises(ArgumentTypeError, match=r"output=.* cannot be called; give a function"):
            as_adapter(wrong)  # type: ignore[arg-type]


class Several(nn.Module):
    """Features and what a classifier makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.conv(x).relu().mean((2, 3))
        return features, self.fc(features)


@pytest.mark.parametrize("method", ["grad_cam", "saliency", "lrp", "occlusion", "rise"])
def test_features_are_not_taken_for_scores(method: str) -> None:
    net, x = randomised(Several()), pictures(2)
    asked: dict[str, Any] = {"samples": 32} if method == "rise" else {}
    with pytest.raises(
        TargetError, match=r"output is \(2, 8\) as 0, \(2, 5\) as 1, not one tensor .*output=1"
    ):
        METHODS[method](net, x, 1, **asked)
    named, by_function = (
        METHODS[method](net, x, 1, output=o, **asked) for o in (1, lambda said: said[1])
    )
    torch.testing.assert_close(named, by_function)


def test_the_answer_to_one_image_that_was_squeezed_away() -> None:
    class Squeezed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3), keepdim=True).squeeze()

    assert Call(Squeezed()).answer(pictures(1)).shape == (1,)
    assert Call(Squeezed()).answer(pictures(2)).shape == (2,)
