"""Every method where it runs: on two devices at once, and under torch's deterministic algorithms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from seewhy.methods.catalog import METHODS
from tiny_models import FAST, TinyCNN, pictures, randomised, tiny_vit

pytestmark = pytest.mark.filterwarnings("ignore::seewhy.SeewhyWarning")


@pytest.fixture
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def map_of(name: str, net: nn.Module) -> Tensor:
    return METHODS[name](net, pictures(2, 32), [1, 2], **FAST.get(name, {}))


@pytest.mark.parametrize("name", METHODS)
def test_deterministic_algorithms_change_nothing(
    name: str, device: torch.device, request: pytest.FixtureRequest
) -> None:
    nets = [randomised(TinyCNN()), *([] if name == "cam" else [tiny_vit()])]
    expected = [map_of(name, net.to(device)) for net in nets]
    request.getfixturevalue("_deterministic")
    for net, map_ in zip(nets, expected, strict=True):
        found = map_of(name, net)
        torch.testing.assert_close(found, map_, rtol=0, atol=1e-5 * float(map_.abs().max()))
        assert torch.equal(map_of(name, net), found)


class OnTwo(nn.Module):
    """TinyCNN, its head and second stage on another device than the first."""

    def __init__(self, first: torch.device, second: torch.device) -> None:
        super().__init__()
        self.net, self.second = randomised(TinyCNN()), second
        for part in (self.net.conv1, self.net.bn1):
            part.to(first)
        for part in (self.net.conv2, self.net.bn2, self.net.fc):
            part.to(second)

    def forward(self, x: Tensor) -> Tensor:
        a = self.net.stem(x).to(self.second)
        a = self.net.relu2(self.net.bn2(self.net.conv2(a)))
        return self.net.fc(a.mean((2, 3)))


@pytest.mark.gpu
@pytest.mark.parametrize("name", METHODS)
def test_a_model_on_two_devices(name: str, device: torch.device) -> None:
    here = torch.device("cpu")
    expected = map_of(name, OnTwo(here, here))
    for first, second in ((device, here), (here, device)):
        found = map_of(name, OnTwo(first, second)).cpu()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
