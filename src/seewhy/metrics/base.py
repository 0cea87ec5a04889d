"""What all metrics share: statuses, states of each image that merge, and results with intervals."""

from __future__ import annotations

import copy
import inspect
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from ..arguments import checked, checked_class
from ..errors import InputError
from ..maps import values as map_tools
from ..names import check_option
from .intervals import Interval, interval_of
from .result import Findings, Floats, MetricResult

_OF_TORCHMETRICS = {
    "compute_on_cpu",
    "compute_with_cache",
    "dist_sync_fn",
    "dist_sync_on_step",
    "distributed_available_fn",
    "process_group",
    "sync_on_compute",
}
UNDEFINED, NO_TRUTH = "undefined", "no_truth"
STATUS_MEANINGS: dict[str, str] = dict(map_tools.STATUS_MEANINGS) | {
    UNDEFINED: "the metric has no value here: a score of zero, or nothing that varies",
    NO_TRUTH: "nobody marked where the object is, or there is none of the class",
}
STATUSES: tuple[str, ...] = tuple(STATUS_MEANINGS)


class ImageMetric(Metric):
    """A metric with a value for each image. `update` adds images, `compute` gives a `MetricResult`.

    States are kept for each image, so that results of several processes merge.

    Args:
        interval: how the 95 % interval of the mean is made: "t", "bootstrap" or "wilson" (of shares of 0 and 1).
        leave_out: the statuses of maps to leave out, instead of the metric's own.
        seed: of all that is drawn, together with each image's own values.
        options: what `torchmetrics.Metric` takes.

    Example:
        >>> metric = seewhy.metrics.Sparsity(leave_out=("empty",))
        >>> metric.update(torch.tensor([[[1.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]))
        >>> metric.compute().mean, metric.compute().left_out
        (0.75, {'empty': 1})
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better: bool = True
    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    leave_out: tuple[str, ...] = ()
    # what the values lie between
    limits: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    # what maps come to by chance, where that is one number for all pictures
    by_chance: ClassVar[float | None] = None
    # what the curves are over, and of what
    axes: ClassVar[tuple[str, str]] = ("", "")

    identity: Tensor
    values: list[Tensor]
    codes: list[Tensor]
    curves: list[Tensor]
    lengths: list[Tensor]

    def __init_subclass__(cls, **named: object) -> None:
        super().__init_subclass__(**named)
        if "__init__" in vars(cls):
            checked_class(cls)

    @checked
    def __init__(
        self,
        *,
        interval: Interval = "t",
        leave_out: Sequence[str] | None = None,
        seed: int = 0,
        settings: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        self._check_options(options)
        super().__init__(**options)
        self.interval, self.seed = interval, seed
        self.leave_out = tuple(self.leave_out if leave_out is None else leave_out)
        for status in self.leave_out:
            if status not in STATUS_MEANINGS:
                raise InputError(
                    f"leave_out has {status!r}, which is no status; accepted: {', '.join(STATUSES)}"
                )
        interval_of(np.zeros(0), interval)  # says what is accepted
        self.settings: dict[str, object] = {**(settings or {}), "seed": seed}
        for state in ("values", "codes", "curves", "lengths"):
            self.add_state(state, default=[], dist_reduce_fx="cat")
        # MetricCollection shares states between metrics whose states are equal after one update; these never are
        identity = json.dumps([self.name, self.settings, interval, self.leave_out], default=str)
        self.add_state(
            "identity", default=torch.tensor(zlib.crc32(identity.encode())), dist_reduce_fx="max"
        )

    def _check_options(self, options: Mapping[str, object]) -> None:
        """Says that the metric has no such option."""
        for option in options:
            if option not in _OF_TORCHMETRICS:
                check_option(self.name, option, _own_options(type(self)))

    def compute(self) -> MetricResult:
        """The mean over the images, its interval, and what is behind it."""
        return MetricResult(self._result())

    def for_method(self, method: Any, *, leave_out: Sequence[str] | None = None) -> Self:
        """A fresh metric with the same settings, for the maps of `method`; metrics that run the method take it up."""
        fresh = copy.deepcopy(self)
        fresh.reset()
        fresh.leave_out = tuple(self.leave_out if leave_out is None else leave_out)
        return fresh

    def states(self) -> dict[str, Tensor | list[Tensor]]:
        """All that it holds of its images, for `restore_states`."""
        return {name: getattr(self, name) for name in self._defaults}

    def restore_states(self, states: Mapping[str, Tensor | list[Tensor]]) -> None:
        """Gives a metric without images what one of the same settings held.

        Raises:
            InputError: the states are of other settings.
        """
        if not torch.equal(torch.as_tensor(states["identity"]), self.identity.cpu()):
            raise InputError(f"the states kept of {self.name} are of other settings; begin anew")
        for name, state in states.items():
            setattr(self, name, _on_device(state, self.device))
        self._counts_as_updated()

    def _counts_as_updated(self) -> None:
        """Keeps torchmetrics' own account of updates."""
        self._update_count, self._computed = self._update_count + 1, None

    def _store(self, values: Tensor, status: Sequence[str], curves: Sequence[Tensor] = ()) -> None:
        """Adds images: their values (N,), NaN where there is none, their statuses, and a curve each or none."""
        curves = [c.detach().double().cpu() for c in curves]
        self.values.append(values.detach().double().to(self.device))
        self.codes.append(
            torch.tensor([STATUSES.index(s) for s in status], dtype=torch.long, device=self.device)
        )
        self.curves.append(
            (torch.cat(curves) if curves else torch.empty(0).double()).to(self.device)
        )
        self.lengths.append(
            torch.tensor([len(c) for c in curves], dtype=torch.long, device=self.device)
        )

    def _result(self) -> Findings:
        values = joined(self.values).double().numpy()
        if not len(values):
            raise InputError(f"{self.name} has no images yet; call update(...) first")
        kept = values[~np.isnan(values)]
        low, high = interval_of(kept, self.interval, seed=self.seed, limits=self._limits())
        curves = (
            torch.split(joined(self.curves), joined(self.lengths).tolist())
            if len(self.lengths)
            else ()
        )
        return Findings(
            metric=self.name,
            mean=float(kept.mean()) if len(kept) else math.nan,
            low=low,
            high=high,
            n=len(kept),
            higher_is_better=self.higher_is_better,
            values=values,
            status=tuple(STATUSES[int(code)] for code in joined(self.codes)),
            curves=tuple(curve.numpy() for curve in curves),
            positions=tuple(self._positions(len(curve)) for curve in curves),
            interval=self.interval,
            settings=self.settings,
        )

    def _limits(self) -> tuple[float, float]:
        """What the values lie between, with these settings."""
        return self.limits

    def _positions(self, points: int) -> Floats:
        """Where the points of a curve lie, from 0 to 1."""
        return np.linspace(0, 1, points)


# which mypy takes for abstract, as torchmetrics' own class is
ANY_KIND: type[ImageMetric] = ImageMetric  # type: ignore[type-abstract]


def _own_options(kind: type[ImageMetric]) -> list[str]:
    """What the constructors of a metric take, its own before those of what it extends."""
    found: dict[str, None] = {}
    for each in kind.__mro__:
        if "__init__" in vars(each) and issubclass(each, ImageMetric):
            parameters = inspect.signature(each.__init__).parameters.values()
            named = (one.name for one in parameters if one.kind is one.KEYWORD_ONLY)
            found |= dict.fromkeys(name for name in named if name != "settings")
    return list(found)


def joined(state: Sequence[Tensor] | Tensor) -> Tensor:
    """A state that was kept as a list, as one tensor on the CPU."""
    if isinstance(state, Tensor):  # torchmetrics joins lists when it synchronises
        return state.cpu()
    return torch.cat(list(state)).cpu() if len(state) else torch.empty(0)


def _on_device(state: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    return state.to(device) if isinstance(state, Tensor) else [each.to(device) for each in state]
