"""What the metrics of localisation share: maps beside what is marked in their pictures, one by one."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...data.truth import Truth
from ...errors import ArgumentTypeError, InputError
from ...maps import values as map_tools
from ...maps.box_rules import RelativeTo
from ...maps.boxes import fields_of, statuses
from ..base import NO_TRUTH, ImageMetric
from ..intervals import resampling_weights

Array = npt.NDArray[Any]
TruthLike = Sequence[Truth | Tensor | None] | Tensor
RESAMPLES = 200  # of the bootstraps that are summed image by image


@dataclass(frozen=True, eq=False)
class Item:
    """One map and what is marked in its picture.

    Attributes:
        map: (h, w) float32, as it was given.
        given: what is marked in the picture, of all classes.
        marked: the objects of the class that the map explains, at least one; or their mask (H, W) bool.
        label: the class; None where none was named.
        field: (H, W) float32 over the picture's pixels, on the metric's scale; None where the map gives no answer.
    """

    map: Tensor
    given: Truth | Tensor
    marked: Truth | Tensor
    label: int | None
    field: Array | None

    @cached_property
    def truth(self) -> Truth:
        """The objects of the class; of a mask one object with a tight box."""
        return self.marked if isinstance(self.marked, Truth) else of_mask(self.marked)

    @cached_property
    def region(self) -> npt.NDArray[np.bool_]:
        """(H, W): the union of the objects."""
        return (self.marked.region() if isinstance(self.marked, Truth) else self.marked).numpy()

    @cached_property
    def counted(self) -> npt.NDArray[np.bool_] | None:
        """(H, W): the pixels that count, which is all but those to ignore outside the objects; None for all."""
        ignore = self.marked.ignore if isinstance(self.marked, Truth) else None
        return None if ignore is None else self.region | ~ignore.numpy()

    @property
    def crowded(self) -> bool:
        """Whether the picture shows another class too, as far as classes are named."""
        if not isinstance(self.given, Truth) or self.label is None:
            return False
        return bool((self.given.labels != self.label).any())

    @property
    def key(self) -> int:
        """What tells this item from others, whatever its place: some of its map's values, and its objects."""
        marked = self.marked.boxes if isinstance(self.marked, Truth) else self.marked[::8, ::8]
        return zlib.crc32(
            self.map[::8, ::8].numpy().tobytes(), zlib.crc32(marked.numpy().tobytes())
        )


