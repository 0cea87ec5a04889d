"""What the commands that write the folder of a run share: what was done before, and what an interrupt leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..data.run_folder import RunFolder
from ..methods.photos import Source, photo_digest
from ..models.model import Model
from ..render.reading import clock_words
from .show import Forecast, console, said


def forecasting(
    tell: Callable[[int, int], None], say: Callable[[int, str], str]
) -> Callable[[int, int], None]:
    """Progress that says once what is left to do if that is much, by its second batch: the first is slow.

    Args:
        tell: the progress, which takes (done, total).
        say: what to print of a total and of the time that is left, in words.
    """
    forecast, first = Forecast(), list[int]()

    def told(done: int, total: int) -> None:
        tell(done, total)
        if not first:
            first.append(done)
            forecast.begin()
        elif total > first[0]:
            share = (done - first[0]) / (total - first[0])
            forecast.note(share, lambda left, _: say(total, clock_words(left)))

    return told


def remark(text: str) -> None:
    """Prints a line beside the results."""
    console.print(f"seewhy: {said(text)}", soft_wrap=True)


def done_before(run: RunFolder, photos: Sequence[Path], model: Model) -> tuple[list[str], set[str]]:
    """What the photos are called, and the names of those that are done already, of which it says how many."""
    source = Source(photos, model, None)
    pairs = zip(source.names, source.items, strict=True)
    done = {
        name
        for name, path in pairs
        if name in run and isinstance(path, Path) and _is_done(run, name, path)
    }
    if done:
        remark(f"{len(done)} of {len(source)} were done before")
    return source.names, done


def _is_done(run: RunFolder, name: str, path: Path) -> bool:
    try:
        return run.has(name, photo_digest(path))
    except OSError:  # it is told when it is read
        return False


def what_is_saved(run: RunFolder, names: Sequence[str], *, more: str = "") -> str:
    """For an interrupt: how many photos the folder holds, and `more`, and how to go on."""
    done = sum(name in run for name in names)
    kept = [f"{done} of {len(names)} photos"] if done else []
    kept += [more] if more else []
    if not kept:
        return "nothing was finished"
    return f"{' and '.join(kept)} are saved in {run.folder}; run the same command again to go on"
