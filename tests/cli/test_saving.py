"""What `seewhy explain` writes: killed it is gone on with, two at once are refused, an interrupt says what is saved."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

import seewhy
from seewhy.cli import run
from seewhy.data.manifest import read_entries, read_head, stored_file
from seewhy.data.run_folder import RunFolder
from seewhy.errors import InputError

FACTORY = """
import torch, seewhy
from torch import nn

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(6, 4))
    plain = seewhy.Preprocess((24, 24), (24, 24), (0.5,) * 3, (0.5,) * 3, "bilinear")
    return seewhy.wrap(net.eval(), preprocess=plain, labels=list("abcd"), gives="logits", name="tiny")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a model's factory and twelve small photos, which is the current one."""
    (tmp_path / "tiny.py").write_text(FACTORY)
    photos(tmp_path / "photos", 12)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # that the factory's code runs
        yield tmp_path
    sys.modules.pop("tiny", None)


def photos(folder: Path, count: int, seed: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    chance = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(chance.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(
            folder / f"p{i:02d}.png"
        )


def command(*more: str, given: str = "photos", out: str = "out") -> list[str]:
    settings = ["--method", "grad_cam", "--method", "saliency", "--batch-size", "4"]
    return ["explain", given, "--model", "tiny.py:make", *settings, "--out", out, *more]


# a process that has imported all and forks for each command, since imports take longer than twelve photos
HERD = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
import torch, timm
import seewhy.cli.explain
from seewhy.cli import run
from seewhy.data.manifest import read_entries

def start(arguments, log):
    pid = os.fork()
    if pid:
        return pid
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1), os.dup2(file, 2)
    os._exit(run(arguments))

def kills(arguments, out):
    chance, kept = random.Random(0), 0
    begun = time.monotonic()
    os.waitpid(start([*arguments, "--out", "first"], "log"), 0)
    takes = time.monotonic() - begun
    for _ in range(20):
        pid = start([*arguments, "--out", out], "log")
        time.sleep(takes * chance.uniform(0.2, 1.0))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found = len(read_entries(Path(out)))
        kept += 0 < found < 12
        if found == 12:
            shutil.rmtree(out)
    print(json.dumps(kept))

def pairs(count, *commands):
    told = []
    for i in range(count):
        pids = [start([*command, "--out", f"out{i}"], f"log{n}") for n, command in enumerate(commands)]
        states = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        told.append([[status, Path(f"log{n}").read_text()] for n, status in enumerate(states)])
    print(json.dumps(told))

globals()[sys.argv[1]](*json.loads(sys.argv[2]))
"""


def herd(task: str, *arguments: Any) -> Any:
    """What a task of the herd prints."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(seewhy.__file__).parents[1]),
    }
    call = [sys.executable, "-W", "ignore", "-c", HERD, task, json.dumps(arguments)]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=600)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def everything(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def check_listed(folder: Path) -> None:
    """Each file is listed, and whole."""
    head, entries = read_head(folder), read_entries(folder).values()
    assert head is not None
    listed = {name: file.sha256 for entry in entries for name, file in entry.files.items()}
    listed |= {name: told["sha256"] for name, told in head["files"].items()}
    found = {
        name for name in everything(folder) if name not in ("run.json", "entries.jsonl", ".lock")
    }
    assert {name: stored_file(folder / name).sha256 for name in found} == listed


posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@posix
@pytest.mark.long
def test_killed_twenty_times_the_folder_is_that_of_a_run_left_alone(here: Path) -> None:
    whole = [part for part in command("--report") if part not in ("--out", "out")]
    assert herd("kills", whole, "out") >= 3
    assert run(command("--report", out="alone")) == 0
    assert run(command("--report")) == 0
    check_listed(Path("out"))
    assert everything(Path("out")) == everything(Path("alone"))


@posix
@pytest.mark.long
def test_of_ten_pairs_of_processes_no_entry_is_of_both(here: Path) -> None:
    """Photos of the same names in two folders, into one: the second process is refused, or goes on after the first."""
    photos(here / "others", 12, seed=1)
    alone, commands = [], []
    for given in ("photos", "others"):
        assert run(command(given=given, out=f"alone-{given}")) == 0
        alone.append(everything(Path(f"alone-{given}")))
        commands.append([part for part in command(given=given) if part not in ("--out", "out")])
    told = herd("pairs", 10, *commands)
    for i, pair in enumerate(told):
        check_listed(Path(f"out{i}"))
        check_pair(i, pair)
        whole = everything(Path(f"out{i}"))
        for entry in read_entries(Path(f"out{i}")).values():
            own = {name.partition("/")[2]: whole[name] for name in entry.files}
            stem = Path(entry.name).stem
            assert own in [{name: files[f"{stem}/{name}"] for name in own} for files in alone], (
                entry.name
            )


def check_pair(i: int, pair: list[tuple[int, str]]) -> None:
    assert 0 in [status for status, _ in pair]
    for status, said in pair:
        if status:
            line = said.strip().splitlines()[-1]
            assert line.startswith(f"seewhy: out='out{i}' is being written by "), said
            assert line.endswith("; wait until that has ended, or give another folder")


def test_the_same_command_goes_on_and_skips_what_is_done(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command("--json", "--report", out="alone")) == 0
    whole = json.loads(capsys.readouterr().out)
    interrupted_after(7)
    said = capsys.readouterr().err
    assert said.endswith(
        "interrupted; 7 of 12 photos are saved in out; run the same command again to go on\n"
    )
    check_listed(Path("out"))
    assert not list(Path("out").glob(".writing*"))
    assert run(command("--json", "--report")) == 0
    told = capsys.readouterr()
    assert "7 of 12 were done before" in told.err
    told = json.loads(told.out)
    assert told.pop("out") == "out"
    assert told.pop("report").endswith("report.html")
    assert told.items() <= whole.items()
    assert everything(Path("out")) == everything(Path("alone"))
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save("photos/p03.png")
    assert run(command("--device", "cpu")) == 0
    assert "11 of 12 were done before" in capsys.readouterr().err
    check_listed(Path("out"))


def interrupted_after(photos: int) -> None:
    """Runs the command, which is interrupted when so many photos are written."""
    from seewhy.methods.explanation import ExplanationWriter

    write, left = ExplanationWriter._write, [photos]

    def interrupted(self: ExplanationWriter, *given: Any) -> None:
        write(self, *given)
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ExplanationWriter, "_write", interrupted)
        assert run(command()) == 130


