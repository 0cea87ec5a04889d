"""What the metrics of explanations share: checks, statuses, states that merge, results with intervals."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from .. import maps as map_tools
from ..errors import ArgumentTypeError, InputError, TargetError
from ..masking import AnyBaseline, Chunk, Masks, Running, image_seed, masked_scores
from ..methods.call import Call, unpack
from ..models.model import Model, wrap
from ..targets import Logit, Probability, ScoreFunction, TargetLike, describe, resolve
from ..trace import check_input
from .intervals import Interval, interval_of

Output = Literal["probability", "logit"]
UNDEFINED = "undefined"
STATUS_MEANINGS: dict[str, str] = dict(map_tools.STATUS_MEANINGS) | {
    UNDEFINED: "the metric has no value here: a score of zero, or nothing that varies",
}
_STATUSES: tuple[str, ...] = tuple(STATUS_MEANINGS)


class MetricResult(NamedTuple):
    """What a metric found. Arrays are numpy's, since torchmetrics changes the shape of tensors that it returns.

    Attributes:
        metric: its key in `seewhy.metrics.METRICS`.
        mean, low, high: over the images with a value, with its 95 % interval; NaN where too few images have one.
        n: how many have one.
        higher_is_better: the direction.
        values: (N,) float64, one for each image in the order of the updates; NaN where there is none.
        status: (N,), "ok", or why an image is left out of the mean (`seewhy.metrics.STATUS_MEANINGS`).
        curves: for each image its curve, of any length, or () for metrics without curves.
        positions: for each curve where its points lie, from 0 to 1.
        interval: how the interval is made, see `seewhy.metrics.intervals.interval_of`.
        settings: the metric's options.
    """

    metric: str
    mean: float
    low: float
    high: float
    n: int
    higher_is_better: bool
    values: npt.NDArray[np.float64]
    status: tuple[str, ...]
    curves: tuple[npt.NDArray[np.float64], ...]
    positions: tuple[npt.NDArray[np.float64], ...]
    interval: Interval
    settings: Mapping[str, Any]

    @property
    def left_out(self) -> dict[str, int]:
        """How many images are left out of the mean, by status."""
        missing = [s for s, value in zip(self.status, self.values, strict=True) if math.isnan(value)]
        return {status: missing.count(status) for status in dict.fromkeys(missing)}

    def mean_curve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The mean of the curves of the images in the mean: positions and values, as many as the longest has."""
        pairs = zip(self.positions, self.curves, strict=True)
        kept = [pair for pair, value in zip(pairs, self.values, strict=False) if not math.isnan(value)]
        if not kept:
            return np.empty(0), np.empty(0)
        at = max((x for x, _ in kept), key=len)
        level = [y if len(y) == len(at) else np.interp(at, x, y) for x, y in kept]
        return at, np.asarray(np.mean(level, axis=0))


@dataclass(frozen=True, eq=False)
class Measured:
    """What a metric found for the images of one update: NaN where it has no value."""

    values: Tensor  # (N,)
    curves: Sequence[Tensor] = ()  # for each image (S,)


@dataclass(frozen=True, eq=False)
class Case:
    """One update's images and what is explained of them."""

    maps: Tensor  # (N, h, w) or (N, C, H, W), float32 on the CPU, finite
    model: Model
    x: Tensor
    score: ScoreFunction
    clean: Tensor  # (N,) float64, the scores of x
    call: Call
    module: nn.Module

    def chunks(self, masks: Sequence[Masks], baseline: AnyBaseline, running: Running | None) -> Iterator[Chunk]:
        """The target's scores of the masked images, masks of each image in their order."""
        call = self.call
        return masked_scores(
            self.module,
            self.x,
            masks,
            [self.score],
            baseline=baseline,
            running=running,
            args=call.args,
            kwargs=call.kwargs,
            output=call.output,
        )

    def masked(self, masks: Sequence[Masks], baseline: AnyBaseline, running: Running | None) -> list[Tensor]:
        """For each image the scores of its masks, (masks,) float64."""
        found = [torch.empty(len(source), dtype=torch.float64) for source in masks]
        for chunk in self.chunks(masks, baseline, running):
            found[chunk.image][chunk.start : chunk.stop] = chunk.scores[:, 0]
        return found

    def scores(self, pictures: Tensor) -> Tensor:
        """The target's scores of other pictures of the same images, (N,) float64."""
        with self.call.trace(self.module, pictures, (), grad=False) as trace:
            return trace.scores(self.score).double().cpu()

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


