"""The command line over what people hand over: each command says what Python says of the plain network's logits.

Kinds whose target cannot be written on a command line are asked for "top1", and have to end right or in one line.
"""

from __future__ import annotations

import csv
import json
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import seewhy
from handed_factories import command_name
from handed_over import SIZE, Drawn
from seewhy.cli import run
from seewhy.influence import InfluenceIndex
from seewhy.maps.boxes import boxes_on_photo
from test_handed_over import ZOO, Handed, close, expected, spoiled, told, told_beside, usual_of

OCCLUSION = ["--option", "occlusion.window=8", "--option", "occlusion.stride=8"]
RUNS_CODE = "runs the code of"
WRITABLE = [kind for kind, case in ZOO.items() if isinstance(case.target, int | str)]


class FailedError(Exception):
    """The line of a command that failed."""


@pytest.fixture(autouse=True)
def warnings_are_told() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


@pytest.fixture(autouse=True)
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of noise in the current directory."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(7).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")


def input_of(case: Handed, path: str = "photo.png") -> Tensor:
    with Image.open(path) as photo:
        return case.preprocess(photo.convert("RGB"))[0][None]


def command(
    capsys: pytest.CaptureFixture[str], kind: str | None, *words: str
) -> tuple[Any, list[str]]:
    """What a command prints as JSON, and its lines beside.

    Raises:
        FailedError: it failed.
    """
    model = [] if kind is None else ["--model", f"handed_factories:{command_name(kind)}"]
    status = run([*words, *model, "--json"])
    out, err = capsys.readouterr()
    lines = [
        line for line in err.splitlines() if line.startswith("seewhy: ") and RUNS_CODE not in line
    ]
    assert "Traceback" not in err
    if status:
        assert lines, err
        raise FailedError(lines[-1])
    return json.loads(out), lines


def right_or_said(
    words: str | None, found: Callable[[], tuple[Any, list[str]]], check: Callable[[Any], None]
) -> None:
    try:
        answer, lines = found()
    except FailedError as failed:
        told(words, str(failed))
        return
    if words is not None:
        assert any(re.search(words, line) for line in lines), (
            f"no word of {words}: {lines or 'nothing'}"
        )
        return
    check(answer)


def chances(case: Handed, logits: Tensor) -> Tensor:
    one_by_one = logits.shape[1] == 1 or case.numbers.get("multi_label")
    return logits.sigmoid() if one_by_one else logits.softmax(1)


def check_explained(case: Handed, answer: Any) -> None:
    image = answer["images"][0]
    found = image["attributions"][0]
    with np.load(Path(answer["out"]) / found["map"]["file"]) as maps:
        of_photo = torch.as_tensor(maps[found["map"]["key"]])
    x = input_of(case)
    assert close(of_photo, expected(case, "occlusion", x)[0])
    if case.no_chance is None:
        right = chances(case, case.usual()(x).detach())[0]
        best = image["predictions"][0]
        assert case.columns.index(int(right.argmax())) == case.columns.index(best["index"])
        assert best["probability"] == pytest.approx(float(right.max()), abs=2e-6)


