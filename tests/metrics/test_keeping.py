"""Scores that are kept in a folder come back bit by bit, for the photos and the units that they are of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy.data.run_folder import RunFolder
from seewhy.methods.photos import photo_digest
from seewhy.metrics import Sparsity
from seewhy.metrics.keeping import KeptScores, Photo, of_photo
from seewhy.metrics.metric import Kept
from seewhy.metrics.unit import Unit

PHOTOS = [Photo("a.png", "1"), Photo("b | c.png", "2"), Photo("d.png", "3")]
UNIT = Unit("grad_cam", "layer4", "top1", "deletion")
OTHERS = [
    dataclasses.replace(UNIT, **change)
    for change in (
        {"method": "saliency"},
        {"layer": None},
        {"target": "top2"},
        {"metric": "insertion"},
        {"by_chance": True},
    )
]
VALUES = torch.tensor([1 / 3, math.nan, -2.5e-300], dtype=torch.float64)
STATUS = ["ok", "empty", "ok"]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptScores]:
    with RunFolder(tmp_path / "out", kind="evaluation") as run:
        yield KeptScores(run)


def curves(*lengths: int) -> list[Tensor]:
    return [torch.linspace(0, 1, n, dtype=torch.float64) / 3 for n in lengths]


def check(found: Kept | None, at: list[int], lines: list[Tensor]) -> None:
    assert found is not None
    assert found.values.numpy().tobytes() == VALUES[at].numpy().tobytes()
    assert list(found.status) == [STATUS[i] for i in at]
    assert len(found.curves) == len(lines)
    for one, other in zip(found.curves, lines, strict=True):
        assert torch.equal(one, other)


def test_scores_of_a_batch_come_back_photo_by_photo(kept: KeptScores) -> None:
    lines = curves(3, 5, 1)
    kept.write(UNIT, PHOTOS, Kept(VALUES, STATUS, lines))
    check(kept.read(UNIT, PHOTOS), [0, 1, 2], lines)
    check(kept.read(UNIT, PHOTOS[1:]), [1, 2], lines[1:])
    check(kept.read(UNIT, [PHOTOS[2], PHOTOS[0]]), [2, 0], [lines[2], lines[0]])


def test_metrics_without_curves_have_none(kept: KeptScores) -> None:
    kept.write(UNIT, PHOTOS, Kept(VALUES, STATUS))
    check(kept.read(UNIT, PHOTOS), [0, 1, 2], [])


@pytest.mark.parametrize("other", OTHERS)
def test_units_are_told_apart(kept: KeptScores, other: Unit) -> None:
    kept.write(UNIT, PHOTOS[:1], Kept(VALUES[:1], STATUS[:1]))
    assert kept.read(other, PHOTOS[:1]) is None
    kept.write(other, PHOTOS[:1], Kept(VALUES[1:2], STATUS[1:2]))
    check(kept.read(UNIT, PHOTOS[:1]), [0], [])
    check(kept.read(other, PHOTOS[:1]), [1], [])


def test_scores_are_of_the_photos_content_and_of_all_of_them_or_none(kept: KeptScores) -> None:
    kept.write(UNIT, PHOTOS[:2], Kept(VALUES[:2], STATUS[:2]))
    assert kept.read(UNIT, PHOTOS) is None
    assert kept.read(UNIT, [Photo("a.png", "changed")]) is None
    assert {of_photo(name) for name in kept.run} == {"a.png", "b | c.png"}


def test_a_photo_that_is_whole_knows_its_units_and_what_was_said(kept: KeptScores) -> None:
    units = [UNIT, *OTHERS]
    said = [("grad_cam", "layer4", "top1", "a remark"), ("saliency", None, "top1", "another")]
    kept.finish(PHOTOS[:2], units, [said, []])
    for photo, remarks in zip(PHOTOS[:2], (said, []), strict=True):
        assert photo.name in kept.run
        assert kept.units(photo) == units
        assert kept.remarks(photo) == remarks
    kept.finish(PHOTOS[:1], units[:1], [[]])  # it was whole before
    assert kept.units(PHOTOS[0]) == units
    assert PHOTOS[2].name not in kept.run


def test_photos_are_whole_where_all_their_files_are_as_they_were(
    kept: KeptScores, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode())
    photos = [Photo(path.name, photo_digest(path)) for path in paths]
    names: list[str] = [photo.name for photo in photos]
    source: Any = SimpleNamespace(names=names, items=list[object](paths))
    kept.finish(photos[:2], [UNIT], [[], []])
    assert kept.whole(source, 0, 2) == photos[:2]
    assert kept.whole(source, 1, 2) == photos[1:2]
    assert kept.whole(source, 0, 3) == kept.whole(source, 2, 3) == []  # the third is not scored
    paths[1].write_bytes(b"changed")
    assert kept.whole(source, 0, 2) == kept.whole(source, 1, 2) == []
    assert kept.whole(source, 0, 1) == photos[:1]
    paths[0].unlink()
    assert kept.whole(source, 0, 1) == []
    source.items[0] = torch.zeros(3, 4, 4)  # what is no file may be another each time
    assert kept.whole(source, 0, 1) == []


def test_a_kept_number_can_be_read_by_others(kept: KeptScores, tmp_path: Path) -> None:
    kept.write(UNIT, PHOTOS, Kept(VALUES, STATUS))
    records = [entry.record for entry in kept.run.entries()]
    assert [record["photo"] for record in records] == [photo.name for photo in PHOTOS]
    assert [record["value"] for record in records] == [1 / 3, None, -2.5e-300]
    assert [record["status"] for record in records] == STATUS
    assert {record["metric"] for record in records} == {"deletion"}


def test_a_metric_takes_up_what_another_found() -> None:
    maps = torch.rand(3, 5, 5)
    maps[1] = 0
    one, other = Sparsity(), Sparsity()
    one.update(maps)
    other.restore(one.newest())
    assert (other.update_count, other.update_called) == (1, True)
    other.restore(one.newest())
    assert other.update_count == 2
    assert other.compute().values.tobytes() == torch.cat([one.values[0]] * 2).numpy().tobytes()
    assert other.compute().status == one.compute().status * 2


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        (UNIT, "grad_cam | layer4 | top1 | deletion | "),
        (OTHERS[1], "grad_cam |  | top1 | deletion | "),
        (OTHERS[4], "grad_cam | layer4 | top1 | deletion | chance"),
    ],
)
def test_an_entry_is_called_by_its_photo_and_its_unit(
    unit: Unit, name: str, kept: KeptScores
) -> None:
    kept.write(unit, PHOTOS[:1], Kept(VALUES[:1], STATUS[:1]))
    assert kept.run.has(f"a.png\0{name}", "1")
