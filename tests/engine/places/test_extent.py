"""Over which part of the picture layers lie, on networks that crop and pad it by a known number of pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from planted import Channels, Planted
from seewhy.engine.call import Call
from seewhy.engine.places.extent import Extent
from seewhy.engine.places.places import find_places
from seewhy.errors import SeewhyWarning
from tiny_models import pictures, randomised

Box = tuple[int, int, int, int]
Change = Callable[[Tensor], Tensor]


class Changed(nn.Module):
    """A function of the picture, as a layer of its own."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


def behind(change: Change, net: nn.Module) -> nn.Module:
    return randomised(nn.Sequential(Changed(change), net))


def convolutions(kernel: int = 3, stride: int = 2, padding: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, kernel, stride, padding),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


def cut(x0: int, y0: int, x1: int, y1: int) -> Change:
    return lambda x: x[:, :, y0:y1, x0:x1]


def padded(left: int, above: int, right: int, below: int, mode: str = "constant") -> Change:
    return lambda x: F.pad(x, (left, right, above, below), mode)


def extent(net: nn.Module, size: tuple[int, int]) -> Box | None:
    found: set[Extent] = set(find_places(net, pictures(1, size)).extents.values())
    return found.pop().box if found else None


CHANGED: dict[str, tuple[Change, tuple[int, int], Box]] = {
    "cropped in the middle": (cut(8, 8, 56, 56), (64, 64), (8, 8, 56, 56)),
    "cropped at one side": (cut(0, 0, 56, 64), (64, 64), (0, 0, 56, 64)),
    "cropped off the middle": (cut(3, 20, 51, 60), (64, 80), (3, 20, 51, 60)),
    "padded all around": (padded(12, 12, 12, 12), (64, 64), (-12, -12, 76, 76)),
    "padded to a square at one side": (padded(0, 0, 8, 0), (64, 56), (0, 0, 64, 64)),
    "padded by its reflection": (padded(12, 8, 12, 8, "reflect"), (64, 64), (-12, -8, 76, 72)),
    "cropped across, padded down": (
        lambda x: F.pad(x[..., 6:58], (0, 0, 4, 4)),
        (64, 64),
        (6, -4, 58, 68),
    ),
    "rounded and cropped": (
        lambda x: (255 * x[..., 8:56, 8:56]).round() / 255,
        (64, 64),
        (8, 8, 56, 56),
    ),
}


@pytest.mark.parametrize("kind", CHANGED)
@pytest.mark.parametrize(
    "net", [convolutions, lambda: convolutions(7, 2, 3), lambda: convolutions(4, 4, 0)]
)
def test_what_is_cropped_or_padded_is_found_to_the_pixel(
    kind: str, net: Callable[[], nn.Module]
) -> None:
    change, size, box = CHANGED[kind]
    assert extent(behind(change, net()), size) == box


def test_a_picture_that_is_resized_and_cropped() -> None:
    net = behind(
        lambda x: F.interpolate(x, size=(64, 64), mode="area")[..., 8:56, 8:56], convolutions()
    )
    assert extent(net, (128, 128)) == (16, 16, 112, 112)


@pytest.mark.parametrize("size", [(64, 64), (66, 60)])
def test_a_picture_that_is_resized_is_covered(size: tuple[int, int]) -> None:
    assert (
        extent(
            behind(lambda x: F.interpolate(x, size=(48, 48), mode="bilinear"), convolutions()), size
        )
        is None
    )


GEOMETRIES = [
    (3, 1, 1),
    (3, 1, 2),
    (5, 1, 0),
    (3, 2, 0),
    (7, 2, 3),
    (1, 2, 0),
    (2, 2, 0),
    (11, 4, 2),
    (7, 4, 3),
    (16, 16, 0),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(64, 64), (75, 62), (50, 79)])
def test_plain_convolutions_cover_the_picture(
    geometry: tuple[int, int, int], size: tuple[int, int]
) -> None:
    assert extent(randomised(convolutions(*geometry)), size) is None