class ExplanationMetric(Metric):
    """A metric of explanations: `update(maps, model, x, target)` for each batch, then `compute()`.

    States are kept for each image, so that results of several processes merge, and `compute` gives a `MetricResult`.
    An image whose map cannot be judged has a status and is left out of the mean, and counted.

    Args:
        interval: how the 95 % interval of the mean is made: "t", "bootstrap" or "wilson" (of shares).
        leave_out: the statuses of maps to leave out, instead of the metric's own.
        seed: of all that is drawn, together with each image's own values.
        options: what `torchmetrics.Metric` takes.
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better: bool = True
    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    leave_out: tuple[str, ...] = ("empty", "constant", "non_finite")
    # negative values count as much as positive ones, so that a map is empty only where all of it is zero
    signed: ClassVar[bool] = False
    takes_colours: ClassVar[bool] = False
    # what the curves are over, and of what
    axes: ClassVar[tuple[str, str]] = ("", "")

    values: list[Tensor]
    codes: list[Tensor]
    curves: list[Tensor]
    lengths: list[Tensor]

    def __init__(
        self,
        *,
        interval: Interval = "t",
        leave_out: Sequence[str] | None = None,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_output((settings or {}).get("output", "logit"))
        self.interval, self.seed = interval, seed
        self.leave_out = tuple(self.leave_out if leave_out is None else leave_out)
        for status in self.leave_out:
            if status not in STATUS_MEANINGS:
                raise InputError(f"leave_out has {status!r}, which is no status; accepted: {', '.join(_STATUSES)}")
        interval_of(np.zeros(0), interval)  # says what is accepted
        self.settings: dict[str, Any] = {**(settings or {}), "seed": seed}
        for state in ("values", "codes", "curves", "lengths"):
            self.add_state(state, default=[], dist_reduce_fx="cat")
        # MetricCollection shares states between metrics whose states are equal after one update; these never are
        identity = json.dumps([self.name, self.settings, interval, self.leave_out], default=str)
        self.add_state("identity", default=torch.tensor(zlib.crc32(identity.encode())), dist_reduce_fx="max")

    def update(
        self,
        maps: Tensor,
        model: Model | nn.Module | None = None,
        x: Tensor | None = None,
        target: TargetLike = "top1",
        *,
        call: Call | None = None,
    ) -> None:
        """Adds the images of a batch.

        Args:
            maps: (N, h, w), one for each image, as the paper has it: not normalised; resized to the input here.
            model: what was explained, a `Model` or a module; in evaluation mode here, and as it was afterwards.
            x: (N, C, H, W), the explained images, preprocessed.
            target: what was explained of them, as in `seewhy.targets`; one target.
            call: further inputs of the model and how its answer is read.

        Raises:
            SeewhyError: shapes that do not go together, or a target that the metric cannot score.
        """
        judged = self._checked(maps)
        self._keep(judged, self._measure(self._case(judged.nan_to_num(0.0, 0.0, 0.0), model, x, target, call)))

    def _keep(self, maps: Tensor, found: Measured) -> None:
        """Adds what was found of these maps to the states, with the maps' statuses."""
        status: list[str] = list(map_tools.statuses(maps.abs() if self.signed else maps))
        values = found.values.detach().double().cpu().clone()
        for i, said in enumerate(status):
            if said in self.leave_out:
                values[i] = math.nan
            elif not values[i].isfinite():
                values[i], status[i] = math.nan, UNDEFINED
        curves = [c.detach().double().cpu() for c in found.curves]
        self.values.append(values.to(self.device))
        self.codes.append(torch.tensor([_STATUSES.index(s) for s in status], device=self.device))
        self.curves.append((torch.cat(curves) if curves else torch.empty(0).double()).to(self.device))
        self.lengths.append(torch.tensor([len(c) for c in curves], dtype=torch.long, device=self.device))

    def compute(self) -> MetricResult:
        """The mean over the images, its interval, and what is behind it."""
        values = _joined(self.values).double().numpy()
        if not len(values):
            raise InputError(f"{self.name} has no images yet; call update(maps, model, x, target) first")
        kept = values[~np.isnan(values)]
        low, high = interval_of(kept, self.interval, seed=self.seed)
        curves = torch.split(_joined(self.curves), _joined(self.lengths).tolist()) if len(self.lengths) else ()
        return MetricResult(
            metric=self.name,
            mean=float(kept.mean()) if len(kept) else math.nan,
            low=low,
            high=high,
            n=len(kept),
            higher_is_better=self.higher_is_better,
            values=values,
            status=tuple(_STATUSES[int(code)] for code in _joined(self.codes)),
            curves=tuple(curve.numpy() for curve in curves),
            positions=tuple(self._positions(len(curve)) for curve in curves),
            interval=self.interval,
            settings=self.settings,
        )

    def for_method(self, method: Any, *, leave_out: Sequence[str] | None = None) -> Self:
        """A fresh metric with the same settings, for the maps of `method`; metrics that run the method take it up."""
        fresh = self.clone()
        fresh.reset()
        fresh.leave_out = tuple(self.leave_out if leave_out is None else leave_out)
        return fresh  # type: ignore[return-value]

    def _measure(self, case: Case) -> Measured:
        """The metric's value for each image."""
        raise NotImplementedError

    def _positions(self, points: int) -> npt.NDArray[np.float64]:
        """Where the points of a curve lie, from 0 to 1."""
        return np.linspace(0, 1, points)

    def _checked(self, maps: Tensor) -> Tensor:
        """The maps as float32 on the CPU."""
        if not isinstance(maps, Tensor):
            raise ArgumentTypeError(f"maps is a {type(maps).__name__}; give a tensor (N, h, w)")
        if not (maps.ndim == 3 or (self.takes_colours and maps.ndim == 4)) or 0 in maps.shape:
            accepted = "(N, h, w) or (N, C, H, W)" if self.takes_colours else "(N, h, w)"
            hint = "; the map of a single image is map[None]" if maps.ndim == 2 else ""
            raise InputError(f"maps has shape {tuple(maps.shape)}, not {accepted}{hint}")
        return maps.detach().float().cpu()

    def _case(
        self, maps: Tensor, model: Model | nn.Module | None, x: Tensor | None, target: TargetLike, call: Call | None
    ) -> Case:
        if model is None or x is None:
            raise InputError(f"{self.name} runs the model: call update(maps, model, x, target)")
        check_input(x)
        if len(maps) != len(x):
            raise InputError(f"maps has {len(maps)} maps for {len(x)} images; give one for each")
        model = wrap(model)
        module, labels, call = unpack(model, call or Call())
        with call.trace(module, x, (), grad=False) as trace:
            resolved = resolve(target, trace.output, labels)
            if len(resolved) != 1:
                raise TargetError(f"target {target!r} is {len(resolved)} targets; a metric judges maps of one")
            score = self._score(resolved[0].score)
            clean = trace.scores(score).double().cpu()
        return Case(maps, model, x.detach(), score, clean, call, module)

    def _score(self, score: ScoreFunction) -> ScoreFunction:
        """The score that the metric follows: the target's own, or its probability where `output` says so."""
        return read_as(score, self.settings.get("output", "logit"))


def check_output(output: str) -> None:
    if output not in ("probability", "logit"):
        raise InputError(f"output={output!r} is not known; use 'probability' or 'logit' (the target's own score)")


def read_as(score: ScoreFunction, output: Output) -> ScoreFunction:
    """A target's own score ("logit"), or the probability of its class."""
    if output == "logit" or isinstance(score, Probability):
        return score
    if isinstance(score, Logit):
        return Probability(score.index)
    raise TargetError(
        f"target {describe(score)} is no class, and has no probability; give output='logit', which follows its score"
    )


def _joined(state: Sequence[Tensor] | Tensor) -> Tensor:
    if isinstance(state, Tensor):  # torchmetrics joins lists when it synchronises
        return state.cpu()
    return torch.cat(list(state)).cpu() if len(state) else torch.empty(0)
