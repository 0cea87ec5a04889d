"""`seewhy.open`: the records of a saved run, whichever command or `save` wrote them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .data.manifest import is_run_folder, read_head
from .errors import InputError

if TYPE_CHECKING:
    from .methods.explanation import Explanation
    from .metrics.evaluation import Evaluation

_PLAIN = {"boxes": "boxes.json", "influence": "influence.json"}


def open(folder: str | os.PathLike[str]) -> Explanation | Evaluation:
    """The records that `save`, `seewhy explain` or `seewhy evaluate` wrote into a folder, as they were.

    Of an explanation maps, statuses, facts, predictions and placements are the same bit by bit, and pictures, sheets
    and reports can be drawn again: photos are read when they are needed, from where they were. Of an evaluation all
    results are; of one of localisation not the cases, whose picture is in the folder. What is not finished is opened as
    far as it is.

    Raises:
        InputError: the folder holds no such run, or what it holds is damaged.

    Example:
        >>> _ = seewhy.explain(model, photo).save("out")
        >>> seewhy.open("out").attributions[0].map.shape
        torch.Size([1, 16, 16])
    """
    folder = Path(folder)
    head = read_head(folder) if is_run_folder(folder) else None
    if head is None:
        raise InputError(
            f"'{folder}' holds no run of seewhy; give a folder that 'seewhy explain' or save() wrote"
        )
    kind = head["kind"]
    if kind == "explanation":
        from .methods.saved import open_explanation

        return open_explanation(folder)
    if kind in ("evaluation", "localisation"):
        from .metrics.saved import open_evaluation  # the metrics take long to import

        return open_evaluation(folder, kind)
    if kind in _PLAIN:
        raise InputError(
            f"'{folder}' holds {kind}, which are plain JSON: read '{folder / _PLAIN[kind]}'"
        )
    raise InputError(
        f"'{folder}' holds a run of kind {kind!r}, which this seewhy does not know; use a newer one"
    )
