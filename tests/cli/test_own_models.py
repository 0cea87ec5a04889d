"""Models of one's own on the command line: what it says is what the same model says in Python, to the last bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import seewhy
from seewhy.cli import run

NET = """
import torch
from torch import nn
import seewhy

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))

def make():
    torch.manual_seed(0)
    return Net()

def wrapped():
    return seewhy.wrap(make(), preprocess=PREPROCESS, labels=LABELS, name="net")

PREPROCESS = seewhy.Preprocess((64, 56), 70, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "bicubic")
LABELS = ["cat", "dog", "tea"]
"""


@pytest.fixture
def net(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Any]:
    """A module of one's own in the current directory, beside photo.jpg."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    name = f"cli_net_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(NET)
    Image.fromarray(skimage.data.chelsea()).save(tmp_path / "photo.jpg")
    yield __import__(name)
    del sys.modules[name]


@pytest.fixture(autouse=True)
def warnings_are_told() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


METHODS = ["grad_cam", "lrp", "saliency"]


def numbers_in(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    told = json.loads((folder / "explanation.json").read_text())
    with np.load(folder / "photo" / "maps.npz") as maps:
        return told, dict(maps)


@pytest.mark.parametrize(
    "way", ["factory", "factory_and_labels", "folder", "folder_after_training", "weights"]
)
def test_explain_says_what_the_same_model_says_in_python(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    model, arguments = net.wrapped(), [f"{net.__name__}:wrapped"]
    if way == "factory_and_labels":
        (tmp_path / "names.txt").write_text("one\ntwo\nthree\n")
        model = seewhy.wrap(
            net.make(), preprocess=net.PREPROCESS, labels=["one", "two", "three"], name="net"
        )
        arguments += ["--labels", "names.txt"]
    elif way == "weights":
        torch.manual_seed(5)
        model.module.load_state_dict(net.Net().state_dict())
        torch.save(model.module.state_dict(), tmp_path / "w.pt")
        arguments = [f"{net.__name__}:wrapped@w.pt"]
    elif way != "factory":
        if way == "folder_after_training":
            with torch.no_grad():
                model.module.head.weight.add_(0.1)
        model.save(tmp_path / "mine")
        arguments = ["mine"]
    asked = [part for method in METHODS for part in ("--method", method)]
    command = [
        "explain",
        "photo.jpg",
        "--model",
        *arguments,
        *asked,
        "--target",
        "top2",
        "--out",
        "cli",
    ]
    assert run(command) == 0
    said = capsys.readouterr().err.splitlines()
    assert sum("runs the code of" in line for line in said) == 1
    with torch.random.fork_rng():
        seewhy.explain(model, tmp_path / "photo.jpg", methods=METHODS, targets=["top2"]).save(
            tmp_path / "python"
        )
    (ours, our_maps), (theirs, their_maps) = (
        numbers_in(tmp_path / "cli"),
        numbers_in(tmp_path / "python"),
    )
    assert ours == theirs
    assert our_maps.keys() == their_maps.keys()
    for key, value in our_maps.items():
        np.testing.assert_array_equal(value, their_maps[key])
        assert value.dtype == their_maps[key].dtype


def test_every_command_takes_one(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net.wrapped().save(tmp_path / "mine")
    for place in (f"{net.__name__}:wrapped", f"{net.__name__}.py:wrapped", "mine"):
        assert run(["layers", place, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["default"] == "body"
        assert run(["localize", "photo.jpg", "--model", place, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["images"][0]["found"][0]["label"] in net.LABELS
        command = [
            "evaluate",
            "photo.jpg",
            "--model",
            place,
            "--metric",
            "deletion:step=1792",
            "--json",
        ]
        assert run([*command, "--no-chance"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"]


def test_influence_takes_one_up_again_by_itself(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / "pictures" / "train" / net.LABELS[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{i}.png")
    net.wrapped().save(tmp_path / "mine")
    fit = [
        "influence",
        "fit",
        "--data",
        "folder:pictures",
        "--model",
        "mine",
        "--l2",
        "0.1",
        "--out",
        "index",
    ]
    assert run(fit) == 0
    assert (
        run(
            [
                "influence",
                "query",
                "photo.jpg",
                "--index",
                "index",
                "--out",
                "asked",
                "--json",
                "--trust-paths",
            ]
        )
        == 0
    )
    assert "runs the code of" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["explain", "photo.jpg"], ["layers"], ["labels"]])
def test_what_a_model_prints_as_it_loads_is_none_of_the_json(
    command: list[str], net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = f"{net.__name__}_loud"
    Path(f"{loud}.py").write_text(
        f"import {net.__name__} as net\ndef make():\n    print('downloading')\n    return net.wrapped()\n"
    )
    *photos, last = command
    of_model = ["--model", f"{loud}.py:make"] if last == "photo.jpg" else [f"{loud}.py:make"]
    assert run([*photos, last, *of_model, "--json"]) == 0
    told = capsys.readouterr()
    json.loads(told.out)
    assert "downloading" in told.err


def test_layers_may_stand_in_a_list_with_commas(
    net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    of_net = ["explain", "photo.jpg", "--model", f"{net.__name__}:wrapped", "--json"]
    assert run([*of_net, "--layer", "body.1, body.3", "--fuse", "layer"]) == 0
    found = json.loads(capsys.readouterr().out)["images"][0]["attributions"]
    assert {one["layer"] for one in found} == {"body.1", "body.3", "body.1 + body.3"}


def test_errors_are_one_line_and_nothing_runs_that_is_not_there(
    net: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, said in (
        ("nowhere_net:make", "there is no module 'nowhere_net' in the current directory"),
        (f"{net.__name__}:mak", "has no 'mak'; did you mean 'make'?"),
        (f"{net.__name__}:make", "does not say how photos become its input; wrap it: seewhy.wrap("),
        (f"{net.__name__}:make@w.pt", "weights file 'w.pt' does not exist"),
        (f"{net.__name__}:LABELS", "gives a list; it should return an nn.Module"),
        ("net.py", "name its function that returns the model, as in 'net.py:make'"),
        ("mine.pt", "weights need the network that they are of, as in 'timm:resnet50@mine.pt'"),
    ):
        assert run(["explain", "photo.jpg", "--model", place]) == 1
        errors = [
            line for line in capsys.readouterr().err.splitlines() if "runs the code of" not in line
        ]
        assert len(errors) == 1
        assert said in errors[0]
