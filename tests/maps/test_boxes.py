"""Boxes, masks and peaks of planted maps, components against flood filling, the pictures and the command."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from commands import called
from localization_oracles import components, iou
from seewhy.cli.localize import localize
from seewhy.data.placement import Placement
from seewhy.data.truth import Truth
from seewhy.errors import ArgumentTypeError, ImageError, InputError
from seewhy.maps.attribution import Attribution
from seewhy.maps.boxes import (
    RULES,
    Boxes,
    BoxRule,
    box_iou,
    boxes,
    boxes_on_photo,
    find_rule,
    masks,
    peaks,
    region,
    statuses,
)
from seewhy.render.boxes import FOUND, MARKED, boxes_picture


def field(*patches: tuple[int, int, int, int, float], size: tuple[int, int] = (12, 16)) -> Tensor:
    """Zeros with rectangles x0, y0, x1, y1 of a value."""
    made = torch.zeros(size)
    for x0, y0, x1, y1, value in patches:
        made[y0:y1, x0:x1] = value
    return made


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("relative_to", ["max", "minmax"])
def test_boxes_equal_flood_filling(connectivity: Any, relative_to: Any) -> None:
    for i in range(20):
        generator = torch.Generator().manual_seed(i)
        made = torch.randn(11, 7 + i, generator=generator)
        made = made if i % 2 else (3 * made).round() / 3  # with ties
        share = (
            made.clamp(min=0) / made.max()
            if relative_to == "max"
            else (made - made.min()) / (made - made.min()).max()
        )
        rule = BoxRule(0.3, relative_to, "all", connectivity)
        (found,), (regions,) = boxes(made, rule=rule), masks(made, rule=rule)
        expected = sorted(
            components(share.double().numpy() > 0.3, connectivity), key=lambda one: -one[1]
        )
        assert (
            list(zip(map(tuple, found.boxes.tolist()), found.areas.tolist(), strict=True))
            == expected
        )
        for inside, box, area, peak, mean in zip(
            regions, found.boxes.tolist(), found.areas, found.peaks, found.means, strict=True
        ):
            assert inside.sum() == area
            assert made[inside].max() == peak
            assert made[inside].mean() == pytest.approx(float(mean), abs=1e-6)
            ys, xs = torch.nonzero(inside).T
            assert box == [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
        (largest,) = boxes(made, rule=rule, components="largest")
        assert tuple(largest.boxes[0].tolist()) == expected[0][0]


def test_the_presets_take_what_their_papers_say() -> None:
    made = field(
        (1, 1, 5, 5, 1.0), (8, 1, 10, 3, 0.18), (12, 8, 15, 12, 0.21), (0, 11, 1, 12, 0.09)
    )
    found = {name: boxes(made, rule=name)[0].boxes.tolist() for name in RULES}
    big, faint, third, crumb = [1, 1, 5, 5], [8, 1, 10, 3], [12, 8, 15, 12], [0, 11, 1, 12]
    assert found["cam2016"] == found["grad_cam"] == found["wsol_v1"] == [big]
    assert found["wsol_v2"] == [big, third]
    assert made.mean() * 2 < 0.21  # 16 + .72 + 2.52 + .09 over 192 pixels: .1
    assert found["mean"] == [big]
    assert found["cam2016_code"] == [big, third]
    assert boxes(made, rule="grad_cam", components="all")[0].boxes.tolist() == [big, third, faint]
    assert boxes(made, threshold=0.05, components="all")[0].boxes.tolist() == [
        big,
        third,
        faint,
        crumb,
    ]
    assert boxes(made, threshold=0.05, components="all", min_share=4 / 192)[0].boxes.tolist() == [
        big,
        third,
        faint,
    ]
    assert boxes(made, threshold=0.05, components="all", most=1)[0].boxes.tolist() == [big]
    assert find_rule("cam2016", relative_to="minmax") == RULES["wsol_v1"]


def test_the_scale_decides() -> None:
    raised = (
        field((2, 2, 6, 6, 1.0)) + 0.5
    )  # the background is a third of the maximum, and the minimum
    assert boxes(raised)[0].boxes.tolist() == [[0, 0, 16, 12]]
    assert boxes(raised, relative_to="minmax")[0].boxes.tolist() == [[2, 2, 6, 6]]
    against = field((2, 2, 6, 6, 1.0)) - 2  # speaks against the class everywhere
    assert boxes(against)[0].status == "empty"
    assert boxes(against, rule="wsol_v1")[0].boxes.tolist() == [[2, 2, 6, 6]]


def test_a_ring_has_no_second_box_and_a_line_is_not_lost() -> None:
    ring = field((2, 2, 11, 10, 1.0))
    ring[4:8, 4:9] = 0
    assert boxes(ring, components="all")[0].boxes.tolist() == [[2, 2, 11, 10]]
    line = field((0, 11, 16, 12, 1.0), (3, 3, 6, 6, 1.0))  # 16 pixels of no outline against 9
    assert boxes(line)[0].boxes.tolist() == [[0, 11, 16, 12]]
    diagonal = torch.eye(6)
    assert boxes(diagonal)[0].boxes.tolist() == [[0, 0, 6, 6]]
    assert len(boxes(diagonal, connectivity=4, components="all")[0]) == 6
    assert boxes(field((15, 11, 16, 12, 2.0)))[0].boxes.tolist() == [[15, 11, 16, 12]]
    ties = field((8, 6, 10, 8, 1.0), (2, 7, 4, 9, 1.0))
    assert boxes(ties)[0].boxes.tolist() == [[8, 6, 10, 8]]  # of equal areas the first, row by row


@pytest.mark.parametrize("status", ["empty", "constant", "non_finite"])
def test_a_map_without_an_answer_has_no_box(status: str) -> None:
    made = {
        "empty": -field((0, 0, 3, 3, 1.0)),
        "constant": torch.full((5, 5), 3.0),
        "non_finite": torch.eye(5),
    }[status]
    made = made / 0 if status == "non_finite" else made
    (found,), (region,), (top,) = boxes(made), masks(made), peaks(made)
    assert found.status == top.status == status
    assert found.boxes.shape == (0, 4)
    assert region.shape == (0, *made.shape)
    assert len(found) == len(top) == len(found.areas) == len(found.peaks) == 0


def test_statuses_are_those_of_maps_whatever_the_sizes() -> None:
    given = [
        torch.zeros(3, 3),
        torch.rand(2, 5),
        torch.full((4, 4), -2.0),
        torch.tensor([[1.0, float("inf")]]),
    ]
    assert statuses(given) == ("empty", "ok", "empty", "non_finite")
    assert statuses(given, "minmax") == ("empty", "ok", "constant", "non_finite")
    assert statuses([]) == ()


def test_maps_of_many_sizes_and_boxes_at_another_size() -> None:
    coarse = field((1, 1, 3, 3, 1.0), size=(4, 4))
    first, second = boxes([coarse, field((2, 2, 6, 6, 1.0))])
    assert (first.size, second.size) == ((4, 4), (12, 16))
    (large,) = boxes(coarse[None], size=(40, 80), threshold=0.5)
    assert large.size == (40, 80)
    assert box_iou(large.boxes, torch.tensor([[20, 10, 60, 30]])).item() > 0.9
    batch = torch.stack([field((2, 2, 6, 6, 1.0)), field((1, 1, 9, 9, 1.0))])
    assert [b.boxes.tolist() for b in boxes(batch)] == [boxes(m)[0].boxes.tolist() for m in batch]


def test_peaks_are_local_maxima_some_distance_apart() -> None:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    at = [(10, 12, 1.0), (45, 30, 0.8), (14, 16, 0.6), (30, 5, 0.1)]
    made = torch.stack([h * torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 4) for a, b, h in at]).amax(
        0
    )
    (found,) = peaks(made, most=5, distance=2)
    assert found.points.tolist() == [
        [10, 12],
        [45, 30],
        [14, 16],
    ]  # the fourth is below a fifth of the first
    assert found.values.tolist() == pytest.approx([1.0, 0.8, 0.6])
    assert peaks(made, most=5, distance=8)[0].points.tolist() == [[10, 12], [45, 30]]
    assert peaks(made)[0].points.tolist() == [[10, 12]]
    assert peaks(made, most=5, threshold=0.05, distance=2)[0].points.tolist()[-1] == [30, 5]
    assert peaks(field((3, 4, 9, 9, 1.0)))[0].points.tolist() == [
        [3, 4]
    ]  # of a plateau the first, as argmax


def test_box_iou_is_of_half_open_boxes() -> None:
    generator = np.random.default_rng(0)
    corners = generator.integers(0, 20, (2, 30, 2))
    first, second = (
        np.concatenate([c, c + generator.integers(1, 15, c.shape)], 1) for c in corners
    )
    found = box_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    expected = [[iou(tuple(a), tuple(b)) for b in second] for a in first]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert box_iou(torch.tensor([[0, 0, 4, 3]]), torch.tensor([[0, 0, 4, 3]])).item() == 1


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: boxes(torch.ones(2, 2), rule="cam2015"), "did you mean 'cam2016'"),
        (lambda: boxes(torch.ones(2, 2), threshold=1.0), "threshold=1.0"),
        (lambda: BoxRule(relative_to="median"), "relative_to='median'"),  # type: ignore[arg-type]
        (lambda: BoxRule(connectivity=6), "connectivity=6"),  # type: ignore[arg-type]
        (lambda: BoxRule(most=0), "most=0"),
        (lambda: boxes(torch.ones(1, 1, 2, 2)), r"shape \(1, 1, 2, 2\)"),
        (lambda: boxes(torch.ones(0, 3)), r"shape \(0, 3\)"),
        (lambda: peaks(torch.ones(2, 2), most=0), "most=0"),
    ],
)
def test_mistakes_are_told_in_one_line(made: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        made()
    assert "\n" not in str(caught.value)


def test_what_is_no_tensor_is_told() -> None:
    with pytest.raises(ArgumentTypeError, match="give a tensor or a list of tensors"):
        boxes([np.ones((2, 2))])  # type: ignore[list-item]


# on photos


def test_boxes_lie_where_the_photo_has_them() -> None:
    made = field((2, 2, 5, 5, 1.0), size=(8, 8))
    whole = Placement((80, 160), (0.0, 0.0, 160.0, 80.0))
    (found,) = boxes_on_photo(made, whole, rule=BoxRule(0.5)).boxes.tolist()
    assert np.abs(np.array(found) - [40, 20, 100, 50]).max() <= 1
    centre = Placement((80, 160), (40.0, 0.0, 120.0, 80.0))
    (found,) = boxes_on_photo(made, centre, rule=BoxRule(0.5)).boxes.tolist()
    assert np.abs(np.array(found) - [60, 20, 90, 50]).max() <= 1
    # against the class everywhere: what was not seen is no evidence on either scale
    against = boxes_on_photo(made - 2, centre, rule=BoxRule(0.5, "minmax"))
    assert np.abs(against.boxes.numpy() - [60, 20, 90, 50]).max() <= 1
    assert boxes_on_photo(made - 2, centre).status == "empty"
    assert against.size == (80, 160)


def test_what_the_model_padded_is_in_no_box() -> None:
    made = field((0, 0, 8, 1, 5.0), (3, 4, 5, 6, 1.0), size=(8, 8))  # strongest above the photo
    padded = Placement((40, 80), (0.0, -20.0, 80.0, 60.0))
    found = boxes_on_photo(made, padded, rule=BoxRule(0.5))
    assert len(found) == 1
    assert np.abs(found.boxes.numpy() - [30, 20, 50, 40]).max() <= 1
    assert len(boxes_on_photo(made, Placement((40, 80), (200.0, 0.0, 280.0, 40.0)))) == 0
    broken = boxes_on_photo(made * float("nan"), padded)
    assert (len(broken), broken.status) == (0, "non_finite")


def attribution(made: Tensor) -> Attribution:
    named = {"method": "grad_cam", "title": "Grad-CAM", "layer": "layer4", "target": "top1"}
    given = {
        "status": statuses([made]),
        "labels": ("cat",),
        "scores": (1.0,),
        "probabilities": (0.4,),
    }
    return Attribution(map=made[None], image_size=(80, 160), **named, **given)  # type: ignore[arg-type]


def colored(picture: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(picture) == color).all(2)


def test_the_picture_shows_found_and_marked_boxes_where_they_are() -> None:
    made = field((2, 2, 5, 5, 1.0), size=(8, 8))
    photo, whole = (
        Image.new("RGB", (320, 160), (90, 120, 90)),
        Placement((160, 320), (0.0, 0.0, 320.0, 160.0)),
    )
    found = boxes_on_photo(made, whole, rule=BoxRule(0.5))
    marked = Truth((160, 320), torch.tensor([[60.0, 30.0, 200.0, 110.0]]), torch.tensor([0]))
    plain = boxes_picture(attribution(made), 0, photo, whole, found)
    both = boxes_picture(attribution(made), 0, photo, whole, found, truth=marked)
    assert plain.width == 320
    assert both.height > plain.height > 160
    ys, xs = np.nonzero(colored(plain, FOUND)[:160])
    x0, y0, x1, y1 = found.boxes[0].tolist()
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (x0 + 1, y0 + 1, x1 - 2, y1 - 2)
    ys, xs = np.nonzero(colored(both, MARKED)[:160])
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (61, 31, 198, 108)
    assert not colored(plain, MARKED).any()


def test_a_picture_without_a_box_says_why() -> None:
    photo, whole = (
        Image.new("RGB", (320, 160), (90, 120, 90)),
        Placement((160, 320), (0.0, 0.0, 320.0, 160.0)),
    )
    empty = attribution(torch.zeros(8, 8))
    picture = boxes_picture(empty, 0, photo, whole, boxes_on_photo(empty.map[0], whole))
    assert not colored(picture, FOUND)[:160].any()
    thin: Boxes = boxes(field((2, 2, 3, 3, 1.0), size=(160, 320)))[0]
    tiny = boxes_picture(empty, 0, photo, whole, dataclasses.replace(thin, boxes=thin.boxes))
    assert colored(tiny, FOUND)[:160].any()  # a box of one pixel can be seen


# the command


def test_the_command_writes_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import skimage.data

    Image.fromarray(skimage.data.chelsea()).save(tmp_path / "cat.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    settings: dict[str, Any] = {
        "method": ["grad_cam"],
        "target": ["top2"],
        "out": tmp_path / "out",
    }
    status = called(
        localize,
        photos=[tmp_path / "cat.jpg", tmp_path / "broken.jpg"],
        rule="grad_cam",
        as_json=True,
        **settings,
    )
    assert status == 1
    told = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "out" / "boxes.json").read_text())
    assert written.items() <= told.items()
    assert told["rule"] == {"name": "grad_cam", **dataclasses.asdict(RULES["grad_cam"])}
    assert told["skipped"][0]["name"].endswith("broken.jpg")
    (photo,) = told["images"]
    assert photo["size"] == [300, 451]
    assert len(photo["found"]) == 2
    for found in photo["found"]:
        assert found["status"] == "ok"
        (box,) = found["boxes"]
        x0, y0, x1, y1 = box["box"]
        assert 0 <= x0 < x1 <= 451
        assert 0 <= y0 < y1 <= 300
        assert 0.02 < box["share"] <= (x1 - x0) * (y1 - y0) / (451 * 300)
        with Image.open(tmp_path / "out" / found["picture"]) as picture:
            assert picture.width == 451
    assert (
        called(localize, photos=[tmp_path / "cat.jpg"], threshold=0.6, every=True, **settings) == 0
    )
    said = capsys.readouterr()
    assert "grad_cam" in said.out
    assert "boxes.json" in said.err


def test_what_was_finished_is_on_disk_when_the_command_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import skimage.data

    from seewhy.cli import box_records as localizing
    from seewhy.cli import run
    from seewhy.data.manifest import read_entries

    for name in "abc":
        Image.fromarray(skimage.data.chelsea()[:200, :200]).save(tmp_path / f"{name}.jpg")
    whole, listed = localizing._photo_record, tmp_path / "out" / "boxes.json"
    seen: list[list[str]] = []

    def stops_at_c(draft: Any, part: Any, *settings: Any) -> dict[str, Any]:
        seen.append(list(read_entries(tmp_path / "out")))
        told = whole(draft, part, *settings)
        if part.names == ("c.jpg",):
            raise KeyboardInterrupt
        return told

    monkeypatch.setattr(localizing, "_photo_record", stops_at_c)
    assert run(["localize", str(tmp_path), "--batch-size", "1", "-o", str(tmp_path / "out")]) == 130
    said = f"interrupted; 2 of 3 photos are saved in {tmp_path / 'out'}; run the same command again to go on"
    assert said in capsys.readouterr().err
    assert seen == [[], ["a.jpg"], ["a.jpg", "b.jpg"]]
    told = json.loads(listed.read_text())
    assert [photo["name"] for photo in told["images"]] == ["a.jpg", "b.jpg"]
    assert all(
        (tmp_path / "out" / photo["found"][0]["picture"]).is_file() for photo in told["images"]
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["a", "b"]
    monkeypatch.setattr(localizing, "_photo_record", whole)
    assert run(["localize", str(tmp_path), "--batch-size", "1", "-o", str(tmp_path / "out")]) == 0
    assert "2 of 3 were done before" in capsys.readouterr().err
    assert [photo["name"] for photo in json.loads(listed.read_text())["images"]] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
    ]


def test_photos_and_labels_of_one_name_have_pictures_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import skimage.data

    for folder, picture in (("cats", skimage.data.chelsea()), ("cups", skimage.data.coffee())):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        Image.fromarray(picture[:200, :300]).save(tmp_path / "photos" / folder / "1.jpg")
    labels = [f"thing {i}" for i in range(1000)]
    labels[281], labels[282] = "TV/monitor", "TV monitor"
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    settings: dict[str, Any] = {
        "method": ["grad_cam"],
        "labels": tmp_path / "labels.txt",
        "out": tmp_path / "out",
    }
    settings |= {"target": ["TV/monitor", "TV monitor"], "as_json": True}
    assert called(localize, photos=[tmp_path / "photos"], **settings) == 0
    photos = json.loads(capsys.readouterr().out)["images"]
    assert [photo["name"] for photo in photos] == ["cats/1.jpg", "cups/1.jpg"]
    pictures = [found["picture"] for photo in photos for found in photo["found"]]
    assert (
        len({(tmp_path / "out" / name).read_bytes() for name in pictures})
        == len(set(pictures))
        == 4
    )
    assert (
        called(
            localize,
            photos=[tmp_path / "photos" / "cats", tmp_path / "photos" / "cups" / "1.jpg"],
            **settings,
        )
        == 0
    )
    photos = json.loads(capsys.readouterr().out)["images"]
    assert [photo["name"] for photo in photos] == ["cats/1.jpg", "cups/1.jpg"]


def test_the_region_is_the_union_of_the_masks() -> None:
    maps = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    for rule in ("cam2016", "wsol_v2"):
        expected = torch.stack([found.any(0) for found in masks(maps, rule=rule, size=(40, 60))])
        assert torch.equal(region(maps, rule=rule, size=(40, 60)), expected)


def test_the_command_tells_mistakes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"nothing")
    settings: dict[str, Any] = {"method": ["grad_cam"], "target": ["top1"]}
    with pytest.raises(InputError, match="did you mean 'cam2016'"):
        called(localize, photos=[tmp_path / "file"], rule="cam201", out=tmp_path, **settings)
    with pytest.raises(InputError, match="cannot be made a folder"):
        called(localize, photos=[tmp_path / "file"], out=tmp_path / "file", **settings)
    with pytest.raises(ImageError, match="not an image"):
        called(localize, photos=[tmp_path / "file"], out=tmp_path / "out", **settings)


def test_boxes_on_a_reduced_picture_are_scaled_to_the_photos_own_pixels() -> None:
    field = torch.zeros(1, 20, 30)
    field[0, 5:10, 6:9] = 1
    (found,) = boxes(field)
    scaled = found.scaled((40, 90))
    assert scaled.boxes.tolist() == [[18, 10, 27, 20]]
    assert (scaled.areas.tolist(), scaled.size) == ([9 * 10], (40, 90))
    assert scaled.peaks.tolist() == found.peaks.tolist()


@pytest.mark.parametrize("means", [0.5, 1.0, 2.0, 4.0])
def test_a_rule_of_means_keeps_what_exceeds_the_mean_of_the_positive_part(means: float) -> None:
    generator = torch.Generator().manual_seed(int(10 * means))
    made = torch.randn(9, 13, generator=generator) ** 3
    positive = made.double().clamp(min=0).numpy()
    expected = positive > min(means * positive.sum() / positive.size, 0.7 * positive.max())
    rule = BoxRule(means, "mean", "all")
    assert (region(made, rule=rule)[0].numpy() == expected).all()
    assert (region(1000 * made, rule=rule)[0].numpy() == expected).all()  # no matter in which unit


def test_a_rule_of_means_finds_something_in_every_readable_map() -> None:
    even = torch.full((8, 8), 0.9)
    even[2:4, 3:6] = 1.0  # nowhere twice its mean, all of it above .7 of its maximum
    found = boxes(even, rule="mean")[0]
    assert (found.boxes.tolist(), found.status) == ([[0, 0, 8, 8]], "ok")
    nothing = boxes(torch.zeros(4, 4), rule="mean")[0]
    assert (len(nothing), nothing.status) == (0, "empty")
    against = boxes(-torch.eye(4), rule="mean")[0]
    assert (len(against), against.status) == (0, "empty")


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_means_are_at_least_none(wrong: float) -> None:
    with pytest.raises(InputError, match="threshold="):
        BoxRule(wrong, "mean")
    with pytest.raises(InputError, match="'max' or 'minmax' or 'mean'"):
        BoxRule(relative_to="median")  # type: ignore[arg-type]
