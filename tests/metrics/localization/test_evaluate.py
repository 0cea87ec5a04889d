"""Methods against localisation metrics over a data set: what is fed to which metric, table, files, command."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.cli import run
from seewhy.data.dataset import Example, LabeledImages
from seewhy.data.placement import Placement
from seewhy.data.preprocess import Preprocess
from seewhy.data.run_folder import RunFolder
from seewhy.data.truth import Truth
from seewhy.errors import ImageError, InputError
from seewhy.maps.boxes import boxes
from seewhy.metrics import (
    LocationAveragePrecision,
    MaxBoxAccuracy,
    MaxSensitivity,
    PointingGame,
    TopKLocalization,
    chance_maps,
)
from seewhy.metrics.localization import resuming
from seewhy.metrics.localization.board import check_marked
from seewhy.metrics.localization.evaluate import evaluate_localization, has_several
from seewhy.metrics.localization.evaluation import LocalizationEvaluation
from seewhy.metrics.localization.marked import read_marked
from seewhy.metrics.localization.resuming import KeptStates
from tiny_models import ModelState

SIDE = 24
PLAIN = Preprocess((SIDE, SIDE), None, (0.5,) * 3, (0.5,) * 3, "bilinear")


class Squares(LabeledImages):
    """A square of pure red, green or blue on grey noise, or two of them; the truth is exact."""

    title = "squares"

    def __init__(
        self,
        count: int = 9,
        *,
        multi_label: bool = False,
        unmarked: int | None = None,
        bad: int | None = None,
    ):
        self.multi_label, self.unmarked, self.bad = multi_label, unmarked, bad
        self.classes = ("red", "green", "blue")
        self.names = [f"{i}.png" for i in range(count)]
        self.labels = [
            (i % 3, *([(i + 1) % 3] if multi_label and i % 2 else [])) for i in range(count)
        ]

    def __getitem__(self, index: int) -> Example:
        if index == self.bad:
            raise ImageError(f"image '{self.names[index]}' is torn")
        rng = np.random.default_rng(index)
        pixels = rng.integers(90, 110, (SIDE, SIDE, 3), dtype=np.uint8)
        found = []
        for half, label in enumerate(self.labels[index]):
            side = int(rng.integers(6, 10))
            x, y = int(rng.integers(12 - side)) + 12 * half, int(rng.integers(SIDE - side))
            pixels[y : y + side, x : x + side] = 0
            pixels[y : y + side, x : x + side, label] = 255
            found.append([x, y, x + side, y + side])
        truth = Truth((SIDE, SIDE), torch.tensor(found), torch.tensor(self.labels[index]))
        shown = None if index == self.unmarked else truth
        return Example(
            self.names[index], Image.fromarray(pixels), tuple(sorted(self.labels[index])), shown
        )


class Colours(nn.Module):
    """Scores how much of each pure colour there is: its CAM is the square itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.fc = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(
                (2 * torch.eye(3) - 1)[:, :, None, None]
            )  # white scores below pure colours
            self.conv.bias.fill_(-1.5)
            self.fc.weight.copy_(torch.eye(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


def colours(labels: tuple[str, ...] = ("red", "green", "blue")) -> seewhy.Model:
    return seewhy.wrap(Colours(), preprocess=PLAIN, labels=labels, name="colours", gives="score")


ALL = {
    "V1": MaxBoxAccuracy(version=1, thresholds=50),
    "V2": MaxBoxAccuracy(thresholds=50),
    "pixel_ap": "pixel_ap",
    "pointing_game": PointingGame(tolerance=2),
    "energy_pointing": "energy_pointing",
    "segmentation_iou": "segmentation_iou",
    "location_ap": LocationAveragePrecision(tolerance=1),
    "topk": TopKLocalization(k=2),
}


@cache
def studied() -> LocalizationEvaluation:
    model = colours()
    before = ModelState(model.module)
    found = evaluate_localization(
        model,
        Squares(multi_label=True),
        methods=["cam", "saliency"],
        metrics=ALL,
        batch_size=4,
        cases=2,
    )
    before.assert_unchanged()
    return found


def by(found: LocalizationEvaluation, method: str, metric: str) -> Any:
    (row,) = [row for row in found if (row.method, row.metric) == (method, metric)]
    return row


def test_a_map_that_is_the_object_is_right_by_every_metric() -> None:
    found = studied()
    assert len(found) == 2 * len(ALL)
    assert len(found.names) == 9 + 4  # every second picture shows two classes
    for name in ALL:
        row = by(found, "cam", name)
        assert row.result.mean == pytest.approx(0.0 if name == "topk" else 1.0, abs=1e-6), name
        assert row.chance["random"].mean != pytest.approx(row.result.mean, abs=0.05)


def test_what_there_is_so_far_is_handed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = [0.0]
    monkeypatch.setattr("seewhy.metrics.evaluation.time", SimpleNamespace(monotonic=lambda: now[0]))
    options: dict[str, Any] = {"methods": "cam", "metrics": ["pointing_game", "pixel_ap"]}
    parts: list[Any] = []

    def tick(done: int, total: int) -> None:
        now[0] += 31

    whole = evaluate_localization(
        colours(), Squares(), batch_size=3, on_part=parts.append, progress=tick, **options
    )
    assert [len(part.names) for part in parts] == [6, 9]
    assert whole.finished
    assert not parts[0].finished
    first = evaluate_localization(colours(), Squares().subset(range(6)), **options)
    assert parts[0].table() == first.table()
    assert parts[0].names == first.names
    assert parts[0].save(tmp_path).is_file()


def test_every_metric_is_fed_what_it_asks_for() -> None:
    """Against metrics that were fed by hand, picture by picture and class by class."""
    data, model = Squares(multi_label=True), colours()
    pointing, location = PointingGame(tolerance=2), LocationAveragePrecision(tolerance=1)
    topk, level = TopKLocalization(k=2), PointingGame(tolerance=2)
    for i in range(len(data)):
        example = data[i]
        x = PLAIN.batch([example.photo])[0]
        scores = model.module(x)[0].detach()
        for label in range(3):
            one = seewhy.methods.saliency(model, x, label)
            location.update(one, [example.truth], labels=[label], scores=[float(scores[label])])
            if label in example.labels:
                pointing.update(one, [example.truth], labels=[label])
                level.update(chance_maps(x)["centre"], [example.truth], labels=[label])
        guesses = scores.topk(2).indices.tolist()
        found = [
            boxes(seewhy.methods.saliency(model, x, g), rule="cam2016")[0].boxes[:1]
            for g in guesses
        ]
        # a map without an answer has no box, and its guess is wrong
        known = [j for j, one in enumerate(found) if len(one)]
        guesses = [guesses[j] if j in known else -9 for j in range(2)]
        placed = [found[j] if j in known else torch.zeros(1, 4, dtype=torch.long) for j in range(2)]
        topk.update([guesses], [torch.cat(placed)], [example.truth])
    for name, metric in (("pointing_game", pointing), ("location_ap", location), ("topk", topk)):
        ours, theirs = by(studied(), "saliency", name).result, metric.compute()
        assert ours.mean == pytest.approx(theirs.mean, abs=1e-9), name
        assert {k: f.mean for k, f in ours.figures.items()} == pytest.approx(
            {k: f.mean for k, f in theirs.figures.items()}, nan_ok=True
        )
    chance = by(studied(), "saliency", "pointing_game").chance["centre"]
    assert chance.values.tolist() == level.compute().values.tolist()


def test_batches_change_nothing() -> None:
    again = evaluate_localization(
        colours(),
        Squares(multi_label=True),
        methods=["cam", "saliency"],
        metrics=ALL,
        batch_size=9,
        cases=0,
    )
    for row, other in zip(studied(), again, strict=True):
        assert row.result.mean == pytest.approx(other.result.mean, abs=1e-7)
        assert row.result.figures.keys() == other.result.figures.keys()


def test_thresholds_are_fitted_on_other_pictures() -> None:
    data, other = Squares(6), Squares(9)
    found = evaluate_localization(
        colours(),
        data,
        methods="saliency",
        metrics=[MaxBoxAccuracy(version=1, thresholds=50)],
        validation=other,
        cases=0,
    )
    alone = evaluate_localization(
        colours(),
        other,
        methods="saliency",
        metrics=[MaxBoxAccuracy(version=1, thresholds=50)],
        cases=0,
    )
    figures = found[0].result.figures
    assert figures["validation"].thresholds == alone[0].result.figures["oracle"].thresholds
    assert figures["validation"].mean <= figures["oracle"].mean
    assert "validation" not in alone[0].result.figures


def test_cases_are_the_best_and_the_worst() -> None:
    found = studied()
    assert [(case.attribution.method, case.kind) for case in found.cases] == [
        (method, kind)
        for method in ("cam", "saliency")
        for kind in ("best", "best", "worst", "worst")
    ]
    values = dict(zip(found.names, by(found, "saliency", "V1").result.values, strict=True))
    for case in found.cases[4:]:
        assert case.value == values[f"{case.name}: {case.label}"]
    best, worst = (
        [c.value for c in found.cases[4:] if c.kind == kind] for kind in ("best", "worst")
    )
    assert min(best) >= max(worst)
    assert max(best) == max(values.values())
    case = found.cases[0]
    assert case.photo.size == (SIDE, SIDE)
    torch.testing.assert_close(case.found.boxes.float(), case.truth.boxes)


def test_a_metric_finds_the_same_beside_others() -> None:
    """Location prediction asks for the maps of all classes, the others for those of what is shown."""
    together = studied()
    for name in ("location_ap", "pixel_ap", "topk"):
        alone = evaluate_localization(
            colours(),
            Squares(multi_label=True),
            methods="saliency",
            metrics={name: ALL[name]},
            batch_size=4,
            cases=0,
        )
        (row,) = alone
        found = by(together, "saliency", name).result
        np.testing.assert_allclose(row.result.values, found.values, atol=1e-6)
        for figure, value in row.result.figures.items():
            assert found.figures[figure].mean == pytest.approx(value.mean, nan_ok=True)
        for chance, level in row.chance.items():
            both = by(together, "saliency", name).chance[chance]
            np.testing.assert_allclose(level.values, both.values, atol=1e-6)


@pytest.mark.parametrize(("cases", "few"), [(0, 0), (1, 1), (2, 2), (3, 2), (10, 2)])
def test_no_picture_is_of_the_best_and_of_the_worst(cases: int, few: int) -> None:
    """Of five pictures there are two of each at most."""
    found = evaluate_localization(
        colours(), Squares(5), methods="cam", metrics="energy_pointing", chance=(), cases=cases
    )
    kinds = [case.kind for case in found.cases]
    assert kinds == ["best"] * few + ["worst"] * few
    assert len({case.name for case in found.cases}) == 2 * few
    (values,) = (row.result.values for row in found)
    assert [case.value for case in found.cases] == [
        *sorted(values)[::-1][:few],
        *sorted(values)[:few],
    ]


@pytest.mark.parametrize(
    ("size", "zoom"), [((24, 24), 10), ((200, 100), 3), ((240, 300), 1), ((239, 300), 2)]
)
def test_boxes_are_drawn_where_they_are_in_the_enlarged_photo(
    size: tuple[int, int], zoom: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(studied().cases[0], photo=Image.new("RGB", size))
    drawn: list[tuple[list[float], bool]] = []

    def outline(picture: Image.Image, box: list[float], *_: object, dashed: bool) -> None:
        drawn.append((box, dashed))

    placed: list[Placement] = []

    def over(
        attribution: object, image: int, photo: Image.Image, at: Placement, **_: object
    ) -> Any:
        placed.append(at)
        return photo

    monkeypatch.setattr("seewhy.metrics.localization.evaluation.outline", outline)
    monkeypatch.setattr("seewhy.metrics.localization.evaluation.attribution_picture", over)
    assert case.picture().size == (zoom * size[0], zoom * size[1])
    width, height = (zoom * edge for edge in size)
    assert placed == [Placement((height, width), (0, 0, width, height))]
    true, found = case.truth.boxes * zoom, case.found.boxes * zoom
    assert drawn == [
        *((box, True) for box in true.tolist()),
        *((box, False) for box in found.tolist()),
    ]


def test_files(tmp_path: Path) -> None:
    found = studied()
    told = json.loads(found.save(tmp_path).read_text())
    assert told["rows"][0]["figures"]["oracle"]["mean"] == 1
    with (tmp_path / "evaluation.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["figure"] for line in lines if line["metric"] == "V1"} >= {"", "oracle", "fixed"}
    assert len(lines) == len(found.table())
    for name in ("best_and_worst.png", "curves.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 200
    assert (tmp_path / "evaluation.parquet").stat().st_size > 1000
    again = seewhy.open(tmp_path)
    assert isinstance(again, LocalizationEvaluation)
    for name in ("model", "names", "title", "notes", "finished"):
        assert getattr(again, name) == getattr(found, name), name
    assert again.table() == found.table()
    for row, then in zip(again, found, strict=True):
        for (key, now), before in zip(
            row.result.found._asdict().items(), then.result.found, strict=True
        ):
            np.testing.assert_equal(now, before, err_msg=key)


def test_pictures_without_truth_or_torn() -> None:
    told: dict[str, str] = {}
    found = evaluate_localization(
        colours(),
        Squares(8, unmarked=1, bad=2),
        methods="cam",
        metrics=["pointing_game", TopKLocalization(k=1)],
        cases=1,
        on_bad_image=lambda name, error: told.update({name: str(error)}),
    )
    assert told == {"2.png": "image '2.png' is torn"}
    assert found.names == tuple(
        f"{i}.png: {('red', 'green', 'blue')[i % 3]}" for i in range(8) if i != 2
    )
    for row in found:
        assert row.result.left_out == {"no_truth": 1}
    with pytest.raises(ImageError, match="torn"):
        evaluate_localization(colours(), Squares(bad=0), methods="cam")


def test_what_the_model_sees_is_what_counts() -> None:
    """A centre crop: what lies outside is gone from the truth too, and boxes are in the input's pixels."""
    cropping = Preprocess((12, 12), (SIDE, SIDE), (0.5,) * 3, (0.5,) * 3, "bilinear")
    data = Squares(6)
    marked = read_marked(data, range(6), seewhy.wrap(Colours(), preprocess=cropping))
    assert marked is not None
    for i, truth in enumerate(marked.truths):
        whole = data[i].truth
        assert truth is not None
        assert whole is not None
        expected = (whole.boxes - 6).clamp(0, 12)
        kept = (expected[:, 2] > expected[:, 0]) & (expected[:, 3] > expected[:, 1])
        torch.testing.assert_close(truth.boxes, expected[kept])


class Mended(Squares):
    """One annotation cannot be read, one was mended, and one class is known to be there, but not where."""

    def __getitem__(self, index: int) -> Example:
        example = super().__getitem__(index)
        if index == 0:
            raise InputError("masks '0.png' are damaged")
        if index == 1:
            return replace(example, notes=("box [9, 9, 99, 99] was clipped",))
        return replace(example, truth=example.truth.of(7)) if index == 2 else example


def test_annotations_that_are_torn_mended_or_missing() -> None:
    told: dict[str, str] = {}
    found = evaluate_localization(
        colours(),
        Mended(6),
        methods="cam",
        metrics=[LocationAveragePrecision(tolerance=1), "pointing_game"],
        cases=0,
        on_bad_image=lambda name, error: told.update({name: str(error)}),
    )
    assert told == {"0.png": "masks '0.png' are damaged"}
    assert found.notes == {"1.png": ("box [9, 9, 99, 99] was clipped",)}
    # that nobody marked the blue square of picture 2 is no false alarm of the model
    assert by(found, "cam", "location_ap").result.mean == pytest.approx(1)
    assert by(found, "cam", "pointing_game").result.left_out == {"no_truth": 1}


def test_twice_the_same_method_counts_once() -> None:
    once, twice = (
        evaluate_localization(colours(), Squares(4), methods=methods, metrics="pixel_ap", cases=1)
        for methods in (["cam"], ["cam", "cam"])
    )
    assert len(once) == len(twice) == 1
    assert once[0].result.n == twice[0].result.n == 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data": None}, "data has no pictures"),
        ({"metrics": "deletion"}, "which has no probability"),
        (
            {"metrics": "grid_pointing"},
            "needs pictures of two classes or more, and squares has none",
        ),
        ({"metrics": "focus"}, "judges mosaics of photos, not a data set"),
        ({"metrics": []}, "metrics is empty"),
        ({"metrics": "pixel_app"}, "did you mean 'pixel_ap'"),
        ({"metrics": ["pixel_ap", "pixel_ap"]}, "one of a kind twice"),
        ({"metrics": TopKLocalization(k=9)}, "more than the 5"),
        ({"rule": "cam2017"}, "did you mean 'cam2016'"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_what_cannot_be_used_is_said(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        evaluate_localization(colours(), **{"data": Squares(3), **settings})


@pytest.mark.parametrize(
    ("labels", "several"),
    [
        ([], False),
        ([()], False),
        ([(0,), (1,)], False),
        ([(0,), (0, 1)], True),
        ([(0, 1), (1, 2)], True),
    ],
)
def test_data_of_several_classes_has_a_picture_of_two(
    labels: list[tuple[int, ...]], several: bool
) -> None:
    data = Squares(len(labels))
    data.labels = labels
    assert has_several(data) == several


def test_as_many_guesses_as_a_prediction_has_are_taken() -> None:
    found = evaluate_localization(
        colours(), Squares(2), metrics=TopKLocalization(k=5), methods="saliency", chance=()
    )
    assert found[0].result.n == 2


def test_a_method_is_run_again_for_a_picture_by_itself() -> None:
    found = evaluate_localization(
        colours(), Squares(1), metrics=MaxSensitivity(samples=2), methods="saliency", chance=()
    )
    assert (found[0].result.n, math.isfinite(found[0].result.mean)) == (1, True)


def stopped_after(pictures: int, run: RunFolder, data: Squares) -> list[int]:
    """Interrupts an evaluation, and says which pictures were read."""

    def interrupted(done: int, total: int) -> None:
        if (done, total) == (pictures, len(data)):
            raise KeyboardInterrupt

    read: list[int] = []
    with pytest.raises(KeyboardInterrupt), run:
        evaluated(data, read, keep=run, progress=interrupted, on_part=lambda part: part.write(run))
    return read


def evaluated(data: Squares, read: list[int], **how: Any) -> LocalizationEvaluation:
    class Noted(Squares):
        def __getitem__(self, index: int) -> Example:
            read.append(index)
            return super().__getitem__(index)

    noted = Noted.__new__(Noted)
    noted.__dict__ = data.__dict__
    torch.manual_seed(0)
    return evaluate_localization(
        colours(),
        noted,
        methods=["cam", "saliency"],
        **{
            "metrics": ["max_box_accuracy", "pixel_ap", "topk_localization", "location_ap"],
            "validation": Squares(5),
            "batch_size": 2,
            "cases": 0,
            "on_bad_image": lambda name, error: None,
            **how,
        },
    )


def folder_of(place: Path) -> RunFolder:
    return RunFolder(place, kind="localisation", request={"data": "squares"})


def same(found: LocalizationEvaluation, other: LocalizationEvaluation) -> None:
    assert found.names == other.names
    assert repr(found.table()) == repr(other.table())
    for one, two in zip(found, other, strict=True):
        assert np.array_equal(one.result.values, two.result.values, equal_nan=True)
        assert one.result.status == two.result.status
        assert one.remarks == two.remarks


@pytest.mark.parametrize("pictures", [2, 6, 9])
def test_an_evaluation_that_was_stopped_goes_on(tmp_path: Path, pictures: int) -> None:
    data = Squares(9, multi_label=True, unmarked=4, bad=1)
    undisturbed = evaluated(data, [])
    assert stopped_after(pictures, folder_of(tmp_path / "out"), data)
    assert (tmp_path / "out" / "states.pt").is_file()
    read: list[int] = []
    bad: list[str] = []
    with folder_of(tmp_path / "out") as run:
        found = evaluated(data, read, keep=run, on_bad_image=lambda name, error: bad.append(name))
    same(found, undisturbed)
    assert bad == ["1.png"]
    assert max(map(read.count, range(9))) == 1  # some of what is done, to see that it is the same
    assert {*range(pictures, 9)} <= set(read)


def test_an_evaluation_goes_on_with_the_same_pictures_alone(tmp_path: Path) -> None:
    stopped_after(4, folder_of(tmp_path / "out"), Squares(9))
    other = Squares(9, unmarked=0)
    with folder_of(tmp_path / "out") as run:
        found = evaluated(other, [], keep=run)
    same(found, evaluated(other, []))


@pytest.mark.parametrize(
    "other",
    [
        {"metrics": MaxBoxAccuracy(version=1)},
        {"validation": None},
        {"chance": ()},
        {"classes": {"red": "green", "green": "red"}},
    ],
    ids=str,
)
def test_an_evaluation_goes_on_with_what_the_same_was_asked_of_alone(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    stopped_after(2, folder_of(tmp_path / "out"), Squares(3))
    with folder_of(tmp_path / "out") as run:
        found = evaluated(Squares(3), [], keep=run, **other)
    same(found, evaluated(Squares(3), [], **other))


def test_a_picture_that_was_mended_after_the_stop_is_scored(tmp_path: Path) -> None:
    stopped_after(2, folder_of(tmp_path / "out"), Squares(3, bad=1))
    bad: list[str] = []
    with folder_of(tmp_path / "out") as run:
        how = {"keep": run, "on_bad_image": lambda name, error: bad.append(name)}
        found = evaluated(Squares(3), [], **how)
    same(found, evaluated(Squares(3), []))
    assert not bad


def test_each_picture_that_cannot_be_read_is_told_of_once_however_often_stopped(
    tmp_path: Path,
) -> None:
    class Stopping(Squares):
        at: int

        def __getitem__(self, index: int) -> Example:
            if index == self.at:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    how = {"validation": Squares(5, bad=3), "on_part": lambda part: part.write(run)}
    for Stopping.at in (5, 7):
        with pytest.raises(KeyboardInterrupt), folder_of(tmp_path / "out") as run:
            evaluate_again(Stopping(9, bad=4), run, [], how)
    bad: list[str] = []
    with folder_of(tmp_path / "out") as run:
        evaluate_again(Squares(9, bad=4), run, bad, how)
    assert bad == ["3.png", "4.png"]


def evaluate_again(data: Squares, run: RunFolder, bad: list[str], how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    heard = {"on_bad_image": lambda name, error: bad.append(name), "keep": run}
    few = {"metrics": "max_box_accuracy", "chance": (), "batch_size": 2, "cases": 0}
    evaluate_localization(colours(), data, **few, **heard, **how)


@pytest.mark.parametrize(
    ("pictures", "step"), [(0, 1), (1, 1), (512, 1), (1023, 1), (1024, 2), (1536, 3)]
)
def test_of_many_pictures_about_512_are_read_again(
    pictures: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    found = SimpleNamespace(digest=lambda place: f"as it was {place}")

    def read(data: object, indices: list[int], *rest: object) -> SimpleNamespace:
        reads.extend(indices)
        return found

    monkeypatch.setattr(resuming, "read_marked", read)
    study: Any = SimpleNamespace(data=None, request=SimpleNamespace(model=None))
    kept = KeptStates(None, study)
    assert kept._are_there(dict.fromkeys(range(pictures)[::-1], "as it was 0"))
    assert reads == list(range(0, pictures, step))
    if pictures > 1:
        assert not kept._are_there({**dict.fromkeys(range(pictures), "as it was 0"), 0: "other"})
        monkeypatch.setattr(resuming, "read_marked", lambda *rest: None)
        assert not kept._are_there(dict.fromkeys(range(pictures), "as it was 0"))


def test_data_that_marks_nothing_is_told_of_and_one_mark_is_enough() -> None:
    with pytest.raises(InputError, match="squares marks no object, neither by a mask nor by a box"):
        check_marked(Squares(1, unmarked=0))
    check_marked(Squares(2, unmarked=0))
    with pytest.raises(InputError, match="squares marks no object"):
        evaluate_localization(colours(), Squares(1, unmarked=0), methods="saliency", chance=())


@pytest.mark.parametrize("mark", ["masks", "difficult", "ignore"])
def test_other_marks_are_another_picture(mark: str) -> None:
    class Marked(Squares):
        shape: tuple[int, ...]

        def __getitem__(self, index: int) -> Example:
            example = super().__getitem__(index)
            assert example.truth is not None
            given = torch.ones(self.shape, dtype=torch.bool)
            return dataclasses.replace(
                example, truth=dataclasses.replace(example.truth, **{mark: given})
            )

    Marked.shape = {"masks": (1, SIDE, SIDE), "difficult": (1,), "ignore": (SIDE, SIDE)}[mark]
    plain, other = (read_marked(data, [0], colours()) for data in (Squares(1), Marked(1)))
    assert plain is not None
    assert other is not None
    assert plain.digest(0) != other.digest(0)


def test_states_of_something_else_are_one_line(tmp_path: Path) -> None:
    stopped_after(2, folder_of(tmp_path / "out"), Squares(3))
    torch.save({"weight": torch.ones(2)}, tmp_path / "out" / "states.pt")
    with folder_of(tmp_path / "out") as run, pytest.raises(InputError, match=r"read \('told'\);"):
        evaluated(Squares(9), [], keep=run)


def test_a_reader_that_says_nothing_is_told_of_by_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_: object, **__: object) -> None:
        raise EOFError

    (tmp_path / "states.pt").write_bytes(b"")
    monkeypatch.setattr(torch, "load", ends)
    with folder_of(tmp_path) as run, pytest.raises(InputError, match=r"read \(EOFError\); delete"):
        evaluated(Squares(3), [], keep=run)


def test_states_that_are_torn_are_one_line(tmp_path: Path) -> None:
    stopped_after(4, folder_of(tmp_path / "out"), Squares(9))
    kept = tmp_path / "out" / "states.pt"
    kept.write_bytes(kept.read_bytes()[:100])
    with folder_of(tmp_path / "out") as run, pytest.raises(InputError, match="cannot be read"):
        evaluated(Squares(9), [], keep=run)


def test_states_go_back_to_metrics_of_the_same_settings_alone() -> None:
    metric = PointingGame(tolerance=2)
    metric.update(torch.rand(1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool))
    other = PointingGame(tolerance=3)
    with pytest.raises(InputError, match="of other settings"):
        other.restore_states(metric.states())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "weights.pt"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), weights)
    arguments = ["evaluate", "--task", "localisation", "-d", "scenes:size=48", "--count", "3", "-m"]
    arguments += [
        f"timm:test_resnet@{weights}",
        "--metric",
        "pointing_game:tolerance=3",
        "-o",
        str(tmp_path / "out"),
    ]
    assert run([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["data"] == "scenes:size=48"
    assert told["rows"][0]["metric"] == "pointing_game:tolerance=3"
    assert told["rows"][0]["settings"]["tolerance"] == 3
    assert run(arguments) == 0
    said = capsys.readouterr()
    assert "(centre)" in said.out
    assert "best_and_worst.png" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "localisation", "photo.jpg"], "takes no photos"),
        (["--task", "localisation", "-d", "scene"], "did you mean 'scenes'"),
        (["--task", "localisation"], "has no class '0' of scenes"),
        (["--task", "localise", "photo.jpg"], "use 'faithfulness' or 'localisation'"),
        ([], "give photos"),
    ],
)
def test_a_wrong_command_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", *arguments]) == 1
    err = capsys.readouterr().err.strip()
    assert said in err
    assert len(err.splitlines()) == 1
