"""What people read: tables on standard output, to be cut and kept; progress and remarks on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
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
    """Prints rows of equal keys as a table on standard output, below its title on standard error.

    What is no terminal gets a line for each row, whatever its width.
    """
    console.print(f"[italic]{escape(title)}[/italic]", soft_wrap=True)
    columns = [name for name in (rows[0] if rows else {}) if any(row[name] not in ("", None, 0) for row in rows)]
    cells = [[{True: "yes", False: ""}.get(row[name], str(row[name])) for name in columns] for row in rows]
    out = Console(highlight=False)  # of the standard output that is now
    if not out.is_terminal:
        print("\n".join(_lines([columns, *cells])), flush=True)
        return
    shown = Table(header_style="bold", box=None, pad_edge=False)
    for name in columns:
        shown.add_column(name, overflow="fold", no_wrap=name in NARROW)
    for row, told in zip(rows, cells, strict=True):
        shown.add_row(*map(escape, told), style="bold green" if highlight and highlight(row) else None)
    out.print(shown)


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells in columns two blanks apart."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in padded]


def bold(path: object) -> str:
    """A path as markup, whatever brackets are in it."""
    return f"[bold]{escape(str(path))}[/bold]"


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
