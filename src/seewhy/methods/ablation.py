"""CAMs without gradients: a channel weighs what the score loses without it (Ablation-CAM), or what is left of the score
when the picture is seen through it alone (Score-CAM)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..engine.call import Call
from ..engine.masking.baselines import Zeros
from ..engine.masking.masks import FieldMasks
from ..engine.masking.running import Running
from ..engine.masking.scoring import ScorerError, masked_scores
from ..engine.places.places import find_places, picture_layout
from ..engine.tail import Tail
from ..engine.targets.classes import ScoreFunction
from ..engine.targets.rows import rows_of
from ..engine.trace import Trace, check_scores
from ..errors import InputError
from ..maps.attribution import Estimate, Facts
from .method import Method

CHUNK_BYTES = {"cpu": 2**24}  # of changed activations in one pass; more only take memory
CHUNK_BYTES_ELSEWHERE = 2**28


def _ablation_cam(
    call: Call,
    x: Tensor,
    scores: Sequence[ScoreFunction],
    *,
    layer: str | None,
    running: Running | None,
) -> list[Estimate]:
    """Ablation-CAM (Desai and Ramaswamy, WACV 2020): ReLU(sum_k w_k A_k), w_k = (y - y_k) / y; >= 0.

    y is the score and y_k that with channel k of the layer at zero, in all places and tokens; only the network after
    the layer is run again. The drop is relative, as in the paper: of a target with a negative score, the map is of
    what speaks against it. With y = 0 the drop is taken as it is.

    Args:
        call: the model, and how it is called.
        x: (N, C, H, W).
        scores: of each target, from what the model answers.
        layer: its dotted name.
        running: its `batch_size` is the number of channels in one pass, its `memory` the bytes of their activations
            (None: 16 MiB, on a GPU 256 MiB); precision and format are the model's own.

    Raises:
        LayerError: the layer did not run, or is no picture.
        SeewhyError: the model failed before any channel was scored. Later failures leave a partial map, in which the
            channels that were not reached weigh nothing.
    """
    assert layer is not None
    maps: list[Tensor] = []  # (T, h, w) for each image
    facts: list[Facts] = []
    for image in range(len(x)):
        try:
            found, known = _ablation_maps(call, x, image, scores, layer, running or Running())
        except Exception as error:
            if not maps:
                raise
            found = torch.zeros_like(maps[0])
            known = {**facts[0], "samples": 0, "partial": True, "failed": str(error)}
        maps.append(found)
        facts.append(known)
    return [Estimate(one, facts=tuple(facts)) for one in torch.stack(maps, 1)]


def _ablation_maps(
    call: Call,
    x: Tensor,
    image: int,
    scores: Sequence[ScoreFunction],
    layer: str,
    running: Running,
) -> tuple[Tensor, Facts]:
    """The maps of one image, (T, h, w), and facts."""
    read = partial(_scores_of_answers, call, scores, image, len(x))
    one = x[image : image + 1]
    tail = Tail(call.rows([image]), one, layer, read=read)
    layout = picture_layout(find_places(tail.call, one), one, layer, tail.activation)
    if progress := running.progress:
        running = replace(
            running, progress=lambda done, of: progress(image * of + done, len(x) * of)
        )
    said, facts = _without_each(tail, (layout.batch_dim, layout.channel_dim), running)
    y = tail.scores
    weights = (y - said) / torch.where(y == 0, 1, y)  # (C, T)
    return _sum_of_channels(weights, layout.to_grid(tail.activation)[0]), facts


def _scores_of_answers(
    call: Call, scores: Sequence[ScoreFunction], image: int, images: int, output: object, n: int
) -> Tensor:
    """The scores of n answers that are all about one of so many images, (n, T)."""
    columns = [
        check_scores(call.module, rows_of(score, [image] * n, images)(output), n)
        for score in scores
    ]
    return torch.stack(columns, 1).to("cpu", torch.float64)


def _without_each(tail: Tail, dims: tuple[int, int], running: Running) -> tuple[Tensor, Facts]:
    """The scores without each channel, (C, T), and facts; a channel of zeros changes nothing, and is not run."""
    a, (batch, channels) = tail.activation, dims
    live = a.movedim(channels, 0).flatten(1).ne(0).any(1).nonzero()[:, 0]
    memory = running.memory or CHUNK_BYTES.get(a.device.type, CHUNK_BYTES_ELSEWHERE)
    size = running.batch_size or max(1, memory // a.nbytes)
    said = tail.scores.repeat(a.shape[channels], 1)
    done, failed = 0, {}
    for chunk in torch.split(live, size):
        changed = a.repeat_interleave(len(chunk), batch)
        changed.movedim(dims, (0, 1))[torch.arange(len(chunk), device=a.device), chunk] = 0
        try:
            said[chunk.cpu()] = tail.run(changed, dim=batch)
        except Exception as error:
            if not done:
                raise
            failed = {"failed": str(error)}
            break
        done += len(chunk)
        if running.progress:
            running.progress(len(said) - len(live) + done, len(said))
    return said, {"channels": len(said), "samples": done, "partial": done < len(live), **failed}


def _sum_of_channels(weights: Tensor, a: Tensor) -> Tensor:
    """ReLU(sum_k w_k A_k) for weights (C, T) and channels (C, h, w): (T, h, w)."""
    return torch.einsum("ct,c...->t...", weights, a.to("cpu", torch.float64)).clamp(min=0).float()


def _score_cam(
    call: Call,
    x: Tensor,
    scores: Sequence[ScoreFunction],
    *,
    layer: str | None,
    top_channels: int | None,
    align_corners: bool,
    running: Running | None,
) -> list[Estimate]:
    """Score-CAM (Wang et al., CVPR workshops 2020): ReLU(sum_k w_k A_k), w = softmax_k of f(x * H_k) - f(0); >= 0.

    H_k is channel k, upsampled and brought to [0, 1] by its minimum and maximum; f is the target's score as it is.
    Zeros are the mean colour under usual preprocessing. A constant channel shows nothing of the picture; channels that
    show the same share one pass.

    Args:
        call: the model, and how it is called.
        x: (N, C, H, W).
        scores: of each target, from what the model answers.
        layer: its dotted name.
        top_channels: only so many, of the largest variance over the picture, which is faster; None takes all.
        align_corners: of the upsampling: False as in the authors' code, True as in pytorch-grad-cam.
        running: how masked pictures are run.

    Raises:
        InputError: no such number of channels.
        LayerError: the layer did not run, or is no picture.
        ScorerError: the model failed before any channel was scored. Later failures leave a partial map, of the channels
            that were reached.
    """
    assert layer is not None
    if top_channels is not None and top_channels < 1:
        raise InputError(f"top_channels={top_channels} is too few; give 1 or more, or None for all")
    with Trace(call, x, layers=[layer], grad=False) as trace:
        given = trace.activations[layer]
        a = picture_layout(find_places(call, x), x, layer, given).to_grid(given).float()
    chosen = [one[_most_varied(one, top_channels)] for one in a]  # (k, h, w) each
    shown = [_distinct_channels(one) for one in chosen]
    size = tuple(x.shape[2:])
    masks = [
        FieldMasks(fields, size, align_corners=align_corners, normalize=True) for fields, _ in shown
    ]
    said, failed = _scores_shown(call, x, masks, scores, running)
    maps, facts = [], []
    for one, (_, index), found in zip(chosen, shown, said, strict=True):
        # what was not reached weighs nothing
        maps.append(_sum_of_channels(found[index].softmax(0).nan_to_num(), one))
        reached = int(found.isfinite().all(1).sum())
        partial = reached < len(found)
        facts.append(
            {
                "channels": a.shape[1],
                "samples": reached,
                "partial": partial,
                **({"failed": failed} if partial else {}),
            }
        )
    return [Estimate(one, facts=tuple(facts)) for one in torch.stack(maps, 1)]


def _scores_shown(
    call: Call,
    x: Tensor,
    masks: Sequence[FieldMasks],
    scores: Sequence[ScoreFunction],
    running: Running | None,
) -> tuple[list[Tensor], str]:
    """For each image the scores of what each of its masks shows, (masks, T), and why it failed.

    They are -inf where scoring did not come to.
    """
    said = [
        torch.full((len(source), len(scores)), -torch.inf, dtype=torch.float64) for source in masks
    ]
    try:
        for chunk in masked_scores(call, x, masks, scores, baseline=Zeros(), running=running):
            said[chunk.image][chunk.start : chunk.stop] = chunk.scores
    except ScorerError as error:
        if not any(one.isfinite().any() for one in said):
            raise
        return said, str(error)
    return said, ""


def _most_varied(a: Tensor, most: int | None) -> Tensor:
    """Which of the channels (C, h, w) to show."""
    if most is None or most >= len(a):
        return torch.arange(len(a), device=a.device)
    return a.flatten(1).var(1).topk(most).indices.sort().values


def _distinct_channels(a: Tensor) -> tuple[Tensor, Tensor]:
    """The channels (C, h, w), each in [0, 1] and constant ones zero, without repetition; and which of them each is."""
    dims = tuple(range(1, a.ndim))
    low, high = a.amin(dims, keepdim=True), a.amax(dims, keepdim=True)
    fields, index = torch.unique(
        (a - low) / torch.where(high > low, high - low, 1), dim=0, return_inverse=True
    )
    return fields, index.cpu()


ablation_cam = Method(
    "ablation_cam",
    "Ablation-CAM",
    "Desai and Ramaswamy, WACV 2020",
    "perturbation",
    run=_ablation_cam,
    options={"running": None},
)
score_cam = Method(
    "score_cam",
    "Score-CAM",
    "Wang et al., CVPR workshops 2020",
    "perturbation",
    run=_score_cam,
    options={"top_channels": None, "align_corners": False, "running": None},
)
