"""The facade: photos and a model in, an explanation out; every shared pass is made once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import checked
from ..data.opened import MAX_PIXELS
from ..engine.answers import OutputLike
from ..engine.batches import once, say_once
from ..engine.call import Call
from ..engine.defaults import on_the_cpu
from ..engine.flow import Flow, find_flow
from ..engine.layers import resolve_layer
from ..engine.targets.resolve import TargetLike, as_targets, check_one_each, part_of, phrase
from ..errors import ImageError, InputError, LayerError
from ..maps import values as maps
from ..maps.attribution import Attribution, Prediction
from ..models.call import CallableModel, model_and_call
from ..models.load import DEFAULT_MODEL
from ..models.model import Model
from ..remarks import heard, together
from ..render import reading
from ..render.on_photos import OnPhotos
from .catalog import find_method
from .explanation import Explanation, join
from .formula import HOW_IT_RUNS
from .method import Method
from .photos import Batch, ImageLike, Source
from .remarks import label_within, tell
from .shared import Result, SharedPass, shared_pass

ModelLike = CallableModel | str
LayersLike = str | nn.Module | Sequence[str | nn.Module] | None
Options = Mapping[str, Mapping[str, Any]]  # for a method's name its options
Progress = Callable[[int, int], None]

ALL_STAGES = "all-stages"
BATCH_SIZE = 8
PREDICTIONS = 5


@checked
def explain(
    model: ModelLike = DEFAULT_MODEL,
    images: ImageLike | Iterable[ImageLike] = (),
    *,
    methods: str | Method | Iterable[str | Method] = "grad_cam",
    targets: TargetLike | Iterable[TargetLike] = "top1",
    layers: LayersLike = None,
    batch_size: int = BATCH_SIZE,
    options: Options | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    output: OutputLike | None = None,
    ledger: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> Explanation:
    """Explains what a model says of photos, with one forward pass for all methods, layers and targets of one rule set.

    Args:
        model: a `Model`, any module that takes (N, C, H, W), a `Call`, or a spec for `load_model`.
        images: paths (folders too), PIL pictures, arrays (H, W, 3) or (N, H, W, 3), or a tensor (N, C, H, W) that is
            already preprocessed.
        methods: names from `seewhy.METHODS`; "smooth:NAME" is SmoothGrad over NAME.
        targets: what to explain, one or several: "top1", "top3", a class, a label, a callable. A list, tuple, array or
            tensor is of several, each for all images; one inside it is of one for each image (see `seewhy.targets`).
        layers: dotted names or modules; None finds the last that is a picture, "all-stages" one for each resolution.
        batch_size: photos in one pass. Changes speed and memory, not the answer.
        options: for a method's name its options, such as {"integrated_gradients": {"steps": 64}}; those of methods that
            are not asked for stay unused.
        args, kwargs: further inputs of the model, which go in as they are.
        inputs: further inputs by name that have a row for each photo: {"meta": tensor}; cut with the photos.
        output: takes the model's answer to (N, K) scores.
        ledger: keep account of where relevance goes, operation by operation (`Attribution.ledgers`).
        max_pixels: a photo of more is refused, as in `seewhy.images.read_image`.
        progress: called with the number of photos done and of all.

    Raises:
        SeewhyError: what cannot be used, in one line.
    """
    parts = explain_batches(
        model,
        images,
        methods=methods,
        targets=targets,
        layers=layers,
        batch_size=batch_size,
        options=options,
        args=args,
        kwargs=kwargs,
        inputs=inputs,
        output=output,
        ledger=ledger,
        max_pixels=max_pixels,
        progress=progress,
    )
    with once():
        return join(list(parts))


@checked
def explain_batches(
    model: ModelLike,
    images: ImageLike | Iterable[ImageLike],
    *,
    methods: str | Method | Iterable[str | Method] = "grad_cam",
    targets: TargetLike | Iterable[TargetLike] = "top1",
    layers: LayersLike = None,
    batch_size: int = BATCH_SIZE,
    options: Options | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    output: OutputLike | None = None,
    ledger: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
    on_bad_image: Callable[[Any, ImageError], None] | None = None,
    without: Collection[str] = (),
) -> Iterator[Explanation]:
    """As `explain`, a batch at a time: what is done is there, and memory does not grow with the number of photos.

    Args:
        on_bad_image: called with each picture that cannot be read and the reason, and the picture is left out; None
            raises.
        without: names of photos that need not be explained. A batch is left out where all of its photos need not: the
            others are computed in the same batches as they would be.
    """
    model, call = model_and_call(model, args=args, kwargs=kwargs, inputs=inputs, output=output)
    chosen = [find_method(m) for m in ([methods] if isinstance(methods, str | Method) else methods)]
    options = {find_method(name).name: settings for name, settings in (options or {}).items()}
    wanted = as_targets(targets)
    with heard() as of_all:
        source = Source(images, model, on_bad_image, max_pixels)
    if not chosen or not wanted:
        raise InputError("nothing to explain: give at least one method and one target")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} is too small; give 1 or more")
    call.check_rows(len(source))
    for target in wanted:
        check_one_each(target, len(source))
    call = source.settled(call)
    if ledger:
        batch_size = 1  # an account is of one photo
    for start in range(0, len(source), batch_size):
        stop = min(start + batch_size, len(source))
        batch = None if source.all_of(start, stop, without) else source.batch(start, stop)
        if batch is None or not batch.photos:
            continue
        with on_the_cpu():  # a generator must not hold that open
            named, found = _layer_names(call.rows(batch.indices), batch.x, layers, chosen)
            done = shared_pass(
                call.rows(batch.indices),
                batch.x,
                methods=chosen,
                targets=[part_of(target, batch.indices) for target in wanted],
                layers=named,
                flow=found,
                labels=model.labels,
                options=options,
                ledger=ledger,
            )
            explained = _explanation(model, batch, done, options, tuple(of_all))
            for result, attribution in zip(done.results, explained, strict=True):
                tell(result.method.title, batch.names, attribution.labels, result.unsaid)
        yield explained
        if progress:
            progress(stop, len(source))


@checked
@on_the_cpu()
def list_layers(
    model: ModelLike,
    x: Tensor | None = None,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    output: OutputLike | None = None,
) -> Flow:
    """Every layer of a model with its shape, and the ones `layers=None` (the last) and "all-stages" choose.

    Args:
        model: as in `explain`.
        x: (N, C, H, W), whose first image is traced; a grey picture of the model's input size unless given.
        args, kwargs, inputs, output: as in `explain`.
    """
    own_weights = (
        model == DEFAULT_MODEL
    )  # others would be downloaded, and layers are the same without
    model, call = model_and_call(
        model, pretrained=own_weights, args=args, kwargs=kwargs, inputs=inputs, output=output
    )
    if x is None:
        size = model.preprocess.size if model.preprocess else (224, 224)
        channels = len(model.preprocess.mean) if model.preprocess else 3
        x = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0)) - 0.5
    return find_flow(call, x)


def _layer_names(
    call: Call, x: Tensor, layers: LayersLike, methods: Sequence[Method]
) -> tuple[tuple[str, ...], Flow | None]:
    """The layers to read, and, where nobody named any, what is known of all."""
    if all(method.at != "layer" for method in methods):
        return (), None
    every = isinstance(layers, str) and layers == ALL_STAGES
    if layers is None or every:
        flow = find_flow(call, x)
        return (flow.chosen if every else flow.chosen[-1:]), flow
    given = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    if not given:
        raise LayerError(
            f"layers={layers!r} names no layer; give names, 'all-stages', or None for the last"
        )
    return tuple(dict.fromkeys(resolve_layer(call.module, layer) for layer in given)), None


def _explanation(
    model: Model, batch: Batch, done: SharedPass, options: Options, of_all: tuple[str, ...]
) -> Explanation:
    """What came out of a batch; `of_all` is what was said of all pictures as they came."""
    numbers, scores = done.results[0].target.numbers, _scores_of_classes(done)
    if numbers.gives is None and scores is not None:
        say_once(f"{numbers.why_no_probability()}; predictions are without")
    chances = (
        None if scores is None or not numbers.have_probabilities else numbers.probabilities(scores)
    )
    return Explanation(
        model=model.name,
        names=batch.names,
        photos=batch.photos,
        placements=batch.placements,
        paths=batch.paths,
        predictions=((),) * len(batch.x)
        if scores is None
        else _predictions(scores, chances, model),
        attributions=tuple(
            _attribution(r, chances, model, batch, options, of_all) for r in done.results
        ),
    )


def _predictions(
    scores: Tensor, chances: Tensor | None, model: Model
) -> tuple[tuple[Prediction, ...], ...]:
    """The best answers of each image, from its scores and, where there are any, its probabilities, both (N, K)."""
    best = scores.topk(min(PREDICTIONS, scores.shape[1]), dim=1)
    indices, values = best.indices.tolist(), best.values.tolist()
    if chances is None:
        known: list[list[float | None]] = [[None] * len(row) for row in indices]
    else:
        known = chances.gather(1, best.indices).tolist()
    each = (zip(*rows, strict=True) for rows in zip(indices, known, values, strict=True))
    return tuple(
        tuple(Prediction(i, model.label(i), p, score) for i, p, score in row) for row in each
    )


def _scores_of_classes(done: SharedPass) -> Tensor | None:
    """What the model says of each image, (N, K) float32; None for what is no classifier."""
    output, gives = done.output, done.results[0].target.numbers.gives
    if (
        not isinstance(output, Tensor)
        or not output.is_floating_point()
        or gives in ("embedding", "records")
    ):
        return None
    table = output[:, None] if output.ndim == 1 else output  # one score for each image
    return table.float() if table.ndim == 2 else None


def _attribution(
    result: Result,
    table: Tensor | None,
    model: Model,
    batch: Batch,
    options: Options,
    of_all: tuple[str, ...],
) -> Attribution:
    x = batch.x
    indices = [i if isinstance(i, int) else None for i in result.target.indices]
    indices = indices if len(indices) == len(x) else [None] * len(x)
    chances: list[float | None] = [None] * len(x)
    if table is not None:
        chances = [None if i is None else float(table[n, i]) for n, i in enumerate(indices)]
    method = result.method
    settings = {**method.options, **options.get(method.name, {})}
    made = Attribution(
        method=method.name,
        title=method.title,
        layer=result.layer,
        target=result.target.name,
        map=result.map,
        status=tuple(map(_status, maps.statuses(result.map), result.facts or ({},) * len(x))),
        labels=tuple(phrase(result.target, n, label_within(model.label)) for n in range(len(x))),
        scores=tuple(result.scores.tolist()),
        probabilities=tuple(chances),
        image_size=tuple(x.shape[2:]),
        signed=method.signed,
        pixels=result.pixels,
        options={name: value for name, value in settings.items() if name not in HOW_IT_RUNS},
        interval=result.interval,
        facts=result.facts,
        family=method.family,
        style=method.style,
        ledgers=() if result.ledger is None else (result.ledger,),
        photos=OnPhotos(batch.photos, batch.placements, batch.names),
    )
    of_statuses = tuple(reading.status_remarks(made, n) for n in range(len(x)))
    return replace(
        made, remarks=together([of_statuses, (of_all,) * len(x), result.remarks], len(x))
    )


def _status(of_map: maps.Status, facts: Mapping[str, Any]) -> maps.Status:
    if of_map != "ok":
        return of_map
    if "blown_up_by" in facts:
        return "blown_up"
    if "extent" in facts:
        return "misplaced"
    told: tuple[maps.Status, ...] = ("unbalanced", "withheld", "partial")
    return next((status for status in told if facts.get(status)), "ok")
