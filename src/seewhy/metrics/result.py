"""What a metric gives: a number for programs that log numbers, with all that is behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..names import REPR, at_most
from .intervals import Interval

Floats = npt.NDArray[np.float64]
_NOTHING: Mapping[str, Figure] = MappingProxyType({})


class Figure(NamedTuple):
    """One of several numbers that a metric gives of the same images.

    Attributes:
        mean, low, high: the number and its 95 % interval; NaN where that is not known.
        thresholds: at which thresholds of the map it was read, where there are any.

    Example:
        >>> seewhy.metrics.Figure(0.5, 0.4, 0.6).high
        0.6
    """

    mean: float
    low: float = math.nan
    high: float = math.nan
    thresholds: tuple[float, ...] = ()


class Findings(NamedTuple):
    """What a metric found, as a record. Arrays are numpy's, since torchmetrics changes the shape of its tensors.

    Attributes:
        metric: its key in `seewhy.metrics.METRICS` or `LOCALIZATION`.
        mean, low, high: over the images with a value, with its 95 % interval; NaN where too few images have one.
        n: how many have one.
        higher_is_better: the direction.
        values: (N,) float64, one for each image in the order of the updates; NaN where there is none.
        status: (N,), "ok", or what is wrong with the image's map or truth (`seewhy.metrics.STATUS_MEANINGS`).
        curves: for each image its curve, of any length, or () for metrics without curves.
        positions: for each curve where its points lie, from 0 to 1.
        interval: how the interval is made, see `seewhy.metrics.intervals.interval_of`.
        settings: the metric's options.
        figures: other numbers of the same images, by name, side by side.
        pooled_curve: positions and values of the one curve of all images, for metrics that pool them.
    """

    metric: str
    mean: float
    low: float
    high: float
    n: int
    higher_is_better: bool
    values: Floats
    status: tuple[str, ...]
    curves: tuple[Floats, ...]
    positions: tuple[Floats, ...]
    interval: Interval
    settings: Mapping[str, object]
    figures: Mapping[str, Figure] = _NOTHING
    pooled_curve: tuple[Floats, Floats] | None = None

    @property
    def left_out(self) -> dict[str, int]:
        """How many images are left out of the mean, by status."""
        missing = [
            s for s, value in zip(self.status, self.values, strict=True) if math.isnan(value)
        ]
        return {status: missing.count(status) for status in dict.fromkeys(missing)}

    @property
    def failed(self) -> dict[str, int]:
        """How many images are in the mean though their map gives no answer, by status."""
        counted = [
            s
            for s, value in zip(self.status, self.values, strict=True)
            if not math.isnan(value) and s != "ok"
        ]
        return {status: counted.count(status) for status in dict.fromkeys(counted)}

    def mean_curve(self) -> tuple[Floats, Floats]:
        """The pooled curve, or the mean of the curves of the images in the mean: positions and values."""
        if self.pooled_curve is not None:
            return self.pooled_curve
        pairs = zip(self.positions, self.curves, strict=True)
        kept = [
            pair for pair, value in zip(pairs, self.values, strict=False) if not math.isnan(value)
        ]
        if not kept:
            return np.empty(0), np.empty(0)
        at = max((x for x, _ in kept), key=len)
        level = [y if len(y) == len(at) else np.interp(at, x, y) for x, y in kept]
        return at, np.asarray(np.mean(level, axis=0))


class MetricResult(Tensor):
    """The mean as a tensor without dimensions, which torchmetrics' collections and Lightning's `self.log` take; with
    all attributes of `Findings`.

    Example:
        >>> metric = seewhy.metrics.Complexity()
        >>> metric.update(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]))
        >>> result = metric.compute()
        >>> result.values, result.n, result.left_out
        (array([0.        , 0.69314718]), 2, {})
    """

    found: Findings
    metric: str
    low: float
    high: float
    n: int
    higher_is_better: bool
    status: tuple[str, ...]
    curves: tuple[Floats, ...]
    positions: tuple[Floats, ...]
    interval: Interval
    settings: Mapping[str, object]
    figures: Mapping[str, Figure]
    pooled_curve: tuple[Floats, Floats] | None
    left_out: dict[str, int]
    failed: dict[str, int]

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """What is computed from it has no record behind it, and is a plain tensor."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @staticmethod
    def __new__(cls, found: Findings) -> MetricResult:
        made = torch.tensor(found.mean, dtype=torch.float32).as_subclass(cls)
        made.found = found
        return made

    def __getattr__(self, name: str) -> object:
        if name == "found":  # before it is made, as when it is unpickled
            raise AttributeError(name)
        return getattr(self.found, name)

    @property
    def mean(self) -> float:  # type: ignore[override]
        """The mean over the images, in double precision."""
        return self.found.mean

    @property
    def values(self) -> Floats:  # type: ignore[override]
        """One value for each image."""
        return self.found.values

    def mean_curve(self) -> tuple[Floats, Floats]:
        """As of `Findings`."""
        return self.found.mean_curve()

    def __float__(self) -> float:
        return self.found.mean

    def squeeze(
        self, *dims: object
    ) -> MetricResult:  # torchmetrics squeezes what it returns, and keeps a clone
        return self

    def clone(self, **_: object) -> MetricResult:
        return MetricResult(self.found)

    def __deepcopy__(self, memo: object) -> MetricResult:
        return MetricResult(self.found)

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return MetricResult, (
            self.found._replace(figures=dict(self.found.figures)),
        )  # a proxy cannot be pickled

    def __repr__(self) -> str:  # type: ignore[override]
        f = self.found
        known = f" ({f.low:.4g} to {f.high:.4g})" if not math.isnan(f.low) else ""
        figures = ", ".join(f"{name} {figure.mean:.4g}" for name, figure in f.figures.items())
        text = f"<MetricResult {f.metric} {f.mean:.4g}{known} of {f.n} images{f'; {figures}' if figures else ''}"
        return at_most(text, REPR - 1) + ">"
