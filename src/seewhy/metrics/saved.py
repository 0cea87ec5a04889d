"""Evaluations that were saved, as the records that they were."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .evaluation import KIND, RESULTS_NAME, Evaluation, Row
from .localization.evaluation import LocalizationEvaluation
from .results import unpacked


def open_evaluation(folder: Path, kind: str) -> Evaluation:
    """The evaluation that a folder holds; one of localisation is without its cases, whose picture is in the folder.

    Raises:
        InputError: the folder holds no table yet, or what it holds is damaged.
    """
    path = folder / RESULTS_NAME
    if not path.is_file():
        raise InputError(
            f"'{folder}' has no table yet, only single scores; run the same command again to go on"
        )
    try:
        about, results = unpacked(path)
        found, rows = iter(results), []
        for method, layer, target, metric, chances, remarks in about["rows"]:
            result, by_chance = next(found), {chance: next(found) for chance in chances}
            rows.append(Row(method, layer, target, metric, result, by_chance, tuple(remarks)))
        names, finished = tuple(about["names"]), about["finished"]
        if kind == KIND:
            return Evaluation(about["model"], names, tuple(rows), finished=finished)
        notes = {name: tuple(each) for name, each in about["notes"].items()}
        return LocalizationEvaluation(
            about["model"], names, tuple(rows), title=about["title"], notes=notes, finished=finished
        )
    except Exception as error:  # readers meet damage with whatever their parsing trips over
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"'{path}' cannot be read ({said}); run the command that wrote it again"
        ) from error