@pytest.mark.parametrize("size", [(32, 32), (35, 33), (43, 46)])
def test_tokens_cover_the_picture_up_to_less_than_a_patch(size: tuple[int, int]) -> None:
    for convolved in (True, False):
        assert (
            extent(randomised(Planted((size[0] // 4, size[1] // 4), convolved=convolved)), size)
            is None
        )


def test_tokens_and_channels_last_of_a_cropped_picture() -> None:
    for net in (Planted((12, 12)), Planted((12, 12), convolved=False), Channels(6, (0, 2, 3, 1))):
        assert extent(behind(cut(8, 8, 56, 56), net), (64, 64)) == (8, 8, 56, 56)


def test_what_is_seen_in_every_place_is_no_padding() -> None:
    norm = nn.InstanceNorm2d(3, affine=True)
    assert extent(randomised(nn.Sequential(norm, convolutions())), (64, 64)) is None
    assert (
        extent(
            randomised(nn.Sequential(norm, Changed(cut(8, 8, 56, 56)), convolutions())), (64, 64)
        )
        is None
    )


def test_layers_before_the_crop_cover_the_picture() -> None:
    net, x = (
        behind(cut(8, 8, 56, 56), nn.Sequential(nn.BatchNorm2d(3), convolutions())),
        pictures(1, (64, 64)),
    )
    before = randomised(nn.Sequential(nn.BatchNorm2d(3), net))
    places = find_places(before, x)
    assert places.extent_of("0") is None
    assert places.extent_of("1.1.1.2") == Extent(((8, 56), (8, 56)), (64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error", SeewhyWarning)
        seewhy.methods.grad_cam(before, x, 1, layer="0")


def test_it_runs_to_the_first_layer_with_weights_once() -> None:
    net, x = randomised(convolutions()), pictures(3, (64, 64))
    ran: dict[str, list[int]] = {"0": [], "2": []}
    for name, rows in ran.items():
        net.get_submodule(name).register_forward_hook(
            lambda module, args, value, rows=rows: rows.append(len(value))
        )
    find_places(net, x)
    assert ran == {"0": [1, 3, 5], "2": [1, 3]}
    find_places(net, x)
    assert ran == {"0": [1, 3, 5], "2": [1, 3]}


def test_a_model_that_takes_one_picture() -> None:
    def one(x: Tensor) -> Tensor:
        if len(x) > 1:
            raise ValueError("one picture at a time")
        return x[..., 8:56, 8:56]

    assert extent(behind(one, convolutions()), (64, 64)) == (8, 8, 56, 56)


def test_another_picture_that_goes_through_the_same_layers_first() -> None:
    trunk = convolutions()

    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, x: Tensor, other: Tensor) -> Tensor:
            return self.trunk(other) + self.trunk(x)

    net, x = randomised(Twins()), pictures(1, (64, 64))
    assert not find_places(Call(net, args=(pictures(1, (64, 64), seed=1),)), x).extents


# ---------------------------------------------------------------- what is said of it


SAID = {
    "crop": (
        cut(8, 16, 56, 64),
        "looks only at rows 16 to 64 and columns 8 to 56 of the 64 x 64 picture",
    ),
    "pad": (
        padded(8, 8, 8, 8),
        "adds 8 and 8 rows and 8 and 8 columns of padding before and after those of the 64 x",
    ),
    "both": (
        lambda x: F.pad(x[..., 6:58], (0, 0, 4, 4)),
        "looks only at columns 6 to 58 and adds 4 and 4 rows and 0 and 0 columns of padding",
    ),
}


@pytest.mark.parametrize("kind", SAID)
def test_an_explanation_says_it_once_and_carries_it(kind: str) -> None:
    change, said = SAID[kind]
    net, x = behind(change, convolutions()), pictures(3, (64, 64))
    methods = ["grad_cam", "layer_relevance", "ablation_cam", "score_cam", "cam", "saliency"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explanation = seewhy.explain(net, x, methods=methods, targets=1, batch_size=2)
    told = [str(w.message) for w in caught if issubclass(w.category, SeewhyWarning)]
    assert len(told) == 1
    assert said in told[0]
    box = next(iter(find_places(net, x).extents.values())).box
    for a in explanation:
        if a.method == "saliency":
            assert not a.facts
        else:
            assert [fact["extent"] for fact in a.facts] == [box] * 3, a.method
            assert {"misplaced", "empty"} >= set(a.status)


def test_full_grad_lies_where_the_model_looks() -> None:
    inner = convolutions()
    net, x = behind(cut(8, 16, 56, 64), inner), pictures(2, (64, 64))
    whole = seewhy.methods.fullgrad(net, x, 1)
    of_part = seewhy.methods.fullgrad(inner, x[:, :, 16:64, 8:56], 1)
    torch.testing.assert_close(whole[:, 16:64, 8:56], of_part)
    assert not whole[:, :16].any()
    assert not whole[:, :, :8].any()


def test_the_picture_of_a_map_says_it() -> None:
    net, x = behind(cut(8, 16, 56, 64), convolutions()), pictures(1, (64, 64))
    with pytest.warns(SeewhyWarning, match="out of place"):
        explanation = seewhy.explain(net, x, methods="hires_cam", targets=1)
    words = seewhy.render.reading.status_words(explanation[0], 0)
    assert words.endswith("it covers rows 16 to 64 and columns 8 to 56")
