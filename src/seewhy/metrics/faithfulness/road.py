"""Remove and debias: removed pixels are imputed from their neighbours, so that no border tells where they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import InputError
from ..metric import Case, ExplanationMetric, Measured, Output, image_generator
from .curves import pixel_ranks
from .imputing import impute

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class _Road(ExplanationMetric):
    axes = ("share of pixels removed", "score")
    paper = "Rong et al., ICML 2022"
    limits_of_probability = (0.0, 1.0)

    def __init__(
        self,
        *,
        shares: Sequence[float] = SHARES,
        noise: float = 0.01,
        output: Output = "probability",
        **options: Any,
    ) -> None:
        if (
            not shares
            or not all(0 < share < 1 for share in shares)
            or sorted(shares) != list(shares)
        ):
            raise InputError(
                f"shares={tuple(shares)}: give shares of the pixels between 0 and 1, rising"
            )
        if noise < 0:
            raise InputError(f"noise={noise} is negative; give 0 or more")
        super().__init__(
            settings={"shares": list(shares), "noise": noise, "output": output}, **options
        )
        self.shares, self.noise = tuple(shares), noise

    def passes(self, pixels: int) -> int:
        return len(self.shares)

    def _positions(self, points: int) -> npt.NDArray[np.float64]:
        return np.array(self.shares[:points])

    def _scores(self, case: Case, *, most_relevant: bool) -> Tensor:
        """The score after each share is removed, the most or the least relevant first: (N, shares)."""
        ranks = pixel_ranks(case.fields, case.x, self.seed)
        pixels = ranks[0].numel()
        # the same noise at every share and in both orders: what differs is what was removed
        drawn = [
            torch.randn(
                image.shape, generator=image_generator(image, self.seed), dtype=torch.float32
            )
            for image in case.x
        ]
        found = []
        for share in self.shares:
            count = removed(share, pixels)
            kept = ranks >= count if most_relevant else ranks < pixels - count
            pictures = [impute(image, keep) for image, keep in zip(case.x, kept, strict=True)]
            hidden = (~kept)[:, None].to(case.x)
            found.append(
                case.scores(
                    torch.stack(pictures) + self.noise * hidden * torch.stack(drawn).to(case.x)
                )
            )
        return torch.stack(found, 1)


def removed(share: float, pixels: int) -> int:
    """How many of the pixels a share is: at least one stays, from which the rest is imputed."""
    return min(round(share * pixels), pixels - 1)


class ROADMoRF(_Road):
    """ROAD, most relevant first (Rong et al., ICML 2022): the mean score after shares of the pixels were removed.

    Removed are exactly so many pixels as a share is, by rank; each becomes the weighted mean of its neighbours plus
    noise. Lower is better.

    Args:
        shares: of the pixels, rising.
        noise: standard deviation of what is added to imputed values, in the model's input space.
        output: "probability" or "logit".
        options: what `ExplanationMetric` takes.

    Example:
        >>> metric = seewhy.metrics.ROADMoRF(shares=(0.1, 0.5), output="logit")
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().mean < 2  # of 4
        True
    """

    name, title = "road_morf", "ROAD, most relevant first"
    higher_is_better = False

    def _measure(self, case: Case) -> Measured:
        scores = self._scores(case, most_relevant=True)
        return Measured(scores.mean(1), list(scores))


class ROADLeRF(_Road):
    """ROAD, least relevant first: as `ROADMoRF`, with the least relevant pixels removed. Higher is better.

    Args:
        shares, noise, output, options: as in `ROADMoRF`.

    Example:
        >>> metric = seewhy.metrics.ROADLeRF(shares=(0.1, 0.5), output="logit")
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().mean > 2  # of 4
        True
    """

    name, title = "road_lerf", "ROAD, least relevant first"
    higher_is_better = True

    def _measure(self, case: Case) -> Measured:
        scores = self._scores(case, most_relevant=False)
        return Measured(scores.mean(1), list(scores))


class ROAD(_Road):
    """ROAD, combined: the mean over the shares of (LeRF - MoRF) / 2, see `ROADMoRF`. Higher is better; chance is 0.

    Args:
        shares, noise, output, options: as in `ROADMoRF`.

    Example:
        >>> metric = seewhy.metrics.ROAD(shares=(0.1, 0.5), output="logit")
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().mean > 0  # better than chance
        True
    """

    name, title = "road", "ROAD, combined"
    higher_is_better = True
    axes = ("share of pixels removed", "(LeRF - MoRF) / 2")
    limits_of_probability = (-0.5, 0.5)

    def passes(self, pixels: int) -> int:
        return 2 * len(self.shares)

    def _measure(self, case: Case) -> Measured:
        halved = (
            self._scores(case, most_relevant=False) - self._scores(case, most_relevant=True)
        ) / 2
        return Measured(halved.mean(1), list(halved))
