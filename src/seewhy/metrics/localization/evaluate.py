"""Methods x layers x metrics over a data set with boxes or masks: how well a classifier's maps say where things are.

The class of each map is given, as in the "GT-known" protocol (Choe et al., CVPR 2020), save where a metric asks what
the model itself answers. Maps and truth are compared in the model's input: what the preprocessing crops away counts
for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ...arguments import checked
from ...data.dataset import LabeledImages
from ...data.run_folder import RunFolder
from ...errors import InputError
from ...maps.box_rules import RuleLike, find_rule
from ...methods.explain import Progress
from ...methods.formula import Options
from ...methods.outcome import PREDICTIONS
from ...methods.request import (
    BATCH_SIZE,
    LayersLike,
    MethodsLike,
    ModelLike,
    Request,
)
from ...models.classes import class_indices
from ...models.load import DEFAULT_MODEL
from ...names import AUTO
from ..base import ANY_KIND, ImageMetric
from ..baselines import Chance
from ..catalog import named_metrics
from ..evaluation import Evaluation, Parts
from ..unit import Unit
from .board import TRUE_CLASS, LocalizationBoard
from .box_metrics import MaxBoxAccuracy, TopKLocalization
from .class_metrics import PairShare
from .evaluation import Case, LocalizationEvaluation
from .mosaics import Focus, GridPointing
from .resuming import KeptStates
from .study import OnBadPicture, Study

METRICS = ("max_box_accuracy", "pixel_ap", "pointing_game", "energy_pointing")
CHANCES: tuple[Chance, ...] = ("centre", "edges", "random")
MetricsLike = str | ImageMetric | Iterable[str | ImageMetric] | Mapping[str, str | ImageMetric]


@checked
def evaluate_localization(
    model: ModelLike = DEFAULT_MODEL,
    data: LabeledImages | None = None,
    *,
    methods: MethodsLike = AUTO,
    metrics: MetricsLike = METRICS,
    layers: LayersLike = None,
    validation: LabeledImages | None = None,
    rule: RuleLike = "cam2016",
    classes: Mapping[str, int | str] | None = None,
    chance: Sequence[Chance] = CHANCES,
    cases: int = 4,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    options: Options | None = None,
    progress: Progress | None = None,
    on_bad_image: OnBadPicture | None = None,
    on_part: Callable[[Evaluation], object] | None = None,
    keep: RunFolder | None = None,
) -> LocalizationEvaluation:
    """Explains the true classes of a data set's pictures by methods, and scores where the maps point.

    Args:
        model: a classifier with its preprocessing, or a spec.
        data: pictures with boxes or masks; those without are counted, and score nothing.
        methods: as in `seewhy.explain`.
        metrics: names from `seewhy.metrics.LOCALIZATION` or `METRICS`, or metrics with settings of their own; a mapping
            names them. Those that ask the model are of each class that a picture shows.
        layers: as in `seewhy.explain`.
        validation: other pictures, on which `max_box_accuracy` fits the threshold of its figure "validation".
        rule: how maps become the guesses of `topk_localization`, and the boxes that are drawn.
        classes: the model's class for names of the data's classes; found by name unless given (`class_indices`).
        chance: maps that know nothing of the model, scored beside the methods.
        cases: how many of the best and of the worst maps of each method are kept to look at.
        seed: of the random chance map.
        batch_size: pictures in one pass. Changes speed and memory, not the answer.
        options: as in `seewhy.explain`.
        progress: called with the number of pictures done and of all, first of `validation`, then of `data`.
        on_bad_image: called with the name of each picture that cannot be read, or its annotation, and the reason; None
            raises.
        on_part: called every half minute with the evaluation of the pictures so far, without cases.
        keep: a folder of a run of the same request, open for writing: what was found so far is kept in it whenever a
            part is handed over, and what it holds is not computed again, if the same was asked of the same pictures.

    Raises:
        SeewhyError: what cannot be used, in one line.

    Example:
        >>> data = seewhy.data.PictureTable("boxes.csv")
        >>> table = seewhy.evaluate_localization(model, data, metrics=["pointing_game"], chance=())
        >>> table.rows[0].result.mean
        1.0
    """
    data = _with_pictures(data)
    request = Request.of(
        model, methods=methods, targets=TRUE_CLASS, layers=layers, options=options, batch_size=batch_size,
    )  # fmt: skip
    columns = class_indices(request.model, data, classes)
    return evaluated_study(
        Study(request.each_method_once(), data, columns, find_rule(rule)),
        _judging_data(metrics, data),
        chance=chance,
        seed=seed,
        cases=cases,
        validation=validation,
        progress=progress,
        on_bad_image=on_bad_image,
        on_part=on_part,
        keep=keep,
    )


def evaluated_study(
    study: Study,
    metrics: Mapping[str, ImageMetric],
    *,
    chance: Sequence[Chance],
    seed: int,
    cases: int,
    validation: LabeledImages | None = None,
    progress: Progress | None = None,
    on_bad_image: OnBadPicture | None = None,
    on_part: Callable[[Evaluation], object] | None = None,
    keep: RunFolder | None = None,
) -> LocalizationEvaluation:
    """What is asked of these pictures, scored; the rest as in `evaluate_localization`."""
    if cases < 0:
        raise InputError(f"cases={cases}: give 0 or more")
    board = LocalizationBoard(study, metrics, chance, seed)
    kept = KeptStates(keep, study, validation)
    if not kept.read(board, on_bad_image) and validation is not None:
        heard = kept.watching_validation(on_bad_image)
        board.fitted = _fitted_thresholds(board, validation, heard, progress)
    _score_and_keep(board, kept, Parts(on_part), on_bad_image, progress)
    return board.evaluation(cases=tuple(_shown_cases(board, cases)))


def _with_pictures(data: LabeledImages | None) -> LabeledImages:
    if data is None or not len(data):
        such_as = "seewhy.data.find_data('scenes', split='test')"
        raise InputError(f"data has no pictures; give a data set, such as {such_as}")
    return data


def _score_and_keep(
    board: LocalizationBoard,
    kept: KeptStates,
    parts: Parts,
    on_bad_image: OnBadPicture | None,
    progress: Progress | None,
) -> None:
    """Scores what is not done, and keeps what is found."""

    def so_far() -> LocalizationEvaluation:
        kept.write(board)
        return board.evaluation(finished=False)

    with parts.also_when_interrupted(so_far, lambda: board.is_whole and bool(board.pairs)):
        board.score(
            on_bad_image=kept.watching(on_bad_image),
            progress=progress,
            offer=lambda: parts.offer(so_far),
        )
    kept.write(board)


def _shown_cases(board: LocalizationBoard, count: int) -> Iterator[Case]:
    """The best and the worst maps of each method and layer."""
    for place, best, worst in board.extremes(count):
        yield from board.study.cases(place, "best", best)
        yield from board.study.cases(place, "worst", worst)


def _fitted_thresholds(
    board: LocalizationBoard,
    validation: LabeledImages,
    on_bad_image: OnBadPicture | None,
    progress: Progress | None,
) -> dict[Unit, tuple[float, ...]]:
    """The thresholds that other pictures give, for metrics that take them."""
    boxed = {n: metric for n, metric in board.metrics.items() if isinstance(metric, MaxBoxAccuracy)}
    if not boxed:
        return {}
    other = LocalizationBoard(replace(board.study, data=validation), boxed, (), board.seed)
    return other.score(on_bad_image=on_bad_image, progress=progress).thresholds()


def has_several(data: LabeledImages) -> bool:
    """Whether some picture shows two classes or more."""
    return any(len(labels) > 1 for labels in data.labels)


def _judging_data(metrics: MetricsLike, data: LabeledImages) -> dict[str, ImageMetric]:
    several = "{'V1': MaxBoxAccuracy(version=1)}"
    named = named_metrics(metrics, ANY_KIND, such_as="'max_box_accuracy'", named=several)
    for name, metric in named.items():
        _check_judges_data(name, metric, data)
    return named


def _check_judges_data(name: str, metric: ImageMetric, data: LabeledImages) -> None:
    """Says of a metric that it cannot score the pictures of a data set."""
    if isinstance(metric, Focus):
        way_out = "feed it mosaics: seewhy.metrics.focus_mosaics"
        raise InputError(f"metric {name!r} judges mosaics of photos, not a data set; {way_out}")
    if isinstance(metric, PairShare | GridPointing) and not has_several(data):
        raise InputError(
            f"metric {name!r} needs pictures of two classes or more, "
            f"and {data.title} has none; "
            "seewhy.evaluate_composed makes such of photos of one"
        )
    if isinstance(metric, TopKLocalization) and metric.k > PREDICTIONS:
        raise InputError(
            f"k={metric.k} guesses are more than the {PREDICTIONS} of a prediction; give fewer"
        )
