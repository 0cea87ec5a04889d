"""`seewhy influence query`: the training pictures that helped and harmed most what a model says of photos."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..no_file import check_any_there
from .arguments import PhotosArgument
from .asked import check_request
from .groups import How
from .influence_asked import OfIndex, Question, SheetsOption
from .results import print_json
from .show import starting

if TYPE_CHECKING:
    from ..data.disk import Json
    from .influence_answers import Answers

NAME = "influence"


def query(
    photos: PhotosArgument,
    *,
    of_index: OfIndex,
    question: Question,
    out: SheetsOption = Path("seewhy-influence"),
    how: How,
) -> int:
    """Draws the training pictures that helped and harmed most what a model says of your photos."""
    check_request(device=how.device)
    check_any_there(photos)
    with starting():
        from ..data.images import find_images
        from ..data.run_folder import RunFolder, usable_folder
        from .influence_answers import Answers
        from .influence_data import limits_of, open_index
        from .influence_telling import first_of_all
        from .interrupts import interruptible
        from .saving import remark, what_is_saved

    first, paths = first_of_all(), find_images(photos)
    usable_folder(out)
    opened = open_index(of_index, limits_of(how), device=how.device)
    answers = Answers(opened, question, max_pixels=how.max_pixels, first=first)
    run = RunFolder(
        out,
        kind="influence",
        request=answers.request(of_index),
        tell=remark,
        close=lambda run: run.view_json(f"{NAME}.json", answers.told(run)),
    )
    names = list(map(str, paths))
    with interruptible(lambda: what_is_saved(run, names)), run if first else nullcontext():
        answers.ask_all(run, paths)
    if first:
        told = answers.told(run, names)
        if how.as_json:
            print_json(told)
        else:
            _tell_examples(told, answers, out)
    return answers.status()


def _tell_examples(told: Json, answers: Answers, out: Path) -> None:
    """For people: who helped and who harmed, and where the sheets are."""
    from .show import bold, console, table, tell_remarks

    for one in told["queries"]:
        title = f"{Path(one['photo']).name}: {one['predicted']}; {answers.number} on {one['about']}"
        kinds = (("helpful", one["helpful"]), ("harmful", one["harmful"]))
        rows = [
            _line_of_example(kind, each, answers.number)
            for kind, listed in kinds
            for each in listed
        ]
        table(f"{title}{answers.only_ranks}", rows)
        tell_remarks(one["remarks"])
    console.print(f"\nSheets and {NAME}.json are in {bold(out)}")
    console.print(f"Look at {bold(told['queries'][0]['sheet'])} first")


def _line_of_example(kind: str, one: Json, number: str) -> dict[str, str]:
    return {
        "": kind,
        "training picture": one["name"],
        "label": one["label_name"],
        number: f"{one['score']:+.3g}",
    }
