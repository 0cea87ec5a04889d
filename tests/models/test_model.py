"""A model to which another part of each photo is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm.data
import torch
from PIL import Image

import seewhy
from seewhy.errors import ModelError, SeewhyWarning
from tiny_models import TinyCNN

SMALL = seewhy.Preprocess((32, 32), 32, (0.5,) * 3, (0.5,) * 3, "bilinear")


def test_it_sees_the_whole_photo_and_is_another_model(tmp_path: Path) -> None:
    model = seewhy.wrap(TinyCNN(), preprocess=SMALL)
    whole = model.seeing(crop="none")
    photo = Image.effect_noise((90, 60), 60).convert("RGB")
    assert seewhy.explain(model, photo, targets=1).placements[0].box == (15, 0, 75, 60)
    assert seewhy.explain(whole, photo, targets=1).placements[0].box == (0, 0, 90, 60)
    assert whole.module is model.module
    assert model.preprocess == SMALL
    assert whole.identity() != model.identity()  # a run is not gone on with
    saved = whole.save(tmp_path / "whole", factory="tiny_models:TinyCNN")
    with pytest.warns(SeewhyWarning, match="runs the code"):
        assert seewhy.load_model(saved).preprocess == whole.preprocess


def test_a_black_box_sees_it_too() -> None:
    def scores(pictures: list[Image.Image]) -> list[list[float]]:
        return [[1.0, 2.0] for _ in pictures]

    model = seewhy.wrap(scores, preprocess=SMALL, takes="pictures", gives="logits")
    whole = model.seeing(resize="squash")
    assert whole.preprocess is not None
    assert whole.preprocess(Image.new("RGB", (90, 60)))[1].box == (0, 0, 90, 60)


def test_a_model_that_takes_tensors_alone_says_so() -> None:
    with pytest.raises(ModelError, match="does not say how photos become its input"):
        seewhy.wrap(TinyCNN()).seeing(crop="none")


def test_a_compiled_model_of_timm_says_what_it_takes() -> None:
    """A compiled module's truth is asked of the length of the module that it compiles, which has none."""
    net = timm.create_model("test_vit", num_classes=3)
    compiled = torch.compile(net, backend="eager")
    expected = seewhy.Preprocess.from_timm(timm.data.resolve_model_data_config(net))
    assert seewhy.wrap(compiled).preprocess == seewhy.wrap(net).preprocess == expected
