"""One table of faults of annotation files, fed to every reader that can express them."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import pytest

from faulty_files import FAULTS, SOUND, Fault
from seewhy.data import LabeledImages, find_data
from seewhy.errors import InputError

# The small copies leave most of the classes without a picture, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:.*has no picture of:seewhy.errors.SeewhyWarning")


def read(kind: str, root: Path, split: str, on_error: str) -> LabeledImages:
    return find_data(
        f"{kind}:{root}", split=split or SOUND[kind].split, on_error=on_error
    ).readable()  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind}: {fault.what}")
def test_each_fault_is_named(fault: Fault, tmp_path: Path) -> None:
    root = SOUND[fault.kind].make(tmp_path)
    sound = read(fault.kind, root, fault.split, "raise")
    fault.damage(root)
    with pytest.raises(InputError) as caught:
        read(fault.kind, root, fault.split, "raise")
    assert_names(fault, [str(caught.value)])
    if fault.listed:
        with pytest.raises(InputError, match=r"twice| too,|file_name"):
            read(fault.kind, root, fault.split, "skip")
        return
    data = read(fault.kind, root, fault.split, "skip")
    assert_names(
        fault,
        [f"{name}: {note}" for name, notes in data.notes.items() for note in notes],
        data.skipped,
    )
    assert len({*data.names, *data.skipped}) == len(sound.names), "what is sound is read"


def assert_names(fault: Fault, said: list[str], skipped: object = None) -> None:
    said = [*said, *(f"{name}: {why}" for name, why in dict(skipped or {}).items())]  # type: ignore[call-overload]
    assert any(all(name in one for name in fault.says) for one in said), (fault.says, said)
    assert not any("\n" in one for one in said)


@pytest.mark.parametrize("kind", SOUND)
def test_what_is_sound_has_no_notes(kind: str, tmp_path: Path) -> None:
    root = SOUND[kind].make(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*has no picture of")
        data = read(kind, root, "", "skip")
    assert (data.notes, data.skipped) == ({}, {})


def test_the_table_is_long_and_reaches_every_reader() -> None:
    assert len({fault.what for fault in FAULTS}) >= 40
    assert set(Counter(fault.kind for fault in FAULTS)) == set(SOUND)
