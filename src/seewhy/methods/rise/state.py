"""Where a sample of RISE stands: how masks are drawn, the scores so far, and what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...engine.layout import Grid
from ...engine.masking.baselines import image_seed
from ...engine.masking.masks import GridMasks
from ...errors import InputError
from ...maps.attribution import Estimate
from .moments import Design, Form, Found, estimate
from .sampling import PAIR, Scheme, draw_grids

_MOST_BLOCKS = 1024


@dataclass(frozen=True)
class RiseSetting:
    """What the scores of a state are of: how masks are drawn, what they hide, and for how many targets."""

    cells: int
    p: float
    masks: Scheme
    blocks: int
    seed: int
    baseline: str
    targets: int

    def __post_init__(self) -> None:
        if self.cells < 1 or not 0 < self.p < 1:
            raise InputError(
                f"cells={self.cells}, p={self.p}: RISE needs at least 1 cell and p between 0 and 1"
            )
        if not 2 <= self.blocks <= _MOST_BLOCKS:
            raise InputError(
                f"blocks={self.blocks}: how far they differ takes 2 to {_MOST_BLOCKS} of them, usually 8"
            )

    @property
    def design(self) -> Design:
        return Design(self.p, self.blocks, PAIR[self.masks], independent=self.masks == "iid")


@dataclass(eq=False)
class RiseState:
    """Where a sample of RISE stands: give it to `rise(..., state=state)`, and again after an interruption.

    The second call goes on where the first one stopped, to the same maps, also with more samples. It is for the same
    model and targets; all else is compared. While it grows, `estimates` says what is known so far: from
    `running.progress`, say. `torch.save(state.state_dict(), file)` keeps it; masks are drawn anew from their seeds.

    Example:
        >>> state = seewhy.methods.RiseState()
        >>> for samples in (8, 16):  # the second call goes on where the first stopped
        ...     map_ = seewhy.methods.rise(net, x, 0, samples=samples, state=state)
        >>> state.samples
        [16]
    """

    setting: RiseSetting | None = None
    size: Grid = (0, 0)
    seeds: list[int] = field(default_factory=list)  # of each image
    samples: list[int] = field(default_factory=list)  # how many masks of each image have scores
    scores: list[Tensor] = field(
        default_factory=list
    )  # of each image, (n, T) float64, with room for more
    device: torch.device = torch.device("cpu")  # noqa: RUF009  where masks are rendered

    def begin(self, setting: RiseSetting, x: Tensor, samples: int) -> None:
        """Makes room for so many samples of each image, and sees to it that what goes on is the same."""
        size, seeds = tuple(x.shape[2:]), [image_seed(image, setting.seed) for image in x]
        if self.setting is None:
            self.setting, self.size, self.seeds = setting, size, seeds
            self.samples, self.scores = (
                [0] * len(x),
                [torch.empty(0, setting.targets).double()] * len(x),
            )
        elif (self.setting, self.size, self.seeds) != (setting, size, seeds):
            raise InputError(
                "state was made with other images, targets or options; give those, or a new RiseState()"
            )
        more = [(max(samples - len(known), 0), setting.targets) for known in self.scores]
        self.scores = [
            torch.cat([one, one.new_empty(room)])
            for one, room in zip(self.scores, more, strict=True)
        ]

    def add(self, image: int, scores: Tensor) -> None:
        """Adds the scores (n, T) of an image's next masks."""
        start = self.samples[image]
        self.scores[image][start : start + len(scores)] = scores
        self.samples[image] += len(scores)

    def grids(self, image: int, samples: int) -> GridMasks:
        """The first masks of an image."""
        assert self.setting is not None
        s, seed = self.setting, self.seeds[image]
        return draw_grids(
            s.masks, samples, cells=s.cells, p=s.p, blocks=s.blocks, size=self.size, seed=seed
        )

    def found(self, image: int, form: Form, *, looks: int = 1) -> list[Found]:
        """What is known of an image's maps, one for each target."""
        assert self.setting is not None
        scores = self.scores[image][: self.samples[image]]
        grids = self.grids(image, len(scores))
        return estimate(grids, scores, self.setting.design, form, looks=looks, device=self.device)

    def estimates(
        self,
        form: Form = "adjusted",
        *,
        looks: int = 1,
        stopped: Sequence[str] | None = None,
        failed: str = "",
    ) -> list[Estimate]:
        """What is known so far, one `Estimate` for each target; images without samples have NaN.

        `stopped` says of each image why it has no more samples, `failed` what broke off those that stopped at an error.
        """
        assert self.setting is not None
        nothing: list[Found | None] = [None] * self.setting.targets
        known = [
            self.found(i, form, looks=looks) if n else nothing for i, n in enumerate(self.samples)
        ]
        reasons = stopped or ["running"] * len(known)
        return [self._estimate(found, form, reasons, failed) for found in zip(*known, strict=True)]

    def _estimate(
        self, found: Sequence[Found | None], form: Form, stopped: Sequence[str], failed: str
    ) -> Estimate:
        assert self.setting is not None
        unknown = torch.full(self.size, torch.nan)
        how = {"form": form, "masks": self.setting.masks}
        why_not = {"failed": failed} if failed else {}
        facts = tuple(
            {
                "samples": n,
                "stopped": why,
                "partial": why == "error",
                **_finite_numbers(one),
                **how,
                **(why_not if why == "error" else {}),
            }
            for one, n, why in zip(found, self.samples, stopped, strict=True)
        )
        maps = torch.stack([one.map.float() if one else unknown for one in found])
        intervals = torch.stack([one.interval.float() if one else unknown for one in found])
        return Estimate(maps, intervals, facts)

    def state_dict(self) -> dict[str, object]:
        """Tensors and numbers, for `torch.save`."""
        setting = None if self.setting is None else vars(self.setting)
        scores = [known[:n].clone() for known, n in zip(self.scores, self.samples, strict=True)]
        return {"setting": setting, "size": self.size, "seeds": self.seeds, "scores": scores}

    @classmethod
    def of_state_dict(cls, state: Mapping[str, Any]) -> RiseState:
        """The state that `state_dict` described."""
        setting = None if state["setting"] is None else RiseSetting(**state["setting"])
        scores = list(state["scores"])
        return cls(
            setting,
            tuple(state["size"]),
            list(state["seeds"]),
            [len(known) for known in scores],
            scores,
        )


def _finite_numbers(found: Found | None) -> dict[str, float | None]:
    """What is not a map; None where it is infinite."""
    if found is None:
        return {}
    numbers = {
        "relative_error": found.relative_error,
        "relative_error_bound": found.bound,
        "score_mean": found.score_mean,
        "score_std": found.score_std,
    }
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}
