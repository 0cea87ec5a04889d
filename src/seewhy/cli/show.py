"""What people read: tables and progress, on standard error, so that standard output stays for data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..names import shown

console = Console(stderr=True, highlight=False)
if not console.is_terminal:  # a log file has no width to keep to
    console.width = 160

NARROW = ("name", "photo", "probability", "status", "shape", "grid", "chosen", "layer", "method", "layout")
NAMES = ("name", "photo", "example", "training picture")


def table(
    title: str, rows: Sequence[Mapping[str, Any]], *, highlight: Callable[[Mapping[str, Any]], bool] | None = None
) -> None:
    """Prints rows of equal keys as a table."""
    drawn = Table(title=said(title), title_justify="left", header_style="bold", box=None, pad_edge=False)
    columns = [name for name in (rows[0] if rows else {}) if any(row[name] not in ("", None, 0) for row in rows)]
    for name in columns:
        drawn.add_column(name, overflow="fold", no_wrap=name in NARROW)
    for row in rows:
        cells = [_cell(name, row[name]) for name in columns]
        drawn.add_row(*cells, style="bold green" if highlight and highlight(row) else None)
    console.print(drawn)


def _cell(column: str, value: object) -> str:
    """A value as markup; a file's name leaves the other columns their room."""
    if value is True:
        return "yes"
    return said(value, max(16, console.width // 3) if column in NAMES else None) if value else ""


def said(text: object, most: int | None = None) -> str:
    """A text as markup, whatever brackets are in it, and whatever of it would act on a terminal (`names.shown`)."""
    return escape(shown(text, most))


def bold(path: object) -> str:
    """A path as markup."""
    return f"[bold]{said(path)}[/bold]"


class Shown:
    """A bar over photos, and below it one over the masked pictures of the photo at hand, while there are any."""

    def __init__(self, bar: Progress, photos: TaskID) -> None:
        self.bar, self.photos = bar, photos
        self.pictures: TaskID | None = None

    def __call__(self, done: int, total: int) -> None:
        self.bar.update(self.photos, completed=done)

    def within(self, done: int, total: int) -> None:
        """How far the passes of one method are."""
        if self.pictures is None:
            self.pictures = self.bar.add_task("Masked pictures", total=total)
        self.bar.update(self.pictures, completed=done, total=total, visible=done < total)


@contextmanager
def progress(what: str, total: int) -> Iterator[Shown]:
    """A progress bar over `total` photos, gone when done; yields what takes (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Shown(bar, bar.add_task(what, total=total))


def tell_skipped(errors: Iterable[str]) -> None:
    """Prints why what was left out was."""
    for error in errors:
        console.print(f"[red]skipped[/red] {said(error)}", soft_wrap=True)


def tell_ledgers(entry: Mapping[str, Any]) -> None:
    """For one photo of explanation.json: where the relevance of each of its maps went."""
    for told in entry["attributions"]:
        if "ledger" not in told:
            continue
        kept = ("bias", "epsilon", "no_contributor", "parameter")
        columns = ("received", "handed_on", *kept, "peak")
        total = {"operation": "kept in all", **{c: sum(row[c] for row in told["ledger"]) for c in kept}}
        rows = [
            {"operation": row["operation"], **{c.replace("_", " "): _short(row.get(c)) for c in columns}}
            for row in (*told["ledger"], total)
        ]
        where = f" at {told['layer']}" if told["layer"] else ""
        title = f"{entry['name']}: relevance of {told['label']} by {told['method']}{where}, score {told['score']:.4g}"
        table(title, rows, highlight=lambda row: row["operation"] == "kept in all")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
