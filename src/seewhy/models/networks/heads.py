"""Localisation networks: classifiers of image labels whose last picture says where each class is.

With f_k(x, y) the backbone's features, a head pools each over the places and weighs what it gets:

- "gap", CAM (Zhou et al., CVPR 2016): S_c = b_c + sum_k w_k^c mean_xy f_k. M_c = sum_k w_k^c f_k is the map, and its
  mean, plus b_c, the score.
- "gmp": the maximum in place of the mean.
- "lse" (Pinheiro and Collobert, CVPR 2015): (1 / r) log((1 / hw) sum_xy exp(r f_k)); the mean for a sharpness r -> 0,
  the maximum for r -> infinity.
- "oquab" (Oquab et al., CVPR 2015): convolutionised layers, then two adaptation layers of 1 x 1 convolutions: FCa with
  ReLU, and FCb, which gives a score map for each class. S_c is the map's maximum, and a sigmoid of its own makes it a
  probability.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal, get_args

from torch import Tensor, nn

from ...data.disk import Json
from ...errors import InputError, ModelError, did_you_mean
from .backbones import Backbone, make_backbone
from .features import features_layout

Pooling = Literal["gap", "gmp", "lse", "oquab"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
SHARPNESS = 5.0
CAM_UNITS, ADAPTATION_UNITS = 1024, 2048  # as the papers have them


class LogSumExpPool2d(nn.Module):
    """(1 / r) log((1 / hw) sum_xy exp(r a)) of each channel: (N, C, h, w) -> (N, C, 1, 1)."""

    def __init__(self, sharpness: float = SHARPNESS) -> None:
        super().__init__()
        if not 0 < sharpness < math.inf:
            raise InputError(f"sharpness={sharpness} cannot be used; give a number above 0")
        self.sharpness = sharpness

    def forward(self, a: Tensor) -> Tensor:
        """Pools in float32, whatever the precision of `a`."""
        peak = a.float().amax((2, 3), keepdim=True)
        below = (self.sharpness * (a.float() - peak)).exp().mean((2, 3), keepdim=True)  # in (0, 1]
        return (peak + below.log() / self.sharpness).to(a)

    def extra_repr(self) -> str:
        """Shown in print(module)."""
        return f"sharpness={self.sharpness}"


class LocalizationNet(nn.Module):
    """A backbone under a localisation head: (N, 3, H, W) -> (N, classes) scores before softmax or sigmoid.

    Args:
        backbone: gives features (N, C, h, w), (N, h, w, C) or tokens over the picture.
        classes: how many there are.
        pooling: "gap", "gmp", "lse" or "oquab", see this module.
        units: of a convolution 3 x 3 with ReLU before the head, as Zhou et al. added; None for none.
        adaptation: units of FCa, for "oquab".
        sharpness: r of "lse".
        dropout: before the last layer, in training.

    Example:
        >>> backbone = torch.nn.Conv2d(3, 4, 3)
        >>> backbone.channels = 4
        >>> seewhy.wsol.LocalizationNet(backbone, 2)(x).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        pooling: Pooling = "gap",
        units: int | None = None,
        adaptation: int = ADAPTATION_UNITS,
        sharpness: float = SHARPNESS,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.backbone, self.num_classes = backbone, classes
        channels = backbone.channels
        layers: dict[str, nn.Module] = {}
        if units is not None:
            layers = {"conv": nn.Conv2d(channels, units, 3, 1, 1), "relu": nn.ReLU(inplace=True)}
            channels = units
        if pooling == "oquab":
            layers |= {
                "fca": nn.Conv2d(channels, adaptation, 1),
                "relu_fca": nn.ReLU(inplace=True),
                "dropout": nn.Dropout(dropout),
                "fcb": nn.Conv2d(adaptation, classes, 1),
                "pool": nn.AdaptiveMaxPool2d(1),
                "flatten": nn.Flatten(),
            }
        else:
            layers |= {
                "pool": _pool(pooling, sharpness),
                "flatten": nn.Flatten(),
                "dropout": nn.Dropout(dropout),
                "fc": nn.Linear(channels, classes),
            }
        self.head = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Scores before softmax or sigmoid.

        Raises:
            ModelError: the backbone leaves no picture of so small an input.
        """
        features = self.backbone(x)
        layout = features_layout(tuple(features.shape), len(x), (x.shape[2], x.shape[3]))
        if layout is None:
            shape = tuple(features.shape)
            raise ModelError(
                f"the backbone gives {shape} of inputs {tuple(x.shape)}, no map; give larger pictures"
            )
        scores: Tensor = self.head(layout.to_grid(features))
        return scores


def _pool(pooling: str, sharpness: float) -> nn.Module:
    if pooling == "lse":
        return LogSumExpPool2d(sharpness)
    return nn.AdaptiveAvgPool2d(1) if pooling == "gap" else nn.AdaptiveMaxPool2d(1)


def build(architecture: Json) -> LocalizationNet:
    """Makes a network, with random weights, as a card describes it.

    Args:
        architecture: "backbone", "pooling", "classes" and "size", (H, W) of the input; and where they are not the usual
            ones "stages" and "stride" (`make_backbone`), "units", "adaptation", "sharpness" and "dropout"
            (`LocalizationNet`). Under another head than "oquab", "torchvision:..." is the network of Zhou et al., with
            1,024 units.

    Raises:
        InputError: an entry is missing, not known, or out of range.

    Example:
        >>> card = {"backbone": "timm:test_resnet", "pooling": "gmp", "classes": 3, "size": (64, 64)}
        >>> seewhy.wsol.build(card)(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 3])
    """
    given = dict(architecture)
    try:
        spec, pooling, classes = (
            str(given.pop("backbone")),
            given.pop("pooling"),
            int(given.pop("classes")),
        )
        height, width = (int(edge) for edge in given.pop("size"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"architecture={dict(architecture)!r} needs backbone, pooling, classes and size"
        ) from error
    if pooling not in POOLINGS:
        known = ", ".join(map(repr, POOLINGS))
        raise InputError(
            f"pooling={pooling!r} is not known{did_you_mean(str(pooling), POOLINGS)}; use {known}"
        )
    if classes < 1:
        raise InputError(f"classes={classes} is nothing to tell apart; give at least 1")
    unknown = given.keys() - {"stages", "stride", "units", "adaptation", "sharpness", "dropout"}
    if unknown:
        raise InputError(
            f"architecture has {sorted(unknown)}, which no network of this version has"
        )
    surgery = spec.startswith("torchvision:")
    if surgery and pooling != "oquab":
        given.setdefault("units", CAM_UNITS)
    backbone = make_backbone(
        spec,
        size=(height, width),
        stages=given.pop("stages", None),
        stride=given.pop("stride", None),
        whole=surgery and pooling == "oquab",
    )
    return LocalizationNet(backbone, classes, pooling=pooling, **given)
