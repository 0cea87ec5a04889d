"""Do maps tell classes apart in pictures that are made of the user's own photos, each of one object?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ...arguments import checked
from ...data.dataset import LabeledImages
from ...data.opened import MAX_PIXELS
from ...data.preprocess import Preprocess
from ...data.run_folder import RunFolder
from ...errors import InputError
from ...maps.box_rules import find_rule
from ...methods.explain import Progress
from ...methods.formula import Options
from ...methods.photos import ImagesLike, Source
from ...methods.request import BATCH_SIZE, LayersLike, MethodsLike, ModelLike, Request
from ...models.classes import class_indices
from ...models.load import DEFAULT_MODEL
from ...names import AUTO
from ...remarks import warn
from ..base import ANY_KIND, ImageMetric
from ..baselines import Chance
from ..catalog import named_metrics
from ..evaluation import Evaluation
from .board import TRUE_CLASS
from .class_metrics import PairShare
from .composed import (
    DRAWINGS,
    Cells,
    Composed,
    OnBadSingle,
    Singles,
    confident_cells,
    fill_of,
    singles_of_data,
    singles_of_photos,
    takes_size,
)
from .evaluate import CHANCES, MetricsLike, evaluated_study
from .evaluation import LocalizationEvaluation
from .marked import preprocess_of
from .mosaics import GridPointing
from .study import Study

COUNT, CONFIDENCE = 40, 0.5
_PHOTOS_EACH = 4  # confident photos for each picture that is made, after which no more are read
_LEAST = 200


@dataclass(frozen=True, eq=False)
class ComposedStudy:
    """Made pictures, and what is explained of them and scored.

    Attributes:
        name: "pairs" or "mosaics", with "_shrunk" where they are brought to the model's own size.
        study, metrics: what is explained, and how it is scored.
        seed: of what was drawn.
    """

    name: str
    study: Study
    metrics: Mapping[str, ImageMetric]
    seed: int

    def evaluated(
        self,
        *,
        chance: Sequence[Chance],
        cases: int = 4,
        progress: Progress | None = None,
        on_part: Callable[[Evaluation], object] | None = None,
        keep: RunFolder | None = None,
    ) -> LocalizationEvaluation:
        """The scores; arguments as in `evaluate_localization`."""
        return evaluated_study(
            self.study,
            self.metrics,
            chance=chance,
            seed=self.seed,
            cases=cases,
            progress=progress,
            on_part=on_part,
            keep=keep,
        )


@checked
def evaluate_composed(
    model: ModelLike = DEFAULT_MODEL,
    photos: ImagesLike | LabeledImages = (),
    *,
    methods: MethodsLike = AUTO,
    metrics: MetricsLike = ("pair_share", "grid_pointing"),
    layers: LayersLike = None,
    count: int = COUNT,
    confidence: float = CONFIDENCE,
    chance: Sequence[Chance] = CHANCES,
    cases: int = 4,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    options: Options | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
    on_bad_image: OnBadSingle | None = None,
) -> dict[str, LocalizationEvaluation]:
    """Makes pictures of several objects of photos of one, and scores whether maps tell their classes apart.

    `pair_share` has pairs, photos side by side, `grid_pointing` mosaics of 2 x 2 (Boehle et al., CVPR 2021), each once
    with photos as large as the model sees one, where it takes such pictures, and once shrunk to its own size. Every
    class of a picture is explained. Only photos that the model is sure of are taken, and only of classes that it does
    not mix up in pairs.

    Args:
        model: a classifier with its preprocessing, or a spec.
        photos: as `images` of `seewhy.explain`, whose classes are then the model's own answers; or a data set, of whose
            pictures of one class those count that the model answers right.
        methods: as in `seewhy.explain`.
        metrics: of these two, by name or with settings of their own; a mapping names them.
        layers: as in `seewhy.explain`.
        count: how many pictures of a kind are made, if there are photos for so many.
        confidence: the least probability of a photo's class.
        chance: maps that know nothing of the model, scored beside the methods.
        cases: how many of the best and of the worst maps of each method are kept to look at.
        seed: of what is drawn.
        batch_size: pictures in one pass. Changes speed and memory, not the answer.
        options: as in `seewhy.explain`.
        max_pixels: as in `seewhy.explain`.
        progress: called with the number of pictures done and of all, of each kind.
        on_bad_image: called with each photo that cannot be read and the reason; None raises.

    Returns:
        An evaluation for each kind of picture: "pairs", "pairs_shrunk", "mosaics", "mosaics_shrunk".

    Raises:
        SeewhyError: what cannot be used, too few photos among it, in one line.

    Example:
        >>> found = seewhy.evaluate_composed(model, photos, metrics="pair_share", count=2, confidence=0, chance=())
        >>> list(found), len(found["pairs"].rows)
        (['pairs', 'pairs_shrunk'], 1)
    """
    request = Request.of(
        model,
        methods=methods,
        targets=TRUE_CLASS,
        layers=layers,
        options=options,
        batch_size=batch_size,
        max_pixels=max_pixels,
    )
    made = composed_studies(
        request,
        photos,
        metrics,
        count=count,
        confidence=confidence,
        seed=seed,
        on_bad_image=on_bad_image,
    )
    return {
        each.name: each.evaluated(chance=chance, cases=cases, progress=progress) for each in made
    }


def composed_studies(
    request: Request,
    photos: ImagesLike | LabeledImages,
    metrics: MetricsLike,
    *,
    count: int = COUNT,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    on_bad_image: OnBadSingle | None = None,
    progress: Progress | None = None,
) -> list[ComposedStudy]:
    """What is to be scored, of each kind of picture; arguments as in `evaluate_composed`, but that `progress` is called
    with the number of photos that were looked at, and of all."""
    named = named_metrics(
        metrics, ANY_KIND, such_as="'pair_share'", named="{'masks': PairShare(), ...}"
    )
    by_kind = _by_kind(named)
    if count < 1 or not 0 <= confidence <= 1:
        raise InputError(
            f"count={count}, confidence={confidence:g}: give at least 1 picture, and a probability"
        )
    preprocess = preprocess_of(request.model)
    singles, total = _singles(request, photos, on_bad_image)
    cells = confident_cells(
        request.call,
        preprocess,
        singles,
        confidence=confidence,
        enough=max(_LEAST, _PHOTOS_EACH * count),
        progress=lambda done: progress(done, total) if progress else None,
    )
    drawn = {
        kind: DRAWINGS[kind][0](cells, count=count, confidence=confidence, seed=seed)
        for kind in by_kind
    }
    return [
        ComposedStudy(name, study, by_kind[kind], seed)
        for kind, members in drawn.items()
        for name, study in _studies_of_kind(request, preprocess, cells, kind, members)
    ]


def kind_of(metric: ImageMetric) -> str | None:
    """The pictures that a metric scores: "pairs" or "mosaics"; None for one that takes photos as they are."""
    if isinstance(metric, PairShare):
        return "pairs"
    return "mosaics" if isinstance(metric, GridPointing) else None


def _by_kind(named: Mapping[str, ImageMetric]) -> dict[str, dict[str, ImageMetric]]:
    found: dict[str, dict[str, ImageMetric]] = {}
    for name, metric in named.items():
        kind = kind_of(metric)
        if kind is None:
            raise InputError(
                f"metric {name!r} scores no pictures that are made of photos; "
                "accepted: pair_share, grid_pointing"
            )
        found.setdefault(kind, {})[name] = metric
    return found


def _singles(
    request: Request, photos: ImagesLike | LabeledImages, on_bad_image: OnBadSingle | None
) -> tuple[Iterator[Singles], int]:
    """Photos of one object, batch by batch, and how many there are."""
    model, size = request.model, request.batch_size
    if isinstance(photos, LabeledImages):
        columns = class_indices(model, photos)
        return singles_of_data(model, photos, columns, size, on_bad_image), len(photos)
    source = Source(photos, model, on_bad_image, request.max_pixels)
    return singles_of_photos(source, model.device, size), len(source)


def _studies_of_kind(
    request: Request,
    preprocess: Preprocess,
    cells: Cells,
    kind: str,
    members: Sequence[Sequence[int]],
) -> Iterator[tuple[str, Study]]:
    """The pictures with cells of the model's own size, if it takes them, and the shrunk ones."""
    rows, columns = DRAWINGS[kind][1]
    height, width = preprocess.size
    blank = torch.zeros(1, len(preprocess.mean), 1, 1, device=request.model.device)
    sizes = {kind: (rows * height, columns * width), f"{kind}_shrunk": (height, width)}
    if not takes_size(request.call, blank, sizes[kind]):
        own = " x ".join(map(str, sizes.pop(kind)))
        warn(f"{request.model.name} takes no pictures of {own}; {kind} are of its own size alone")
    used = len({i for each in members for i in each})
    classes = "of the data" if cells.are_known else "the model's own answers"
    for name, size in sizes.items():
        title = (
            f"{len(members)} {kind} of {used} photos, {size[0]} x {size[1]} (classes: {classes})"
        )
        data = Composed(
            cells,
            members,
            shape=(rows, columns),
            size=size,
            fill=fill_of(preprocess),
            model=request.model,
            title=title,
        )
        whole = replace(preprocess, size=size, resize=None)
        seen = replace(request, model=replace(request.model, preprocess=whole)).each_method_once()
        yield name, Study(seen, data, tuple(data.columns), find_rule("cam2016"))
