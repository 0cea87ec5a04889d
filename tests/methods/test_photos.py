"""The photos of an explanation: one by one in memory, drawn at a stated size, placed in their own pixels."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.data.images import Photo, read_photo
from seewhy.data.preprocess import IMAGENET, Preprocess
from seewhy.errors import ImageError
from seewhy.methods import photos
from seewhy.methods.explain import explain, explain_batches
from seewhy.models.model import wrap
from tiny_models import TinyCNN


def test_two_photos_never_stand_in_memory_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    read_so_far: list[weakref.ref[Image.Image]] = []
    alive = []

    def read(source: Any, **options: Any) -> Photo:
        alive.append(sum(one() is not None for one in read_so_far))
        photo = read_photo(source, **options)
        read_so_far.append(weakref.ref(photo.picture))
        return photo

    monkeypatch.setattr(photos, "read_photo", read)
    large = [np.full((300, 200, 3), value, np.uint8) for value in range(5)]
    model = wrap(TinyCNN(), preprocess=IMAGENET)
    batch = photos.Source(large, model, None).batch(0, 5)
    assert alive == [0] * 5
    assert len(batch.photos) == 5


def test_placements_are_in_the_photos_own_pixels_and_pictures_at_a_stated_size(
    tmp_path: Path,
) -> None:
    """A photo of 4,000 x 3,000 is drawn at 2,048 x 1,536; what is told of it counts its own pixels."""
    Image.effect_noise((4000, 3000), 60).save(tmp_path / "a.png")
    small = Preprocess((32, 32), 32, (0.5,) * 3, (0.5,) * 3, "bilinear")
    found = explain(wrap(TinyCNN(), preprocess=small), tmp_path / "a.png", targets=1)
    (placement,) = found.placements
    assert placement.photo_size == (3000, 4000)
    assert placement.box == pytest.approx(
        (500, 0, 3500, 3000), abs=60
    )  # the middle, to an input's pixel
    assert found.picture(found[0]).size == found.photos[0].size == (2048, 1536)
    entry = json.loads(found.save(tmp_path / "out").read_text())["images"][0]
    assert entry["size"] == [3000, 4000]
    assert entry["seen_box"] == pytest.approx(placement.box, abs=0.01)
    with Image.open(tmp_path / "out" / entry["attributions"][0]["picture"]) as drawn:
        assert drawn.size == (2048, 1536)


def test_a_limit_on_pixels_is_handed_on(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    Image.new("RGB", (10, 10)).save(tmp_path / "b.png")
    model, skipped = wrap(TinyCNN(), preprocess=IMAGENET), []
    with pytest.raises(ImageError, match=r"a.png' has 20 x 10 pixels; accepted: at most 100"):
        explain(model, tmp_path, targets=1, max_pixels=100)
    parts = explain_batches(
        model,
        tmp_path,
        targets=1,
        max_pixels=100,
        on_bad_image=lambda path, error: skipped.append(path.name),
    )
    assert [part.names for part in parts] == [("b.png",)]
    assert skipped == ["a.png"]
