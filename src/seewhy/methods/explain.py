"""The facade: photos and a model in, an explanation out; every shared pass is made once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..arguments import checked
from ..data.opened import MAX_PIXELS
from ..engine.answers import OutputLike
from ..engine.batches import once
from ..engine.call import Call
from ..engine.defaults import own_defaults
from ..engine.flow import Flow, find_flow
from ..engine.readings import reading_together
from ..engine.targets.resolve import check_one_each, part_of
from ..errors import SeewhyError
from ..models.call import model_and_call
from ..models.load import DEFAULT_MODEL
from ..names import AUTO
from ..remarks import heard, warn
from .explanation import Explanation
from .formula import Options
from .outcome import explanation_of, join
from .photos import Batch, ImagesLike, OnBadImage, Source
from .remarks import tell
from .request import (
    ALL_STAGES,
    BATCH_SIZE,
    LayersLike,
    MethodsLike,
    ModelLike,
    Request,
    TargetsLike,
)
from .shared import SharedPass, shared_pass

Progress = Callable[[int, int], None]


@checked
def explain(
    model: ModelLike = DEFAULT_MODEL,
    images: ImagesLike = (),
    *,
    methods: MethodsLike = AUTO,
    targets: TargetsLike = "top1",
    layers: LayersLike = None,
    batch_size: int = BATCH_SIZE,
    options: Options | None = None,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
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
        methods: names from `seewhy.METHODS`; "smooth:NAME" is SmoothGrad over NAME, "finer:NAME" Finer-CAM. "auto" is
            layer_relevance, and where that cannot explain the model Grad-CAM, which is warned of; at layers that are
            named it is Grad-CAM.
        targets: what to explain, one or several: "top1", "top3", a class, a label, a callable. A list, tuple, array or
            tensor is of several, each for all images; one inside it is of one for each image (see `seewhy.targets`).
        layers: dotted names or modules; None finds the last that is a picture, "all-stages" one for each resolution.
        batch_size: photos in one pass. Changes speed and memory, not the answer.
        options: for a method's name its options, such as {"integrated_gradients": {"steps": 64}}; those of methods that
            are not asked for stay unused.
        args: further inputs of the model, which go in as they are.
        kwargs: likewise, by name.
        inputs: further inputs by name that have a row for each photo: {"meta": tensor}; cut with the photos.
        output: takes the model's answer to (N, K) scores.
        ledger: keep account of where relevance goes, operation by operation (`Attribution.ledgers`).
        max_pixels: a photo of more is refused, as in `seewhy.images.read_image`.
        progress: called with the number of photos done and of all.

    Raises:
        SeewhyError: what cannot be used, in one line.

    Example:
        >>> ex = seewhy.explain(model, photo, methods=["grad_cam", "lrp"])
        >>> [(a.method, a.layer, a.labels, a.status) for a in ex.attributions]
        [('grad_cam', 'relu', ('red',), ('ok',)), ('lrp', None, ('red',), ('ok',))]
    """
    request = Request.of(
        model,
        methods=methods,
        targets=targets,
        layers=layers,
        options=options,
        batch_size=batch_size,
        ledger=ledger,
        max_pixels=max_pixels,
        args=args,
        kwargs=kwargs,
        inputs=inputs,
        output=output,
    )
    with once():
        return join(list(explained(request, images, progress=progress)))


@checked
def explain_batches(
    model: ModelLike,
    images: ImagesLike,
    *,
    methods: MethodsLike = AUTO,
    targets: TargetsLike = "top1",
    layers: LayersLike = None,
    batch_size: int = BATCH_SIZE,
    options: Options | None = None,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
    output: OutputLike | None = None,
    ledger: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
    on_bad_image: OnBadImage | None = None,
    without: Collection[str] = (),
) -> Iterator[Explanation]:
    """As `explain`, a batch at a time: what is done is there, and memory does not grow with the number of photos.

    Args:
        model: as in `explain`.
        images: as in `explain`.
        methods: as in `explain`.
        targets: as in `explain`.
        layers: as in `explain`.
        batch_size: as in `explain`.
        options: as in `explain`.
        args: as in `explain`.
        kwargs: as in `explain`.
        inputs: as in `explain`.
        output: as in `explain`.
        ledger: as in `explain`.
        max_pixels: as in `explain`.
        progress: as in `explain`.
        on_bad_image: called with each picture that cannot be read and the reason, and the picture is left out; None
            raises.
        without: names of photos that need not be explained. A batch is left out where all of its photos need not: the
            others are computed in the same batches as they would be.

    Example:
        >>> parts = seewhy.explain_batches(model, "photos", batch_size=2)
        >>> [part.names for part in parts]
        [('blue/0.png', 'blue/1.png'), ('green/0.png', 'green/1.png'), ('red/0.png', 'red/1.png')]
    """
    request = Request.of(
        model,
        methods=methods,
        targets=targets,
        layers=layers,
        options=options,
        batch_size=batch_size,
        ledger=ledger,
        max_pixels=max_pixels,
        args=args,
        kwargs=kwargs,
        inputs=inputs,
        output=output,
    )
    return explained(request, images, progress=progress, on_bad_image=on_bad_image, without=without)


