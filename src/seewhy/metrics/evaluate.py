"""Methods against metrics: photos and a model in, a table with intervals and chance levels out, and the curves."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..arguments import checked
from ..data.opened import MAX_PIXELS
from ..data.run_folder import RunFolder
from ..engine.answers import OutputLike
from ..engine.batches import answers
from ..engine.call import Call
from ..engine.defaults import own_defaults
from ..engine.inputs import settled_input
from ..engine.targets.numbers import numbers_of
from ..engine.targets.resolve import (
    ResolvedTarget,
    TargetLike,
    check_one_each,
    one_each,
    part_of,
    resolve,
)
from ..engine.targets.rows import OWN
from ..errors import ImageError
from ..methods.explain import Progress, explain
from ..methods.formula import Options
from ..methods.photos import Batch, ImagesLike, OnBadImage, Source
from ..methods.remarks import naming
from ..methods.request import (
    BATCH_SIZE,
    LayersLike,
    MethodsLike,
    ModelLike,
    Request,
    TargetsLike,
)
from ..models.load import DEFAULT_MODEL
from ..names import AUTO
from .baselines import CHANCES, Chance
from .catalog import named_metrics
from .cost import EvaluationCost
from .evaluation import Evaluation, Parts
from .keeping import BatchKept, KeptScores
from .metric import ExplanationMetric
from .photo_board import Explained, PhotoBoard, Task

MetricsLike = (
    str
    | ExplanationMetric
    | Iterable[str | ExplanationMetric]
    | Mapping[str, str | ExplanationMetric]
)

USUAL = ("insertion", "deletion", "randomization", "max_sensitivity")


@checked
@own_defaults()
def evaluate(
    model: ModelLike = DEFAULT_MODEL,
    images: ImagesLike = (),
    *,
    methods: MethodsLike = AUTO,
    metrics: MetricsLike | None = None,
    targets: TargetsLike = "top1",
    layers: LayersLike = None,
    chance: Sequence[Chance] = CHANCES,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    options: Options | None = None,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
    output: OutputLike | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
    on_bad_image: OnBadImage | None = None,
    on_part: Callable[[Evaluation], object] | None = None,
    keep: RunFolder | None = None,
) -> Evaluation:
    """Explains photos by methods, and scores the maps, and maps that know nothing of the model, by metrics.

    Args:
        model: as in `seewhy.explain`.
        images: as in `seewhy.explain`.
        methods: as in `seewhy.explain`.
        metrics: names from `seewhy.metrics.METRICS` or metrics with settings of their own; a mapping names them. None
            for insertion, deletion, max_sensitivity and, of models with a layer to draw anew, randomization.
        targets: as in `seewhy.explain`.
        layers: as in `seewhy.explain`.
        chance: the chance maps that each metric also scores; () leaves them out, which saves their forward passes.
        seed: of the random chance map.
        batch_size: photos in one pass. Changes speed and memory, not the answer.
        options: as in `seewhy.explain`.
        args: as in `seewhy.explain`.
        kwargs: as in `seewhy.explain`.
        inputs: as in `seewhy.explain`.
        output: as in `seewhy.explain`.
        max_pixels: as in `seewhy.explain`.
        progress: called with the number of photos done and of all.
        on_bad_image: called with each picture that cannot be read and the reason, and the picture is left out.
        on_part: called every half minute with the evaluation of the photos so far, to be saved or shown.
        keep: a folder of a run of the same request, open for writing: scores are kept in it as they are found, and what
            it holds is not computed again.

    Raises:
        SeewhyError: what cannot be used, in one line.

    Example:
        >>> table = seewhy.evaluate(model, photo, metrics=["complexity"], chance=["uniform"])
        >>> row = table.rows[0]
        >>> row.result < row.chance["uniform"]  # simpler than a map without places
        tensor(True)
    """
    request = Request.of(
        model,
        methods=methods,
        targets=targets,
        layers=layers,
        options=options,
        batch_size=batch_size,
        max_pixels=max_pixels,
        args=args,
        kwargs=kwargs,
        inputs=inputs,
        output=output,
    )
    listeners = Listeners(progress, on_part, on_bad_image)
    of_kind = usual_metrics(request.call) if metrics is None else _of_explanations(metrics)
    return evaluated(
        request, images, of_kind, chance=chance, seed=seed, listeners=listeners, keep=keep
    )


def usual_metrics(call: Call) -> dict[str, ExplanationMetric]:
    """The metrics that are meant where none is named: randomization has to find weights to draw anew."""
    has_layers = any(weights.ndim >= 2 for weights in call.module.parameters())
    return _of_explanations([name for name in USUAL if has_layers or name != "randomization"])


def _of_explanations(metrics: MetricsLike) -> dict[str, ExplanationMetric]:
    several = "{'step 224': Deletion(), ...}"
    return named_metrics(metrics, ExplanationMetric, such_as="'deletion'", named=several)


@dataclass
class Listeners:
    """Who is told how far an evaluation is.

    Attributes:
        progress, on_part, on_bad_image: as in `evaluate`.
        within: called with the number of scores done and of all, of the photos at hand.
        announce: told, before anything is scored, what it will take, as far as a sample tells.
    """

    progress: Progress | None = None
    on_part: Callable[[Evaluation], object] | None = None
    on_bad_image: OnBadImage | None = None
    within: Progress | None = None
    announce: Callable[[EvaluationCost], object] | None = None

    def cost(self, work: Explained, tasks: Sequence[Task], photos: int) -> None:
        """Announces what so many photos will take, once."""
        if self.announce:
            self.announce(work.cost(tasks, photos))
            self.announce = None


def evaluated(
    request: Request,
    images: ImagesLike,
    metrics: Mapping[str, ExplanationMetric],
    *,
    chance: Sequence[Chance],
    seed: int = 0,
    listeners: Listeners,
    keep: RunFolder | None = None,
) -> Evaluation:
    """What is asked, of these pictures, and scored batch by batch; the rest as in `evaluate`."""
    source = Source(images, request.model, listeners.on_bad_image, request.max_pixels)
    scoring = _Scoring(
        PhotoBoard(request, metrics, chance, seed),
        source,
        _settled_call(request, source),
        listeners,
        None if keep is None else KeptScores(keep),
    )
    parts = Parts(listeners.on_part)
    with parts.also_when_interrupted(scoring.so_far, lambda: bool(scoring.seen)):
        for start in range(0, len(source), request.batch_size):
            stop = min(start + request.batch_size, len(source))
            if not scoring.restored(start, stop) and scoring.scored(start, stop):
                parts.offer(scoring.so_far)
            if listeners.progress:
                listeners.progress(stop, len(source))
    if not scoring.seen:
        raise ImageError(
            f"none of the {len(source)} pictures can be read; the first: {source.first_error}"
        )
    return scoring.so_far(finished=True)


@dataclass(eq=False)
class _Scoring:
    """The photos, batch by batch, on their way to the board.

    Attributes:
        call: how the model is called on these photos.
        kept: the scores that are known; None where none are kept.
        seen: the names of the photos that are on the board.
    """

    board: PhotoBoard
    source: Source
    call: Call
    listeners: Listeners
    kept: KeptScores | None
    seen: list[str] = field(default_factory=list)

    def restored(self, start: int, stop: int) -> bool:
        """Puts kept scores of the photos from one to another on the board, where those of all are there."""
        photos = self.kept.whole(self.source, start, stop) if self.kept else []
        if self.kept is None or not photos:
            return False
        self.board.restore(self.kept, photos)
        self.seen += [photo.name for photo in photos]
        return True

    def scored(self, start: int, stop: int) -> bool:
        """Explains and scores the photos from one to another; False where none can be read."""
        batch = self.source.batch(start, stop)
        if not batch.names:
            return False
        work = _explained_batch(self.board.request, self.call, batch)
        tasks = self.board.tasks(work)
        self.listeners.cost(work, tasks, len(self.source) - start)
        self.board.add(work, tasks, BatchKept(self.kept, batch), self.listeners.within)
        self.seen += batch.names
        return True

    def so_far(self, *, finished: bool = False) -> Evaluation:
        """What was found of the photos on the board."""
        model, rows = self.board.request.model.name, self.board.rows()
        return Evaluation(model, tuple(self.seen), rows, finished=finished)


def _settled_call(request: Request, source: Source) -> Call:
    """The call of these pictures, once what belongs to each is known to be there for each."""
    request.call.check_rows(len(source))
    for target in request.targets:
        check_one_each(target, len(source))
    return source.settled(request.call)


def _explained_batch(request: Request, call: Call, batch: Batch) -> Explained:
    """A batch with its maps, for targets that are settled on what the model says of it."""
    called, x = settled_input(call.rows(batch.indices), batch.x)
    targets = _resolved_targets(called, x, request.targets, batch.indices, request.model.labels)
    begun = time.perf_counter()
    with naming(batch.names, request.model.label):
        found = explain(
            called,
            x,
            methods=request.named,
            targets=[each.score for each in targets],
            layers=request.layers,
            options=request.options,
            batch_size=len(x),
        )
    seconds = time.perf_counter() - begun
    return Explained(called, x, batch.names, targets, found.attributions, seconds)


def _resolved_targets(
    call: Call,
    x: Tensor,
    targets: Sequence[TargetLike],
    images: Sequence[int],
    labels: Sequence[str] | None,
) -> list[ResolvedTarget]:
    """The targets of a batch, settled on what the model says of it, under names that are the same in every batch."""
    output = answers(call, x)
    numbers = numbers_of(call, output)
    found = [(t, resolve(part_of(t, images), output, labels, numbers=numbers)) for t in targets]
    return [
        resolved if one_each(target) is None else dataclasses.replace(resolved, name=OWN)
        for target, several in found
        for resolved in several
    ]
