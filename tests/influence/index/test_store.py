"""The store: what is written is whole, what is torn is found, what is foreign is left alone."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from seewhy.data.store import Store, pack, unpack
from seewhy.errors import InputError

ROWS = "rows-0123456789ab-000000000.safetensors"
MORE = "rows-0123456789ab-000000003.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three rows and two more, not committed."""
    made = Store(tmp_path / "index")
    made.begin({"solver": "s"})
    made.write(ROWS, {"rows": torch.arange(12.0).reshape(3, 4)}, names=["a", "b", 'ä\n"c'])
    made.write(MORE, {"rows": torch.ones(2, 4, dtype=torch.float64)}, start=3, names=["d", "e"])
    return made


def reopened(store: Store) -> Store:
    again = Store(store.folder)
    assert again.load()
    return again


def test_what_is_written_can_be_read(store: Store) -> None:
    for _ in range(2):
        again = reopened(store)
        assert again.head["solver"] == "s"
        assert torch.equal(again.read(ROWS)["rows"], torch.arange(12.0).reshape(3, 4))
        assert again.read(MORE)["rows"].dtype == torch.float64
        rows, names = again.column(ROWS, "rows")
        assert names == ["a", "b", 'ä\n"c']
        assert rows.shape == (3, 4)
        assert (again.files[MORE].start, again.files[MORE].count) == (3, 2)
        store.commit(store.head, [ROWS, MORE])
    assert again.head["complete"]
    assert sorted(path.name for path in store.folder.iterdir()) == ["manifest.json", ROWS, MORE]


def test_another_file_is_no_index(tmp_path: Path) -> None:
    assert not Store(tmp_path).load()


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damage_is_found(store: Store, damage: str) -> None:
    path = store.folder / MORE
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[-5] ^= 1
        path.write_bytes(data[:-7] if damage == "cut" else data)
    again = reopened(store)
    assert again.intact(ROWS)
    assert not again.intact(MORE)
    assert again.intact(MORE, full=False) == (damage == "flipped")
    with pytest.raises(InputError, match=r"000000003.safetensors' is missing, torn or damaged"):
        again.read(MORE)
    again.check([ROWS], full=True)
    with pytest.raises(InputError, match="torn or damaged"):
        again.check([ROWS, MORE], full=True)


def test_a_torn_line_of_the_journal_vouches_for_nothing(store: Store) -> None:
    journal = store.folder / "journal-0.jsonl"
    whole = journal.read_text()
    last = whole.rindex('{"file"')
    for cut in range(last, len(whole) - 2):
        journal.write_text(whole[:cut])
        again = reopened(store)
        assert again.intact(ROWS)
        assert not again.intact(MORE)
    again.write(
        MORE, {"rows": torch.zeros(2, 4)}, start=3, names=["d", "e"]
    )  # on from the torn line
    assert reopened(store).intact(MORE)


def test_commit_clears_what_is_ours_alone(store: Store) -> None:
    kept = [
        store.folder / name for name in ("notes.txt", "weights.safetensors", "rows.safetensors")
    ]
    gone = [
        store.folder / name for name in (f"{MORE}.part", "manifest.json.part", "journal-3.jsonl")
    ]
    for path in kept + gone:
        path.write_text("x")
    store.commit(store.head, [ROWS, "curvature-0123456789ab.safetensors"])
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in (*gone, store.folder / MORE))
    assert list(reopened(store).files) == [ROWS]


def test_journals_of_several_writers_are_read(store: Store) -> None:
    other = Store(store.folder, writer=1)
    other.load()
    other.write("self-0123456789ab-000000000.safetensors", {"x": torch.ones(1)}, names=["a"])
    assert len(reopened(store).files) == 3


def test_a_full_disk_says_so_and_leaves_what_was_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device; make room"):
        store.write(ROWS, {"rows": torch.zeros(3, 4)}, names=["a", "b", "c"])
    assert torch.equal(reopened(store).read(ROWS)["rows"], torch.arange(12.0).reshape(3, 4))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"format": 1}', "does not say its 'files'"),
        ('{"format": 9, "files": {}}', "has format 9, this seewhy reads 4"),
        ('{"format": 1, "files": {"a": {"size": 1}}}', "cannot be read"),
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=said):
        Store(tmp_path).load()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be made a folder"):
        Store(tmp_path / "file" / "index").begin({})


@pytest.mark.parametrize(
    ("dtype", "error"), [(None, 0.0), (torch.float32, 2**-23), (torch.float16, 2**-10)]
)
def test_rows_are_packed_within_their_precision(dtype: Any, error: float) -> None:
    scale = 10.0 ** torch.arange(-12, 13, 2, dtype=torch.float64)  # beyond what float16 can hold
    rows = scale[:, None, None] * torch.randn(
        13, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    rows[3] = 0
    given = {"rows": rows, "count": torch.arange(13), "empty": torch.zeros(13, 0)}
    packed = pack(given, dtype)
    assert packed["rows"].dtype == (dtype or torch.float64)
    found = unpack(packed, torch.float64)
    assert found.keys() == given.keys()
    assert torch.equal(found["count"], given["count"])
    assert found["empty"].shape == (13, 0)
    largest = rows.abs().amax((1, 2), keepdim=True)
    assert ((found["rows"] - rows).abs() <= error * largest).all()
    assert json.dumps(sorted(packed))


def test_of_two_journals_the_later_line_counts(store: Store) -> None:
    other = Store(store.folder, writer=7)
    other.load()
    other.write(ROWS, {"rows": torch.full((3, 4), 7.0)}, names=["a", "b", "c"])
    assert reopened(store).intact(ROWS)
    again = reopened(store)
    again.forget(ROWS)
    assert not reopened(store).intact(ROWS)
    again.write(ROWS, {"rows": torch.full((3, 4), 8.0)}, names=["a", "b", "c"])
    assert reopened(store).intact(ROWS)


def test_what_cannot_be_removed_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(InputError, match=r"safetensors' cannot be made anew: Permission denied"):
        store.forget(ROWS)
