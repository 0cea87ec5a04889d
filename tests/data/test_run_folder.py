"""The folder of a run: what is listed is there and whole, at whatever moment its writer stops; runs are never mixed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seewhy.data import run_folder
from seewhy.data.manifest import is_run_folder, read_entries, read_head
from seewhy.data.run_folder import RunFolder
from seewhy.errors import InputError

REQUEST = {"methods": ["grad_cam"], "options": {"samples": 3}}


def write(run: RunFolder, name: str, content: bytes = b"map", digest: str = "d") -> None:
    with run.entry(name, digest) as draft:
        path = draft.save("map.bin", content)
        draft.record = {"name": name, "file": path}
        draft.exact = {"size": len(content)}


def made(
    folder: Path, *names: str, request: Any = REQUEST, kind: str = "explanation", **options: Any
) -> list[str]:
    """Writes a run; returns what was told."""
    said: list[str] = []
    with RunFolder(folder, kind=kind, request=request, tell=said.append) as run:
        for name in names:
            if not run.has(name, "d"):
                write(run, name, **options)
        run.view("table.csv", lambda path: path.write_text(str(len(names))))
    return said


def everything(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def check_listed(folder: Path) -> None:
    """Every file is listed, and as it is listed."""
    head, entries = read_head(folder), read_entries(folder).values()
    assert head is not None
    listed = {name: file.sha256 for entry in entries for name, file in entry.files.items()}
    listed |= {name: told["sha256"] for name, told in head["files"].items()}
    found = {name: hashlib.sha256(data).hexdigest() for name, data in everything(folder).items()}
    assert {
        n: d for n, d in found.items() if n not in ("run.json", "entries.jsonl", ".lock")
    } == listed


def test_what_was_written_is_listed_with_its_hash(tmp_path: Path) -> None:
    assert made(tmp_path / "a" / "out", "cat.jpg", "dog.jpg") == []
    folder = tmp_path / "a" / "out"
    check_listed(folder)
    assert is_run_folder(folder)
    head = read_head(folder)
    assert head is not None
    assert (head["kind"], head["state"], head["request"]) == ("explanation", "complete", REQUEST)
    entries = read_entries(folder)
    assert list(entries) == ["cat.jpg", "dog.jpg"]
    assert entries["cat.jpg"].record == {"name": "cat.jpg", "file": "cat/map.bin"}
    assert entries["cat.jpg"].exact == {"size": 3}
    assert (folder / ".lock").read_bytes() == b""


def test_the_same_request_goes_on_with_what_is_done(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg", "b.jpg")
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in ("a/map.bin", "b/map.bin")}
    assert made(tmp_path, "a.jpg", "b.jpg", "c.jpg") == []
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    check_listed(tmp_path)
    assert list(read_entries(tmp_path)) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_photo_of_another_content_replaces_its_entry(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg", "b.jpg")
    with RunFolder(tmp_path, kind="explanation", request=REQUEST) as run:
        assert not run.has("a.jpg", "another")
        write(run, "a.jpg", b"new map", "another")
        assert run.has("a.jpg", "another")
        assert [entry.name for entry in run.entries(["b.jpg", "a.jpg", "c.jpg"])] == [
            "b.jpg",
            "a.jpg",
        ]
    check_listed(tmp_path)
    assert (tmp_path / "entries.jsonl").read_text().count("\n") == 2
    entry = read_entries(tmp_path)["a.jpg"]
    assert (tmp_path / entry.record["file"]).read_bytes() == b"new map"


def test_what_closes_a_run_reads_the_entries_that_replaced_others(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg", "b.jpg")
    seen: list[str] = []
    close = lambda run: seen.extend(entry.name for entry in run.entries())  # noqa: E731
    with RunFolder(tmp_path, kind="explanation", request=REQUEST, close=close) as run:
        write(run, "a.jpg", b"a longer map", "another")
    assert seen == ["b.jpg", "a.jpg"]
    check_listed(tmp_path)


def test_a_file_that_is_gone_or_cut_short_is_made_again(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "a" / "map.bin").unlink()
    (tmp_path / "b" / "map.bin").write_bytes(b"m")
    with RunFolder(tmp_path, kind="explanation", request=REQUEST) as run:
        assert not run.has("a.jpg", "d")
        assert not run.has("b.jpg", "d")
        write(run, "a.jpg")
        write(run, "b.jpg")
    check_listed(tmp_path)


@pytest.mark.parametrize(
    "changed", [{"request": {"methods": ["lrp"]}}, {"kind": "boxes"}, {"request": None}]
)
def test_another_request_replaces_its_own_files_alone_and_says_so(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    made(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "b" / "mine.txt").write_text("mine")
    (said,) = made(tmp_path, "a.jpg", "b.jpg", content=b"other", **changed)
    assert said.startswith(
        f"out='{tmp_path}' holds another run, whose 3 files will be replaced, once"
    )
    found = everything(tmp_path)
    assert found["notes.txt"] == found["b/mine.txt"] == b"mine"
    assert found["a/map.bin"] == found["b-2/map.bin"] == b"other"
    assert "b/map.bin" not in found
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "b" / "mine.txt").unlink()
    check_listed(tmp_path)


def stopped(run: RunFolder, error: type[BaseException]) -> None:
    with run.entry("a.jpg", "d") as draft:
        draft.save("map.bin", b"half")
        raise error


def test_another_request_that_writes_nothing_leaves_what_is_there(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg")
    before = everything(tmp_path)
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), RunFolder(tmp_path, kind="explanation", request={}) as run:
            stopped(run, error)
    assert everything(tmp_path) == before


def test_what_an_older_seewhy_listed_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name in ("cat/sheet.png", "cat/a.png", "cat/maps.npz", "mine.png", "../outside.png"):
        (tmp_path / name).write_bytes(b"old")
    attribution = {"picture": "cat/a.png", "map": {"file": "cat/maps.npz"}}
    images = [
        {"sheet": "cat/sheet.png", "attributions": [attribution]},
        {"sheet": "../outside.png"},
    ]
    (tmp_path / "explanation.json").write_text(json.dumps({"images": images}))
    (said,) = made(tmp_path, "cat.jpg")
    assert "holds another run, whose 4 files will be replaced" in said
    assert sorted(everything(tmp_path)) == [
        ".lock",
        "cat/map.bin",
        "entries.jsonl",
        "mine.png",
        "run.json",
        "table.csv",
    ]
    assert (tmp_path / "../outside.png").exists()


def test_a_second_writer_is_refused_in_one_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path, kind="explanation", request=REQUEST) as run:
        write(run, "a.jpg")
        with (
            pytest.raises(InputError) as raised,
            RunFolder(tmp_path, kind="explanation", request=REQUEST),
        ):
            pass
        said = str(raised.value)
        assert f"out='{tmp_path}' is being written by process {os.getpid()}, since " in said
        assert "wait until that has ended, or give another folder" in said
        assert "\n" not in said
        write(run, "b.jpg")
    assert made(tmp_path, "a.jpg", "b.jpg") == []


def test_entries_are_called_after_their_photos_in_characters_that_every_system_takes(
    tmp_path: Path,
) -> None:
    (tmp_path / "taken").write_text("mine")
    names = [
        "x/1.jpg",
        "y/1.jpg",
        "taken.png",
        "run.json.jpg",
        "é b.jpg",
        "..jpg",
        "bad\udcff.jpg",
        "a" * 251 + ".jpg",
    ]
    with RunFolder(tmp_path, kind="explanation", request=REQUEST) as run:
        for name in names:
            write(run, name)
    folders = [entry.record["file"].split("/")[0] for entry in read_entries(tmp_path).values()]
    assert folders == ["1", "1-2", "taken-2", "run.json_", "é_b", "image", "bad_", "a" * 120]
    assert list(read_entries(tmp_path)) == names
    assert made(tmp_path, *names) == []


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg", "b.jpg")
    whole = (tmp_path / "entries.jsonl").read_bytes()
    (tmp_path / "entries.jsonl").write_bytes(whole[:-9])
    assert list(read_entries(tmp_path)) == ["a.jpg"]
    with RunFolder(tmp_path, kind="explanation", request=REQUEST) as run:
        assert "b.jpg" not in run
        write(run, "c.jpg")
    assert list(read_entries(tmp_path)) == ["a.jpg", "c.jpg"]


# killed at any moment: every step that changes the folder is taken, and then the writer is no more


STEPS = ("mkdir", "rename", "replace", "unlink", "write_bytes", "open", "rmdir")


class KilledError(BaseException):
    pass


class Mortal:
    """Lets a number of steps on files happen, and then nothing more, not even tidying up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        self.left, self.dead = after, False
        for name in STEPS:
            monkeypatch.setattr(Path, name, self._step(getattr(Path, name)))
        monkeypatch.setattr(run_folder.shutil, "rmtree", self._step(shutil.rmtree))
        monkeypatch.setattr(run_folder.os, "truncate", self._step(os.truncate))

    def _step(self, whole: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if self.left <= 0:
                self.dead = True
                raise KilledError
            self.left -= 1
            return whole(*args, **kwargs)

        return step


@pytest.mark.long
def test_a_writer_that_stops_at_any_step_leaves_what_can_be_gone_on_from(tmp_path: Path) -> None:
    """Goes on to the very folder of a run that was left alone, also where photos changed, or another run was there."""
    made(tmp_path / "alone", "a.jpg", "b.jpg", "c.jpg")
    whole = everything(tmp_path / "alone")
    for before in (None, REQUEST, {"methods": ["lrp"]}):
        for after in range(200):
            folder = tmp_path / "killed"
            shutil.rmtree(folder, ignore_errors=True)
            if before is not None:
                made(folder, "a.jpg", "b.jpg", request=before, content=b"other", digest="then")
            with pytest.MonkeyPatch.context() as patched:
                mortal = Mortal(patched, after)
                with contextlib.suppress(KilledError):
                    made(folder, "a.jpg", "b.jpg", "c.jpg")
            survived = not mortal.dead
            made(folder, "a.jpg", "b.jpg", "c.jpg")
            check_listed(folder)
            contents = {
                entry.name: (folder / entry.record["file"]).read_bytes()
                for entry in read_entries(folder).values()
            }
            assert contents == dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), b"map"), after
            if before is None:
                assert everything(folder) == whole, after
            if survived:
                break
        assert survived
        assert after > 20


