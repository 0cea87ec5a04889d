"""An index is of one output of a model, and refuses the same weights asked about another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from influence_cases import NOT_TRAINED
from seewhy.errors import InputError
from seewhy.influence import InfluenceIndex
from tiny_models import pictures, randomised

pytestmark = NOT_TRAINED


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.aux, self.cls = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.stem(x).mean((2, 3))
        return {"logits": self.aux(h), "cls": self.cls(h)}


def of_head(net: nn.Module, head: str) -> seewhy.Model:
    return seewhy.wrap(net, output=lambda answer: answer[head])


def test_another_output_is_refused(tmp_path: Path) -> None:
    net, data = randomised(TwoHeads()), (pictures(8, 16), torch.arange(8) % 4)
    how: dict[str, Any] = {"solver": "gradient_dot", "out": tmp_path}
    InfluenceIndex.fit(of_head(net, "cls"), data, **how)
    InfluenceIndex.open(tmp_path, of_head(net, "cls"))
    InfluenceIndex.fit(of_head(net, "cls"), data, **how)
    for ask in (
        lambda: InfluenceIndex.open(tmp_path, of_head(net, "logits")),
        lambda: InfluenceIndex.open(tmp_path, net),
        lambda: InfluenceIndex.fit(net, data, **how),
    ):
        with pytest.raises(
            InputError,
            match="its weights are the same, but it answers otherwise; give it the output=",
        ):
            ask()


@pytest.mark.parametrize("head", ["cls", "logits"])
def test_the_answer_of_that_output_is_asked_about(head: str) -> None:
    net, data, tests = (
        randomised(TwoHeads()),
        (pictures(8, 16), torch.arange(8) % 4),
        pictures(6, 16, seed=3),
    )
    index = InfluenceIndex.fit(of_head(net, head), data, l2=0.1)
    expected = [f"class {i}" for i in net(tests)[head].argmax(1).tolist()]
    assert [query.predicted for query in index.query(tests)] == expected


def test_each_checkpoint_is_of_its_output(tmp_path: Path) -> None:
    nets, data = (
        (randomised(TwoHeads(), 1), randomised(TwoHeads())),
        (pictures(8, 16), torch.arange(8) % 4),
    )
    how: dict[str, Any] = {"solver": "tracin", "learning_rates": [0.1, 0.1], "out": tmp_path}
    InfluenceIndex.fit([of_head(net, "cls") for net in nets], data, **how)
    with pytest.raises(InputError, match="it answers otherwise"):
        InfluenceIndex.open(tmp_path, [of_head(nets[0], "logits"), of_head(nets[1], "cls")])


def test_models_that_never_say_the_same_are_not_refused_for_it(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = randomised(TwoHeads())

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(self.net(x)["cls"], 0.5, training=True)

    class NotFinite(Noisy):
        def forward(self, x: Tensor) -> Tensor:
            return (self.net(x)["cls"] * (x.amax() - 0.6)).sqrt()  # of the drawn picture

    for i, net in enumerate((Noisy(), NotFinite())):
        data = (pictures(8, 16), torch.arange(8) % 4)
        InfluenceIndex.fit(net, data, solver="random", out=tmp_path / str(i))
        InfluenceIndex.open(tmp_path / str(i), net)
