"""Does the model's answer depend on what a map marks? Pixels or regions go in the map's order, or the map is a mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...engine.masking.baselines import BaselineLike, find_baseline
from ...engine.masking.masks import FieldMasks, Masks, StepMasks
from ...engine.masking.running import Running
from ...errors import InputError
from ..intervals import Interval
from ..metric import Case, ExplanationMetric, Measured, Output, image_generator


def falling_order(values: Tensor, generator: torch.Generator) -> Tensor:
    """The places of (P,) values from the highest to the lowest, (P,); equal values in an order that is drawn.

    In the order of their places, the many zeros of a rectified map would go row by row from the top, and what the
    curve says of them would depend on where the picture's top is.
    """
    drawn = torch.randperm(len(values), generator=generator)
    return drawn[values[drawn].argsort(descending=True, stable=True)]


def pixel_ranks(fields: Tensor, x: Tensor, seed: int) -> Tensor:
    """For each pixel its place among the pixels of its map, 0 the highest: (N, H, W) -> (N, H, W), every rank once."""
    ranks = torch.empty(fields.shape, dtype=torch.long)
    for rank, field, image in zip(ranks, fields, x, strict=True):
        order = falling_order(field.flatten(), image_generator(image, seed))
        rank.view(-1)[order] = torch.arange(len(order))
    return ranks


def area(curve: Tensor) -> Tensor:
    """The area under a curve of points at equal distances over 0 to 1, by trapezoids: (sum - ends / 2) / steps."""
    return (curve.sum() - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)


class MaskedMetric(ExplanationMetric):
    """A metric that runs masked images.

    Args:
        output: "probability" follows the target class's probability (softmax, or the sigmoid where labels are many),
            "logit" the target's own score.
        baseline: what is shown where a mask hides, as `seewhy.masking.find_baseline` takes it.
        running: batch size, precision, ... of the masked images (`seewhy.masking.Running`).
        options: what `ExplanationMetric` takes.
    """

    def __init__(
        self,
        *,
        output: Output = "probability",
        baseline: BaselineLike = "zeros",
        running: Running | None = None,
        seed: int = 0,
        settings: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        found = find_baseline(baseline, seed=seed)
        super().__init__(
            settings={"output": output, "baseline": found.name, **(settings or {})},
            seed=seed,
            **options,
        )
        self.baseline, self.running = found, running


class _PixelCurve(MaskedMetric):
    inserting: ClassVar[bool]
    limits_of_probability = (0.0, 1.0)

    def __init__(self, *, step: int, baseline: BaselineLike, **options: Any) -> None:
        if step < 1:
            raise InputError(
                f"step={step} is too small; give at least 1 pixel a step, officially 224"
            )
        super().__init__(baseline=baseline, settings={"step": step}, **options)
        self.step = step

    def passes(self, pixels: int) -> int:
        return math.ceil(pixels / self.step) + 1

    def _measure(self, case: Case) -> Measured:
        ranks = pixel_ranks(case.fields, case.x, self.seed)
        pixels = ranks[0].numel()
        turns = [min(i * self.step, pixels) for i in range(self.passes(pixels))]
        masks = [StepMasks(rank, turns, inserting=self.inserting) for rank in ranks]
        curves = case.masked(masks, self.baseline, self.running)
        return Measured(torch.stack([area(curve) for curve in curves]), curves)


class Deletion(_PixelCurve):
    """Deletion (Petsiuk et al., BMVC 2018, section 3.2): the pixels that the map marks most go first.

    The curve is the score after 0, 1, ... steps of pixels set to the baseline, officially zeros after normalisation;
    the value is the area under it. Lower is better: the score falls with the first pixels.

    Args:
        step: pixels a step, officially 224.
        output: "probability" (the paper's) or "logit".
        baseline: where a pixel went, as `seewhy.masking.find_baseline` takes it.
        options: `running`, and what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.Deletion(step=64, output="logit")
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().curves[0]  # all is gone with the first pixels
        array([4., 0., 0., 0., 0.])
    """

    name, title, paper = "deletion", "Deletion", "Petsiuk et al., BMVC 2018"
    higher_is_better = False
    inserting = False
    axes = ("share of pixels deleted", "score")

    def __init__(
        self, *, step: int = 224, baseline: BaselineLike = "zeros", **options: Any
    ) -> None:
        super().__init__(step=step, baseline=baseline, **options)


class Insertion(_PixelCurve):
    """Insertion (Petsiuk et al., BMVC 2018, section 3.2): the pixels that the map marks most come first.

    As `Deletion`, from a blurred image (officially 11 x 11 pixels, sigma 5) to the image. Higher is better.

    Args:
        step: pixels a step, officially 224.
        output: "probability" (the paper's) or "logit".
        baseline: what is there before, as `seewhy.masking.find_baseline` takes it.
        options: `running`, and what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.Insertion(step=64, output="logit", baseline="zeros")
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().curves[0]  # all is there with the first pixels
        array([0., 4., 4., 4., 4.])
    """

    name, title, paper = "insertion", "Insertion", "Petsiuk et al., BMVC 2018"
    higher_is_better = True
    inserting = True
    axes = ("share of pixels inserted", "score")

    def __init__(self, *, step: int = 224, baseline: BaselineLike = "blur", **options: Any) -> None:
        super().__init__(step=step, baseline=baseline, **options)


class PixelFlipping(MaskedMetric):
    """Region perturbation (Samek et al., 2017, eq. 12; pixel-flipping, Bach et al., 2015, with regions of one pixel).

    Regions are replaced from the one with the highest mean on; AOPC = 1 / (L + 1) sum_k (f(x_0) - f(x_k)), k = 0 to L.
    The curve is f(x_k). Higher is better.

    Args:
        region: side of the square regions in pixels; at the right and the lower border they may be smaller.
        regions: L, how many are replaced; all where there are fewer.
        output: "probability" or "logit".
        baseline: what replaces them, officially "noise".
        options: `running`, and what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.PixelFlipping(region=8, regions=2, output="logit", baseline="zeros")
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().curves[0]
        array([4., 0., 0.])
    """

    name, title, paper = "pixel_flipping", "Pixel-flipping", "Samek et al., 2017"
    higher_is_better = True
    axes = ("share of the steps", "score")
    limits_of_probability = (-1.0, 1.0)

    def __init__(
        self,
        *,
        region: int = 9,
        regions: int = 100,
        baseline: BaselineLike = "noise",
        **options: Any,
    ) -> None:
        if region < 1 or regions < 1:
            raise InputError(f"region={region}, regions={regions}: give at least 1 of each")
        super().__init__(
            baseline=baseline, settings={"region": region, "regions": regions}, **options
        )
        self.region, self.regions = region, regions

    def passes(self, pixels: int) -> int:
        return self.regions + 1

    def _measure(self, case: Case) -> Measured:
        labels = region_labels((case.x.shape[2], case.x.shape[3]), self.region)
        pairs = zip(case.fields, case.x, strict=True)
        masks = [
            self._masks(field, labels, image_generator(image, self.seed)) for field, image in pairs
        ]
        curves = case.masked(masks, self.baseline, self.running)
        return Measured(torch.stack([(curve[0] - curve).mean() for curve in curves]), curves)

    def _masks(self, field: Tensor, labels: Tensor, generator: torch.Generator) -> StepMasks:
        flat = labels.flatten()
        sizes = torch.bincount(flat)
        sums = torch.zeros(len(sizes), dtype=torch.float64).index_add_(
            0, flat, field.flatten().double()
        )
        order = falling_order(sums / sizes, generator)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        ranks = torch.empty_like(flat)
        ranks[place[flat].argsort(stable=True)] = torch.arange(len(flat))  # region by region
        turns = [0, *sizes[order].cumsum(0).tolist()]
        return StepMasks(ranks.view(labels.shape), turns[: self.regions + 1])


def region_labels(size: tuple[int, int], side: int) -> Tensor:
    """Squares of `side` pixels as superpixels: (H, W) integers from 0."""
    rows, columns = (torch.arange(length) // side for length in size)
    return rows[:, None] * (int(columns[-1]) + 1) + columns


class _MapAsMask(MaskedMetric):
    higher_is_better = False

    def __init__(
        self, *, keep: float | None = None, baseline: BaselineLike = "zeros", **options: Any
    ) -> None:
        if keep is not None and not 0 < keep < 1:
            raise InputError(
                f"keep={keep} is no share of the pixels; give one between 0 and 1, or None for the heatmap"
            )
        super().__init__(baseline=baseline, settings={"keep": keep}, **options)
        self.keep = keep

    def _measure(self, case: Case) -> Measured:
        shown = torch.cat(case.masked(self._masks(case), self.baseline, self.running))
        return Measured(self._compare(case.clean, shown))

    def _masks(self, case: Case) -> Sequence[Masks]:
        size = (case.x.shape[2], case.x.shape[3])
        if self.keep is None:
            return [FieldMasks(heatmap[None], size) for heatmap in case.heatmaps]
        shown = round(self.keep * size[0] * size[1])
        ranks = pixel_ranks(case.fields, case.x, self.seed)
        return [StepMasks(rank, [shown], inserting=True) for rank in ranks]

    def _compare(self, whole: Tensor, shown: Tensor) -> Tensor:
        """(N,) scores of the images and of what the maps show of them -> (N,)."""
        raise NotImplementedError


class AverageDrop(_MapAsMask):
    """Average drop (Chattopadhay et al., WACV 2018, section 4.1): max(0, Y - O) / Y, a share (the paper has percent).

    Y is the score of the image, O of the image times its heatmap (the positive evidence over its maximum), or, as in
    Score-CAM (Wang et al., 2020), of the image where only the most relevant pixels are kept. Lower is better. An image
    whose Y is not above 0 has no value.

    Args:
        keep: the share of the pixels that are shown (Score-CAM: 0.5); None multiplies by the heatmap.
        output: "probability" (the paper's) or "logit".
        baseline: what is there where the map hides.
        options: `running`, and what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.AverageDrop()
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().mean  # what the map shows is enough
        0.0
    """

    name, title, paper = "average_drop", "Average drop", "Chattopadhay et al., WACV 2018"
    limits = (0.0, math.inf)  # a logit can fall below zero
    limits_of_probability = (0.0, 1.0)

    def _compare(self, whole: Tensor, shown: Tensor) -> Tensor:
        return torch.where(whole > 0, (whole - shown).clamp(min=0) / whole, math.nan)


class AverageIncrease(_MapAsMask):
    """Increase in confidence (Chattopadhay et al., WACV 2018, section 4.1): 1 where Y < O, else 0.

    Y and O as in `AverageDrop`; the mean is the share of the images, with Wilson's interval. Higher is better.

    Args:
        keep: the share of the pixels that are shown (Score-CAM: 0.5); None multiplies by the heatmap.
        output: "probability" (the paper's) or "logit".
        baseline: what is there where the map hides.
        options: `running`, and what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.AverageIncrease()
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().mean  # the score is as it was, and no higher
        0.0
    """

    name, title, paper = (
        "average_increase",
        "Increase in confidence",
        "Chattopadhay et al., WACV 2018",
    )
    higher_is_better = True
    limits = (0.0, 1.0)

    def __init__(self, *, interval: Interval = "wilson", **options: Any) -> None:
        super().__init__(interval=interval, **options)

    def _compare(self, whole: Tensor, shown: Tensor) -> Tensor:
        return (whole < shown).double()


class ConfidenceDrop(_MapAsMask):
    """Drop in confidence with the map as a mask: Y - O, not divided by Y, negative where the confidence rises.

    Y and O as in `AverageDrop`. Lower is better: what the map shows is enough for the answer.

    Args:
        keep: the share of the pixels that are shown; None multiplies by the heatmap.
        output: "probability" or "logit".
        baseline: what is there where the map hides.
        options: `running`, and what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.ConfidenceDrop(output="logit")
        >>> metric.update(1 - seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().mean > 0  # what the map shows is beside the point
        True
    """

    name, title, paper = (
        "confidence_drop",
        "Drop in confidence",
        "after Chattopadhay et al., WACV 2018",
    )
    limits_of_probability = (-1.0, 1.0)

    def _compare(self, whole: Tensor, shown: Tensor) -> Tensor:
        return whole - shown