# full disks


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_at_any_write_is_one_line_and_the_last_whole_state_stays(
    tmp_path: Path, code: int
) -> None:
    folder = tmp_path / "out"
    for after in range(200):
        shutil.rmtree(folder, ignore_errors=True)
        made(folder, "a.jpg")
        with pytest.MonkeyPatch.context() as patched:
            full = Full(patched, after, code)
            said = ""
            try:
                made(folder, "a.jpg", "b.jpg")
            except InputError as error:
                said = str(error)
        words = ("cannot be ", os.strerror(code), str(folder)) if full.met else ()
        assert all(word in said for word in words), said
        assert "\n" not in said
        entries = read_entries(folder)
        assert list(entries)[:1] == ["a.jpg"]
        assert not list(folder.glob(".writing*"))
        assert not list(folder.rglob("*.part"))
        for entry in entries.values():
            assert (folder / entry.record["file"]).read_bytes() == b"map"
        made(folder, "a.jpg", "b.jpg")
        check_listed(folder)
        if not full.met:
            break
    assert not full.met
    assert after > 5


class Full:
    """Lets a number of writes happen, and refuses the next, whichever way it is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int, code: int) -> None:
        self.left, self.code, self.met = after, code, False
        for name in ("mkdir", "write_bytes", "write_text", "open", "rename", "replace"):
            monkeypatch.setattr(Path, name, self._write(getattr(Path, name)))

    def _write(self, whole: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            reads = whole.__name__ == "open" and (args[1:] or (kwargs.get("mode", "r"),))[
                0
            ].startswith("r")
            if not reads:
                self.left -= 1
            if self.left < 0 and not reads and not self.met:
                self.met = True
                raise OSError(self.code, os.strerror(self.code))
            return whole(*args, **kwargs)

        return write


# what is wrong


def test_files_outside_the_folder_are_neither_believed_nor_removed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    made(folder, "a.jpg")
    (tmp_path / "other.bin").write_bytes(b"mine")
    whole = (folder / "entries.jsonl").read_text()
    for name in (
        "../other.bin",
        str(tmp_path / "other.bin"),
        "a/../../other.bin",
        "..\\\\other.bin",
        "C:/x",
    ):
        (folder / "entries.jsonl").write_text(whole.replace('"a/map.bin": {', f'"{name}": {{'))
        for use in (lambda: read_entries(folder), lambda: made(folder, "b.jpg", request={})):
            with pytest.raises(InputError, match="which is not in its folder"):
                use()
    (folder / "entries.jsonl").write_text(whole)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "map.bin").write_bytes(b"map")
    shutil.rmtree(folder / "a")
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    made(folder, "a.jpg", request={})
    assert (tmp_path / "elsewhere" / "map.bin").exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '"x"', "{}", '{"schema": 1}', "[" * 100_000, '{"schema": 1, "files": 3}']
)
def test_a_manifest_that_is_none_of_ours_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match="is no manifest of seewhy") as raised:
        made(tmp_path, "a.jpg")
    assert "\n" not in str(raised.value)
    assert (tmp_path / "run.json").read_text() == text


def test_what_a_newer_seewhy_wrote_and_damaged_lines_are_refused(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg", "b.jpg")
    lines = (tmp_path / "entries.jsonl").read_bytes()
    (tmp_path / "entries.jsonl").write_bytes(b"{]\n" + lines)
    with pytest.raises(InputError, match="has a damaged line"):
        read_entries(tmp_path)
    (tmp_path / "entries.jsonl").write_bytes(lines)
    head = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**head, "schema": 99}))
    with pytest.raises(InputError, match="has schema 99, this seewhy reads 1"):
        made(tmp_path, "a.jpg")
