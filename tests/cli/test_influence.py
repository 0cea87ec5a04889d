"""The command line of influence, and its pictures: what it prints where, what it writes, and how it fails."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from commands import called
from influence_cases import NOT_TRAINED, one_thread
from seewhy.cli import influence_answers, influence_telling, run
from seewhy.cli.influence_asked import OfIndex
from seewhy.cli.influence_data import AS_USUAL, Limits, model_and_data, open_index
from seewhy.cli.influence_fit import fit, parse_settings
from seewhy.cli.influence_mislabeled import mislabeled as list_mislabeled
from seewhy.cli.influence_query import query as ask_index
from seewhy.cli.influence_telling import forecasting_self_influence
from seewhy.cli.show import console, progress
from seewhy.data.sources import find_data
from seewhy.engine.spread import World
from seewhy.errors import ImageError, InputError, ModelError
from seewhy.influence import (
    SOLVERS,
    InfluenceIndex,
    InfluenceQuery,
    Influential,
    find_solver,
    match_regions,
    mislabeled,
)
from seewhy.influence.answers import sheets as sheets
from seewhy.influence.answers.sheets import influence_sheet, mislabeled_sheet
from seewhy.models.load import load_model
from seewhy.render import drawing
from tiny_models import TinyCNN, pictures, randomised

TRUSTED = Limits(trust_paths=True)  # the data lie beside the index

CLASSES = ("blue", "green", "red")
pytestmark = NOT_TRAINED


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three colours by class, one of them in the wrong folder, and weights of a model for them."""
    import timm

    folder = tmp_path_factory.mktemp("influence")
    chance = np.random.default_rng(0)
    for i in range(15):
        pixels = chance.integers(0, 90, (40, 48, 3))
        pixels[5:30, 8:40, 2 - i % 3] += 150
        kept = folder / "data" / "train" / CLASSES[(i + (i == 7)) % 3]
        kept.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(kept / f"{i:02d}.png")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), folder / "weights.pt")
    (folder / "names.txt").write_text("\n".join(CLASSES))
    return folder


@pytest.fixture(scope="module")
def index(place: Path) -> Path:
    made_of: dict[str, Any] = {
        "model": f"timm:test_resnet@{place / 'weights.pt'}",
        "labels": place / "names.txt",
    }
    assert called(fit, data=f"folder:{place / 'data'}", l2=0.1, out=place / "index", **made_of) == 0
    return place / "index"


def about(place: Path) -> dict[str, Any]:
    """What an index says that it was made of."""
    model = f"timm:test_resnet@{place / 'weights.pt'}"
    return {"model": model, "labels": list(CLASSES), "data": f"folder:{place / 'data'}"}


def photo(place: Path) -> Path:
    return next((place / "data").rglob("00.png"))


