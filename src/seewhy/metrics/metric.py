"""What the metrics of explanations share: they run the model on changed images and follow its score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from ..engine.batches import answers
from ..engine.call import Call
from ..engine.defaults import own_defaults
from ..engine.draws import image_seed
from ..engine.inputs import settled_input
from ..engine.masking.baselines import AnyBaseline
from ..engine.masking.masks import Masks
from ..engine.masking.running import Running
from ..engine.masking.scoring import Chunk, masked_scores
from ..engine.pictures import is_volume
from ..engine.targets.classes import Logit, Probability, ScoreFunction
from ..engine.targets.numbers import Numbers, numbers_of
from ..engine.targets.resolve import TargetLike, resolve
from ..engine.targets.rows import asked
from ..engine.targets.target import describe
from ..engine.trace import check_scores
from ..errors import ArgumentTypeError, InputError, TargetError
from ..maps import values as map_tools
from ..models.call import CallableModel, call_of, labels_of, wrapped
from ..models.model import Model
from .base import STATUSES, UNDEFINED, ImageMetric

Output = Literal["probability", "logit"]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a metric found for the images of one update: NaN where it has no value."""

    values: Tensor  # (N,)
    curves: Sequence[Tensor] = ()  # for each image (S,)


@dataclass(frozen=True, eq=False)
class Kept:
    """What a metric keeps of some images: values (N,) float64, NaN for none, statuses, and a curve each or none."""

    values: Tensor
    status: Sequence[str]
    curves: Sequence[Tensor] = ()


@dataclass(frozen=True, eq=False)
class Case:
    """One update's images and what is explained of them."""

    maps: Tensor  # (N, h, w) or (N, C, H, W), float32 on the CPU, finite
    model: Model | Call  # as it was given
    x: Tensor
    score: ScoreFunction
    clean: Tensor  # (N,) float64, the scores of x
    call: Call

    def chunks(
        self, masks: Sequence[Masks], baseline: AnyBaseline, running: Running | None
    ) -> Iterator[Chunk]:
        """The target's scores of the masked images, masks of each image in their order."""
        return masked_scores(
            self.call, self.x, masks, [self.score], baseline=baseline, running=running
        )

    def masked(
        self, masks: Sequence[Masks], baseline: AnyBaseline, running: Running | None
    ) -> list[Tensor]:
        """For each image the scores of its masks, (masks,) float64."""
        found = [torch.empty(len(source), dtype=torch.float64) for source in masks]
        for chunk in self.chunks(masks, baseline, running):
            found[chunk.image][chunk.start : chunk.stop] = chunk.scores[:, 0]
        return found

    def scores(self, pictures: Tensor) -> Tensor:
        """The target's scores of other pictures of the same images, (N,) float64."""
        return _scores_of_output(self.call, answers(self.call, pictures), self.score, len(pictures))

    @property
    def fields(self) -> Tensor:
        """The maps at the size of the input, (N, H, W)."""
        flat = self.maps.sum(1) if self.maps.ndim == 4 else self.maps
        return map_tools.resize(flat, (self.x.shape[2], self.x.shape[3]))

    @property
    def heatmaps(self) -> Tensor:
        """The positive evidence over its maximum, (N, H, W) in [0, 1]."""
        return map_tools.normalize(self.fields.clamp(min=0))


def image_generator(image: Tensor, seed: int) -> torch.Generator:
    """Randomness that depends on the seed and on the image's own values, not on its place in a batch."""
    return torch.Generator().manual_seed(image_seed(image, seed))


