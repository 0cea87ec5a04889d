"""How a model is asked: several pictures at once or one by one, layers disturbed, and the model as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seewhy.engine.call import Call
from seewhy.engine.outputs import LayerCall
from seewhy.engine.places.experiment import Experiment, batch_dim, differs
from tiny_models import Called, TinyCNN, pictures, randomised


@pytest.mark.parametrize(
    ("one", "many", "rows", "found"),
    [
        ((1, 8, 4, 4), (3, 8, 4, 4), 3, 0),
        ((17, 1, 8), (17, 3, 8), 3, 1),
        ((3, 1, 3), (3, 3, 3), 3, 1),
        ((1, 8, 4, 4), (1, 8, 4, 4), 1, 0),
        ((8, 1), (8, 1), 1, 1),
    ],
)
def test_the_dimension_of_images(
    one: tuple[int, ...], many: tuple[int, ...], rows: int, found: int
) -> None:
    assert batch_dim(one, many, rows) == found


@pytest.mark.parametrize(
    ("one", "many", "said"),
    [
        ((4, 8, 4, 4), (12, 8, 4, 4), "its batch has 4 rows"),
        ((1, 8), (1, 8), "no row"),
        ((1, 8, 4), (3, 8), "no row"),
        ((1, 8, 5), (3, 8, 7), "no row"),
    ],
)
def test_what_has_no_row_for_each_image(
    one: tuple[int, ...], many: tuple[int, ...], said: str
) -> None:
    found = batch_dim(one, many, 3)
    assert isinstance(found, str)
    assert said in found


class OneByOne(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise RuntimeError("one at a time")
        return self.net(x)


def measured(net: nn.Module, *, disturb: bool = False) -> dict[LayerCall, Tensor]:
    """How much each layer differs in each of three rows."""
    found = {}

    def measure(key: LayerCall, rows: Tensor, row: Tensor) -> None:
        found[key] = (rows - row).flatten(1).norm(dim=1)

    experiment = Experiment(Call(net), pictures(1))
    if disturb:
        step = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1)
        experiment.compare(
            pictures(1).expand(3, -1, -1, -1), measure, {("net.relu1", 0): lambda rows: rows + step}
        )
    else:
        experiment.compare(pictures(3, seed=1), measure)
    return found


@pytest.mark.parametrize("disturb", [False, True])
def test_one_by_one_says_what_several_at_once_say(disturb: bool) -> None:
    net = randomised(TinyCNN(inplace=False))
    together, alone = (measured(kind(net), disturb=disturb) for kind in (Holding, OneByOne))
    assert together.keys() == alone.keys()
    for key, value in together.items():
        torch.testing.assert_close(alone[key], value, rtol=1e-4, atol=1e-4)


class Holding(OneByOne):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_a_disturbed_layer_disturbs_what_comes_after_it() -> None:
    found = measured(Holding(randomised(TinyCNN(inplace=False))), disturb=True)
    torch.testing.assert_close(found["net.conv1", 0], torch.zeros(3), rtol=0, atol=1e-4)
    assert found["net.conv2", 0].tolist()[0] == pytest.approx(0, abs=1e-4)
    assert found["net.conv2", 0][1] < found["net.conv2", 0][2]


def test_what_several_modules_return_is_looked_at_once() -> None:
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity()), nn.Flatten())
    assert Experiment(Call(net), pictures(1)).makers == {
        ("0.0", 0): ("0.0", 0), ("0.1", 0): ("0.0", 0), ("0", 0): ("0.0", 0), ("1", 0): ("1", 0), ("", 0): ("1", 0),
    }  # fmt: skip


def test_what_is_changed_in_place_is_another_output() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    experiment = Experiment(Call(net), pictures(1))
    assert (experiment.given["0", 0] < 0).any()
    assert (experiment.given["1", 0] >= 0).all()


def test_rounding_is_no_answer() -> None:
    row = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    assert not differs(row * (1 + 2e-6), row).any()
    assert differs(row + 1e-3, row).all()


def test_a_model_that_fails_alone_says_so() -> None:
    def broken(x: Tensor) -> Tensor:
        raise KeyError("own error")

    with pytest.raises(KeyError, match="own error"):
        Experiment(Call(Called(broken)), pictures(1))
