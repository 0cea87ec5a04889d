"""Photos to a model's input, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..arguments import checked, checked_class
from ..errors import ArgumentTypeError, ImageError, InputError
from ..names import read_seen
from .disk import Json
from .images import picture_of_tensor
from .placement import Placement
from .rgb import eight_bit_gray

_REDUCING_GAP = (
    3  # Pillow's documents call a resize after a reduction to so much nearly as good as one without
)
_BY_HAND = "write out seewhy.Preprocess(size, resize, mean, std, interpolation) instead"


_RESAMPLINGS = {
    name.lower(): resampling for name, resampling in Image.Resampling.__members__.items()
}


@checked_class
@dataclass(frozen=True)
class Preprocess:
    """Turns photos into a model's input as the library that trained it does, and back.

    Attributes:
        size: (H, W) of the model's input.
        resize: The shortest edge in pixels, or (H, W), or None for no resize before the centre crop.
        mean: Per channel, of values already scaled; one channel makes a greyscale input.
        std: Per channel, above 0.
        interpolation: A Pillow resampling: "bilinear", "bicubic", "nearest", "lanczos", "box" or "hamming".
        scale: Factor on pixel values 0..255 before the mean is taken off.
        fit: How (H, W) in `resize` is met: "stretch", or keeping the aspect "cover" it or "contain" in it.
        fill: RGB 0..255 of the padding, where the resized photo is smaller than the crop.
        bgr: Whether the model takes blue first.
        floor_crop: Whether an odd crop margin is rounded down (Hugging Face) or to even (torchvision, timm).

    Example:
        >>> inputs, placement = seewhy.IMAGENET(photo)
        >>> inputs.shape, placement.box
        (torch.Size([3, 224, 224]), (1.0, 1.0, 15.0, 15.0))
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    scale: float = 1 / 255
    fit: str = "stretch"
    fill: tuple[int, ...] = (0, 0, 0)
    bgr: bool = False
    floor_crop: bool = False

    def __post_init__(self) -> None:
        self._make_tuples()
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ImageError(
                f"mean {self.mean} and std {self.std}; accepted: one value each for 1 or 3 channels"
            )
        edges = (
            self.resize
            if isinstance(self.resize, tuple)
            else (self.resize,)
            if self.resize is not None
            else ()
        )
        if min(*self.size, *edges) < 1 or min(*self.std, self.scale) <= 0:
            raise ImageError(f"{self}; accepted: size, resize, std and scale above 0")
        for name, known in (
            ("interpolation", _RESAMPLINGS),
            ("fit", ("stretch", "cover", "contain")),
        ):
            if getattr(self, name) not in known:
                raise ImageError(
                    f"{name} '{getattr(self, name)}' is unknown; accepted: {', '.join(known)}"
                )

    def _make_tuples(self) -> None:
        """Of what is given as lists or arrays, so that equal ones are equal, and are written down as they are."""
        for name, kind in (
            ("mean", float),
            ("std", float),
            ("size", int),
            ("resize", int),
            ("fill", int),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | None):
                object.__setattr__(self, name, tuple(map(kind, value)))

    @classmethod
    def from_timm(cls, config: Json) -> Preprocess:
        """From `timm.data.resolve_model_data_config(model)`; gives what timm's evaluation transform gives."""
        channels, *(height, width) = config["input_size"]
        mean, std = tuple(config["mean"]), tuple(config["std"])
        scaled = tuple(
            math.floor(edge / (config.get("crop_pct") or 0.875)) for edge in (height, width)
        )
        fit = {"squash": "stretch", "border": "contain"}.get(
            config.get("crop_mode") or "center", "cover"
        )
        resize = scaled[0] if fit == "cover" and scaled[0] == scaled[1] else scaled
        fill = (
            tuple(round(255 * value) for value in np.broadcast_to(mean, 3))
            if fit == "contain"
            else (0, 0, 0)
        )
        if channels == 1:
            mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
        return cls(
            (height, width), resize, mean, std, str(config["interpolation"]), fit=fit, fill=fill
        )

    @classmethod
    def from_torchvision(cls, transforms: object) -> Preprocess:
        """From `weights.transforms()` of a torchvision classifier; anything else is an ArgumentTypeError."""
        try:
            crop, resize, mean, std = (
                tuple(getattr(transforms, name))
                for name in ("crop_size", "resize_size", "mean", "std")
            )
            name = _resampling_name(transforms)
        except (AttributeError, TypeError) as error:
            kind = type(transforms).__name__
            raise ArgumentTypeError(
                f"transforms is a {kind}; accepted: weights.transforms(); {_BY_HAND}"
            ) from error
        edges = (resize[0], resize[1]) if len(resize) > 1 else resize[0]
        return cls((crop[0], crop[-1]), edges, mean, std, name.removesuffix("-exact"))

    @classmethod
    def from_huggingface(cls, processor: object) -> Preprocess:
        """From transformers' image processor, tried against it; what a Preprocess cannot say is an ImageError."""
        processor = getattr(processor, "image_processor", processor)
        kind = type(processor).__name__
        try:
            timm = getattr(processor, "data_config", None)
            made = cls.from_timm(timm) if timm else _read_huggingface(processor)
            same = _does_the_same(made, processor, _check_picture())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ImageError(f"processor {kind} cannot be read ({error}); {_BY_HAND}") from error
        if not same:
            raise ImageError(
                f"processor {kind} does more than resize, crop and normalise; {_BY_HAND}"
            )
        return made

    @checked
    def seeing(self, *, crop: str | None = None, resize: int | str | None = None) -> Preprocess:
        """The same for a model that is to see another part of each photo, at the same size; all None changes nothing.

        Args:
            crop: "center", the middle of the photo: as this does it, or the largest that fits where this cuts nothing
                off; or "none", the whole photo, squashed unless `resize` says otherwise.
            resize: how the whole photo becomes the input: "squash", whatever its proportions, or "pad", which keeps
                them and fills up with the mean color; or how many pixels its shorter side has before the crop, at least
                as many as the input.

        Raises:
            InputError: one of them is unknown or too small, or they say two things.

        Example:
            >>> seewhy.IMAGENET.seeing(crop="none").resize, seewhy.IMAGENET.seeing(resize=224).resize
            ((224, 224), 224)
        """
        crop, resize = read_seen(crop, resize)
        longest = max(self.size)
        if isinstance(resize, int):
            if resize < longest:
                raise InputError(
                    f"resize={resize} leaves less than the model's input of {self.size[1]} x {self.size[0]} pixels; "
                    f"give {longest} or more, or 'pad' to show the whole photo"
                )
            return replace(self, resize=resize, fit="stretch")
        if crop == "center":
            crops = isinstance(self.resize, int) or self.resize is None or self.fit == "cover"
            return self if crops else replace(self, resize=longest, fit="stretch")
        if resize == "pad":
            return replace(self, resize=self.size, fit="contain", fill=self._mean_color())
        whole = crop == "none" or resize == "squash"
        return replace(self, resize=self.size, fit="stretch") if whole else self

    def _mean_color(self) -> tuple[int, ...]:
        """The mean as RGB 0..255."""
        mean = np.clip(np.broadcast_to(self.mean, 3) / self.scale, 0, 255)
        return tuple(round(float(value)) for value in (mean[::-1] if self.bgr else mean))

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest value that each channel can take, (C, 1, 1) each."""
        mean, std = self._statistics()
        return (0 - mean) / std, (255 * self.scale - mean) / std

    def enough(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that a reduced photo has at least, so that what is made of it is nearly the same."""
        rows, columns = self._resized(height, width)
        return _REDUCING_GAP * rows, _REDUCING_GAP * columns

    def __call__(self, photo: Image.Image) -> tuple[Tensor, Placement]:
        """Prepares one photo: the input (C, H, W) float32, and its box on the photo. ImageError if too elongated."""
        mode = "L" if len(self.mean) == 1 else "RGB"
        wide, high = self._resized(photo.height, photo.width)[::-1]
        if wide * high > 4 * max(photo.width * photo.height, 64_000_000):
            raise ImageError(
                f"photo of {photo.width} x {photo.height} is too elongated to resize; crop it first"
            )
        plain = photo if photo.mode == mode else photo.convert(mode)
        resized = plain.resize((wide, high), _RESAMPLINGS[self.interpolation])
        left = self._offset(wide, self.size[1])
        top = self._offset(high, self.size[0])
        seen = Image.new(mode, self.size[::-1], self.fill[0] if mode == "L" else self.fill)
        seen.paste(resized, (-left, -top))
        across, down = photo.width / wide, photo.height / high
        box = (
            left * across,
            top * down,
            (left + self.size[1]) * across,
            (top + self.size[0]) * down,
        )
        pixels = torch.from_numpy(np.array(seen)).reshape(*self.size, -1).permute(2, 0, 1).float()
        mean, std = self._statistics()
        # Dividing by 255 gives the very bits of torchvision; multiplying by 1/255 does not.
        values = ((pixels.flip(0) if self.bgr else pixels) / (1 / self.scale) - mean) / std
        return values.contiguous(), Placement((photo.height, photo.width), box)

    def batch(self, photos: Sequence[Image.Image]) -> tuple[Tensor, list[Placement]]:
        """Prepares photos: (N, C, H, W) float32, and a placement each. An empty list is an ImageError."""
        if not photos:
            raise ImageError("photos is empty; accepted: at least one photo")
        tensors, placements = zip(*map(self, photos), strict=True)
        return torch.stack(tensors), list(placements)

    def invert(self, x: Tensor) -> npt.NDArray[np.uint8]:
        """Undoes the normalisation: (N, C, H, W) to uint8 (N, H, W, 3); other shapes are an ImageError."""
        if x.ndim != 4 or x.shape[1] != len(self.mean):
            raise ImageError(
                f"input has shape {tuple(x.shape)}; accepted: (N, {len(self.mean)}, H, W)"
            )
        mean, std = self._statistics()
        values = (x.detach().cpu().float() * std + mean) / self.scale
        pixels = values.nan_to_num().round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
        return (pixels.flip(1) if self.bgr else pixels).permute(0, 2, 3, 1).contiguous().numpy()

    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device="cpu") for v in (self.mean, self.std)
        )
        return mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.resize, int):
            longest = int(self.resize * max(height, width) / min(height, width))
            return (self.resize, longest) if height <= width else (longest, self.resize)
        if self.resize is None or self.fit == "stretch":
            return self.resize or (height, width)
        ratio = (max if self.fit == "contain" else min)(
            height / self.resize[0], width / self.resize[1]
        )
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _offset(self, has: int, wants: int) -> int:
        if wants > has:
            return -((wants - has) // 2)
        return (has - wants) // 2 if self.floor_crop else round((has - wants) / 2)


IMAGENET = Preprocess((224, 224), 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")


def tensor_to_photos(x: Tensor, preprocess: Preprocess | None) -> list[Image.Image]:
    """Pictures of inputs (N, C, H, W): with the preprocess undone, or without one by the range of each.

    Without one, 1 channel is grey, 3 are RGB, and of others the mean is shown in grey. Other shapes are an ImageError.
    """
    if preprocess is not None:
        return [Image.fromarray(picture) for picture in preprocess.invert(x)]
    if x.ndim != 4 or x[:1].numel() == 0:
        raise ImageError(f"input has shape {tuple(x.shape)}; accepted: (N, C, H, W) with pixels")
    values = x.detach().cpu().float().nan_to_num()
    values = values if values.shape[1] == 3 else values.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    values = values - values.amin((1, 2, 3), keepdim=True)
    values = values / values.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return [picture_of_tensor(picture) for picture in values]


def _resampling_name(transforms: object, attribute: str = "interpolation") -> str:
    """How torchvision's transforms resize, as they call it."""
    name: str = getattr(transforms, attribute).value
    return name


def _read_huggingface(processor: object) -> Preprocess:
    """Reads what a transformers image processor spells out in its attributes."""
    has: Json = vars(processor)
    # LeViT has the factor in its code.
    share = has.get("crop_pct") or ("Levit" in type(processor).__name__ and 224 / 256)
    size, resize = _huggingface_sizes(has, share)
    mean, std = _huggingface_statistics(has)
    resampling = Image.Resampling.BILINEAR if has.get("resample") is None else has["resample"]
    return Preprocess(
        size,
        resize if has.get("do_resize") else None,
        mean,
        std,
        Image.Resampling(resampling).name.lower(),
        has["rescale_factor"] if has.get("do_rescale") else 1.0,
        bgr=bool(has.get("do_flip_channel_order")),
        floor_crop=True,
    )


def _huggingface_sizes(
    has: Json, share: float
) -> tuple[tuple[int, int], int | tuple[int, int] | None]:
    """The (H, W) of the input, and what photos are resized to before it is cut out of them.

    Args:
        has: what a processor spells out.
        share: of the resized photo's edge that the cut leaves; 0 where none is said.
    """
    edges = _edges(has.get("size"))
    crop = _edges(has.get("crop_size"))
    crops = has.get("do_center_crop")
    short = edges.get("shortest_edge")
    exact = (edges["height"], edges["width"]) if {"height", "width"} <= edges.keys() else None
    resize = short or exact
    if short and share:
        # ConvNeXt, which has no crop of its own, squashes where it is 384 or larger.
        resize = int(short / share) if crops or short < 384 else (short, short)
        exact = (short, short)
    size = (crop["height"], crop["width"]) if crops else exact
    if size is None or None in size:
        raise ValueError(f"its size {edges} leaves the input's height and width open")
    return size, resize


def _huggingface_statistics(has: Json) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the deviation of each channel."""
    mean, std = np.zeros(3), np.ones(3)
    if has.get("do_normalize"):
        mean, std = (np.broadcast_to(has[name], 3) for name in ("image_mean", "image_std"))
    if has.get("rescale_offset"):
        mean = mean + 1
    if has.get("include_top"):  # EfficientNet divides by the deviation once more
        std = std**2
    return tuple(mean.tolist()), tuple(std.tolist())


def _edges(size: object) -> Mapping[str, int]:
    """What a transformers size names: it is a dict or, since version 5, an object."""
    if size is None:
        return {}
    return size if isinstance(size, Mapping) else vars(size)


def _does_the_same(made: Preprocess, processor: object, photo: Image.Image) -> bool:
    """Whether a transformers processor makes nearly the same input of a photo."""
    assert callable(processor)
    ours = made(photo)[0]
    theirs = processor(images=photo, return_tensors="pt")["pixel_values"][0]
    low, high = made.bounds
    return bool(theirs.shape == ours.shape and ((theirs - ours) / (high - low)).abs().mean() < 0.02)


def _check_picture() -> Image.Image:
    """Smooth, so that resizers agree on it, and with no symmetry in space or colour, so that mistakes show."""
    rows, cols = np.mgrid[0:200, 0:300] / 100
    waves = [np.sin(5 * rows + 2 * cols), np.cos(3 * cols - rows), rows - cols / 2]
    return Image.fromarray(np.stack([eight_bit_gray(wave, "") for wave in waves], axis=2))
