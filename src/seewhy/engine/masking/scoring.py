"""The engine of the perturbation methods and of the faithfulness metrics: masks in, target scores out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ...errors import InputError, ModelError, SeewhyError
from ..batches import images_depend, tell
from ..borrowing import evaluating
from ..call import Call, as_call
from ..defaults import casting
from ..inputs import settled_input
from ..pictures import is_volume, matching_input
from ..targets.classes import ScoreFunction
from ..targets.rows import ROWS_AS_INPUTS, rows_of
from .baselines import AnyBaseline, Several
from .masks import Masks, check_masks
from .running import Running
from .tuning import settled

Model = Call | nn.Module | Callable[..., Any]
Segment = tuple[int, int, int]  # image, and its masks from, to
AHEAD = 64  # masks that bfloat16 runs under one autocast, which casts the weights once


class ScorerError(ModelError):
    """The model or the target failed amid masked pictures; what was scored before stands.

    Example:
        >>> issubclass(seewhy.masking.ScorerError, seewhy.SeewhyError)
        True
    """


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some masks of one image with their scores.

    Attributes:
        image: which of the batch.
        start, stop: which of its masks.
        masks: (B, H, W), on the model's device.
        scores: (B, T) float64 on the CPU, one column for each score function.

    Example:
        >>> masks = seewhy.masking.PatchMasks(torch.tensor([[8, 4, 12, 8]]), (16, 16))
        >>> scores, zeros = [seewhy.targets.Logit(0)], seewhy.masking.Zeros()
        >>> chunk = next(seewhy.masking.masked_scores(net, x, [masks], scores, baseline=zeros))
        >>> chunk.image, chunk.masks.shape, chunk.scores  # nothing is left of 4
        (0, torch.Size([1, 16, 16]), tensor([[0.]], dtype=torch.float64))
    """

    image: int
    start: int
    stop: int
    masks: Tensor
    scores: Tensor


def masked_scores(
    model: Model,
    x: Tensor,
    masks: Sequence[Masks],
    scores: Sequence[ScoreFunction],
    *,
    baseline: AnyBaseline | Sequence[AnyBaseline],
    running: Running | None = None,
) -> Iterator[Chunk]:
    """Scores of masked pictures, mask * x + (1 - mask) * baseline, chunk by chunk.

    Masks are rendered and applied on the model's device, a batch at a time, so that memory does not grow with their
    number. A batch goes on to the next image where the masks of one end; those of an image come in their order.

    Args:
        model: how it is called; or a module that takes (N, C, H, W) alone, or a `BlackBox`'s function.
        x: (N, C, H, W), preprocessed.
        masks: one source for each image.
        scores: as targets take them: row i of what they see is image i.
        baseline: for all images, or a sequence with one for each.
        running: batch size, precision, ...

    Raises:
        InputError: x, the masks or the baselines do not fit each other or the model.
        ScorerError: the model or a target raised, or gave NaN or the wrong shape; everything before was yielded.

    Example:
        >>> masks = seewhy.masking.PatchMasks(torch.tensor([[8, 4, 10, 8], [0, 0, 2, 2]]), (16, 16))
        >>> scores, zeros = [seewhy.targets.Logit(0)], seewhy.masking.Zeros()
        >>> chunks = seewhy.masking.masked_scores(net, x, [masks], scores, baseline=zeros)
        >>> torch.cat([chunk.scores for chunk in chunks])
        tensor([[2.],
                [4.]], dtype=torch.float64)
    """
    forward = MaskedForward(model, x, masks, scores, baseline=baseline)
    return _scored_chunks(forward, running or Running())


def settle(
    model: Model,
    x: Tensor,
    masks: Sequence[Masks],
    scores: Sequence[ScoreFunction],
    *,
    baseline: AnyBaseline | Sequence[AnyBaseline],
    running: Running | None = None,
) -> Running:
    """Returns how `masked_scores` of the same arguments would run: with a batch size, a format and a precision.

    Example:
        >>> masks = seewhy.masking.PatchMasks(torch.tensor([[8, 4, 10, 8]]), (16, 16))
        >>> scores, zeros = [seewhy.targets.Logit(0)], seewhy.masking.Zeros()
        >>> seewhy.masking.settle(net, x, [masks], scores, baseline=zeros).batch_size
        16
    """
    forward = MaskedForward(model, x, masks, scores, baseline=baseline)
    return forward.settled(running or Running())


