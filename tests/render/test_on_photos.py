"""Maps on their photos, as numbers and as pictures: whichever way the photo became the model's input."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import seewhy
from render_samples import attribution, chroma
from seewhy.data.placement import Placement
from seewhy.data.preprocess import Preprocess
from seewhy.errors import InputError
from seewhy.maps.attribution import Attribution
from seewhy.render.on_photos import OnPhotos
from tiny_models import TinyCNN

CROPPED = Preprocess((32, 32), 32, (0.5,) * 3, (0.5,) * 3, "bilinear")
SQUASHED = dataclasses.replace(CROPPED, resize=(32, 32))
PADDED = dataclasses.replace(CROPPED, resize=(32, 32), fit="contain")
PART = dataclasses.replace(CROPPED, resize=48)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def explained(picture: Image.Image | Path, preprocess: Preprocess) -> tuple[Attribution, Placement]:
    torch.manual_seed(0)
    ex = seewhy.explain(
        seewhy.wrap(TinyCNN(), preprocess=preprocess), picture, methods="saliency", targets=1
    )
    return ex[0], ex.placements[0]


def looked_up(heatmap: torch.Tensor, size: tuple[int, int], box: tuple[float, ...]) -> np.ndarray:  # type: ignore[type-arg]
    """What a heatmap has under the centre of each pixel of a (width, height) photo; NaN beside the box."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    across, down = (x - box[0]) / (box[2] - box[0]), (y - box[1]) / (box[3] - box[1])
    places = torch.from_numpy(np.stack([2 * across - 1, 2 * down - 1], 2)).float()[None]
    field = functional.grid_sample(
        heatmap[None, None], places, padding_mode="border", align_corners=False
    )[0, 0].numpy()
    return np.where((across >= 0) & (across < 1) & (down >= 0) & (down < 1), field, np.nan)


@pytest.mark.parametrize("size", [(150, 90), (90, 150), (64, 64)])
@pytest.mark.parametrize(
    ("preprocess", "share"), [(CROPPED, None), (PART, None), (SQUASHED, 1.0), (PADDED, 1.0)]
)
def test_each_pixel_has_what_the_heatmap_has_under_it(
    size: tuple[int, int], preprocess: Preprocess, share: float | None
) -> None:
    found, placement = explained(noise(*size), preprocess)
    heat = found.on_photo(0).numpy()
    assert heat.shape == size[::-1]
    assert heat.dtype == np.float32
    expected = looked_up(found.heatmap()[0], size, placement.box)
    assert np.array_equal(np.isnan(heat), np.isnan(expected))
    assert np.allclose(heat, expected, atol=1e-5, equal_nan=True)
    edge = min(size) * (1.0 if preprocess is not PART else 32 / 48)
    seen = np.isfinite(heat).mean()
    assert seen == pytest.approx(share or edge**2 / (size[0] * size[1]), rel=0.05)


def test_a_photo_that_exif_turns_is_laid_on_as_it_is_looked_at(tmp_path: Path) -> None:
    upright = noise(60, 120)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    heats = [explained(tmp_path / f"{name}.png", CROPPED)[0] for name in ("turned", "upright")]
    assert heats[0].on_photo(0).shape == (120, 60)
    assert torch.allclose(*(found.on_photo(0) for found in heats), equal_nan=True)
    assert heats[0].picture(0).size == (60, 120)


def test_a_large_photo_has_its_own_size_and_its_picture_one_to_look_at() -> None:
    found, _ = explained(noise(3000, 1500), CROPPED)
    assert found.on_photo(0).shape == (1500, 3000)
    assert found.picture(0).size == (2048, 1024)


def test_an_input_that_is_a_tensor_is_its_own_photo() -> None:
    x = torch.randn(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    found = seewhy.explain(TinyCNN().eval(), x, targets=1)[0]
    assert torch.allclose(found.on_photo(1), found.heatmap()[1], atol=1e-6)
    with pytest.raises(
        InputError, match="index=2 is no image of the attribution; it has 2: 0 to 1"
    ):
        found.on_photo(2)


def test_without_photos_the_error_says_what_there_is() -> None:
    found, _ = explained(noise(40, 40), CROPPED)
    with pytest.raises(InputError, match=r"no photos to lay its maps on.*\.heatmap\(\) is over"):
        dataclasses.replace(found, photos=None).on_photo(0)


def test_a_saved_explanation_lays_them_likewise(tmp_path: Path) -> None:
    noise(90, 50).save(tmp_path / "a.png")
    ex = seewhy.explain(seewhy.wrap(TinyCNN(), preprocess=CROPPED), tmp_path / "a.png", targets=1)
    ex.save(tmp_path / "out")
    again = seewhy.open(tmp_path / "out")[0].on_photo(0)
    assert torch.equal(again.nan_to_num(-1), ex[0].on_photo(0).nan_to_num(-1))


def test_frames_of_a_volume_lie_side_by_side() -> None:
    volume = torch.rand(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    size = (32, 64)  # two rows of four
    placement = Placement(size, (0.0, 0.0, 64.0, 32.0), tuple(range(8)))
    drawn = OnPhotos([noise(64, 32)], [placement], ["a"])
    found = dataclasses.replace(attribution(volume), image_size=(8, 16, 16), photos=drawn)
    heat = found.on_photo(0)
    for frame in range(8):
        row, column = divmod(frame, 4)
        tile = heat[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        assert torch.allclose(tile, found.heatmap()[0, frame], atol=1e-6)


def test_pictures_claim_nothing_where_the_model_did_not_see() -> None:
    found, placement = explained(noise(150, 90), PART)
    unseen = np.isnan(found.on_photo(0).numpy())
    colors = chroma(found.picture(0, style="jet"))
    rows, columns = np.nonzero(unseen)
    assert colors[rows, columns].max() <= 6  # grey, or the dark strip of a remark
    assert colors[~unseen].mean() > 50
    assert np.abs(np.asarray(placement.box) - [45, 15, 105, 75]).max() <= 2
