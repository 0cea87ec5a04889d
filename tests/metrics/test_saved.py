"""Evaluations as files: what damage is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from seewhy.errors import InputError
from seewhy.metrics import saved
from seewhy.metrics.evaluation import KIND, RESULTS_NAME
from seewhy.metrics.localization import resuming


def raising(error: Exception) -> Any:
    def read(*_: object, **__: object) -> None:
        raise error

    return read


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("bad magic number\nat byte 3"), r"\(bad magic number\)"),
        (MemoryError(), r"\(MemoryError\)"),
    ],
)
def test_damage_is_told_in_the_first_line_of_what_the_reader_says(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / RESULTS_NAME
    results.touch()
    monkeypatch.setattr(saved, "unpacked", raising(error))
    with pytest.raises(InputError, match=f"{RESULTS_NAME}' cannot be read {said}; run the command"):
        saved.open_evaluation(tmp_path, KIND)
    monkeypatch.setattr(torch, "load", raising(error))
    with pytest.raises(InputError, match=f"{RESULTS_NAME}' cannot be read {said}; delete it"):
        resuming._load(results)


def test_a_folder_of_single_scores_alone_has_no_table_yet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no table yet, only single scores"):
        saved.open_evaluation(tmp_path, KIND)
