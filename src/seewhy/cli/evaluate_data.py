"""`seewhy evaluate --task localisation`: methods against metrics over a data set that has boxes or masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from ..data import LabeledImages
from ..data.disk import Json
from ..data.run_folder import RunFolder, usable_folder
from ..data.sources import find_data
from ..methods.formula import Options
from ..methods.request import Request
from ..metrics import ImageMetric
from ..metrics.base import ANY_KIND
from ..metrics.localization.board import TRUE_CLASS
from ..metrics.localization.evaluate import CHANCES, METRICS, evaluate_localization, has_several
from ..metrics.localization.evaluate_composed import kind_of
from ..metrics.localization.evaluation import KIND, LocalizationEvaluation
from ..models.model import Model
from . import parsing
from .evaluate_asked import OfData, Scoring
from .evaluate_made import MadePictures, table_so_far, what_is_left
from .groups import Asked, How
from .interrupts import interruptible
from .localization_tables import tell_localization
from .metric_texts import metric_of
from .results import print_json
from .saving import forecasting, remark
from .show import console, progress, said, tell_remarks, tell_skipped


def evaluate_data(
    of_data: OfData, asked: Asked, methods: Sequence[str], scoring: Scoring, how: How
) -> int:
    """Scores methods on a data set and writes what came out; returns 1 where some picture was unreadable."""
    task = _Localization(of_data, asked, methods, scoring, how)
    found, other = task.pictures()
    usable_folder(scoring.out)
    model = parsing.loaded_model(asked, how)
    unreadable, notes = dict(found.skipped), dict(found.notes)
    told: Json = {}
    if made := task.of_made_pictures(found):
        told |= task.scored_made(model, found, made, unreadable)
    if marked := {text: metric for text, metric in task.metrics.items() if text not in made}:
        run = RunFolder(scoring.out, kind=KIND, request=task.request(model), tell=remark)
        with interruptible(lambda: table_so_far(run)), run:
            study = task.scored(model, found, other, marked, run, unreadable)
            told |= json.loads(study.write(run).read_text(encoding="utf-8"))
        notes |= study.notes
        if not how.as_json:
            tell_localization(study, scoring.out)
            tell_remarks(study.remarks)
    mended = {name: list(each) for name, each in notes.items()}
    if how.as_json:
        print_json(task.told(told, unreadable, mended))
    tell_skipped(unreadable.values())
    _tell_mended(mended)
    return 1 if unreadable else 0


@dataclass(frozen=True)
class _Localization:
    """What the command line asks."""

    of_data: OfData
    asked: Asked
    methods: Sequence[str]
    scoring: Scoring
    how: How

    @property
    def spec(self) -> str:
        return self.of_data.data or "scenes"

    @cached_property
    def metrics(self) -> dict[str, ImageMetric]:
        return {text: metric_of(text, ANY_KIND) for text in self.scoring.metric or METRICS}

    @cached_property
    def options(self) -> Options:
        return parsing.options(self.asked.option or [])

    def pictures(self) -> tuple[LabeledImages, LabeledImages | None]:
        """Those that are scored, and those that thresholds are fitted on."""
        validation = self.of_data.validation
        other = None if validation is None else self._pictures_of(validation)
        return self._pictures_of(self.of_data.split), other

    def _pictures_of(self, split: str) -> LabeledImages:
        found = find_data(
            self.spec,
            split=split,
            seed=self.of_data.seed,
            on_error="skip",
            max_pixels=self.how.max_pixels,
            trust_paths=self.how.trust_paths,
        )
        if self.of_data.count is None:
            return found
        return found.subset(range(min(self.of_data.count, len(found))))

    def request(self, model: Model) -> Json:
        """What the answers depend on."""
        return {
            "model": model.identity(),
            **asdict(self.of_data),
            "methods": list(self.methods),
            "metrics": list(self.metrics),
            "layers": self.asked.layer,
            "chance": self.scoring.chance,
            "options": self.options,
        }

    def of_made_pictures(self, found: LabeledImages) -> dict[str, ImageMetric]:
        """The metrics for which pictures are made, since none of these shows two classes."""
        if has_several(found):
            return {}
        return {text: each for text, each in self.metrics.items() if kind_of(each)}

    def scored_made(
        self,
        model: Model,
        found: LabeledImages,
        metrics: Mapping[str, ImageMetric],
        unreadable: dict[str, str],
    ) -> Json:
        """Scores pictures that are made of the data's, and tells of it."""
        request = Request.of(
            model,
            methods=self.methods,
            targets=TRUE_CLASS,
            layers=parsing.layers(self.asked.layer),
            options=self.options,
            batch_size=self.asked.batch_size,
        )
        made = MadePictures(request, self.of_data, self.scoring, as_json=self.how.as_json)
        return made.scored(
            found, metrics, lambda name, said: unreadable.update({str(name): str(said)})
        )

    def scored(
        self,
        model: Model,
        found: LabeledImages,
        other: LabeledImages | None,
        metrics: Mapping[str, ImageMetric],
        run: RunFolder,
        unreadable: dict[str, str],
    ) -> LocalizationEvaluation:
        """Scores the pictures, and notes those that cannot be read."""
        with progress("Evaluating", len(found), told=True) as show:
            return evaluate_localization(
                model,
                found,
                methods=self.methods,
                metrics=metrics,
                layers=parsing.layers(self.asked.layer),
                validation=other,
                rule=self.of_data.rule,
                chance=CHANCES if self.scoring.chance else (),
                seed=self.of_data.seed,
                batch_size=self.asked.batch_size,
                options=self.options,
                progress=forecasting(show, what_is_left),
                on_bad_image=lambda name, error: unreadable.update({name: str(error)}),
                on_part=lambda part: part.write(run),
                keep=run,
            )

    def told(
        self, told: Json, unreadable: Mapping[str, str], mended: Mapping[str, Sequence[str]]
    ) -> Json:
        """For programs: what was found, what was asked, and what was left out or mended."""
        skipped = [{"name": name, "error": error} for name, error in unreadable.items()]
        asked = {"data": self.spec, "split": self.of_data.split, "out": str(self.scoring.out)}
        return {**told, **asked, "skipped": skipped, "mended": mended}


def _tell_mended(mended: Mapping[str, Sequence[str]]) -> None:
    for name, notes in mended.items():
        text = said(f"{name}: " + "; ".join(notes))
        console.print(f"[yellow]mended[/yellow] {text}", soft_wrap=True)