def test_fit_tells_the_estimate_and_what_to_ask(
    place: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_of = {"model": f"timm:test_resnet@{place / 'weights.pt'}", "labels": place / "names.txt"}
    options: dict[str, Any] = {**made_of, "l2": 0.1, "out": tmp_path}
    source = f"folder:{place / 'data'}"
    assert called(fit, data=source, option=["damping=0.5"], dtype="float16", **options) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "15 examples: about" in said.err
    assert (
        f"seewhy influence mislabeled --index {tmp_path} --trust-paths  # computes self-influence first"
        in said.err
    )
    assert not list(tmp_path.glob("self-*"))
    assert (
        called(fit, data=source, option=["damping=0.5"], dtype="float16", as_json=True, **options)
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["examples"], told["self_influence"]) == (15, False)
    assert (
        called(
            fit,
            data=source,
            option=["damping=0.5"],
            dtype="float16",
            self_influence=True,
            **options,
        )
        == 0
    )
    assert (
        capsys.readouterr()
        .err.rstrip()
        .endswith(f"seewhy influence mislabeled --index {tmp_path} --trust-paths")
    )
    assert list(tmp_path.glob("self-*"))
    for wrong, reason in (
        ({"option": ["damping"]}, "is not NAME=VALUE"),
        (
            {"option": ["dumping=3"]},
            "solver 'last_layer' has no option 'dumping'; did you mean 'damping'",
        ),
        ({"dtype": "int8"}, "dtype 'int8' is not known"),
        ({"option": ["damping=0.1"]}, "holds an index with settings="),
    ):
        with pytest.raises(InputError, match=reason):
            called(fit, data=source, **{**options, **wrong})


def test_query_draws_and_tells(
    place: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = photo(place), tmp_path / "00.png"
    other.write_bytes(first.read_bytes())
    photos = [first, other]
    assert (
        called(
            ask_index, photos=photos, index=index, trust_paths=True, k=2, out=tmp_path, as_json=True
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "influence.json").read_text())
    assert (told["solver"], told["calibrated"]) == ("last_layer", True)
    sheets = [query["sheet"] for query in told["queries"]]
    assert sheets == [str(tmp_path / "00" / "sheet.png"), str(tmp_path / "00-2" / "sheet.png")]
    opened = open_index(OfIndex(index), TRUSTED)
    (found,) = opened.query([first], 2)
    query = told["queries"][0]
    assert query["predicted"] in CLASSES
    assert query["about"] == f"the loss of {query['predicted']}"
    for ends, expected in ((query["helpful"], found.helpful), (query["harmful"], found.harmful)):
        assert [end["index"] for end in ends] == [end.index for end in expected]
        assert all(end["name"].startswith(f"train/{end['label_name']}/") for end in ends)
    for sheet in sheets:
        with Image.open(sheet) as picture:
            assert picture.width > 600
            assert len(picture.getcolors(maxcolors=10**6) or []) > 500  # photos with maps
    assert (
        called(
            ask_index,
            photos=[first],
            index=index,
            trust_paths=True,
            target="probability:red",
            out=tmp_path,
        )
        == 0
    )
    said = capsys.readouterr()
    assert "helpful" in said.out
    assert (
        called(
            ask_index,
            photos=[first],
            index=index,
            trust_paths=True,
            label="green",
            out=tmp_path,
            as_json=True,
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["queries"][0]["about"] == "the loss of green"


def test_mislabelled_lists_and_draws(
    place: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        called(list_mislabeled, index=index, trust_paths=True, top=4, out=tmp_path, as_json=True)
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    opened = open_index(OfIndex(index), TRUSTED)
    own = opened.self_influence()
    assert [one["index"] for one in told["examples"]] == own.argsort(descending=True)[:4].tolist()
    assert [one["score"] for one in told["examples"]] == pytest.approx(
        own.sort(descending=True).values[:4].tolist()
    )
    assert all(0 < one["probability"] <= 1 for one in told["examples"])
    for one in told["examples"]:  # where the model says the label, its probability tells the loss
        if one["predicted"] == one["label_name"]:
            assert one["loss"] == pytest.approx(-math.log(one["probability"]), rel=1e-4)
        else:
            assert one["loss"] > -math.log(one["probability"])
    assert (tmp_path / "mislabeled.png").is_file()
    assert called(list_mislabeled, index=index, trust_paths=True, top=3, out=tmp_path) == 0
    assert "Labels to check first, of 15" in capsys.readouterr().err


def test_self_influence_that_was_interrupted_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of = about(place)
    model, data = load_model(made_of["model"], labels=CLASSES), find_data(made_of["data"])
    folder = tmp_path / "index"
    InfluenceIndex.fit(
        model, data, solver="last_layer", l2=0.1, out=folder, shard_rows=4, about=made_of
    )
    seen = list[tuple[int, int]]()

    def interrupted(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(influence_telling, "telling", lambda show: interrupted)
    command = [
        "influence",
        "mislabeled",
        "--index",
        str(folder),
        "--top",
        "3",
        "--out",
        str(tmp_path),
        "--trust-paths",
    ]
    assert run(command) == 130
    assert seen == [(4, 15), (8, 15), (12, 15)]
    assert len(list(folder.glob("self-*.safetensors"))) == 2
    assert run(command) == 0
    assert seen[3:] == [(4, 7), (7, 7)]
    told = json.loads((tmp_path / "mislabeled.json").read_text())
    own = InfluenceIndex.fit(model, data, solver="last_layer", l2=0.1).self_influence()
    assert [one["index"] for one in told["examples"]] == own.argsort(descending=True)[:3].tolist()
    assert run(command) == 0
    assert len(seen) == 5  # the index has it now


def test_what_self_influence_takes_is_told_where_it_is_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for each, said in ((0.01, ""), (1.5, "Self-influence of 100 examples takes about 2 min more")):
        clock = [0.0]
        monkeypatch.setattr("seewhy.cli.show.time.perf_counter", lambda clock=clock: clock[0])
        with progress("Self-influence", 100) as show:
            told = forecasting_self_influence(show)
            for done in (8, 16, 24, 32):
                clock[0] += 8 * each + 30 * (done == 8)  # the first is slow
                told(done, 100)
        assert capsys.readouterr().err.count(said or "Self-influence of") == bool(said)
    assert said


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("conjugate_gradient", ["curvature=gauss_newton", "damping=5", "iterations=3"]),
        ("lissa", ["curvature=gauss_newton", "damping=5", "depth=3", "scale=1000"]),
    ],
)
@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
def test_solvers_that_read_the_data_again(
    solver: str, options: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_of = about(place)
    model, data = load_model(made_of["model"], labels=CLASSES), find_data(made_of["data"])
    made = find_solver(solver, **parse_settings(options))
    parameters = ["fc.weight", "fc.bias"]
    index = InfluenceIndex.fit(
        model,
        data,
        solver=made,
        l2=0.1,
        parameters=parameters,
        out=tmp_path / "index",
        about=made_of,
    )
    (expected,) = index.query([photo(place)], 2)
    command = [
        "influence",
        "query",
        str(photo(place)),
        "--index",
        str(tmp_path / "index"),
        "-k",
        "2",
        "--json",
    ]
    assert run([*command, "--out", str(tmp_path), "--trust-paths"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["queries"]
    assert [one["score"] for one in found["helpful"]] == pytest.approx(
        [one.score for one in expected.helpful]
    )
    opened = InfluenceIndex.open(tmp_path / "index", model)
    for use in (lambda: opened.query([photo(place)], 2), opened.self_influence):
        with pytest.raises(
            InputError,
            match=r"^this needs the training data of the index in '.*', .* give Influence.*$",
        ):
            use()


def test_pictures_that_cannot_be_read_can_be_left_out(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data" / "train" / "red" / "broken.png").write_bytes(b"no picture")
    options: dict[str, Any] = {
        "model": f"timm:test_resnet@{place / 'weights.pt'}",
        "labels": place / "names.txt",
        "l2": 0.1,
        "out": tmp_path / "index",
    }
    with pytest.raises(ImageError, match=r"broken\.png"):
        called(fit, data=f"folder:{tmp_path / 'data'}", **options)
    assert (
        called(fit, data=f"folder:{tmp_path / 'data'}", skip_bad=True, as_json=True, **options) == 0
    )
    said = capsys.readouterr()
    assert "skipped" in said.err
    told = json.loads(said.out)
    assert (told["examples"], told["skipped"]) == (15, ["train/red/broken.png"])
    opened = open_index(OfIndex(tmp_path / "index"), TRUSTED)
    assert len(opened.query([photo(place)], 2)[0].helpful) == 2


def test_annotations_that_were_left_out_stay_so(place: Path, tmp_path: Path) -> None:
    rows = [
        f"{path},{path.parent.name},train,1,2,3,4"
        for path in sorted((place / "data").rglob("*.png"))
    ]
    file = tmp_path / "list.csv"
    file.write_text(
        "\n".join(["path,label,split,x0,y0,x1,y1", rows[0].replace("3,4", "3,"), *rows[1:]])
    )
    options: dict[str, Any] = {
        "model": f"timm:test_resnet@{place / 'weights.pt'}",
        "out": tmp_path / "index",
    }
    options |= {"labels": place / "names.txt", "trust_paths": True}
    with pytest.raises(InputError, match="line 2: box"):
        called(fit, data=f"csv:{file}", l2=0.1, **options)
    assert called(fit, data=f"csv:{file}", l2=0.1, skip_bad=True, **options) == 0
    opened = open_index(OfIndex(tmp_path / "index"), TRUSTED)
    assert len(opened.query([photo(place)], 2)[0].helpful) == 2


def test_what_does_not_fit_is_one_line(place: Path, index: Path, tmp_path: Path) -> None:
    first, other = photo(place), tmp_path / "other"
    shutil.copytree(place / "data", other)
    next((other / "train" / "red").iterdir()).unlink()
    ask: dict[str, Any] = {"index": index, "out": tmp_path}
    for options, said in (
        ({"index": tmp_path}, "holds no influence index; 'seewhy influence fit' makes one"),
        (
            {"data": f"folder:{other}"},
            r"data does not fit the index in '.*': it has 14 examples, the index 15",
        ),
        (
            {"model": "timm:test_resnet@" + str(_other_weights(tmp_path))},
            r"model does not fit the index .* differ",
        ),
        (
            {"data": "folder:moved"},
            r"what the index in '.*' was made of cannot be had: .* --model and --data say where",
        ),
        ({"label": "rad"}, "label 'rad' is not a label of the model; did you mean 'red'"),
        ({"label": "7"}, "labels has 7, the model has 3 classes: 0 to 2"),
        ({"out": first}, "cannot be made a folder"),
    ):
        with pytest.raises(InputError, match=said):
            called(ask_index, photos=[first], trust_paths=True, **{**ask, **options})
    with pytest.raises(InputError, match="top=0 cannot be listed"):
        called(list_mislabeled, top=0, trust_paths=True, **ask)
    told = json.loads((index / "manifest.json").read_text())
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "manifest.json").write_text(json.dumps({**told, "about": {}}))
    with pytest.raises(
        InputError, match="does not say what it was made of; give --model and --data"
    ):
        called(ask_index, photos=[first], index=bare, trust_paths=True, out=tmp_path)


def _other_weights(folder: Path) -> Path:
    import timm

    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), folder / "other.pt")
    return folder / "other.pt"


def test_sheets_of_tensors_and_of_models_without_maps() -> None:
    data = pictures(20, 12), torch.arange(20) % 3
    net = randomised(TinyCNN(3))
    index = InfluenceIndex.fit(net, data, solver="last_layer", l2=0.1)
    x = pictures(1, 12, seed=1)
    (found,) = index.query(x, 3)
    with_maps = influence_sheet(index, x, found)
    flat = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(3 * 12 * 12, 3)
    )  # no layer is a picture
    index = InfluenceIndex.fit(flat, data, solver="last_layer", l2=0.1)
    (found,) = index.query(x, 3, target="top1")
    without = influence_sheet(index, x, found, target="top1")
    assert with_maps.height > without.height + 200
    suspects = mislabeled(index, 7)
    one, two = (mislabeled_sheet(index, suspects[:n]) for n in (6, 7))
    assert two.height > one.height + 100  # six in a row
    with pytest.raises(InputError, match="suspects is empty"):
        mislabeled_sheet(index, [])


def test_a_photo_that_cannot_be_read_is_left_out(
    place: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    command = [
        "influence",
        "query",
        str(broken),
        str(photo(place)),
        "-k",
        "1",
        "--index",
        str(index),
        "--json",
    ]
    assert run([*command, "--out", str(tmp_path), "--trust-paths"]) == 1
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told == json.loads((tmp_path / "influence.json").read_text())
    assert [one["photo"] for one in told["queries"]] == [str(photo(place))]
    assert [one["photo"] for one in told["skipped"]] == [str(broken)]
    assert "skipped" in said.err
    with pytest.raises(
        ImageError, match=r"none of the 1 pictures can be read; the first: .*broken"
    ):
        called(ask_index, photos=[broken], index=index, trust_paths=True, out=tmp_path)


def test_classes_are_matched_by_name(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data's classes are blue, green, red; the model's order is another."""
    names = tmp_path / "names.txt"
    names.write_text("red\nblue\ngreen\n")
    made_of = {
        "model": f"timm:test_resnet@{place / 'weights.pt'}",
        "data": f"folder:{place / 'data'}",
    }
    model, data = model_and_data(
        {**made_of, "labels": ["red", "blue", "green"]}, AS_USUAL, device="cpu"
    )
    assert data.classes == model.labels == ("red", "blue", "green")
    for example, name in zip(data, data.names, strict=True):
        assert name.split("/")[1] == data.classes[example.labels[0]]
    options: dict[str, Any] = {
        "model": made_of["model"],
        "l2": 0.1,
        "out": tmp_path / "index",
        "as_json": True,
    }
    assert called(fit, data=made_of["data"], labels=names, **options) == 0
    capsys.readouterr()
    opened = open_index(OfIndex(tmp_path / "index"), TRUSTED)
    assert [opened.classes[i] for i in opened.labels.tolist()] == [
        name.split("/")[1] for name in opened.names
    ]
    names.write_text("red\nblue\nyellow\n")
    with pytest.raises(
        ModelError,
        match=r"has no class 'green' of .*; give a model that was trained on these classes",
    ):
        called(fit, data=made_of["data"], labels=names, **{**options, "out": tmp_path / "other"})
    with pytest.raises(
        ModelError,
        match=r"has no names, and so no class 'blue' of .*the names of its classes with --labels",
    ):
        called(fit, data=made_of["data"], **{**options, "out": tmp_path / "other"})
    assert not (tmp_path / "other").exists()


def test_help_names_every_solver_and_what_holds_unless_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said(command: str) -> str:
        assert run(["influence", command, "--help"]) == 0
        return " ".join(capsys.readouterr().out.replace("│", " ").split())

    fit, query = said("fit"), said("query")
    assert all(solver in fit for solver in SOLVERS)
    for told in (
        "the last that is a picture",
        "the class that the model says",
        "the model that the index was made",
    ):
        assert told in query


def test_a_sheet_of_many_stays_small() -> None:
    data = pictures(60, 12), torch.arange(60) % 3
    index = InfluenceIndex.fit(randomised(TinyCNN(3)), data, solver="last_layer", l2=0.1)
    x = pictures(1, 12, seed=1)

    def sheet(n: int) -> Image.Image:
        ends = tuple(Influential(i, str(i), i % 3, "a", 1.0) for i in range(n))
        return influence_sheet(index, x, InfluenceQuery("the loss of a", "class 0", ends, ends))

    few, drawn, more = sheet(6), sheet(24), sheet(30)
    assert few.width == drawn.width == more.width
    assert drawn.height > few.height + 1000
    assert more.height < drawn.height + 40  # a line that says so


def test_a_map_without_any_place_says_so(
    place: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_index(OfIndex(index), TRUSTED)
    (found,) = opened.query([photo(place)], 1)
    matched = match_regions(
        opened, [photo(place)], [one.index for one in (*found.helpful, *found.harmful)]
    )
    nowhere = dataclasses.replace(
        matched.test, map=-matched.test.map.abs(), status=("empty",) * len(matched.scores)
    )
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(sheets, "match_regions", lambda *args, **options: matched)
    monkeypatch.setattr(type(matched), "carrying", lambda self: (nowhere, nowhere))
    monkeypatch.setattr(
        drawing, "label_strip", lambda picture, head, text: told.append((head, text))
    )
    influence_sheet(opened, [photo(place)], found)
    assert told == [sheets._NOWHERE] * 2 * len(matched.scores)


def test_of_several_processes_the_first_alone_speaks(
    place: Path,
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(console, "quiet", False)
    for module in (influence_answers, influence_telling):
        monkeypatch.setattr(module, "world", lambda: World(1, 2))
    with warnings.catch_warnings():
        for as_json in (True, False):
            assert (
                called(
                    ask_index,
                    photos=[photo(place)],
                    index=index,
                    trust_paths=True,
                    k=1,
                    out=tmp_path,
                    as_json=as_json,
                )
                == 0
            )
            assert (
                called(
                    list_mislabeled,
                    index=index,
                    trust_paths=True,
                    top=2,
                    out=tmp_path,
                    as_json=as_json,
                )
                == 0
            )
    assert capsys.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
