"""A training that is interrupted, killed or out of disk ends as one left alone; a finished one is only loaded."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.data import disk
from seewhy.errors import InputError
from seewhy.models.networks.cards import keep, read_card
from seewhy.models.training import TrainingError
from wsol_squares import Squares, assert_same, fit, one_thread, trained_alone

_one_thread = pytest.fixture(scope="module", autouse=True)(one_thread)
left_alone = pytest.fixture(scope="module")(trained_alone)


class Interrupted(BaseException):
    pass


def test_what_was_interrupted_ends_as_if_it_had_not_been(left_alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for stop in (2, 6, 9):  # of 12 steps, 4 an epoch: within the first, the second and the third

        def interrupt(done: int, total: int, stop: int = stop) -> None:
            if done == stop:
                raise Interrupted

        with pytest.raises(Interrupted):
            fit(out, dropout=0.3, progress=interrupt)
    fit(out, dropout=0.3)
    assert_same(out, left_alone)


def test_a_full_disk_leaves_the_last_good_state(
    left_alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    real, left = os.fsync, 12  # file and folder, of four files an epoch: full in the second

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(
        TrainingError, match="cannot be written: the disk is full; the last good one stays; make"
    ) as said:
        fit(out, dropout=0.3)
    assert "\n" not in str(said.value)
    assert not list(out.glob("*.part"))
    assert seewhy.load_model(str(out))(torch.rand(1, 3, 32, 32)).isfinite().all()
    monkeypatch.setattr(disk.os, "fsync", real)
    fit(out, dropout=0.3)
    assert_same(out, left_alone)


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "file"
    keep(path, b"first")
    monkeypatch.setattr(
        Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError(errno.EIO, "broken"))
    )
    with pytest.raises(TrainingError, match="broken; the last good one stays"):
        keep(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_what_is_finished_is_loaded(left_alone: Path) -> None:
    stamps = {file: file.stat().st_mtime_ns for file in left_alone.iterdir()}
    again = fit(left_alone, dropout=0.3, progress=lambda done, total: pytest.fail("it trains"))
    assert {file: file.stat().st_mtime_ns for file in left_alone.iterdir()} == stamps
    assert len(again.history) == 3
    assert again.scores == read_card(left_alone)["scores"]


def test_other_settings_are_refused_and_named(left_alone: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds another training: lr was 0\.004, is 0\.1; give the same"
    ) as raised:
        fit(left_alone, dropout=0.3, lr=0.1)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"architecture\.pooling was 'gap', is 'gmp'"):
        fit(left_alone, dropout=0.3, pooling="gmp")
    with pytest.raises(InputError, match=r"data\.train\.pictures was 40, is 39"):
        fit(left_alone, dropout=0.3, data=Squares(39))
    fit(tmp_path, epochs=1)
    other = fit(tmp_path, epochs=1, seed=1, resume=False)
    assert read_card(tmp_path)["seed"] == 1
    assert len(other.history) == 1
    (tmp_path / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(
        TrainingError, match=r"last\.ckpt' cannot be read: .*resume=False begins anew"
    ):
        fit(tmp_path, epochs=1, seed=1)


KILLED = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
import lightning.fabric, timm, torchmetrics.classification
sys.path.insert(0, {tests!r})
from pathlib import Path
from wsol_squares import fit

def forked(out):
    listen, tell = os.pipe()
    child = os.fork()
    if child == 0:
        fit(Path(sys.argv[1]) / out, epochs=12, dropout=0.3, progress=lambda done, total: os.write(tell, b"."))
        os._exit(0)
    os.close(tell)
    return child, listen

child, _ = forked("alone")
assert os.waitpid(child, 0)[1] == 0
rng = random.Random(0)
for _ in range(5):
    child, listen = forked("killed")
    for _ in range(rng.randint(1, 7)):  # of 4 steps an epoch
        assert os.read(listen, 1)
    time.sleep(rng.uniform(0, 0.06))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
child, _ = forked("killed")
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_five_times_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "killed", tmp_path / "alone")
