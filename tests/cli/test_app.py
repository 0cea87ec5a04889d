"""The command line, in this process: what it prints where, what it writes, and how it fails."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from seewhy.cli import run
from seewhy.cli.parsing import label_names


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "cat.jpg"
    Image.fromarray(skimage.data.chelsea()).save(path)
    return path


def test_explain_writes_pictures_and_prints_a_table_and_remarks_beside_it(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", str(cat), "--out", str(tmp_path / "out"), "--report"]) == 0
    said = capsys.readouterr()
    assert [line.split()[:3] for line in said.out.splitlines()] == [
        ["photo", "explained", "probability"],
        ["cat.jpg", "tiger", "cat"],
    ]
    assert "Why efficientnet_lite0 said so" in said.err
    assert "Look at" in said.err
    assert (tmp_path / "out" / "cat" / "sheet.png").is_file()
    names = [each.name for each in (tmp_path / "out" / "cat").iterdir()]
    assert "layer_relevance.blocks_3_0_bn1_+_blocks_5_0_bn1.top1.png" in names
    assert (tmp_path / "out" / "report.html").is_file()


def test_json_is_one_object_and_nothing_else(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "explain",
        str(cat),
        "-M",
        "grad_cam",
        "-M",
        "saliency",
        "-t",
        "tabby",
        "-t",
        "margin:tabby/tiger cat",
    ]
    assert run([*arguments, "--json", "-o", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    entries = told["images"][0]["attributions"]
    assert [entry["label"] for entry in entries] == ["tabby", "tabby rather than tiger cat"] * 2
    assert all(entry["status"] == "ok" for entry in entries)
    x, y = entries[0]["peak"]
    assert 90 < x < 360
    assert 0 < y < 300


def test_the_ledger_is_a_table_for_people_and_part_of_the_json(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "explain",
        str(cat),
        "-M",
        "lrp",
        "-M",
        "grad_cam",
        "--option",
        "lrp.seed=lrp",
        "--ledger",
        "-o",
        str(tmp_path),
    ]
    assert run(arguments) == 0
    told = capsys.readouterr()
    said = told.out + told.err
    assert "relevance of tiger cat by lrp" in told.err
    assert "blocks.3.0.conv_dw" in said
    assert "kept in all" in said
    assert run([*arguments, "--json"]) == 0
    lrp, grad_cam = json.loads(capsys.readouterr().out)["images"][0]["attributions"]
    assert lrp["ledger"][0]["operation"] == "classifier"
    assert lrp["ledger"][0]["received"] == pytest.approx(lrp["score"], rel=1e-4)
    assert lrp["facts"]["relevance_peak"] < 1
    assert "ledger" not in grad_cam
    assert run(["explain", str(cat), "-M", "grad_cam", "--ledger", "-o", str(tmp_path)]) == 1
    assert "grad_cam carries no relevance" in capsys.readouterr().err


def test_perturbation_methods_take_options_and_warn_in_one_line(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    options = [
        "-O",
        "rise.samples=16",
        "-O",
        "rise.masks=iid",
        "-O",
        "lime.samples=20",
        "-O",
        "lime.superpixels=slic",
    ]
    arguments = ["explain", str(cat), "-M", "rise", "-M", "lime", *options, "-o", str(tmp_path)]
    warnings.simplefilter("always")
    assert run([*arguments, "--json"]) == 0
    said = capsys.readouterr()
    rise, lime = json.loads(said.out)["images"][0]["attributions"]
    assert (rise["facts"]["samples"], rise["options"]["samples"], rise["options"]["masks"]) == (
        16,
        16,
        "iid",
    )
    assert lime["facts"]["samples"] == 20
    assert all(
        line.startswith("seewhy: ") or " takes about " in line for line in said.err.splitlines()
    )
    stored = np.load(tmp_path / "cat" / "maps.npz")
    assert stored["rise.top1.interval"].shape == stored["rise.top1"].shape == (224, 224)
    assert run(["explain", str(cat), "-M", "rise", "-O", "samples=3", "-o", str(tmp_path)]) == 1
    assert "is not METHOD.OPTION=VALUE" in capsys.readouterr().err
    assert (
        run(["explain", str(cat), "-M", "rise", "-O", "rise.sampels=3", "-o", str(tmp_path)]) == 1
    )
    assert "did you mean 'samples'" in capsys.readouterr().err


def test_the_model_sees_what_crop_and_resize_say(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(cat) as photo:
        width, height = photo.size
    for more, box in (
        (["--crop", "none"], [0, 0, width, height]),
        (["--resize", "pad"], [0, (height - width) / 2, width, (height + width) / 2]),
    ):
        assert run(["explain", str(cat), *more, "-o", str(tmp_path), "--json", "--report"]) == 0
        (told,) = json.loads(capsys.readouterr().out)["images"]
        assert told["seen_box"] == pytest.approx(box, abs=1.5)
        assert told["input_size"] == [224, 224]
    page = (tmp_path / "report.html").read_text()
    assert "The model saw the whole photo, with a border around it, at 224 x 224." in page


def test_demo_explains_its_photos_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo", "--out", str(tmp_path / "demo")]) == 0
    said = capsys.readouterr()
    assert "espresso" in said.out
    assert "report.html" in said.err
    for name in ("cat", "coffee"):
        assert (tmp_path / "demo" / name / "sheet.png").is_file()


def test_methods_and_layers_list_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "--json"]) == 0
    assert {"grad_cam", "fullgrad", "guided_grad_cam"} <= {
        m["name"] for m in json.loads(capsys.readouterr().out)["methods"]
    }
    assert run(["methods"]) == 0
    assert "Integrated gradients" in capsys.readouterr().out
    assert run(["layers", "timm:test_resnet", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["default"] == told["all-stages"][-1] == "layer4"
    assert run(["layers", "timm:test_resnet", "--all"]) == 0
    assert "layer4" in capsys.readouterr().out


def test_a_folder_with_a_bad_file_is_explained_without_it(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(cat.read_bytes())
    (folder / "b.jpg").write_bytes(cat.read_bytes()[:900])
    assert run(["explain", str(folder), "-o", str(tmp_path / "out"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [image["name"] for image in told["images"]] == ["a.jpg"]
    assert "b.jpg" in told["skipped"][0]["error"]


def test_labels_from_a_file(cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "labels.txt"
    names.write_text("\n".join(f"thing {i}" for i in range(1000)))
    assert (
        run(
            [
                "explain",
                str(cat),
                "--labels",
                str(names),
                "-t",
                "thing 281",
                "-o",
                str(tmp_path),
                "--json",
            ]
        )
        == 0
    )
    assert (
        json.loads(capsys.readouterr().out)["images"][0]["attributions"][0]["label"] == "thing 281"
    )


def test_a_labels_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n", encoding="utf-8-sig")
    assert label_names(tmp_path / "labels.txt") == ("cat", "dog")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain", "nowhere.jpg"], "image 'nowhere.jpg' does not exist"),
        (["explain", "{cat}", "--model", "timm:resnet5o"], "did you mean 'resnet50'"),
        (["explain", "{cat}", "--method", "grad_cma"], "did you mean 'grad_cam'"),
        (
            ["explain", "{cat}", "--layer", "bn3"],
            "layer 'bn3' is not in EfficientNet; did you mean 'bn2'",
        ),
        (["explain", "{cat}", "--target", "1000"], "target 1000 is not a class"),
        (["explain", "{cat}", "--target", "tabbi"], "did you mean 'tabby'"),
        (["explain", "{cat}", "--style", "pretty"], "pretty"),
        (["explain", "{cat}", "--fuse", "colour"], "--fuse 'colour' cannot be fused over"),
        (
            ["explain", "{cat}", "--labels", "nowhere.txt"],
            "labels file 'nowhere.txt' cannot be read",
        ),
        (["explain", "{cat}", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["explain", "{cat}", "--target", ""], "target '' is not a label of the model\n"),
        (["explain", "{cat}", "--target", "top0"], "the model has 1000; give 'top1' to 'top1000'"),
        (
            ["explain", "{cat}", "-M", "rise", "-O", "rise.samples=many"],
            "rise.samples='many' is not a number",
        ),
        (
            ["explain", "{cat}", "-M", "rise", "-O", "rise.samples=20.5"],
            "'rise.samples=20.5' is not a whole number",
        ),
        (
            ["explain", "{cat}", "-M", "lrp", "-O", "lrp.strict=maybe"],
            "lrp.strict='maybe' is not true or false",
        ),
        (
            ["evaluate", "{cat}", "--metric", "deletion:step=few"],
            "deletion:step='few' is not a number",
        ),
        (
            ["evaluate", "{cat}0", "{cat}1"],
            "0' does not exist; did you mean 'cat.jpg'",
        ),
        (["explain"], "Missing argument"),
        (["expalin"], "No such command 'expalin'"),
    ],
)
def test_a_user_s_error_is_one_line_and_exit_1(
    arguments: list[str],
    said: str,
    cat: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [a.replace("{cat}", str(cat)) for a in arguments]
    where = ["-o", str(tmp_path)] if "{cat}" in arguments else []
    assert run([*filled, *where]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("seewhy: ")
    assert printed.err.count("\n") == 1
    assert said in printed.err


def test_an_interrupt_keeps_what_was_finished(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").write_bytes(cat.read_bytes())
    from seewhy.methods.explanation import ExplanationWriter

    add = ExplanationWriter.add

    def interrupted_at_b(self: ExplanationWriter, part: object) -> None:
        if part.names == ("b.jpg",):  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        add(self, part)  # type: ignore[arg-type]

    monkeypatch.setattr(ExplanationWriter, "add", interrupted_at_b)
    assert run(["explain", str(tmp_path), "--batch-size", "1", "-o", str(tmp_path / "out")]) == 130
    said = f"interrupted; 1 of 3 photos are saved in {tmp_path / 'out'}; run the same command again to go on"
    assert said in capsys.readouterr().err
    told = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert [image["name"] for image in told["images"]] == ["a.jpg"]


def test_an_interrupted_evaluation_says_what_is_saved(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluating = importlib.import_module("seewhy.metrics.evaluate")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluating, "evaluated", interrupted)
    assert run(["evaluate", str(cat), "-o", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "seewhy: interrupted; nothing was finished\n"


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seewhy.cli import parsing
    from seewhy.data import disk

    assert run(["demo", "-o", str(cat)]) == 1
    assert (
        "cannot be made a folder: File exists; give one where you may write"
        in capsys.readouterr().err
    )
    monkeypatch.setattr(disk.os, "access", lambda _, mode: not mode & disk.os.W_OK)
    monkeypatch.setattr(
        parsing, "load_model", lambda *_, **__: pytest.fail("the model is not needed yet")
    )
    for command in ("localize", "evaluate"):
        assert run([command, str(cat), "-o", str(tmp_path)]) == 1
        assert (
            "cannot be written into; change its rights, or give another folder"
            in capsys.readouterr().err
        )


def test_a_full_disk_is_one_line(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seewhy.methods.explanation import ExplanationWriter

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "maps.npz")

    monkeypatch.setattr(ExplanationWriter, "add", full)
    assert run(["explain", str(cat), "-o", str(tmp_path)]) == 1
    said = (
        "seewhy: 'maps.npz' cannot be read or written: No space left on device; "
        "check its rights, and the disk's room\n"
    )
    assert capsys.readouterr().err == said


def test_names_with_brackets_are_no_markup(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my [red]photos[-bold]"
    folder.mkdir()
    (folder / "[cat].jpg").write_bytes(cat.read_bytes())
    (folder / "[dog].jpg").write_bytes(b"no picture")
    out = tmp_path / "[bold]out[red]"
    for command in ("explain", "localize"):
        assert run([command, str(folder), "-o", str(out)]) == 1
        told = capsys.readouterr()
        said = told.out + told.err
        assert all(
            name in said for name in ("[cat].jpg", "[red]photos[-bold]/[dog].jpg", "[bold]out[red]")
        )


def test_a_second_run_does_not_explain_what_the_first_wrote(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cat.jpg").write_bytes(cat.read_bytes())
    commands = (["explain"], ["localize"], ["evaluate", "--metric", "complexity"])
    for command in commands * 2:
        out = tmp_path / f"seewhy-{command[0]}"
        assert run([*command, str(tmp_path), "-o", str(out), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["images"]
        assert [one if isinstance(one, str) else one["name"] for one in told] == ["cat.jpg"]


def test_without_a_command_the_help_is_all_that_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in ([], ["influence"]):
        assert run(arguments) == 1
        said = capsys.readouterr()
        assert "Usage" in said.out
        assert said.err == ""


def test_debug_shows_the_traceback(cat: Path) -> None:
    from seewhy.errors import InputError

    with pytest.raises(InputError, match="unknown"):
        run(["explain", str(cat), "--method", "grad_cma"], debug=True)


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("seewhy 0.")
    assert run(["--help"]) == 0
    assert "explain" in capsys.readouterr().out