def explained(
    request: Request,
    images: ImagesLike,
    *,
    progress: Progress | None = None,
    on_bad_image: OnBadImage | None = None,
    without: Collection[str] = (),
) -> Iterator[Explanation]:
    """What is asked, of these pictures, a batch at a time; the rest as in `explain_batches`."""
    with heard() as of_all:
        source = Source(images, request.model, on_bad_image, request.max_pixels)
    request.call.check_rows(len(source))
    for target in request.targets:
        check_one_each(target, len(source))
    request, said = replace(request, call=source.settled(request.call)), tuple(of_all)
    at_once = request.pictures_at_once
    for start in range(0, len(source), at_once):
        stop = min(start + at_once, len(source))
        if source.all_of(start, stop, without):
            continue
        batch = source.batch(start, stop)
        if not batch.photos:
            continue
        with own_defaults():  # a generator must not hold that open
            request, said, done = _explained_or_instead(request, batch, said)
        yield done
        if progress:
            progress(stop, len(source))


def _explained_or_instead(
    request: Request, batch: Batch, of_all: tuple[str, ...]
) -> tuple[Request, tuple[str, ...], Explanation]:
    """As `_explained_batch`, by the method that stands in where the one asked for cannot explain the model.

    Returns:
        What the batches that follow are asked, what is said of them all, and the explanation.
    """
    settled = replace(request, instead=None)
    try:
        return settled, of_all, _explained_batch(settled, batch, of_all)
    except SeewhyError as error:
        if request.instead is None:
            raise
        settled = replace(settled, methods=(request.instead,))
        first, other = request.methods[0].title, request.instead.title
        said = (
            *of_all,
            f"{first} cannot explain this model, and {other} is shown instead: {error}",
        )
        done = _explained_batch(settled, batch, said)
    warn(said[-1])
    return settled, said, done


def _explained_batch(request: Request, batch: Batch, of_all: tuple[str, ...]) -> Explanation:
    """One pass, told of what is to be warned of; `of_all` is what was said of all pictures as they came."""
    call = request.call.rows(batch.indices)
    with reading_together():
        layers, flow = _layers_to_read(request, call, batch.x)
        done = shared_pass(
            call,
            batch.x,
            methods=request.methods,
            targets=[part_of(target, batch.indices) for target in request.targets],
            layers=layers,
            flow=flow,
            labels=request.model.labels,
            options=request.options,
            ledger=request.ledger,
        )
    flow = flow or _flow_of(call, batch.x, done)
    made = explanation_of(request, batch, done, of_all, flow)
    for result, attribution in zip(done.results, made, strict=True):
        tell(result.method.title, batch.names, attribution.labels, result.unsaid)
    return made


def _flow_of(call: Call, x: Tensor, done: SharedPass) -> Flow | None:
    """What is known of layers that somebody named; None where no map is over one, or nothing can be told of them."""
    if all(result.layer is None for result in done.results):
        return None
    try:
        return find_flow(call, x)
    except SeewhyError:  # the maps are there; people read the layers' names alone
        return None


@checked
@own_defaults()
def list_layers(
    model: ModelLike,
    x: Tensor | None = None,
    *,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
    output: OutputLike | None = None,
) -> Flow:
    """Every layer of a model with its shape, and the ones `layers=None` (the last) and "all-stages" choose.

    Args:
        model: as in `explain`.
        x: (N, C, H, W), whose first image is traced; a grey picture of the model's input size unless given.
        args: as in `explain`.
        kwargs: as in `explain`.
        inputs: as in `explain`.
        output: as in `explain`.

    Example:
        >>> print(seewhy.list_layers(model))
        layer  kind               shape    stage         grid   layout          prefix tokens  chosen
        conv   Conv2d             3x16x16  layer 1 of 2  16x16  channels first  0
        relu   ReLU               3x16x16  layer 2 of 2  16x16  channels first  0              default
        pool   AdaptiveAvgPool2d  3x1x1                                         0
        fc     Linear             3                                             0
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


def _layers_to_read(request: Request, call: Call, x: Tensor) -> tuple[tuple[str, ...], Flow | None]:
    """The layers, and, where nobody named any, what is known of all."""
    if isinstance(request.layers, tuple):
        return request.layers, None
    flow = find_flow(call, x)
    return (flow.chosen if request.layers == ALL_STAGES else (flow.default,)), flow