@pytest.mark.parametrize("kind", WRITABLE)
def test_explain(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    case = ZOO[kind]
    asked = [
        "explain",
        "photo.png",
        "--method",
        "occlusion",
        "--target",
        str(case.target),
        *OCCLUSION,
    ]
    right_or_said(
        spoiled(case),
        lambda: command(capsys, kind, *asked),
        lambda answer: check_explained(case, answer),
    )


@pytest.mark.parametrize("kind", WRITABLE)
def test_evaluate(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    case, metric = ZOO[kind], seewhy.metrics.Deletion(step=64)
    asked = [
        "evaluate",
        "photo.png",
        "--method",
        "occlusion",
        "--target",
        str(case.target),
        *OCCLUSION,
        "--no-chance",
    ]

    def check(answer: Any) -> None:
        x = input_of(case)
        plainly = seewhy.wrap(usual_of(case.usual), **{"gives": "logits", **case.numbers})
        metric.update(expected(case, "occlusion", x), plainly, x, case.column)
        assert answer["rows"][0]["mean"] == pytest.approx(
            float(metric.compute().mean), rel=1e-4, abs=1e-6
        )

    found = partial(command, capsys, kind, *asked, "--metric", "deletion:step=64")
    right_or_said(spoiled(case) or case.no_chance, found, check)


@pytest.mark.parametrize("kind", WRITABLE)
def test_localize(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    case = ZOO[kind]
    asked = [
        "localize",
        "photo.png",
        "--method",
        "occlusion",
        "--target",
        str(case.target),
        *OCCLUSION,
    ]

    def check(answer: Any) -> None:
        found = answer["images"][0]["found"][0]
        heat = expected(case, "occlusion", input_of(case))
        placement = case.preprocess(Image.open("photo.png").convert("RGB"))[1]
        right = boxes_on_photo(heat[0], placement, rule="mean")
        assert [each["box"] for each in found["boxes"]] == right.boxes.tolist()

    right_or_said(spoiled(case), partial(command, capsys, kind, *asked), check)


@pytest.mark.parametrize("kind", list(ZOO))
def test_evaluate_data(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    case, data = ZOO[kind], Drawn(ZOO[kind].names)
    with Path("data.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split", "x0", "y0", "x1", "y1"])
        for example, label, box in zip(data, data.labels, data.boxes, strict=True):
            example.photo.save(f"{example.name}.png")
            rows.writerow([f"{example.name}.png", data.classes[label[0]], "test", *box])
    asked = [
        "evaluate",
        "--task",
        "localisation",
        "--data",
        "csv:data.csv",
        "--metric",
        "energy_pointing",
    ]

    def check(answer: Any) -> None:
        metric = seewhy.metrics.EnergyPointing()
        for example in data:
            x = case.preprocess(example.photo)[0][None]
            metric.update(
                expected(case, "occlusion", x, case.columns[example.labels[0]]), [example.truth]
            )
        assert answer["rows"][0]["mean"] == pytest.approx(
            float(metric.compute().mean), rel=1e-4, abs=1e-6
        )

    found = partial(
        command, capsys, kind, *asked, "--method", "occlusion", *OCCLUSION, "--no-chance"
    )
    right_or_said(spoiled(case) or case.no_place, found, check)


@pytest.mark.long
@pytest.mark.parametrize("kind", list(ZOO))
def test_influence(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    case, names = ZOO[kind], ZOO[kind].names
    paths = [Path("pictures", "train", names[i % len(names)], f"{i}.png") for i in range(6)]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)

    def found() -> tuple[Any, list[str]]:
        fit = [
            "influence",
            "fit",
            "--data",
            "folder:pictures",
            "--solver",
            "gradient_dot",
            "--out",
            "index",
        ]
        lines = command(capsys, kind, *fit)[1]
        answer, more = command(
            capsys,
            None,
            "influence",
            "query",
            "photo.png",
            "--index",
            "index",
            "-k",
            "6",
            "--trust-paths",
        )
        return answer, lines + more

    def check(answer: Any) -> None:
        ordered = sorted(paths)
        x = torch.cat([input_of(case, str(path)) for path in ordered])
        labels = torch.tensor([case.columns[names.index(path.parent.name)] for path in ordered])
        index = InfluenceIndex.fit(usual_of(case.usual), (x, labels), solver="gradient_dot")
        scores = told_beside(lambda: index.scores(input_of(case)))[0][0]
        right = {
            path.name: float(score) for path, score in zip(ordered, scores, strict=True) if score
        }
        told_of = answer["queries"][0]
        said = {
            Path(each["name"]).name: each["score"]
            for each in (*told_of["helpful"], *told_of["harmful"])
        }
        assert said == pytest.approx(right, rel=1e-4, abs=1e-6)

    right_or_said(case.no_loss or spoiled(case), found, check)


@pytest.mark.parametrize("kind", [kind for kind in ZOO if kind not in WRITABLE])
@pytest.mark.parametrize(
    "words", [("explain",), ("evaluate", "--metric", "deletion:step=64"), ("localize",)]
)
def test_targets_that_cannot_be_written(
    kind: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FailedError, match=r"no classes|\(N, K\) class scores"):
        command(
            capsys, kind, words[0], "photo.png", *words[1:], "--method", "occlusion", *OCCLUSION
        )