class ExplanationMetric(ImageMetric):
    """A metric of explanations: `update(maps, model, x, target)` for each batch, then `compute()`.

    An image whose map cannot be judged has a status and is left out of the mean, and counted.

    Args:
        options: what `ImageMetric` takes.

    Example:
        >>> metric = seewhy.metrics.Deletion(step=16, output="logit")
        >>> metric.update(seewhy.methods.grad_cam(net, x, 0), net, x, target=0)
        >>> metric.compute().curves[0][:3]
        array([4., 0., 0.])
    """

    leave_out: tuple[str, ...] = ("empty", "constant", "non_finite")
    # negative values count as much as positive ones, so that a map is empty only where all of it is zero
    signed: ClassVar[bool] = False
    takes_colors: ClassVar[bool] = False
    # what the values lie between where the score that is followed is a probability
    limits_of_probability: ClassVar[tuple[float, float] | None] = None

    def __init__(self, *, settings: Mapping[str, object] | None = None, **options: Any) -> None:
        check_output((settings or {}).get("output", "logit"))
        super().__init__(settings=settings, **options)

    @own_defaults()
    def update(
        self,
        maps: Tensor,
        model: CallableModel | None = None,
        x: Tensor | None = None,
        target: TargetLike = "top1",
    ) -> None:
        """Adds the images of a batch.

        Args:
            maps: (N, h, w), one for each image, as the paper has it: not normalised; resized to the input here.
            model: what was explained, a `Model`, a module, or a `Call` with further inputs or an output of its own; in
                evaluation mode here, and as it was afterwards.
            x: (N, C, H, W), the explained images, preprocessed.
            target: what was explained of them, as in `seewhy.targets`; one target.

        Raises:
            SeewhyError: shapes that do not go together, or a target that the metric cannot score.
        """
        judged = self._checked_maps(maps)
        self._keep(
            judged, self._measure(self._case(judged.nan_to_num(0.0, 0.0, 0.0), model, x, target))
        )

    def _keep(self, maps: Tensor, found: Measured) -> None:
        """Adds what was found of these maps to the states, with the maps' statuses."""
        status: list[str] = list(map_tools.statuses(maps.abs() if self.signed else maps))
        values = found.values.detach().double().cpu().clone()
        for i, said in enumerate(status):
            if said in self.leave_out:
                values[i] = math.nan
            elif not values[i].isfinite():
                values[i], status[i] = math.nan, UNDEFINED
        self._store(values, status, found.curves)

    def newest(self) -> Kept:
        """What the last update added."""
        status = [STATUSES[code] for code in self.codes[-1].tolist()]
        curves = (
            torch.split(self.curves[-1], self.lengths[-1].tolist()) if len(self.lengths[-1]) else ()
        )
        return Kept(self.values[-1], status, curves)

    def restore(self, kept: Kept) -> None:
        """Adds images whose scores are known, as `newest` gave them, in place of an update."""
        self._store(kept.values, kept.status, kept.curves)
        self._counts_as_updated()

    def passes(self, pixels: int) -> int:
        """How many changed pictures of so many pixels the model is shown for each image."""
        return 1

    def reruns(self, module: nn.Module) -> int:
        """How many times the method is run again for each image."""
        return 0

    def _limits(self) -> tuple[float, float]:
        followed = (
            self.limits_of_probability if self.settings.get("output") == "probability" else None
        )
        return followed or self.limits

    def _measure(self, case: Case) -> Measured:
        """The metric's value for each image."""
        raise NotImplementedError

    def _checked_maps(self, maps: Tensor) -> Tensor:
        """The maps as float32 on the CPU."""
        if not isinstance(maps, Tensor):
            raise ArgumentTypeError(f"maps is a {type(maps).__name__}; give a tensor (N, h, w)")
        if not (maps.ndim == 3 or (self.takes_colors and maps.ndim == 4)) or 0 in maps.shape:
            accepted = "(N, h, w) or (N, C, H, W)" if self.takes_colors else "(N, h, w)"
            hint = {
                2: "; the map of a single image is map[None]",
                4: "; of volumes judge one slice, maps[:, k]",
            }
            raise InputError(
                f"maps has shape {tuple(maps.shape)}, not {accepted}{hint.get(maps.ndim, '')}"
            )
        return maps.detach().float().cpu()

    def _case(
        self, maps: Tensor, model: CallableModel | None, x: Tensor | None, target: TargetLike
    ) -> Case:
        if model is None or x is None:
            raise InputError(f"{self.name} runs the model: call update(maps, model, x, target)")
        call, x = settled_input(call_of(model), x)
        if is_volume(x):
            raise InputError(
                f"x has shape {tuple(x.shape)}: metrics are of pictures (N, C, H, W), not of volumes"
            )
        if len(maps) != len(x):
            raise InputError(f"maps has {len(maps)} maps for {len(x)} images; give one for each")
        output = answers(call, x)
        numbers = numbers_of(call, output)
        resolved = resolve(target, output, labels_of(model), numbers=numbers)
        if len(resolved) != 1:
            raise TargetError(
                f"target {target!r} is {len(resolved)} targets; a metric judges maps of one"
            )
        followed = cast(Output, self.settings.get("output", "logit"))
        score = read_as(resolved[0].score, followed, numbers=numbers)
        clean = _scores_of_output(call, output, score, len(x))
        return Case(
            maps, wrapped(model if call.whole_numbers is None else call), x, score, clean, call
        )


def _scores_of_output(call: Call, output: object, score: ScoreFunction, n: int) -> Tensor:
    """The target's scores of n images, (n,) float64 on the CPU."""
    with torch.inference_mode(False), torch.no_grad():
        return check_scores(call.module, asked(score, output, n), n).double().cpu()


def check_output(output: object) -> None:
    if output not in ("probability", "logit"):
        raise InputError(
            f"output={output!r} is not known; use 'probability' or 'logit' (the target's own score)"
        )


def read_as(score: ScoreFunction, output: Output, *, numbers: Numbers) -> ScoreFunction:
    """A target's own score ("logit"), or the probability of its class: the score that a metric follows."""
    if output == "logit" or isinstance(score, Probability):
        return score
    if isinstance(score, Logit):
        return Probability(score.index, numbers)
    raise TargetError(
        f"target {describe(score)} is no class, and has no probability; give output='logit', which follows its score"
    )
