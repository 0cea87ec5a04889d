"""Methods against metrics: the table, chance levels, curves on disk, the picture, and the command's function."""

from __future__ import annotations

import csv
import json
import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import seewhy
from commands import called
from seewhy.cli.evaluate import evaluate as evaluate_command
from seewhy.cli.metric_texts import metric_of
from seewhy.data.run_folder import RunFolder
from seewhy.errors import InputError, TargetError
from seewhy.methods.catalog import METHODS
from seewhy.methods.request import Request
from seewhy.metrics import (
    CHANCES,
    AverageDrop,
    Complexity,
    Deletion,
    MaxSensitivity,
    ParameterRandomization,
    chance_maps,
)
from seewhy.metrics.evaluate import Listeners, evaluate, evaluated
from seewhy.metrics.evaluation import Evaluation
from seewhy.metrics.metric import ExplanationMetric
from seewhy.render.curves import Panel, Scored, curves_picture
from tiny_models import ModelState, TinyCNN, pictures, randomised

FAST: dict[str, Any] = {
    "deletion": Deletion(step=200),
    "drop": AverageDrop(),
    "steady": MaxSensitivity(samples=2),
    "sane": ParameterRandomization(layers=["fc", "conv2"]),
}


@cache
def example() -> tuple[Any, torch.Tensor, Evaluation]:
    net, x = randomised(TinyCNN()), pictures(5)
    before = ModelState(net)
    found = evaluate(
        net,
        x,
        methods=["grad_cam", "layer_relevance", "saliency"],
        metrics=FAST,
        targets=["top2"],
        batch_size=2,
    )
    before.assert_unchanged()
    return net, x, found


def test_rows_are_methods_by_layers_by_targets_by_metrics() -> None:
    _, _, found = example()
    assert len(found) == 3 * 2 * 4
    assert {row.method for row in found} == {"grad_cam", "layer_relevance", "saliency"}
    assert [row.target for row in found][:8] == ["top1"] * 4 + ["top2"] * 4
    assert {row.metric for row in found} == set(FAST)
    assert found.names == tuple(f"image {i}" for i in range(5))
    keys = list(found.table()[0])
    assert keys[:5] == ["method", "layer", "target", "metric", "mean"]
    assert keys[-4:] == [f"chance_{name}" for name in CHANCES]
    for row in found:
        assert row.result.n == 5
        assert row.result.low <= row.result.mean <= row.result.high


def test_a_row_is_the_metric_of_the_methods_maps() -> None:
    net, x, found = example()
    second = torch.tensor(net(x).topk(2).indices[:, 1].tolist())
    for row in found:
        if row.target != "top2":
            continue
        method = METHODS[row.method]
        metric = FAST[row.metric].for_method(row.method)
        metric.update(method(net, x, second), net, x, second)
        np.testing.assert_allclose(
            row.result.values, metric.compute().values, atol=3e-3 if row.metric == "sane" else 2e-5
        )


def test_chance_is_the_same_metric_of_maps_that_know_nothing() -> None:
    net, x, found = example()
    row = next(r for r in found if r.metric == "deletion" and r.target == "top1")
    for name, maps in chance_maps(x).items():
        metric = Deletion(step=200, leave_out=[])
        metric.update(maps, net, x)
        assert row.chance[name].n == 5
        np.testing.assert_allclose(row.chance[name].values, metric.compute().values, atol=1e-6)
    steady = next(r for r in found if r.metric == "steady")
    assert steady.chance["centre"].mean == 0
    assert steady.chance["random"].mean > 0.5
    sane = next(r for r in found if r.metric == "sane")
    assert sane.chance["edges"].mean == pytest.approx(1)
    drop = next(r for r in found if r.metric == "drop")
    assert drop.chance["uniform"].mean == pytest.approx(0, abs=1e-6)


