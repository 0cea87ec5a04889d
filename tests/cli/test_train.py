"""`seewhy train`: what it prints, what it leaves, and what it says when it is interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import seewhy
from commands import called
from seewhy.cli.interrupts import InterruptError
from seewhy.cli.train import train
from seewhy.data import Scenes
from seewhy.errors import InputError
from seewhy.models.networks.cards import read_card
from wsol_squares import one_thread

_one_thread = pytest.fixture(scope="module", autouse=True)(one_thread)
SMALL = "scenes:size=32,count=20"


def run(out: Path, **more: Any) -> int | None:
    settings: dict[str, Any] = {
        "data": SMALL,
        "backbone": "timm:test_resnet",
        "scratch": True,
        "epochs": 2,
        "lr": 1e-3,
    }
    return called(train, out=out, **{**settings, **more})


def test_people_read_a_table_and_where_to_look(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "run", val="scenes:size=32,count=10") == 0
    out, told = capfd.readouterr()
    assert out.split()[:2] == ["head", "backbone"]
    assert "epoch 2 of 2: loss" in told
    assert "score 0." in told
    assert "top-1" in out
    assert "learning.png" in told
    assert f"--method cam --model {tmp_path / 'run'}" in told
    assert read_card(tmp_path / "run")["data"]["val"]["pictures"] == 10
    model = seewhy.load_model(str(tmp_path / "run"))
    explanation = seewhy.explain(
        model, Scenes(1, size=32, split="val")[0].photo, methods="cam", targets="7"
    )
    assert explanation[0].labels == ("7",)


def test_json_is_one_object(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    several = "scenes:size=32,count=20,multi_label=true"
    assert run(tmp_path / "run", data=several, pooling="oquab", as_json=True) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["scores"]["metric"] == "mean average precision"
    assert [row["epoch"] for row in told["history"]] == [1, 2]
    assert run(tmp_path / "none", val="none", as_json=True) == 0
    assert json.loads(capfd.readouterr().out)["scores"] == {}


def test_an_interrupt_says_how_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seewhy.cli import train as training

    told = training._line_of_epoch
    monkeypatch.setattr(
        training, "_line_of_epoch", lambda row, epochs: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(
        InterruptError, match="stopped after epoch 1 of 2; the same command goes on from there"
    ):
        run(tmp_path / "run", val="none")
    monkeypatch.setattr(training, "_line_of_epoch", told)
    assert run(tmp_path / "run", val="none") == 0
    said = capfd.readouterr().err
    assert "epoch 2 of 2" in said
    assert "epoch 1 of 2" not in said
    assert run(tmp_path / "run", val="none", resume=False) == 0
    assert "epoch 1 of 2" in capfd.readouterr().err


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    for changed, said in (
        ({"data": "scenery"}, "data 'scenery' is not known"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"pooling": "gxp"}, "pooling='gxp' is not known"),
    ):
        with pytest.raises(InputError, match=said) as raised:
            run(tmp_path / "run", **changed)
        assert "\n" not in str(raised.value)
