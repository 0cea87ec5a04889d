"""Frozen records of what was found."""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from ..arguments import checked
from ..errors import InputError
from ..names import REPR, at_most
from ..remarks import Remarks
from . import values as maps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .ledger import Ledger


Family = Literal[
    "layer", "gradient", "guided", "relevance", "perturbation"
]  # what evidence a map is of
Facts: TypeAlias = Mapping[str, Any]  # JSON values; whoever reads them knows the method


@dataclass(frozen=True)
class Prediction:
    """One of a model's answers for one image.

    Attributes:
        index, label: the class, and what it is called.
        probability: in [0, 1]; None where the model gives none, or nothing says whether its numbers are any.
        score: the number that the model gives.

    Example:
        >>> best = seewhy.explain(model, photo).predictions[0][0]
        >>> best.index, best.label, round(best.probability, 2), best.score
        (0, 'red', 0.96, 4.0)
    """

    index: int
    label: str
    probability: float | None
    score: float


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a method found for one target, before it is resized or drawn.

    Attributes:
        map: (N, h, w), as in `Attribution`, or (N, C, H, W) where the method reduces colours afterwards.
        interval: (N, h, w), the half-width of the 95 % interval of each place, where the method has one.
        facts: for each image what else is worth knowing, as JSON values: samples drawn, fit of a surrogate, ...

    Example:
        >>> found = seewhy.maps.Estimate(torch.tensor([[[0.5, 0.1]]]), torch.tensor([[[0.2, 0.2]]]))
        >>> found.map - found.interval > 0  # where it is sure
        tensor([[[ True, False]]])
    """

    map: Tensor
    interval: Tensor | None = None
    facts: tuple[Facts, ...] = ()


class Drawn(Protocol):
    """What draws the maps of a batch on its photos (`seewhy.render.on_photos`)."""

    def picture(
        self, attribution: Attribution, index: int, style: str | None = None
    ) -> Image.Image: ...

    def heat(self, attribution: Attribution, index: int) -> Tensor: ...

    def strip(self, attribution: Attribution) -> Image.Image: ...


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """One method's maps of a batch of N images, for one layer and one target.

    Attributes:
        map: (N, h, w) float32 on the CPU: the paper's map, signed where the paper's is, not normalised, not resized; of
            volumes (N, d, h, w), and all else likewise.
        status: for each image "ok", or what is wrong with its map (`seewhy.maps.STATUS_MEANINGS`).
        labels: for each image the name of what is explained.
        scores: for each image the target's score.
        probabilities: for each image the class's probability, None where the target is no class.
        image_size: (H, W) of the model's input, or (D, H, W).
        pixels: (N, C, H, W), the attribution of each colour channel where a method gives one; else None.
        interval: (N, h, w), the half-width of the 95 % interval of each place, where the method has one.
        facts: for each image what else the method found, as JSON values; () where there is nothing.
        remarks: for each image what is to know before its map is believed, a line each; () where there is nothing. They
            stand on every picture of it.
        ledgers: for each image where relevance went, where that was asked for; else ().
        family: what kind of evidence the maps are of, and so what they cannot say; None where that is open.
        style: how pictures of them are drawn in their paper (`seewhy.render.STYLES`), where that is not to be told
            from the map.
        photos: draws the maps on their photos; None where there are none.
        layer_title: what people call the layer, such as "last stage, 7 x 7"; None where that is not known.

    Example:
        >>> a = seewhy.explain(model, photo, targets="red").attributions[0]
        >>> a
        <Attribution layer_relevance at relu of red, 1 x (16 x 16): red, ok>
        >>> a.heatmap().shape, a.picture().size
        (torch.Size([1, 16, 16]), (16, 16))
    """

    method: str
    title: str
    layer: str | None
    target: str
    map: Tensor
    status: tuple[maps.Status, ...]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    probabilities: tuple[float | None, ...]
    image_size: tuple[int, ...]
    signed: bool = False
    pixels: Tensor | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    interval: Tensor | None = None
    facts: tuple[Facts, ...] = ()
    ledgers: tuple[Ledger, ...] = ()
    family: Family | None = None
    style: str | None = None
    remarks: Remarks = ()
    photos: Drawn | None = None
    layer_title: str | None = None

    def __len__(self) -> int:
        return len(self.map)

    def heatmap(self) -> Tensor:
        """Returns (N, H, W) in [0, 1] at the input's size: the positive evidence over its maximum.

        Each image is scaled by itself; a map without positive evidence is all zero, and its status says so.
        """
        return maps.normalize(maps.resize(self.map.clamp(min=0), self.image_size))

    @checked
    def on_photo(self, index: int = 0) -> Tensor:
        """The heatmap of one image at its photo's own size, over the part of the photo that the model saw.

        Returns:
            (height, width) of the photo, float32: what `heatmap` has there, in [0, 1], and NaN where the model saw
            nothing of the photo, for of that nothing is said. An input that was given as a tensor is its own photo, and
            so are the frames that stand side by side for a volume.

        Raises:
            InputError: no such image, or there are no photos.

        Example:
            >>> a = seewhy.explain(model, photo).attributions[0]
            >>> heat = a.on_photo(0)
            >>> heat.shape, heat.isnan().any(), photo.size
            (torch.Size([16, 16]), tensor(False), (16, 16))
        """
        return self._photos_with(index).heat(self, index)

    @checked
    def picture(self, index: int = 0, *, style: str | None = None) -> Image.Image:
        """Draws the map of one image over its photo, at the photo's own size, or at 2,048 pixels where that is more.

        Raises:
            InputError: no such image, or there are no photos.
        """
        return self._photos_with(index).picture(self, index, style)

    def _photos_with(self, index: int) -> Drawn:
        if self.photos is None:
            raise InputError(
                "the attribution has no photos to lay its maps on; those of seewhy.explain have; .heatmap() is over "
                "the model's input"
            )
        if not 0 <= index < len(self):
            raise InputError(
                f"index={index} is no image of the attribution; it has {len(self)}: 0 to {len(self) - 1}"
            )
        return self.photos

    @checked
    def show(self, index: int = 0, *, style: str | None = None) -> None:
        """Shows the picture of one image: in a notebook below the cell, else in a window."""
        picture = self.picture(index, style=style)
        display = getattr(sys.modules.get("IPython.display"), "display", None)
        if display is not None and sys.modules["IPython"].get_ipython() is not None:
            display(picture)
        else:
            picture.show(self.title)

    @checked
    def plot(self, ax: Axes | None = None, *, index: int = 0, style: str | None = None) -> Axes:
        """Draws the picture of one image into matplotlib's axes, new ones unless given; returns them."""
        picture = self.picture(index, style=style)
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.subplots()[1]
        ax.imshow(np.asarray(picture))
        ax.set_title(f"{self.title} of {self.labels[index]}")
        ax.axis("off")
        return ax

    def _repr_png_(self) -> bytes | None:
        """How notebooks show it: all of its maps on their photos."""
        if self.photos is None:
            return None
        buffer = io.BytesIO()
        self.photos.strip(self).save(buffer, "PNG")
        return buffer.getvalue()

    def __repr__(self) -> str:
        of = Counter(map("{}, {}".format, self.labels, self.status))
        listed = "; ".join(
            words if n == 1 else f"{words} ({n} times)" for words, n in of.most_common()
        )
        at = "" if self.layer is None else f" at {self.layer}"
        size = " x ".join(map(str, self.map.shape[1:]))
        head = f"{self.method}{at} of {self.target}, {len(self)} x ({size}): {listed}"
        said = list(dict.fromkeys(text for each in self.remarks for text in each))
        return (
            at_most(f"<Attribution {head}" + (f"; {'; '.join(said)}" if said else ""), REPR - 1)
            + ">"
        )
