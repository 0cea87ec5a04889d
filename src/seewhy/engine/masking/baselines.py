"""Baselines: what is shown where a mask hides, in the model's input space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ...arguments import brief
from ...errors import ArgumentTypeError, InputError, did_you_mean
from ..draws import image_seed


class Baseline(Protocol):
    """What is shown where a mask hides.

    Example:
        >>> class Gray:
        ...     name = "gray"
        ...     def picture(self, x):
        ...         return torch.full_like(x, 0.5)
        >>> seewhy.masking.find_baseline(Gray()).picture(x[0]).unique()
        tensor([0.5000])
    """

    @property
    def name(self) -> str: ...

    def picture(self, x: Tensor) -> Tensor:
        """Returns what is shown in place of an image, (C, H, W) -> (C, H, W); of a volume likewise."""
        ...


def _dims_of_places(image: Tensor) -> tuple[int, ...]:
    """The dimensions of an image (C, H, W), or a volume, that are not its channels."""
    return tuple(range(1, image.ndim))


@dataclass(frozen=True)
class Zeros:
    """Zeros in the model's input space: for usual preprocessing, the mean colour of the training set.

    Example:
        >>> seewhy.masking.Zeros().picture(x[0]).unique()
        tensor([0.])
    """

    name: str = "zeros"

    def picture(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class MeanColor:
    """The image's own mean colour.

    Example:
        >>> seewhy.masking.MeanColor().picture(x[0])[:, 0, 0]
        tensor([0.0625, 0.0000, 0.0000])
    """

    name: str = "mean"

    def picture(self, x: Tensor) -> Tensor:
        return x.mean(_dims_of_places(x), keepdim=True).expand_as(x)


@dataclass(frozen=True)
class Blur:
    """The image, blurred as in the authors' code of RISE's metrics.

    The kernel is what a Gaussian filter of width `sigma` leaves of a point in a window of `kernel` pixels whose
    borders reflect; beyond the image lie zeros. Of a volume each slice is blurred by itself.

    Args:
        kernel: pixels, odd.
        sigma: pixels.

    Example:
        >>> bool(seewhy.masking.Blur().picture(x[0]).max() < x.max())
        True
    """

    kernel: int = 11
    sigma: float = 5.0
    name: str = "blur"

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0 or self.sigma <= 0:
            raise InputError(
                f"Blur(kernel={self.kernel}, sigma={self.sigma}): give an odd kernel and a sigma above 0"
            )

    def picture(self, x: Tensor) -> Tensor:
        line = torch.as_tensor(self._folded_gaussian(), dtype=x.dtype, device=x.device)
        half, channels = self.kernel // 2, len(x)
        pictures = x[None] if x.ndim == 3 else x.transpose(0, 1)  # (D, C, H, W)
        down = F.conv2d(
            pictures,
            line.view(1, 1, -1, 1).expand(channels, 1, -1, 1),
            padding=(half, 0),
            groups=channels,
        )
        across = F.conv2d(
            down,
            line.view(1, 1, 1, -1).expand(channels, 1, 1, -1),
            padding=(0, half),
            groups=channels,
        )
        return across[0] if x.ndim == 3 else across.transpose(0, 1)

    def _folded_gaussian(self) -> npt.NDArray[np.float64]:
        """A Gaussian, folded into the window: what leaves it at one border comes back from there."""
        reach = int(4 * self.sigma + 0.5)
        offsets = np.arange(-reach, reach + 1)
        weights = np.exp(-0.5 * (offsets / self.sigma) ** 2)
        place = (self.kernel // 2 + offsets) % (2 * self.kernel)
        place = np.where(place < self.kernel, place, 2 * self.kernel - 1 - place)
        folded = np.zeros(self.kernel)
        np.add.at(folded, place, weights / weights.sum())
        return folded


@dataclass(frozen=True, eq=False)
class SuperpixelMean:
    """Each superpixel in its own mean colour, as LIME hides it.

    Args:
        labels: (H, W) integers from 0.

    Example:
        >>> halves = torch.tensor([[0, 0, 1, 1]])
        >>> seewhy.masking.SuperpixelMean(halves).picture(torch.tensor([[[1.0, 3.0, 5.0, 9.0]]]))
        tensor([[[2., 2., 7., 7.]]])
    """

    labels: Tensor
    name: str = "superpixel_mean"

    def picture(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.labels.shape:
            raise InputError(
                f"labels of shape {tuple(self.labels.shape)} do not fit an image {tuple(x.shape)}"
            )
        where = self.labels.to(x.device, torch.long).flatten()
        sums = x.new_zeros(len(x), int(where.max()) + 1, dtype=torch.float64)
        sums.index_add_(1, where, x.flatten(1).double())
        return (sums / torch.bincount(where).clamp(min=1))[:, where].to(x.dtype).view_as(x)


@dataclass(frozen=True)
class Noise:
    """Uniform noise between the least and the largest value of each channel; the same for the same image and seed.

    Example:
        >>> noise = seewhy.masking.Noise(seed=3)
        >>> noise.picture(x[0]).equal(noise.picture(x[0]))
        True
    """

    seed: int = 0
    name: str = "noise"

    def picture(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(image_seed(x, self.seed))
        drawn = torch.rand(x.shape, generator=generator, dtype=torch.float32).to(x)
        low, high = (
            x.amin(_dims_of_places(x), keepdim=True),
            x.amax(_dims_of_places(x), keepdim=True),
        )
        return low + (high - low) * drawn


@dataclass(frozen=True, eq=False)
class Picture:
    """Any picture: (C, H, W), or what broadcasts to it, in the model's input space.

    Example:
        >>> seewhy.masking.Picture(torch.ones(3, 1, 1)).picture(x[0]).shape
        torch.Size([3, 16, 16])
    """

    tensor: Tensor
    name: str = "picture"

    def picture(self, x: Tensor) -> Tensor:
        try:
            return self.tensor.to(x).expand_as(x)
        except RuntimeError as error:
            shape = tuple(self.tensor.shape)
            raise InputError(
                f"baseline of shape {shape} does not broadcast to an image {tuple(x.shape)}"
            ) from error


@dataclass(frozen=True)
class Several:
    """Several baselines at once: each mask is run with each of them, and the scores are averaged.

    Example:
        >>> both = seewhy.masking.Several((seewhy.masking.Zeros(), seewhy.masking.Noise()))
        >>> both.name, both.pictures(x[0]).shape
        ('zeros + noise', torch.Size([2, 3, 16, 16]))
    """

    baselines: tuple[Baseline, ...]

    def __post_init__(self) -> None:
        if not self.baselines:
            raise InputError("baseline is an empty list; give at least one")

    @property
    def name(self) -> str:
        return " + ".join(baseline.name for baseline in self.baselines)

    def pictures(self, x: Tensor) -> Tensor:
        """(C, H, W) -> (k, C, H, W), one for each baseline."""
        return torch.stack([baseline.picture(x) for baseline in self.baselines])


AnyBaseline = Baseline | Several
BaselineLike = str | float | Tensor | AnyBaseline | Sequence["BaselineLike"]
_NAMED: dict[str, type[Zeros] | type[MeanColor] | type[Blur] | type[Noise]] = {
    "zeros": Zeros,
    "mean": MeanColor,
    "blur": Blur,
    "noise": Noise,
}


def find_baseline(baseline: BaselineLike, *, seed: int = 0) -> AnyBaseline:
    """The baseline that was asked for.

    Args:
        baseline: "zeros", "mean", "blur", "noise", a number, a picture (C, H, W), a `Baseline`, or a list of those for
            several at once.
        seed: of noise.

    Raises:
        InputError: no such name.
        ArgumentTypeError: none of these.

    Example:
        >>> seewhy.masking.find_baseline("blur"), seewhy.masking.find_baseline(["zeros", 0.5]).name
        (Blur(kernel=11, sigma=5.0, name='blur'), 'zeros + 0.5')
    """
    if isinstance(baseline, str):
        return _named_baseline(baseline, seed)
    if isinstance(baseline, Tensor):
        _check_finite(baseline)
        return Picture(baseline)
    if isinstance(baseline, int | float):
        _check_finite(baseline)
        return Picture(torch.tensor(float(baseline)), name=f"{baseline:g}")
    if isinstance(baseline, list | tuple):
        return Several(tuple(_single_baseline(part, seed) for part in baseline))
    if isinstance(baseline, Several) or _is_baseline(baseline):
        return baseline
    kind = type(baseline).__name__
    raise ArgumentTypeError(
        f"baseline is a {kind}; give a name such as 'zeros', a number, a tensor or a Baseline"
    )


def _named_baseline(name: str, seed: int) -> Baseline:
    if name not in _NAMED:
        known = ", ".join(map(repr, _NAMED))
        raise InputError(f"baseline={name!r} is not known{did_you_mean(name, _NAMED)}; use {known}")
    return Noise(seed) if name == "noise" else _NAMED[name]()


def _is_baseline(value: object) -> TypeGuard[Baseline]:
    return hasattr(value, "picture")


def _check_finite(baseline: Tensor | float) -> None:
    hollow = isinstance(baseline, Tensor) and (
        baseline.is_meta or baseline.layout is not torch.strided
    )
    if hollow or not torch.as_tensor(baseline).isfinite().all():
        raise InputError(
            f"baseline={brief(baseline)} is not finite; give numbers of the model's input"
        )


def _single_baseline(baseline: BaselineLike, seed: int) -> Baseline:
    found = find_baseline(baseline, seed=seed)
    if isinstance(found, Several):
        raise InputError("baseline is a list within a list; give one list of baselines")
    return found
