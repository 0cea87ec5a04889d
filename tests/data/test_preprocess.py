"""Another part of a photo for the model to see: the whole of it squashed or padded, or more or less of its middle."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.data.preprocess import IMAGENET, Preprocess
from seewhy.errors import InputError

PLAIN = Preprocess((32, 32), 36, (0.5, 0.25, 0.75), (0.5, 0.5, 0.5), "nearest")


def colors(width: int = 120, height: int = 60) -> Image.Image:
    """Its left quarter is red, its middle green, its right quarter blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 4, 0] = pixels[:, width // 4 : -(width // 4), 1] = 255
    pixels[:, -(width // 4) :, 2] = 255
    return Image.fromarray(pixels)


def seen(
    preprocess: Preprocess, photo: Image.Image | None = None
) -> tuple[np.ndarray, list[float]]:  # type: ignore[type-arg]
    """What goes in as (H, W, 3) of 0..255, and the box."""
    x, placement = preprocess(photo or colors())
    return preprocess.invert(x[None])[0], list(placement.box)


def test_the_model_sees_the_middle_alone_unless_told_otherwise() -> None:
    pixels, box = seen(PLAIN)
    assert PLAIN.seeing() == PLAIN == PLAIN.seeing(crop="center")
    assert (pixels[..., 1] == 255).all()
    assert box == pytest.approx([60 - 160 / 6, 10 / 3, 60 + 160 / 6, 60 - 10 / 3], abs=0.1)


@pytest.mark.parametrize(
    "asked", [{"crop": "none"}, {"resize": "squash"}, {"crop": "None", "resize": "Squash"}]
)
def test_without_a_crop_the_whole_photo_is_squashed(asked: dict[str, str]) -> None:
    pixels, box = seen(PLAIN.seeing(**asked))
    assert pixels.shape == (32, 32, 3)
    assert box == [0, 0, 120, 60]
    assert (pixels[:, :8] == [255, 0, 0]).all()
    assert (pixels[:, 8:24] == [0, 255, 0]).all()
    assert (pixels[:, 24:] == [0, 0, 255]).all()


def test_padding_keeps_proportions_between_bars_of_the_mean_color() -> None:
    pixels, box = seen(PLAIN.seeing(resize="pad"))
    assert box == [0, -30, 120, 90]
    assert (pixels[8:24, :8] == [255, 0, 0]).all()
    assert (pixels[8:24, 24:] == [0, 0, 255]).all()
    bars = PLAIN.seeing(crop="none", resize="pad")(colors())[0][:, [*range(8), *range(24, 32)]]
    assert bars.abs().max() < 0.5 / 255 / 0.5 + 1e-6  # zero, to a pixel's rounding


def test_padding_is_the_mean_for_blue_first_grey_and_other_scales() -> None:
    blue_first = dataclasses.replace(
        PLAIN, bgr=True, scale=1.0, mean=(20.0, 40.0, 60.0), std=(1.0,) * 3
    )
    grey = dataclasses.replace(PLAIN, mean=(0.2,), std=(0.5,))
    for preprocess in (blue_first, grey):
        x, _ = preprocess.seeing(resize="pad")(colors())
        assert x[:, :8].abs().max() < 0.01
    assert blue_first.seeing(resize="pad").fill == (60, 40, 20)


@pytest.mark.parametrize("edge", [32, 48, "64"])
def test_the_shorter_side_before_the_crop(edge: int | str) -> None:
    _, box = seen(PLAIN.seeing(resize=edge))
    side = 60 * 32 / int(edge)
    assert box == pytest.approx([60 - side / 2, 30 - side / 2, 60 + side / 2, 30 + side / 2], abs=1)


def test_a_crop_of_what_squashes_is_the_largest_square() -> None:
    whole = PLAIN.seeing(crop="none")
    assert seen(whole.seeing(crop="center"))[1] == pytest.approx([30, 0, 90, 60], abs=1)
    wide = dataclasses.replace(PLAIN, size=(16, 32), resize=(16, 32))
    _, box = seen(wide.seeing(crop="center"), Image.new("RGB", (60, 120)))
    assert (box[2] - box[0]) / (box[3] - box[1]) == pytest.approx(2, rel=0.05)
    assert min(box) >= 0


def test_what_the_training_said_stays() -> None:
    whole = IMAGENET.seeing(crop="none")
    assert (whole.size, whole.mean, whole.std) == (IMAGENET.size, IMAGENET.mean, IMAGENET.std)
    square = Image.effect_noise((224, 224), 60).convert("RGB")
    assert torch.equal(whole(square)[0], IMAGENET.seeing(resize=224)(square)[0])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"crop": "centre"}, "crop 'centre' is unknown; did you mean 'center'"),
        ({"crop": "all"}, r"crop 'all' is unknown \(accepted: center, none\)"),
        (
            {"resize": "stretch"},
            r"resize 'stretch' is unknown \(accepted: squash, pad, or the pixels",
        ),
        (
            {"resize": 31},
            r"resize=31 leaves less than the model's input of 32 x 32 pixels; give 32 or more",
        ),
        ({"resize": "-5"}, "resize=-5 leaves less than"),
        (
            {"crop": "none", "resize": 64},
            "crop 'none' shows the whole photo, and resize 64 is for one",
        ),
        (
            {"crop": "center", "resize": "pad"},
            "resize 'pad' shows the whole photo, of which crop 'center'",
        ),
    ],
)
def test_what_cannot_be_is_one_line(asked: dict[str, str | int], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        PLAIN.seeing(**asked)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