def test_an_interrupt_before_the_first_photo_says_that_nothing_was_finished(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted_after(0)
    assert capsys.readouterr().err.endswith("seewhy: interrupted; nothing was finished\n")
    assert sorted(everything(Path("out"))) == [".lock"]


def test_another_request_replaces_what_is_there(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command()) == 0
    Path("out/notes.txt").write_text("mine")
    capsys.readouterr()
    assert run([*command(), "--target", "nothing"]) == 1  # refused before anything is written
    assert len(read_entries(Path("out"))) == 12
    assert run(command("--target", "b", "--json")) == 0
    told = capsys.readouterr()
    assert "out='out' holds another run, whose 49 files will be replaced" in told.err
    assert {
        a["label"] for image in json.loads(told.out)["images"] for a in image["attributions"]
    } == {"b"}
    assert Path("out/notes.txt").read_text() == "mine"
    Path("out/notes.txt").unlink()
    check_listed(Path("out"))
    Path("tiny.py").write_text(FACTORY.replace("manual_seed(0)", "manual_seed(1)"))
    sys.modules.pop("tiny", None)
    assert run(command("--target", "b")) == 0
    assert "holds another run" in capsys.readouterr().err


def test_the_report_holds_one_photo_at_a_time(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy.methods import explanation

    alive: list[int] = []

    class Counted(explanation.Explanation):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            alive.append(len(self.names))

    assert run(command()) == 0
    monkeypatch.setattr("seewhy.methods.saved.Explanation", Counted)
    assert run(command("--report")) == 0
    assert alive == [1] * 12
    page = Path("out/report.html").read_text()
    assert all(f"p{i:02d}.png" in page for i in range(12))
    assert "12 photos" in page


def test_a_full_disk_while_a_photo_is_written_is_one_line_with_the_file(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, seen = Path.write_bytes, [0]

    def full(path: Path, data: bytes) -> int:
        seen[0] += path.name == "sheet.png"
        if path.name == "sheet.png" and seen[0] == 6:
            write(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(command()) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        f"seewhy: '{Path('out/p05/sheet.png')}' cannot be written: No space left on device; make room"
    )
    assert len(read_entries(Path("out"))) == 5
    check_listed(Path("out"))
    assert not list(Path("out").glob(".writing*"))


# evaluations


SCORES = [
    "--metric",
    "deletion:step=48",
    "--metric",
    "average_drop",
    "--metric",
    "max_sensitivity:samples=2",
]


def evaluation(*more: str, out: str = "out") -> list[str]:
    settings = ["--method", "saliency", "--batch-size", "4", *SCORES]
    return ["evaluate", "few", "--model", "tiny.py:make", *settings, "--out", out, *more]


@pytest.fixture
def few(here: Path) -> None:
    photos(here / "few", 6)


def stopped_at_score(number: int) -> None:
    """Interrupts the evaluation while that score is computed, and counts those that were."""
    from seewhy.metrics.photo_board import PhotoBoard

    score, left = PhotoBoard.score, [number]

    def interrupted(self: PhotoBoard, *given: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return score(self, *given)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PhotoBoard, "score", interrupted)
        assert run(evaluation()) == 130


@pytest.mark.usefixtures("few")
def test_an_evaluation_that_was_stopped_goes_on_with_the_score_it_was_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seewhy.metrics.photo_board import PhotoBoard

    assert run(evaluation("--json", out="alone")) == 0
    whole = json.loads(capsys.readouterr().out)
    stopped_at_score(1)
    assert capsys.readouterr().err.endswith("seewhy: interrupted; nothing was finished\n")
    stopped_at_score(3)
    said = "seewhy: interrupted; 8 scores of the first photos are saved in out; run the same command again to go on\n"
    assert capsys.readouterr().err.endswith(said)
    with pytest.raises(InputError, match="has no table yet"):
        seewhy.open("out")
    stopped_at_score(16)  # 15 scores of a batch, of which two are there
    said = "interrupted; 4 of 6 photos and 4 scores of others are saved in out; run the same command again to go on\n"
    assert capsys.readouterr().err.endswith(said)
    assert len(seewhy.open("out").names) == 4
    assert not seewhy.open("out").finished
    score, scored = PhotoBoard.score, [0]

    def counted(self: PhotoBoard, *given: Any) -> Any:
        scored[0] += 1
        return score(self, *given)

    monkeypatch.setattr(PhotoBoard, "score", counted)
    assert run(evaluation("--json")) == 0
    assert scored == [13]
    told = capsys.readouterr()
    assert "4 of 6 were done before" in told.err
    assert json.loads(told.out) == {**whole, "out": "out"}
    assert everything(Path("out")) == everything(Path("alone"))
    check_listed(Path("out"))
    assert run(evaluation()) == 0
    assert scored == [13]


@pytest.mark.usefixtures("few")
def test_an_evaluation_is_opened_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:

    evaluating = importlib.import_module("seewhy.metrics.evaluate")
    found: list[Any] = []
    whole = evaluating.evaluated
    monkeypatch.setattr(
        evaluating, "evaluated", lambda *a, **k: found.append(whole(*a, **k)) or found[-1]
    )
    assert run(evaluation()) == 0
    again = seewhy.open("out")
    assert isinstance(again, seewhy.Evaluation)
    check_same(found[0], again)
    for row in again:
        assert [len(curve) for curve in row.result.curves] == [
            len(at) for at in row.result.positions
        ]
    again.save("second")
    for name in ("evaluation.csv", "evaluation.json", "results.npz", "curves.png"):
        assert Path("second", name).read_bytes() == Path("out", name).read_bytes()


def check_same(one: Any, other: Any) -> None:
    assert (one.model, one.names, one.finished, one.table()) == (
        other.model,
        other.names,
        other.finished,
        other.table(),
    )
    for a, b in zip(one, other, strict=True):
        pairs = [(a.result, b.result), *((a.chance[name], b.chance[name]) for name in a.chance)]
        for then, now in pairs:
            for name, value in then._asdict().items():
                np.testing.assert_equal(getattr(now, name), value, err_msg=name)


@pytest.mark.usefixtures("few")
def test_what_an_evaluation_will_take_is_told_where_it_is_much(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seewhy.cli import show

    assert run(evaluation()) == 0
    assert "about" not in capsys.readouterr().err
    monkeypatch.setattr(show, "LONG", 0.0)
    assert run(evaluation(out="more")) == 0
    said = " ".join(capsys.readouterr().err.split())
    # deletion of 576 pixels in steps of 48: 13; the drop: 1; each for a map and four of chance
    assert re.search(r"6 photos, about 70 passes for each: about \d+ s; interrupted", said)
    assert "interrupted, the same command goes on with the score that it was at" in said


def test_a_folder_that_is_being_written_is_refused_before_the_model_is_loaded(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seewhy.cli import parsing

    monkeypatch.setattr(
        parsing, "load_model", lambda *_, **__: pytest.fail("the model is not needed yet")
    )
    with RunFolder("out", kind="explanation"):
        for name in ("explain", "localize", "evaluate"):
            assert run([name, "photos", "--out", "out"]) == 1
            said = capsys.readouterr().err
            assert said.startswith(
                f"seewhy: out='out' is being written by process {os.getpid()}, since "
            )
            assert said.count("\n") == 1


def test_only_folders_of_runs_are_opened(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="'photos' holds no run of seewhy; give a folder that"):
        seewhy.open("photos")
    assert run(["localize", "photos/p00.png", "--model", "tiny.py:make", "--out", "boxes"]) == 0
    with pytest.raises(InputError, match=r"holds boxes, which are plain JSON: read '.*boxes.json'"):
        seewhy.open("boxes")


def test_a_model_that_answers_otherwise_with_the_same_weights_is_another() -> None:
    """Code that was changed since, or another `output`, must not go on with maps of before."""
    preprocess = seewhy.Preprocess((16, 16), 16, (0.5,) * 3, (0.5,) * 3, "bilinear")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    told = seewhy.wrap(net, preprocess=preprocess)
    assert told.identity() == seewhy.wrap(net, preprocess=preprocess).identity()
    for other in (
        seewhy.wrap(net, preprocess=preprocess, output=lambda said: -said),
        seewhy.wrap(net, preprocess=preprocess, multi_label=True),
        seewhy.wrap(nn.Sequential(*net, nn.ReLU()), preprocess=preprocess, name="Sequential"),
    ):
        assert other.identity()["weights"] == told.identity()["weights"]
        assert other.identity() != told.identity()


def test_remarks_stay_with_an_evaluation_that_is_gone_on_with(tmp_path: Path) -> None:
    preprocess = seewhy.Preprocess((16, 16), 16, (0.5,) * 3, (0.5,) * 3, "bilinear")
    net = seewhy.wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(768, 3), nn.Softmax(1)), preprocess=preprocess
    )
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    found = []
    for _ in range(2):
        with RunFolder(tmp_path / "out", kind="evaluation", request={}) as kept:
            asked: dict[str, object] = {
                "methods": "rise",
                "metrics": "sparsity",
                "options": {"rise": {"samples": 8}},
            }
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(
                    seewhy.evaluate(net, tmp_path / "a.png", chance=(), keep=kept, **asked)
                )
    assert found[0].rows[0].remarks
    assert found[1].rows[0].remarks == found[0].rows[0].remarks
