"""What people read: tables on standard output, to be cut and kept; progress and remarks on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ..data.disk import Json
from ..names import table_lines
from ..safe_names import shown
from .results import output

console = Console(stderr=True, highlight=False)
if not console.is_terminal:  # a log file has no width to keep to
    console.width = 160

LONG = 30.0  # seconds: what takes more is announced
_SAMPLE = 3.0  # seconds that are measured first
NARROW = (
    "name",
    "photo",
    "probability",
    "status",
    "shape",
    "grid",
    "chosen",
    "layer",
    "method",
    "layout",
)
NAMES = ("name", "photo", "example", "training picture")


def table(
    title: str,
    rows: Sequence[Mapping[str, object]],
    *,
    highlight: Callable[[Mapping[str, object]], bool] | None = None,
) -> None:
    """Prints rows of equal keys as a table on standard output, below its title on standard error.

    What is no terminal gets a line for each row, whatever its width.
    """
    if console.quiet:  # of several processes one tells
        return
    console.print(f"[italic]{said(title)}[/italic]", soft_wrap=True)
    told = _told(rows)
    out = Console(file=output(), highlight=False)
    if not out.is_terminal:
        print("\n".join(table_lines(told)), file=output(), flush=True)
        return
    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for name in told[0] if told else ():
        drawn.add_column(name, overflow="fold", no_wrap=name in NARROW)
    for row, cells in zip(rows, told, strict=True):
        style = "bold green" if highlight and highlight(row) else None
        drawn.add_row(*(said(cell, _room(name, out)) for name, cell in cells.items()), style=style)
    out.print(drawn)


def _room(column: str, out: Console) -> int | None:
    """How many characters of a cell are shown: a file's name leaves the other columns their room."""
    return max(16, out.width // 3) if column in NAMES else None


def _told(rows: Sequence[Mapping[str, object]]) -> list[dict[str, str]]:
    """The cells as texts on one line, without the columns that are empty."""
    names = rows[0] if rows else {}
    columns = [name for name in names if any(row[name] not in ("", None, 0) for row in rows)]
    return [{name: shown(_words(row[name])) for name in columns} for row in rows]


def _words(value: object) -> str:
    return ("yes" if value else "") if isinstance(value, bool) else str(value)


def said(text: object, most: int | None = None) -> str:
    """A text as markup, whatever brackets are in it, and whatever of it would act on a terminal."""
    return escape(shown(text, most))


def bold(path: object) -> str:
    """A path as markup."""
    return f"[bold]{said(path)}[/bold]"


class Forecast:
    """Says once how long the rest of something takes, if that is much, by what was measured since it began.

    Args:
        least: seconds that are measured first.
    """

    def __init__(self, least: float = 0.0) -> None:
        self._least, self._told = least, False
        self.begin()

    def begin(self) -> None:
        """Measures from now on."""
        self._begun = time.perf_counter()

    def note(self, share: float, say: Callable[[float, float], str]) -> None:
        """Takes what share is done since it began.

        Args:
            share: of what was left then.
            say: what to print of the seconds that are left, and of those that were measured.
        """
        took = time.perf_counter() - self._begun
        if self._told or took < self._least or share <= 0:
            return
        self._told = True
        left = took / share - took
        if left > LONG:
            console.print(f"seewhy: {said(say(left, took))}", soft_wrap=True)


class Shown:
    """A bar over photos, and below it one over the masked pictures of the photo at hand, while there are any.

    Once there is something to measure it says how long the whole takes, if that is more than half a minute.

    Args:
        what: is done, in a word.
        samples: how many samples of masked pictures are drawn in all; 0 where photos alone count.
        told: how long it takes is said by somebody else.
    """

    def __init__(
        self, bar: Progress, photos: TaskID, what: str, samples: int = 0, *, told: bool = False
    ) -> None:
        self.bar, self.photos, self.what, self.samples = bar, photos, what, samples
        self.inner: dict[str, TaskID] = {}
        self._first: int | None = None  # of the masked pictures
        self._forecast = None if told else Forecast(_SAMPLE)

    def __call__(self, done: int, total: int) -> None:
        self.bar.update(self.photos, completed=done)
        if self._forecast and not self.samples:
            self._forecast.note(done / total, self._what_is_left)

    def within(self, done: int, total: int) -> None:
        """How far the passes of one method or metric are."""
        self._inner("Masked pictures", done, total)
        if self._forecast is None or not self.samples:
            return
        if self._first is None:  # the first pass is slow, and tunes how the others run
            self._first = done
            self._forecast.begin()
        else:
            share = (done - self._first) / (total * self.samples)
            self._forecast.note(share, self._what_is_left)

    def scores(self, done: int, total: int) -> None:
        """How far the scores of the photos at hand are."""
        self._inner("Scores of these", done, total)

    def _inner(self, what: str, done: int, total: int) -> None:
        if what not in self.inner:
            self.inner[what] = self.bar.add_task(what, total=total)
        self.bar.update(self.inner[what], completed=done, total=total, visible=done < total)

    def _what_is_left(self, left: float, took: float) -> str:
        about = timedelta(seconds=round(left))
        return f"{self.what} takes about {about} (h:mm:ss) more, by its first {took:.0f} s"


@contextmanager
def progress(what: str, total: int, *, samples: int = 0, told: bool = False) -> Iterator[Shown]:
    """A progress bar over `total` photos, gone when done; yields what takes (done, total), see `Shown`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield Shown(bar, bar.add_task(what, total=total), what, samples, told=told)


@contextmanager
def starting() -> Iterator[None]:
    """Says on a terminal that torch is being loaded, which takes seconds: before that nobody hears anything."""
    with console.status("Loading torch"):
        yield


def tell_skipped(errors: Iterable[str]) -> None:
    """Prints why what was left out was."""
    for error in errors:
        console.print(f"[red]skipped[/red] {said(error)}", soft_wrap=True)


def tell_remarks(remarks: Iterable[str]) -> None:
    """Prints what is to know before a result is believed."""
    for remark in remarks:
        console.print(f"[yellow]unsure[/yellow] {said(remark)}", soft_wrap=True)


def tell_ledgers(entry: Json) -> None:
    """For one photo of explanation.json: where the relevance of each of its maps went."""
    for told in entry["attributions"]:
        if "ledger" not in told:
            continue
        kept = ("bias", "epsilon", "no_contributor", "parameter")
        columns = ("received", "handed_on", *kept, "peak")
        total = {
            "operation": "kept in all",
            **{c: sum(row[c] for row in told["ledger"]) for c in kept},
        }
        rows = [
            {
                "operation": row["operation"],
                **{c.replace("_", " "): _short(row.get(c)) for c in columns},
            }
            for row in (*told["ledger"], total)
        ]
        where = f" at {told['layer']}" if told["layer"] else ""
        title = f"{entry['name']}: relevance of {told['label']} by {told['method']}{where}, score {told['score']:.4g}"
        table(title, rows, highlight=lambda row: row["operation"] == "kept in all")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
