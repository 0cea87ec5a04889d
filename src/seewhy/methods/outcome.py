"""What came out of a batch, as the record that users get, and of several as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from torch import Tensor

from ..engine.batches import say_once
from ..engine.flow import Flow
from ..engine.readings import on_the_host
from ..engine.targets.resolve import phrase
from ..maps import values as maps
from ..maps.attribution import Attribution, Facts, Prediction
from ..maps.together import joined as join_parts
from ..models.model import Model
from ..remarks import together
from ..render import reading
from ..render.on_photos import OnPhotos
from .explanation import Explanation
from .formula import HOW_IT_RUNS
from .photos import Batch
from .remarks import label_within
from .request import Request
from .shared import Result, SharedPass

PREDICTIONS = 5
_NO_CLASSES = ("embedding", "records")
_TOLD: tuple[maps.Status, ...] = ("unbalanced", "withheld", "partial")  # by facts of their names


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the model says of each image: scores (N, K) float32, and probabilities where it has them."""

    scores: Tensor
    probabilities: Tensor | None


def explanation_of(
    request: Request,
    batch: Batch,
    done: SharedPass,
    of_all: tuple[str, ...],
    flow: Flow | None,
) -> Explanation:
    """The record of a batch.

    Args:
        request: what was asked.
        batch: its photos.
        done: what the pass over them gave.
        of_all: what was said of all pictures as they came.
        flow: what is known of the model's layers.
    """
    done = _on_the_host(done)
    answers = _answers(done)
    return Explanation(
        model=request.model.name,
        names=batch.names,
        photos=batch.photos,
        placements=batch.placements,
        paths=batch.paths,
        predictions=_predictions(answers, request.model, len(batch.x)),
        attributions=tuple(
            _attribution(result, answers, request, batch, of_all, flow) for result in done.results
        ),
    )


def _on_the_host(done: SharedPass) -> SharedPass:
    """The answer and all that lies over places on the CPU, moved at once."""
    held = [v for r in done.results for v in (r.map, r.pixels, r.interval) if v is not None]
    answer = [done.output] if isinstance(done.output, Tensor) else []
    moved = iter(on_the_host([*answer, *held]))
    output = next(moved) if answer else done.output
    results = [
        replace(
            result,
            map=next(moved),
            pixels=None if result.pixels is None else next(moved),
            interval=None if result.interval is None else next(moved),
        )
        for result in done.results
    ]
    return SharedPass(output, results)


def _answers(done: SharedPass) -> _Answers | None:
    """What the model says of each image; None for what is no classifier."""
    output, numbers = done.output, done.results[0].target.numbers
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    table = output[:, None] if output.ndim == 1 else output  # one score for each image
    if table.ndim != 2 or numbers.gives in _NO_CLASSES:
        return None
    scores = table.float()
    if numbers.gives is None:
        say_once(f"{numbers.why_no_probability()}; predictions are without")
    chances = numbers.probabilities(scores) if numbers.have_probabilities else None
    return _Answers(scores, chances)


def _predictions(
    answers: _Answers | None, model: Model, images: int
) -> tuple[tuple[Prediction, ...], ...]:
    """The best answers of each image."""
    if answers is None:
        return ((),) * images
    best = answers.scores.topk(min(PREDICTIONS, answers.scores.shape[1]), dim=1)
    indices, values = best.indices.tolist(), best.values.tolist()
    known: list[list[float | None]] = [[None] * len(row) for row in indices]
    if answers.probabilities is not None:
        known = answers.probabilities.gather(1, best.indices).tolist()
    each = (zip(*rows, strict=True) for rows in zip(indices, known, values, strict=True))
    return tuple(
        tuple(Prediction(i, model.label(i), p, score) for i, p, score in row) for row in each
    )


def _attribution(
    result: Result,
    answers: _Answers | None,
    request: Request,
    batch: Batch,
    of_all: tuple[str, ...],
    flow: Flow | None,
) -> Attribution:
    n, method = len(batch.x), result.method
    settings = {**method.options, **request.options.get(method.name, {})}
    name = label_within(request.model.label)
    made = Attribution(
        method=method.name,
        title=method.title,
        layer=result.layer,
        target=result.target.name,
        map=result.map,
        status=_statuses(result, n),
        labels=tuple(phrase(result.target, image, name) for image in range(n)),
        scores=tuple(result.scores.tolist()),
        probabilities=_probabilities_of_target(result, answers, n),
        image_size=tuple(batch.x.shape[2:]),
        signed=method.signed,
        pixels=result.pixels,
        options={name: value for name, value in settings.items() if name not in HOW_IT_RUNS},
        interval=result.interval,
        facts=tuple(_with_names_of_rivals(facts, name) for facts in result.facts),
        family=method.family,
        style=method.style,
        ledgers=() if result.ledger is None else (result.ledger,),
        photos=OnPhotos(batch.photos, batch.placements, batch.names),
        layer_title=flow.title(result.layer) if flow and result.layer else None,
    )
    of_statuses = tuple(reading.status_remarks(made, image) for image in range(n))
    return replace(made, remarks=together([of_statuses, (of_all,) * n, result.remarks], n))


def _with_names_of_rivals(facts: Facts, name: Callable[[int], str]) -> Facts:
    if "rivals" not in facts:
        return facts
    return {**facts, "rivals": [{**r, "label": name(r["class"])} for r in facts["rivals"]]}


def _probabilities_of_target(
    result: Result, answers: _Answers | None, n: int
) -> tuple[float | None, ...]:
    """Those of the class that is explained of each image, where it is one."""
    indices = result.target.indices
    if answers is None or answers.probabilities is None or len(indices) != n:
        return (None,) * n
    table = answers.probabilities
    return tuple(
        float(table[image, index]) if isinstance(index, int) else None
        for image, index in enumerate(indices)
    )


def _statuses(result: Result, n: int) -> tuple[maps.Status, ...]:
    return tuple(map(_status, maps.statuses(result.map), result.facts or ({},) * n))


def _status(of_map: maps.Status, facts: Facts) -> maps.Status:
    if of_map != "ok":
        return of_map
    if "blown_up_by" in facts:
        return "blown_up"
    if "extent" in facts:
        return "misplaced"
    return next((status for status in _TOLD if facts.get(status)), "ok")


def join(parts: Sequence[Explanation]) -> Explanation:
    """One explanation of the photos of several batches, which differ in nothing else."""
    names = tuple(chain.from_iterable(part.names for part in parts))
    photos = tuple(chain.from_iterable(part.photos for part in parts))
    placements = tuple(chain.from_iterable(part.placements for part in parts))
    drawn = OnPhotos(photos, placements, names)
    each = zip(*parts, strict=True)  # the same attribution of all batches
    return replace(
        parts[0],
        names=names,
        photos=photos,
        placements=placements,
        predictions=tuple(chain.from_iterable(part.predictions for part in parts)),
        paths=tuple(chain.from_iterable(part.paths for part in parts)),
        attributions=tuple(replace(join_parts(of_all), photos=drawn) for of_all in each),
    )