class LocalizationMetric(ImageMetric):
    """A metric of where maps point: `update(maps, truth)` for each batch, then `compute()`.

    A map without an answer (nothing positive, the same everywhere, not finite) is a failure of the method: it counts
    0, and `MetricResult.failed` says how many there are. Where nobody marked the object there is no value; such images
    are left out, and `MetricResult.left_out` counts them.

    Args:
        leave_out: statuses of maps to leave out instead of counting them 0, such as ("empty", "non_finite").
        options: what `ImageMetric` takes.

    Example:
        >>> metric = seewhy.metrics.PointingGame(tolerance=1)
        >>> metric.update(torch.zeros(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))
        >>> metric.compute().mean, metric.compute().failed  # a map without an answer
        (0.0, {'empty': 1})
    """

    limits = (0.0, 1.0)
    # the statuses with which a map gives this metric no answer
    silent: ClassVar[tuple[str, ...]] = ("empty", "constant", "non_finite")

    def __init__(
        self,
        *,
        relative_to: RelativeTo | None = None,
        settings: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        if relative_to not in (None, "max", "minmax"):
            raise InputError(f"relative_to={relative_to!r} is not known; use 'max' or 'minmax'")
        scale = {} if relative_to is None else {"relative_to": relative_to}
        super().__init__(settings={**scale, **(settings or {})}, **options)
        self.relative_to: RelativeTo | None = relative_to

    def update(
        self,
        maps: Tensor | Sequence[Tensor],
        truth: TruthLike,
        *,
        labels: Sequence[int] | Tensor | None = None,
    ) -> None:
        """Adds the images of a batch.

        Args:
            maps: (N, h, w), or a sequence of (h, w); each covers exactly its picture, and is resized to it here,
                bilinearly.
            truth: for each map a `Truth` (None where nobody marked anything); or masks (N, H, W) bool; or for each map
                its boxes (B, 4), half-open pixels of the map.
            labels: the class that each map explains, whose objects count; all objects unless given.

        Raises:
            SeewhyError: shapes that do not go together.
        """
        self._add(maps, truth, labels)

    def _add(
        self,
        maps: Tensor | Sequence[Tensor],
        truth: TruthLike,
        labels: Sequence[int] | Tensor | None,
    ) -> None:
        fields = fields_of(maps)
        classes = _explained_classes(labels, len(fields))
        if len(truth) != len(fields):
            raise InputError(
                f"truth has {len(truth)} entries for {len(fields)} maps; give one for each"
            )
        told: list[str] = list(self._statuses(fields))
        values, kept = torch.full((len(fields),), math.nan, dtype=torch.float64), []
        for i, (field, given) in enumerate(zip(fields, map(self._sized, truth), strict=True)):
            marked = _marked_of_class(given, field, classes[i])
            if told[i] in self.leave_out and marked is not None:
                continue
            judged = None
            if given is not None and marked is not None:
                spread = (
                    None
                    if told[i] in self.silent
                    else self._spread_over_picture(field, size_of(marked))
                )
                judged = self._judge(Item(field, given, marked, classes[i], spread))
            if judged is None:
                told[i] = NO_TRUTH
            else:
                values[i] = judged[0]
                kept.append(judged[1])
        if kept:
            self._gather(kept)
        self._store(values, told)

    def _sized(self, given: Truth | Tensor | None) -> Truth | Tensor | None:
        """What is marked in a picture, at the size at which it is compared."""
        return given

    def _statuses(self, fields: Sequence[Tensor]) -> Sequence[str]:
        # without a scale of its own a metric compares places, which evidence against allows too
        return statuses(fields, self.relative_to or "minmax")

    def _spread_over_picture(self, field: Tensor, size: tuple[int, int]) -> Array:
        """A map over its picture's pixels, on the metric's scale."""
        spread: Array = map_tools.resize(field[None], size)[0].numpy()
        if self.relative_to is None:
            return spread
        # `maps.normalize` without its care for NaN, which `statuses` has ruled out, and in place: new memory is slow
        scaled = np.subtract(
            spread, spread.min() if self.relative_to == "minmax" else 0.0, dtype=np.float32
        )
        if self.relative_to == "max":
            np.maximum(scaled, 0, out=scaled)
        return np.asarray(
            np.divide(scaled, max(scaled.max(), np.finfo(np.float32).tiny), out=scaled)
        )

    def _judge(self, item: Item) -> tuple[float, object] | None:
        """The metric's value for one image, and what else to keep of it; None where what is marked does not count."""
        raise NotImplementedError

    def _gather(self, kept: Sequence[Any]) -> None:
        """Adds to the states what was kept of the images of one update."""


class Resampled:
    """Sums over bootstrap resamples of what each image adds, without keeping the images."""

    def __init__(self, metric: ImageMetric, name: str, shape: tuple[int, ...]) -> None:
        self.name = name
        metric.add_state(name, default=torch.zeros(RESAMPLES, *shape), dist_reduce_fx="sum")

    def add(self, metric: ImageMetric, keys: Sequence[int], found: Array) -> None:
        """Adds images (n, ...) under their keys."""
        if not len(keys):
            return
        weights = np.stack(
            [resampling_weights(key, metric.seed, RESAMPLES) for key in keys], 1
        )  # (resamples, n)
        total: Tensor = getattr(metric, self.name)
        rows = torch.from_numpy(found.reshape(len(keys), -1)).float()
        total.view(RESAMPLES, -1).addmm_(
            torch.from_numpy(weights).to(total.device), rows.to(total.device)
        )


def _explained_classes(labels: Sequence[int] | Tensor | None, n: int) -> list[int | None]:
    if labels is None:
        return [None] * n
    if len(labels) != n:
        raise InputError(f"labels has {len(labels)} classes for {n} maps; give one for each")
    return [int(label) for label in labels]


def _marked_of_class(
    given: Truth | Tensor | None, field: Tensor, label: int | None
) -> Truth | Tensor | None:
    """What is marked of the class, or None where nothing is."""
    if given is None:
        return None
    if isinstance(given, Truth):
        of_class = given if label is None else given.of(label)
        return of_class if len(of_class.boxes) else None
    return _marked_by_tensor(given, field, label)


def _marked_by_tensor(given: Tensor, field: Tensor, label: int | None) -> Truth | Tensor | None:
    """What a mask, or boxes in pixels of the map, mark."""
    if not isinstance(given, Tensor):
        raise ArgumentTypeError(
            f"truth holds a {type(given).__name__}; give Truth, None, or tensors of masks or boxes"
        )
    if _is_mask(given):
        return given.cpu() if given.cpu().numpy().any() else None
    if not _is_boxes(given):
        accepted = "masks (H, W) bool or boxes (B, 4)"
        raise InputError(
            f"truth holds a {given.dtype} tensor of shape {tuple(given.shape)}; give {accepted}"
        )
    classes = torch.full((len(given),), label or 0)
    truth = Truth((field.shape[0], field.shape[1]), given.cpu(), classes)
    return truth if len(given) else None


def _is_mask(given: Tensor) -> bool:
    return given.ndim == 2 and given.dtype == torch.bool and given.numel() > 0


def _is_boxes(given: Tensor) -> bool:
    return given.ndim == 2 and given.dtype != torch.bool and given.shape[1] == 4


def size_of(marked: Truth | Tensor) -> tuple[int, int]:
    """(H, W) of the picture."""
    return marked.size if isinstance(marked, Truth) else (marked.shape[0], marked.shape[1])


def of_mask(mask: Tensor) -> Truth:
    """The truth of one object with a mask (H, W) bool, whose box is tight."""
    rows, columns = (np.flatnonzero(mask.numpy().any(axis)) for axis in (1, 0))
    box = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=torch.float32)
    return Truth(size_of(mask), box, torch.zeros(1), mask[None])
