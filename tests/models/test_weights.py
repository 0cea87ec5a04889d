"""Files of weights: tensors by name, and whatever else is in them told in one line."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from seewhy.errors import ModelError
from seewhy.models.weights import read_weights


class Runs:
    """What code in a pickle does when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([torch.zeros(2)], "holds a list, not tensors by name"),
        (torch.zeros(3), "holds a Tensor, not tensors by name"),
        ({"a": 1}, "holds no tensors"),
        ({}, "holds no tensors"),
        (None, "holds a NoneType, not tensors by name"),
        (
            {"w": torch.zeros(2, dtype=torch.complex64)},
            "holds complex numbers ('w'); give real ones",
        ),
        ({"state_dict": [torch.zeros(2)]}, "holds no tensors"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_state_dict(tmp_path: Path, held: object, said: str, zipped: bool) -> None:
    torch.save(held, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError) as error:
        read_weights(tmp_path / "w.pt")
    assert f"w.pt' {said}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data", [b"hello, these are words\n", b"", b"\x89PNG\r\n\x1a\n", b"x" * 300]
)
def test_what_is_no_file_of_torch(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(ModelError, match=r"state dict: it is no file that torch\.save wrote"):
        read_weights(tmp_path / "w.pt")
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="cannot be read as a state dict: "):
        read_weights(tmp_path / "w.safetensors")


def test_torn_files(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    for part in (3, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "w.pt").write_bytes(whole[:part])
        with pytest.raises(ModelError, match=r"cannot be read as a state dict: [^\n]+$"):
            read_weights(tmp_path / "w.pt")


def test_code_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"w": Runs()}))
    with pytest.raises(ModelError, match="cannot be read as a state dict"):
        read_weights(tmp_path / "w.pt")
    torch.save({"w": Runs()}, tmp_path / "v.pt")
    with pytest.raises(ModelError, match="cannot be read as a state dict"):
        read_weights(tmp_path / "v.pt")
    assert not (tmp_path / "ran").exists()
