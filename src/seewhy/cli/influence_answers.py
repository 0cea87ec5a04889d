"""Photos put to an index of influence, one by one, and the sheets of the answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from ..data.disk import Json, png_bytes
from ..data.run_folder import RunFolder
from ..engine.spread import world
from ..errors import ImageError
from ..influence import InfluenceIndex, InfluenceQuery
from ..influence.answers.sheets import influence_sheet
from ..influence.index.manifest import model_photo
from ..influence.solvers.solver import is_calibrated
from ..methods.photos import photo_digest
from .influence_asked import OfIndex, Question
from .influence_data import index_identity
from .influence_telling import told_of
from .show import progress, tell_skipped


class Answers:
    """The answers of an index about photos, each in the folder of the run as it is there.

    Args:
        index: is asked.
        question: about each photo.
        max_pixels: a photo of more is refused.
        first: whether this process writes; of several all ask.

    Attributes:
        skipped: the photos that could not be read, and why.
        number, only_ranks: what the scores are called, and what is to be said of them.
    """

    def __init__(
        self, index: InfluenceIndex, question: Question, *, max_pixels: int, first: bool
    ) -> None:
        self.index, self.question, self.max_pixels, self.first = index, question, max_pixels, first
        label = question.label
        self.label = None if label is None else index.classes.column(label, asked="label")
        self.skipped: list[dict[str, str]] = []
        calibrated = is_calibrated(index.solver)
        self.number = "influence" if calibrated else "score"
        ranks = f" by {index.solver.name}, of which only the ranks count"
        self.only_ranks = "" if calibrated else ranks

    def request(self, of_index: OfIndex) -> Json:
        """What the answers depend on beside the photo."""
        asked = {**asdict(self.question), "label": self.label}
        return {"index": index_identity(of_index.index), **asked}

    def status(self) -> int:
        """Tells of the photos that could not be read; the exit status, 1 if there are any."""
        tell_skipped(one["error"] for one in self.skipped)
        return 1 if self.skipped else 0

    def ask_all(self, run: RunFolder, paths: Sequence[Path]) -> None:
        """Asks about photos.

        Raises:
            ImageError: none of them can be read.
        """
        with progress("Asking", len(paths)) as show:
            for done, path in enumerate(paths, start=1):
                self._ask_about(run, path)
                show(done, len(paths))
        if len(self.skipped) == len(paths):
            error = self.skipped[0]["error"]
            raise ImageError(f"none of the {len(paths)} pictures can be read; the first: {error}")

    def _ask_about(self, run: RunFolder, path: Path) -> None:
        """Asks about one photo, if that is not done."""
        try:
            photo = model_photo(self.index.model, path, max_pixels=self.max_pixels)[0]
        except ImageError as error:
            self.skipped.append({"photo": str(path), "error": str(error)})
            return
        digest = photo_digest(path)
        is_done = self.first and run.has(str(path), digest)
        if is_done and world().size == 1:
            return
        found, picture = self._answer_and_sheet(photo, path.name)
        if self.first and not is_done:
            with run.entry(str(path), digest) as draft:
                sheet = draft.save("sheet.png", png_bytes(picture))
                draft.record = {"photo": str(path), **asdict(found), "sheet": sheet}

    def _answer_and_sheet(
        self, photo: Image.Image, title: str
    ) -> tuple[InfluenceQuery, Image.Image]:
        labels = None if self.label is None else [self.label]
        (found,) = self.index.query(
            [photo], self.question.k, labels=labels, target=self.question.target
        )
        sheet = influence_sheet(
            self.index,
            [photo],
            found,
            title=f"What taught this answer: {title}",
            label=self.label,
            target=self.question.target,
            layer=self.question.layer,
        )
        return found, sheet

    def told(self, run: RunFolder, names: Iterable[str] | None = None) -> Json:
        """The answers about some photos, or all; the sheets as paths from here."""
        records = (entry.record for entry in run.entries(names))
        queries = [{**each, "sheet": str(run.folder / each["sheet"])} for each in records]
        return {**told_of(self.index), "queries": queries, "skipped": self.skipped}