def test_batches_and_chance_do_not_change_the_scores() -> None:
    net, x, _ = example()
    whole, parts = (
        evaluate(net, x, metrics="deletion", chance=(), targets=[[0, 1, 2, 3, 4]], batch_size=size)
        for size in (5, 3)
    )
    np.testing.assert_allclose(whole[0].result.values, parts[0].result.values, atol=1e-5)
    assert whole[0].chance == {}
    named = Deletion()
    named.update(METHODS["layer_relevance"](net, x, [0, 1, 2, 3, 4]), net, x, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(whole[0].result.values, named.compute().values, atol=1e-5)


def test_several_layers_have_rows_of_their_own() -> None:
    net, x, _ = example()
    found = evaluate(
        net, x[:2], layers=["relu1", "relu2"], metrics={"steady": FAST["steady"]}, chance=()
    )
    assert [row.layer for row in found] == ["relu1", "relu2"]
    every = evaluate(net, x[:2], layers="all-stages", metrics={"steady": FAST["steady"]}, chance=())
    assert len(every) > 1
    for row in (*found, *every):
        alone = MaxSensitivity(row.method, layer=row.layer, samples=2)
        alone.update(METHODS[row.method](net, x[:2], layer=row.layer), net, x[:2])
        np.testing.assert_allclose(row.result.values, alone.compute().values, atol=1e-5)


def test_what_is_saved_reads_back(tmp_path: Path) -> None:
    _, _, found = example()
    path = found.save(tmp_path / "out")
    told = json.loads(path.read_text())
    assert told["images"] == list(found.names)
    assert len(told["rows"]) == len(found)
    row = told["rows"][0]
    assert row["settings"]["step"] == 200
    assert row["settings"]["output"] == "probability"
    assert row["status"] == ["ok"] * 5
    np.testing.assert_allclose(row["curves"], np.stack(found[0].result.curves), atol=1e-6)
    assert (
        len(row["positions"][0]) == len(row["curves"][0]) == len(row["chance"]["random"]["curve"])
    )
    with (tmp_path / "out" / "evaluation.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert float(lines[0]["mean"]) == row["mean"]
    assert set(lines[0]) == set(found.table()[0])
    assert parquet.read_table(tmp_path / "out" / "evaluation.parquet").to_pylist() == found.table()
    with Image.open(tmp_path / "out" / "curves.png") as picture:
        assert picture.width > 1000
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        found.save(tmp_path / "file")


def test_what_there_is_so_far_is_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, _ = example()
    now = [0.0]
    monkeypatch.setattr("seewhy.metrics.evaluation.time", SimpleNamespace(monotonic=lambda: now[0]))
    parts: list[Evaluation] = []

    def keep(part: Evaluation) -> None:
        parts.append(part)
        now[0] += 3  # as if it took three seconds

    def tick(done: int, total: int) -> None:
        now[0] += 31

    options: dict[str, Any] = {
        "metrics": ["deletion", "sparsity"],
        "chance": ("random",),
        "batch_size": 1,
    }
    whole = evaluate(net, x, on_part=keep, progress=tick, **options)
    assert [len(part.names) for part in parts] == [
        2,
        4,
    ]  # the third would be within twenty times three seconds
    assert whole.finished
    for part in parts:
        assert not part.finished
        alone = evaluate(net, x[: len(part.names)], **options)
        assert part.table() == alone.table()
    assert json.loads(parts[0].save(tmp_path).read_text())["finished"] is False
    assert json.loads(whole.save(tmp_path).read_text())["finished"] is True


def test_one_image_has_no_interval_and_says_so(tmp_path: Path) -> None:
    net, x, _ = example()
    found = evaluate(net, x[:1], metrics=[Complexity(), Deletion(step=512)])
    assert math.isnan(found[0].result.low)
    assert found.table()[0]["low"] is None
    assert json.loads(found.save(tmp_path).read_text())["rows"][0]["high"] is None


def test_the_cost_is_announced_once_before_anything_is_scored() -> None:
    net, x, _ = example()
    told: list[object] = []

    def score(done: int, total: int) -> None:
        told.append((done, total))

    evaluated(
        Request.of(net, methods="saliency", targets="top1", batch_size=3),
        x,
        {"deletion": Deletion(step=512), "drop": AverageDrop()},
        chance=("uniform", "edges"),
        listeners=Listeners(
            within=score, announce=lambda cost: told.append((cost.photos, cost.passes))
        ),
    )
    assert told == [(5, 3 * (3 + 1)), *[(i, 6) for i in range(1, 7)] * 2]


def test_what_was_scored_before_is_not_computed_again(tmp_path: Path) -> None:
    photos = []
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        photos.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(photos[-1])
    preprocess = seewhy.Preprocess((16, 16), 16, (0.5,) * 3, (0.5,) * 3, "bilinear")
    ran: list[int] = []
    net = randomised(TinyCNN())
    net.register_forward_hook(lambda module, given, output: ran.append(len(output)))
    model = seewhy.wrap(net, preprocess=preprocess)
    asked: dict[str, Any] = {"methods": "saliency", "metrics": [Deletion(step=100), Complexity()]}
    found, seen = [], []
    for _ in range(2):
        ran.clear()
        with RunFolder(tmp_path / "out", kind="evaluation", request={}) as kept:
            found.append(evaluate(model, photos, batch_size=2, keep=kept, **asked))
        seen.append(sum(ran))
    assert seen[0] > 30
    assert seen[1] == 0
    first, again = found
    assert again.names == first.names == ("0.png", "1.png", "2.png")
    assert again.table() == first.table()
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.result.values, other.result.values)
        for curve, same in zip(one.result.curves, other.result.curves, strict=True):
            np.testing.assert_array_equal(curve, same)


def test_a_picture_says_of_how_many_photos_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, found = example()
    told: list[str] = []

    def drawn(panels: object, *, title: str, remarks: object) -> Image.Image:
        told.append(title)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("seewhy.metrics.evaluation.curves_picture", drawn)
    found.picture()
    evaluate(net, x[:1], metrics="complexity", chance=()).picture()
    assert [title.partition(", ")[2] for title in told] == ["5 photos", "1 photo"]


def test_mistakes_are_told() -> None:
    net, x, _ = example()
    with pytest.raises(InputError, match="did you mean 'insertion'"):
        evaluate(net, x, metrics="insertoin")
    with pytest.raises(InputError, match="twice; name them"):
        evaluate(net, x, metrics=[Deletion(), Deletion(step=1)])
    with pytest.raises(InputError, match="metrics is empty"):
        evaluate(net, x, metrics=[])
    with pytest.raises(TargetError, match="names 2 classes for 5 images"):
        evaluate(net, x, targets=[[1, 2]])
    with pytest.raises(InputError, match="unknown"):
        evaluate(net, x, methods="grad_cma")


# the picture


def scored(label: str, **options: Any) -> Scored:
    at = np.linspace(0, 1, 20)
    values = {"mean": 0.5, "low": 0.4, "high": 0.6, "at": at, "curve": at**2, **options}
    return Scored(label, **values)


def test_the_picture_has_a_panel_for_each_metric_and_no_global_state() -> None:
    import matplotlib

    backend = matplotlib.get_backend()
    lines = Panel("A", "higher is better", ("x", "y"), (scored("m"), scored("random", chance=True)))
    none = np.empty(0)
    dots = Panel(
        "B",
        "lower is better",
        ("", ""),
        (scored("m" * 60, at=none, curve=none, low=math.nan, high=math.nan),),
    )
    one, four = curves_picture([lines]), curves_picture([lines, dots, lines, dots], title="T")
    assert four.width == 3 * one.width
    assert four.height > 2 * one.height
    assert one.mode == "RGB"
    assert matplotlib.get_backend() == backend
    with pytest.raises(InputError, match="panels is empty"):
        curves_picture([])


def test_methods_are_in_colour_and_chance_is_grey() -> None:
    def colours(panel: Panel) -> int:
        """Pixels that are no grey."""
        pixels = np.asarray(curves_picture([panel])).astype(int)
        return int((np.ptp(pixels, axis=2) > 60).sum())

    method, chance = (Panel("", "", ("", ""), (scored("m", chance=c),)) for c in (False, True))
    assert colours(method) > 500
    assert colours(chance) == 0


# the command's function


def test_the_command_writes_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import skimage.data

    Image.fromarray(skimage.data.chelsea()).save(tmp_path / "cat.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    settings: dict[str, Any] = {
        "method": ["grad_cam"],
        "target": ["top1"],
        "chance": False,
        "out": tmp_path / "out",
    }
    metrics = ["average_drop", "deletion:step=25088,output=logit"]
    photos = [tmp_path / "cat.jpg", tmp_path / "broken.jpg"]
    status = called(evaluate_command, photos=photos, metric=metrics, as_json=True, **settings)
    assert status == 1
    told = json.loads(capsys.readouterr().out)
    assert [row["metric"] for row in told["rows"]] == metrics
    assert told["rows"][1]["settings"]["output"] == "logit"
    assert len(told["rows"][1]["curves"][0]) == 3
    assert told["skipped"][0]["name"].endswith("broken.jpg")
    photos = photos[:1]
    assert called(evaluate_command, photos=photos, metric=["complexity"], **settings) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == ["metric", "complexity"]
    assert said.out.split()[-1] == "1"  # photo
    assert "curves.png" in said.err


def test_metrics_are_parsed_with_their_settings() -> None:
    metric = metric_of("deletion:step=1792,output=logit", ExplanationMetric)
    assert isinstance(metric, Deletion)
    assert (metric.step, metric.settings["output"]) == (1792, "logit")
    assert metric_of("average_drop:keep=0.5", ExplanationMetric).settings["keep"] == 0.5
    assert metric_of("infidelity:normalize=false", ExplanationMetric).settings["normalize"] is False
    for text, said in (
        ("deletoin", "did you mean 'deletion'"),
        ("deletion:step", "is not NAME:OPTION=VALUE"),
        ("deletion:steps=4", "deletion has no option 'steps'; did you mean 'step'"),
        ("deletion:step=0", "step=0"),
    ):
        with pytest.raises(InputError, match=said):
            metric_of(text, ExplanationMetric)


def test_targets_are_called_as_they_were_given() -> None:
    net, x, _ = example()
    model = seewhy.wrap(net, labels=[f"label {i}" for i in range(5)])
    found = evaluate(
        model,
        x,
        metrics="complexity",
        targets=["label 3", 2, [0, 1, 2, 3, 4]],
        chance=(),
        batch_size=2,
    )
    assert [row.target for row in found] == ["label 3", "2", "each image's own"]
    assert [row.result.n for row in found] == [5, 5, 5]