class MaskedForward:
    """A batch of images, ready to be masked and run."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        masks: Sequence[Masks],
        scores: Sequence[ScoreFunction],
        *,
        baseline: AnyBaseline | Sequence[AnyBaseline],
    ) -> None:
        self.call, x = settled_input(as_call(model), x)
        self.call.check_rows(len(x))
        self.x = matching_input(self.call.module, x)
        self.masks, self.scores = masks, scores
        each = list(baseline) if isinstance(baseline, Sequence) else [baseline] * len(x)
        if len(each) != len(x):
            raise InputError(
                f"baseline has {len(each)} for {len(x)} images; give one, or one for each image"
            )
        with torch.inference_mode(False), torch.no_grad():
            check_masks(masks, self.x)
            hidden = [_hidden_pictures(one, image) for one, image in zip(each, self.x, strict=True)]
        self.repeats = len(hidden[0])
        if any(len(pictures) != self.repeats for pictures in hidden):
            raise InputError(
                "baseline is of several pictures for some images, in different numbers; give each as many"
            )
        # what is black and alone has nothing to add
        self.baselines = [
            pictures if self.repeats > 1 or pictures.any() else None for pictures in hidden
        ]
        self._fits = math.inf  # masks in a batch, for all that is known
        self._tried: set[int] = (
            set()
        )  # sizes of batch of which it is known whether their pictures depend on each other
        self._apart, self._measuring = (
            False,
            False,
        )  # a batch must be of one picture; only the time counts

    def settled(self, running: Running) -> Running:
        """How to run with nothing left to be found, by running some of the masks."""
        lengths = [len(source) for source in self.masks]
        total = self.repeats * sum(lengths)
        if not total:
            return running

        def measure(way: Running, count: int) -> Tensor:
            size = max(1, min(way.batch_size or count, count) // self.repeats)
            finished, failure = self.run(
                itertools.islice(
                    _batches_of_masks(lengths, size), -(-count // size // self.repeats)
                ),
                way,
            )
            if failure:
                raise failure
            return torch.cat([scores for _, scores in finished])

        self._measuring = True
        try:
            return settled(
                running, measure, call=self.call, picture=self.x[0], total=total, step=self.repeats
            )
        finally:
            self._measuring = False

    def run(
        self, batches: Iterable[Sequence[Segment]], running: Running
    ) -> tuple[list[tuple[list[Tensor], Tensor]], Exception | None]:
        """Runs batches; returns what was finished, and what went wrong with the next.

        For each batch the masks of each segment, (B, H, W), and the scores of them all, (rows, T) float64 on the CPU.
        """
        finished = []
        device = self.x.device
        # autocast keeps the weights that it has cast until the outermost context ends, also one that is not enabled
        with ExitStack() as stack:
            for context in (
                torch.inference_mode(False),
                torch.no_grad(),
                casting(device.type, None),
            ):
                stack.enter_context(context)
            stack.enter_context(evaluating(self.call.module))
            for segments in batches:
                try:
                    masks = [
                        self.masks[image].render(start, stop, device)
                        for image, start, stop in segments
                    ]
                    finished.append(
                        (
                            masks,
                            self._scores_in_memory(
                                [image for image, _, _ in segments], masks, running
                            ),
                        )
                    )
                except Exception as error:
                    return finished, error
        return finished, None

    def _scores_in_memory(
        self, images: Sequence[int], masks: Sequence[Tensor], running: Running
    ) -> Tensor:
        """Scores of masks (B, H, W) of each image; a batch for which the device has no memory is halved."""
        rows = sum(map(len, masks))
        if rows <= self._fits:
            try:
                return (
                    self._scores_of_rows(images, masks, running)
                    .view(rows, self.repeats, -1)
                    .mean(1)
                )
            except torch.cuda.OutOfMemoryError:
                if rows == 1:
                    raise
                self._fits = rows // 2
        single = [
            (image, one[None]) for image, mask in zip(images, masks, strict=True) for one in mask
        ]
        halves = (single[: rows // 2], single[rows // 2 :])
        return torch.cat(
            [
                self._scores_in_memory([i for i, _ in half], [one for _, one in half], running)
                for half in halves
            ]
        )

    def _masked_pictures(
        self, images: Sequence[int], masks: Sequence[Tensor], running: Running
    ) -> Tensor:
        parts = []
        for image, mask in zip(images, masks, strict=True):
            kept = mask[:, None].to(self.x.dtype)  # (B, 1, H, W)
            shown, hidden = kept * self.x[image], self.baselines[image]
            if hidden is not None:  # (k, C, H, W)
                shown = ((1 - kept)[:, None] * hidden).add_(shown[:, None]).flatten(0, 1)
            parts.append(shown)
        pictures = parts[0] if len(parts) == 1 else torch.cat(parts)
        if running.memory_format != "channels_last":
            return pictures.contiguous()
        last = torch.channels_last_3d if is_volume(pictures) else torch.channels_last
        return pictures.contiguous(memory_format=last)

    def _scores_of_rows(
        self, images: Sequence[int], masks: Sequence[Tensor], running: Running
    ) -> Tensor:
        """(rows, T), a row for each mask under each of several baselines."""
        owners = [
            i
            for i, mask in zip(images, masks, strict=True)
            for _ in range(self.repeats * len(mask))
        ]
        pictures = self._masked_pictures(images, masks, running)
        if not self._apart:
            output = self._answer_to(owners, pictures, running)
            if not self._images_depend(owners, pictures, output, running):
                return self._scores_by_target(owners, output)
        singles = zip(owners, torch.split(pictures, 1), strict=True)
        return torch.cat(
            [
                self._scores_by_target([owner], self._answer_to([owner], one, running))
                for owner, one in singles
            ]
        )

    def _answer_to(self, owners: Sequence[int], pictures: Tensor, running: Running) -> object:
        with _in_precision(pictures, running):
            said: object = self.call.rows(owners).run(pictures)
        return said

    def _scores_by_target(self, owners: Sequence[int], output: object) -> Tensor:
        columns = [rows_of(score, owners, len(self.x))(output) for score in self.scores]
        return torch.stack([_checked_scores(column, len(owners)) for column in columns], 1)

    def _images_depend(
        self, owners: Sequence[int], pictures: Tensor, output: object, running: Running
    ) -> bool:
        """Whether pictures of one batch depend on each other: tried for each size, in measuring for the first alone."""
        size = len(pictures)
        if not (size == 1 or size in self._tried or (self._measuring and self._tried)):
            self._tried.add(size)
            with _in_precision(pictures, running):
                self._apart = images_depend(self.call.rows(owners), pictures, output)
            if self._apart:
                tell(self.call.module)
        return self._apart


def _in_precision(pictures: Tensor, running: Running) -> AbstractContextManager[None]:
    to = torch.bfloat16 if running.precision == "bfloat16" else None
    return casting(pictures.device.type, to)


def _checked_scores(column: object, rows: int) -> Tensor:
    """Scores as a target gave them, or what is wrong with them."""
    if not isinstance(column, Tensor) or column.shape != (rows,):
        shape = tuple(column.shape) if isinstance(column, Tensor) else type(column).__name__
        raise ScorerError(
            f"a target gave {shape}, not one score for each of {rows} pictures: ({rows},){ROWS_AS_INPUTS}"
        )
    found = column.to("cpu", torch.float64)
    if not found.isfinite().all():
        raise ScorerError("a score is not finite")
    return found


def _hidden_pictures(baseline: AnyBaseline, image: Tensor) -> Tensor:
    return (
        baseline.pictures(image) if isinstance(baseline, Several) else baseline.picture(image)[None]
    )


def _batches_of_masks(lengths: Sequence[int], size: int) -> Iterator[list[Segment]]:
    """All masks of all images, `size` at a time."""
    batch: list[Segment] = []
    free = size
    for image, length in enumerate(lengths):
        start = 0
        while start < length:
            stop = min(length, start + free)
            batch.append((image, start, stop))
            free -= stop - start
            start = stop
            if not free:
                yield batch
                batch, free = [], size
    if batch:
        yield batch


def _scored_chunks(forward: MaskedForward, running: Running) -> Iterator[Chunk]:
    lengths = [len(source) for source in forward.masks]
    done, total = 0, sum(lengths)
    try:
        running = forward.settled(running)
    except Exception as error:
        _raise_with_progress(error, done, total)
    size = max(1, (running.batch_size or 1) // forward.repeats)
    batches = _batches_of_masks(lengths, size)
    ahead = max(1, AHEAD // size) if running.precision == "bfloat16" else 1
    while group := list(itertools.islice(batches, ahead)):
        finished, failure = forward.run(group, running)
        for segments, (masks, scores) in zip(group, finished, strict=False):
            done += len(scores)
            yield from _chunks_of_batch(segments, masks, scores)
            if running.progress:
                running.progress(done, total)
        if failure:
            _raise_with_progress(failure, done, total)


def _chunks_of_batch(
    segments: Sequence[Segment], masks: Sequence[Tensor], scores: Tensor
) -> Iterator[Chunk]:
    """A chunk for each image of a batch."""
    parts = torch.split(scores, [len(mask) for mask in masks])
    for (image, start, stop), mask, part in zip(segments, masks, parts, strict=True):
        yield Chunk(image, start, stop, mask, part)


def _raise_with_progress(error: Exception, done: int, total: int) -> NoReturn:
    """Says how far scoring came; what does not fit from the start says so itself."""
    if isinstance(error, SeewhyError) and not isinstance(error, ScorerError) and not done:
        raise error
    reason = (str(error).partition("\n")[0] or type(error).__name__).rstrip(".")
    raise ScorerError(
        f"scoring stopped after {done} of {total} masked pictures: {reason}; look at the model and the target"
    ) from error
