"""What people read: tables and progress, on standard error, so that standard output stays for data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

console = Console(stderr=True, highlight=False)
if not console.is_terminal:  # a log file has no width to keep to
    console.width = 160

NARROW = ("name", "photo", "probability", "status", "shape", "grid", "chosen", "layer", "method", "layout")


def table(
    title: str, rows: Sequence[Mapping[str, Any]], *, highlight: Callable[[Mapping[str, Any]], bool] | None = None
) -> None:
    """Prints rows of equal keys as a table."""
    shown = Table(title=escape(title), title_justify="left", header_style="bold", box=None, pad_edge=False)
    columns = [name for name in (rows[0] if rows else {}) if any(row[name] not in ("", None, 0) for row in rows)]
    for name in columns:
        shown.add_column(name, overflow="fold", no_wrap=name in NARROW)
    for row in rows:
        cells = [{True: "yes", False: ""}.get(row[name], escape(str(row[name]))) for name in columns]
        shown.add_row(*cells, style="bold green" if highlight and highlight(row) else None)
    console.print(shown)


def bold(path: object) -> str:
    """A path as markup, whatever brackets are in it."""
    return f"[bold]{escape(str(path))}[/bold]"


class Shown:
    """A bar over photos, and below it one over the masked pictures of the photo at hand, while there are any."""

    def __init__(self, bar: Progress, photos: TaskID) -> None:
        self.bar, self.photos = bar, photos
        self.inner: dict[str, TaskID] = {}

    def __call__(self, done: int, total: int) -> None:
        self.bar.update(self.photos, completed=done)

    def within(self, done: int, total: int) -> None:
        """How far the passes of one method or metric are."""
        self._inner("Masked pictures", done, total)

    def scores(self, done: int, total: int) -> None:
        """How far the scores of the photos at hand are."""
        self._inner("Scores of these", done, total)

    def _inner(self, what: str, done: int, total: int) -> None:
        if what not in self.inner:
            self.inner[what] = self.bar.add_task(what, total=total)
        self.bar.update(self.inner[what], completed=done, total=total, visible=done < total)


@contextmanager
def progress(what: str, total: int) -> Iterator[Shown]:
    """A progress bar over `total` photos, gone when done; yields what takes (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Shown(bar, bar.add_task(what, total=total))


def tell_skipped(errors: Iterable[str]) -> None:
    """Prints why what was left out was."""
    for said in errors:
        console.print(f"[red]skipped[/red] {escape(said)}", soft_wrap=True)


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
