"""Do a map's values add up to what hiding their places does to the score? Over random squares, and random subsets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...engine.masking.baselines import Several, image_seed
from ...engine.masking.masks import Masks, PatchMasks
from ...errors import InputError
from ...maps import values as map_tools
from ..metric import Case, Measured, Output, image_generator
from ..similarity import pearson
from .curves import MaskedMetric, region_labels

MapsAre = Literal["contributions", "gradients"]


class _Additive(MaskedMetric):
    """Compares the sum of the map over what is hidden with what hiding it takes from the score.

    Args:
        maps_are: "contributions" (input x gradient, relevance, CAMs ...) are summed as they are; "gradients", given as
            (N, C, H, W), are first multiplied by the image less its baseline.
        output, baseline, running, options: as in `MaskedMetric`.
    """

    leave_out = ("empty", "non_finite")
    signed = True
    takes_colors = True

    def __init__(
        self, *, maps_are: MapsAre, settings: Mapping[str, object], **options: Any
    ) -> None:
        if maps_are not in ("contributions", "gradients"):
            raise InputError(
                f"maps_are={maps_are!r} is not known; use 'contributions' or 'gradients'"
            )
        super().__init__(settings={"maps_are": maps_are, **settings}, **options)
        if isinstance(self.baseline, Several):
            raise InputError(f"{self.name} needs one baseline, not several; give one of them")
        self.maps_are = maps_are

    def _contributions(self, case: Case) -> Tensor:
        """What each pixel is said to contribute, (N, H, W) float64; resizing keeps the sum."""
        maps, size = case.maps.double(), (case.x.shape[2], case.x.shape[3])
        if self.maps_are == "gradients":
            if maps.shape != case.x.shape:
                raise InputError(
                    f"maps of {tuple(maps.shape)} are no gradients; give {tuple(case.x.shape)}, as x has"
                )
            assert not isinstance(self.baseline, Several)
            hidden = torch.stack([self.baseline.picture(image) for image in case.x])
            return (maps * (case.x - hidden).double().cpu()).sum(1)
        flat = maps.sum(1) if maps.ndim == 4 else maps
        share = flat.shape[1] * flat.shape[2] / (size[0] * size[1])
        return flat if share == 1 else map_tools.resize(flat, size).double() * share

    def _sums(self, case: Case, masks: Sequence[Masks]) -> list[tuple[Tensor, Tensor]]:
        """For each image, over its masks: the map summed over what is hidden, and what the score lost by it."""
        contributions = self._contributions(case).flatten(1)
        found = [torch.empty(2, len(source), dtype=torch.float64) for source in masks]
        for chunk in case.chunks(masks, self.baseline, self.running):
            hidden = 1 - chunk.masks.flatten(1).double().cpu()
            place = found[chunk.image][:, chunk.start : chunk.stop]
            place[0] = hidden @ contributions[chunk.image]
            place[1] = case.clean[chunk.image] - chunk.scores[:, 0]
        return [(said, lost) for said, lost in found]


class Infidelity(_Additive):
    """Infidelity (Yeh et al., NeurIPS 2019, def. 1): E[(sum of the map over what is hidden - (f(x) - f(x hidden)))^2].

    Hidden are squares at random places ("square removal"). At least 0; lower is better.

    Args:
        samples: squares for each image.
        sides: the squares' sides, as shares of the image's shorter one; each is drawn from these.
        normalize: scale each map by the factor that serves it best, so that methods of different scale compare; False
            takes the map at its word.
        maps_are: "contributions", or "gradients" (N, C, H, W), which are multiplied by the image less its baseline.
        output: "logit", the target's own score (the paper's), or "probability".
        baseline: what squares are replaced with; "noise" is the paper's noisy baseline.
        options: `running`, and what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.Infidelity(samples=20)
        >>> metric.update(seewhy.methods.input_x_gradient(net, x, 0), net, x, target=0)
        >>> round(metric.compute().mean, 3)  # it adds up
        0.0
    """

    name, title, paper = "infidelity", "Infidelity", "Yeh et al., NeurIPS 2019"
    higher_is_better = False
    limits = (0.0, math.inf)

    def __init__(
        self,
        *,
        samples: int = 100,
        sides: Sequence[float] = (0.125, 0.25),
        normalize: bool = True,
        maps_are: MapsAre = "contributions",
        output: Output = "logit",
        **options: Any,
    ) -> None:
        if samples < 1 or not sides or not all(0 < side <= 1 for side in sides):
            raise InputError(
                f"samples={samples}, sides={tuple(sides)}: give at least 1 sample and sides in (0, 1]"
            )
        settings = {"samples": samples, "sides": list(sides), "normalize": normalize}
        super().__init__(maps_are=maps_are, settings=settings, output=output, **options)
        self.samples, self.sides, self.normalize = samples, tuple(sides), normalize

    def passes(self, pixels: int) -> int:
        return self.samples

    def _measure(self, case: Case) -> Measured:
        values = []
        for said, lost in self._sums(case, [self._squares(image) for image in case.x]):
            scale = (said @ lost) / (said @ said) if self.normalize and said.any() else 1.0
            values.append((scale * said - lost).square().mean())
        return Measured(torch.stack(values))

    def _squares(self, image: Tensor) -> PatchMasks:
        height, width = image.shape[1:]
        generator = image_generator(image, self.seed)
        lengths = torch.tensor([max(1, round(side * min(height, width))) for side in self.sides])
        side = lengths[torch.randint(len(lengths), (self.samples,), generator=generator)]
        drawn = torch.rand(2, self.samples, generator=generator, dtype=torch.float32)
        left, top = (
            (drawn[i] * (length - side + 1)).long() for i, length in enumerate((width, height))
        )
        return PatchMasks(torch.stack([left, top, left + side, top + side], 1), (height, width))


class SensitivityN(_Additive):
    """Sensitivity-n (Ancona et al., ICLR 2018, section 4): corr(sum of the map over a subset, f(x) - f(x without it)).

    Pearson's, over random subsets of n pixels. The curve is over n, the value is its mean, in [-1, 1]; 1 is a map that
    adds up. Higher is better.

    Args:
        sizes: the subsets' sizes, as shares of all regions; each makes a point of the curve.
        samples: subsets for each size.
        region: side of the square regions that are hidden together, in pixels; the paper's is 1.
        maps_are: "contributions", or "gradients" (N, C, H, W), which are multiplied by the image less its baseline.
        output: "logit", the target's own score (the paper's), or "probability".
        baseline: what hidden pixels are replaced with.
        options: `running`, and what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.SensitivityN(sizes=(0.2, 0.4), samples=20)
        >>> metric.update(seewhy.methods.input_x_gradient(net, x, 0), net, x, target=0)
        >>> round(metric.compute().mean, 3)  # it adds up
        1.0
    """

    name, title, paper = "sensitivity_n", "Sensitivity-n", "Ancona et al., ICLR 2018"
    higher_is_better = True
    axes = ("share of pixels hidden, n", "correlation")
    limits = (-1.0, 1.0)

    def __init__(
        self,
        *,
        sizes: Sequence[float] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8),
        samples: int = 50,
        region: int = 1,
        maps_are: MapsAre = "contributions",
        output: Output = "logit",
        **options: Any,
    ) -> None:
        if samples < 3 or region < 1 or not sizes or not all(0 < size < 1 for size in sizes):
            raise InputError(
                f"samples={samples}, region={region}, sizes={tuple(sizes)}: give at least 3 samples, a region of 1 "
                "pixel and sizes between 0 and 1"
            )
        settings = {"sizes": list(sizes), "samples": samples, "region": region}
        super().__init__(maps_are=maps_are, settings=settings, output=output, **options)
        self.sizes, self.samples, self.region = tuple(sizes), samples, region

    def _positions(self, points: int) -> npt.NDArray[np.float64]:
        return np.array(self.sizes[:points])

    def passes(self, pixels: int) -> int:
        return self.samples * len(self.sizes)

    def _measure(self, case: Case) -> Measured:
        labels = region_labels((case.x.shape[2], case.x.shape[3]), self.region)
        regions = int(labels.max()) + 1
        counts = [max(1, round(size * regions)) for size in self.sizes for _ in range(self.samples)]
        masks = [SubsetMasks(labels, counts, image_seed(image, self.seed)) for image in case.x]
        curves = [
            pearson(said.view(-1, self.samples), lost.view(-1, self.samples))
            for said, lost in self._sums(case, masks)
        ]
        return Measured(torch.stack([curve.nanmean() for curve in curves]), curves)


@dataclass(frozen=True, eq=False)
class SubsetMasks:
    """Each mask hides a random subset of the regions.

    Args:
        labels: (H, W) integers from 0.
        counts: for each mask how many regions it hides.
        seed: of the subsets; each has its own, so that any of them can be made alone.
    """

    labels: Tensor
    counts: Sequence[int]
    seed: int

    def __len__(self) -> int:
        return len(self.counts)

    def render(self, start: int, stop: int, device: torch.device) -> Tensor:
        kept = torch.ones(stop - start, int(self.labels.max()) + 1, dtype=torch.float32)
        for row, i in zip(kept, range(start, stop), strict=True):
            generator = torch.Generator().manual_seed(self.seed + i)
            row[torch.randperm(len(row), generator=generator)[: self.counts[i]]] = 0
        return kept[:, self.labels.flatten()].view(-1, *self.labels.shape).to(device)
