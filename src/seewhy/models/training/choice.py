"""Which network a training is of: what its user chose, and what is settled where that was left open."""

from __future__ import annotations

from dataclasses import dataclass

from ...data.dataset import LabeledImages
from ...data.disk import Json
from ...errors import InputError
from ..networks.backbones import stages_for
from ..networks.heads import ADAPTATION_UNITS, CAM_UNITS

CUT_UNITS = 256  # of the convolution and of FCa on a backbone that was cut
_SMALL = 256  # pictures with edges up to this are taken as large as they are
_PLAIN_EDGE, _CONVOLUTIONIZED_EDGE = 224, 448  # of the input, where the pictures do not say it
_LOOKED_AT = 8  # pictures, for their size


@dataclass(frozen=True)
class Choice:
    """A network as the arguments of `train` of the same names say it; None is for what is left open."""

    backbone: str
    pooling: str
    pretrained: bool
    size: tuple[int, int] | None
    stages: int | str
    stride: int | None
    units: int | None
    adaptation: int | None
    sharpness: float
    dropout: float

    @property
    def weights(self) -> str | None:
        """The spec of the classifier whose weights the backbone starts from."""
        names_a_file = bool(self.backbone.partition("@")[2])
        return self.backbone if self.pretrained or names_a_file else None

    def architecture(self, data: LabeledImages) -> Json:
        """What `build` takes, for the classes and the pictures of the data.

        Raises:
            InputError: stages are neither a number nor a word that is known.
        """
        size = self._usual_size(data) if self.size is None else self.size
        stages = self._kept_stages(size)
        found: Json = {
            "backbone": self._name,
            "pooling": self.pooling,
            "classes": len(data.classes),
            "size": list(size),
        }
        chosen = {"stages": stages, "stride": self.stride, "units": self._units(stages)}
        if self.pooling == "oquab":
            chosen["adaptation"] = self._adaptation(stages)
        found |= {name: value for name, value in chosen.items() if value is not None}
        if self.pooling == "lse":
            found["sharpness"] = self.sharpness
        return {**found, "dropout": self.dropout}

    @property
    def _name(self) -> str:
        return self.backbone.partition("@")[0]

    @property
    def _is_surgery(self) -> bool:
        """Whether it is a network of the papers, cut as they have it."""
        return self._name.startswith("torchvision:")

    def _usual_size(self, data: LabeledImages) -> tuple[int, int]:
        """That of the pictures where a few of them agree on a small one, else the network's."""
        some = range(0, len(data), max(1, len(data) // _LOOKED_AT))
        sizes = {data[i].photo.size[::-1] for i in some}
        if not self._is_surgery and len(sizes) == 1:
            height, width = sizes.pop()
            if max(height, width) <= _SMALL:
                return height, width
        convolutionized = self._is_surgery and self.pooling == "oquab"
        edge = _CONVOLUTIONIZED_EDGE if convolutionized else _PLAIN_EDGE
        return edge, edge

    def _kept_stages(self, size: tuple[int, int]) -> int | None:
        """How many of the backbone's stages stay; None for all of them."""
        if not isinstance(self.stages, str):
            return self.stages
        if self.stages == "auto":
            return stages_for(self._name, size) if self.stride is None else None
        if self.stages == "all":
            return None
        raise InputError(f"stages={self.stages!r} is not known; use 'auto', 'all' or a number")

    def _units(self, stages: int | None) -> int | None:
        """Of the convolution before the head; None for none."""
        if self.units is None and stages is not None:
            return CUT_UNITS
        if self.units is None and self._is_surgery and self.pooling != "oquab":
            return CAM_UNITS
        return self.units

    def _adaptation(self, stages: int | None) -> int:
        """Of Oquab's FCa."""
        if self.adaptation is not None:
            return self.adaptation
        return ADAPTATION_UNITS if stages is None else CUT_UNITS
