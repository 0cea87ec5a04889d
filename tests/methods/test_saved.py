"""What `Explanation.save` wrote is opened as it was, bit by bit, and draws the same pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.errors import ImageError, InputError
from seewhy.maps.attribution import Attribution
from tiny_models import TinyCNN, pictures, randomised

PLAIN = seewhy.Preprocess((24, 24), 24, (0.5,) * 3, (0.5,) * 3, "bilinear")
METHODS = ["grad_cam", "guided_backprop", "lrp", "rise"]
OPTIONS: dict[str, Any] = {"rise": {"samples": 20}}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    chance = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("a", "b", "c"):
        array = chance.integers(0, 256, (30, 44, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def explained(images: Any, **options: Any) -> seewhy.Explanation:
    model = seewhy.wrap(
        randomised(TinyCNN()), preprocess=PLAIN, labels=list("abcde"), gives="logits"
    )
    return seewhy.explain(model, images, **{"targets": "top1", "batch_size": 2, **options})


def check_same(one: seewhy.Explanation, other: seewhy.Explanation) -> None:
    for name in ("model", "names", "placements", "predictions"):
        assert getattr(one, name) == getattr(other, name), name
    for a, b in zip(one, other, strict=True):
        for part in dataclasses.fields(Attribution):
            then, now = getattr(a, part.name), getattr(b, part.name)
            if part.name == "photos":
                assert now.names == then.names
            elif isinstance(then, torch.Tensor):
                assert now.dtype == then.dtype
                assert torch.equal(now, then), part.name
            else:
                assert now == then, part.name
    for i in range(len(one.names)):
        assert one.photos[i].tobytes() == other.photos[i].tobytes()
    assert one.sheet(len(one.names) - 1).tobytes() == other.sheet(len(one.names) - 1).tobytes()
    for a, b in zip(one, other, strict=True):
        assert one.picture(a).tobytes() == other.picture(b).tobytes()
        assert a.picture(0).tobytes() == b.picture(0).tobytes()


@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
def test_photos_of_files_are_opened_as_they_were(photos: Path, tmp_path: Path) -> None:
    ex = explained([photos], methods=METHODS, options=OPTIONS)
    ex.save(tmp_path / "out")
    again = seewhy.open(tmp_path / "out")
    assert isinstance(again, seewhy.Explanation)
    check_same(ex, again)
    assert again.paths == ex.paths == tuple(photos / f"{name}.png" for name in "abc")
    one, other = (
        each.report(tmp_path / f"{i}.html").read_bytes() for i, each in enumerate((ex, again))
    )
    assert one == other
    again.save(tmp_path / "second")
    check_same(ex, seewhy.open(tmp_path / "second"))
    assert not (tmp_path / "out" / "a" / "photo.png").exists()


def test_arrays_tensors_ledgers_and_fused_maps_are_opened_as_they_were(
    photos: Path, tmp_path: Path
) -> None:
    arrays = [np.asarray(Image.open(path)) for path in sorted(photos.iterdir())]
    ex = explained(arrays, methods=["grad_cam", "hires_cam"]).fuse("method")
    ex.save(tmp_path / "arrays")
    check_same(ex, seewhy.open(tmp_path / "arrays"))
    ex = explained(pictures(3, 24).clamp(-1, 1), methods=["lrp", "guided_backprop"], ledger=True)
    ex.save(tmp_path / "tensors")
    check_same(ex, seewhy.open(tmp_path / "tensors"))


def test_numbers_that_are_none_come_back(photos: Path, tmp_path: Path) -> None:
    ex = explained([photos])
    odd = dataclasses.replace(
        ex[0], scores=(float("inf"), float("-inf"), 0.1), probabilities=(None, None, 0.3)
    )
    odd = dataclasses.replace(
        odd, map=ex[0].map.clone().fill_(float("nan")), status=("non_finite",) * 3
    )
    ex = dataclasses.replace(ex, attributions=(odd,))
    ex.save(tmp_path / "out")
    again = seewhy.open(tmp_path / "out")
    assert (again[0].scores, again[0].probabilities, again[0].status) == (
        odd.scores,
        odd.probabilities,
        odd.status,
    )
    assert again[0].map.isnan().all()


def test_a_photo_that_is_gone_or_another_is_told_when_it_is_needed(
    photos: Path, tmp_path: Path
) -> None:
    explained([photos]).save(tmp_path / "out")
    again = seewhy.open(tmp_path / "out")
    (photos / "a.png").unlink()
    Image.new("RGB", (44, 30)).save(photos / "b.png")
    for index, said in ((0, "is not there any more"), (1, "is another file than was explained")):
        with pytest.raises(ImageError, match=said):
            again.sheet(index)
    assert again[0].heatmap().shape == (3, 24, 24)
    again.sheet(2)


def test_a_photo_is_read_from_the_folder_or_from_where_its_digest_says(tmp_path: Path) -> None:
    explained([np.zeros((30, 44, 3), np.uint8)]).save(tmp_path / "out")
    Image.new("RGB", (44, 30)).save(tmp_path / "other.png")
    lines = tmp_path / "out" / "entries.jsonl"
    here, elsewhere = (
        '"photo": {"file": "' + name for name in ("image_0/photo.png", "../other.png")
    )
    assert here in lines.read_text()
    lines.write_text(lines.read_text().replace(here, elsewhere))
    with pytest.raises(ImageError, match="is none of the files of 'image 0'"):
        seewhy.open(tmp_path / "out").sheet(0)


def test_what_is_damaged_is_told_in_one_line(photos: Path, tmp_path: Path) -> None:
    explained([photos]).save(tmp_path / "out")
    whole = (tmp_path / "out" / "b" / "maps.npz").read_bytes()
    for data in (b"", whole[:100], b"no archive"):
        (tmp_path / "out" / "b" / "maps.npz").write_bytes(data)
        with pytest.raises(InputError, match=r"holds of 'b.png' cannot be read") as raised:
            seewhy.open(tmp_path / "out")
        assert "\n" not in str(raised.value)
    (tmp_path / "out" / "b" / "maps.npz").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        seewhy.open(tmp_path / "out")


def test_a_second_save_replaces_the_first_and_leaves_what_is_not_its_own(
    photos: Path, tmp_path: Path
) -> None:
    ex = explained([photos], methods=["grad_cam", "saliency"])
    ex.save(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    fewer = explained([photos / "b.png"], methods="grad_cam")
    fewer.save(tmp_path / "out")
    check_same(fewer, seewhy.open(tmp_path / "out"))
    found = {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    kept = {"b/maps.npz", "b/sheet.png", "b/grad_cam.relu2.top1.png"}
    assert found == {*kept, "notes.txt", "run.json", "entries.jsonl", "explanation.json", ".lock"}


def test_parts_whose_photos_are_called_alike_are_all_kept(tmp_path: Path) -> None:
    parts = [explained(pictures(2, 24, seed=seed).clamp(-1, 1)) for seed in (0, 1)]
    with seewhy.ExplanationWriter(tmp_path / "out") as writer:
        for part in parts:
            writer.add(part)
    again = seewhy.open(tmp_path / "out")
    assert again.names == ("image 0", "image 1", "image 0 (2)", "image 1 (2)")
    assert torch.equal(again[0].map, torch.cat([part[0].map for part in parts]))
