"""What `seewhy evaluate` does with pairs and mosaics that are made of photos of one object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.dataset import LabeledImages
from ..data.disk import Json
from ..data.images import find_images
from ..data.run_folder import RunFolder, usable_folder
from ..errors import InputError
from ..methods.request import Request
from ..metrics.base import ANY_KIND, ImageMetric
from ..metrics.evaluation import Evaluation
from ..metrics.localization.board import TRUE_CLASS
from ..metrics.localization.composed import OnBadSingle
from ..metrics.localization.evaluate import CHANCES
from ..metrics.localization.evaluate_composed import COUNT, ComposedStudy, composed_studies, kind_of
from ..metrics.localization.evaluation import KIND
from ..metrics.metric import ExplanationMetric
from .evaluate_asked import OfData, Scoring
from .interrupts import interruptible
from .localization_tables import tell_localization
from .metric_texts import metric_of
from .saving import forecasting, remark
from .show import progress, tell_remarks


def metrics_of_photos(
    texts: Sequence[str] | None,
) -> tuple[dict[str, ExplanationMetric] | None, dict[str, ImageMetric]]:
    """The metrics that photos are scored by, None for the usual ones, and those for which pictures are made of them.

    Raises:
        InputError: one needs marked objects.
    """
    if not texts:
        return None, {}
    of_photos, of_made = dict[str, ExplanationMetric](), dict[str, ImageMetric]()
    for text in texts:
        metric = metric_of(text, ANY_KIND)
        if isinstance(metric, ExplanationMetric):
            of_photos[text] = metric
        elif kind_of(metric):
            of_made[text] = metric
        else:
            raise InputError(
                f"metric {text!r} compares with marked objects, which photos do not have; "
                "give pictures with boxes or masks in their place: "
                "--data csv:boxes.csv, voc:FOLDER or coco:FOLDER"
            )
    return of_photos, of_made


@dataclass(frozen=True)
class MadePictures:
    """Pictures made of photos, on their way to tables.

    Attributes:
        request: whose model and methods are taken; its targets are not.
        of_data, scoring, as_json: what the command line says.
    """

    request: Request
    of_data: OfData
    scoring: Scoring
    as_json: bool

    def scored(
        self,
        photos: Sequence[Path] | LabeledImages,
        metrics: Mapping[str, ImageMetric],
        on_bad_image: OnBadSingle | None,
    ) -> Json:
        """Makes pictures of photos, scores the methods on them, and tells people; what came out for programs."""
        usable_folder(self.scoring.out)
        request = replace(self.request, targets=(TRUE_CLASS,))
        total = len(photos) if isinstance(photos, LabeledImages) else len(find_images(photos))
        with progress("Choosing photos", total, told=True) as show:
            studies = composed_studies(
                request,
                photos,
                metrics,
                count=self.of_data.count or COUNT,
                confidence=self.of_data.confidence,
                seed=self.of_data.seed,
                on_bad_image=on_bad_image,
                progress=show,
            )
        return {"made": {study.name: self._evaluated(study) for study in studies}}

    def _evaluated(self, made: ComposedStudy) -> Json:
        """Scores pictures of one kind, in a folder of their own, and tells people."""
        data = made.study.data
        out = self.scoring.out / made.name
        asked = {
            **made.study.request.told(),
            "pictures": [data.title, *data.names],
            "metrics": list(made.metrics),
            "chance": self.scoring.chance,
            "seed": made.seed,
        }
        run = RunFolder(out, kind=KIND, request=asked, tell=remark)
        with interruptible(lambda: table_so_far(run)), run:
            with progress(f"Evaluating {made.name}", len(data), told=True) as show:
                found = made.evaluated(
                    chance=CHANCES if self.scoring.chance else (),
                    progress=forecasting(show, what_is_left),
                    on_part=lambda part: _write(part, run),
                    keep=run,
                )
            path = found.write(run)
        if not self.as_json:
            tell_localization(found, out, made=made.name)
            tell_remarks(found.remarks)
        told: Json = json.loads(path.read_text(encoding="utf-8"))
        return {**told, "title": data.title, "out": str(out)}


def _write(part: Evaluation, run: RunFolder) -> None:
    part.write(run)


def what_is_left(total: int, left: str) -> str:
    """For a forecast."""
    return f"{total:,} pictures take about {left} more; stopped, the same command goes on"


def table_so_far(run: RunFolder) -> str:
    """For an interrupt: the table is written every half minute, and then."""
    if not run.is_begun:
        return "nothing was finished"
    return (
        f"the table of the first pictures is saved in {run.folder}; "
        "run the same command again to go on"
    )
