"""What maps are drawn over: the photos of a batch, which attributions carry along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..data.placement import Placement
from ..maps.attribution import Attribution
from .frames import frames_of, side_by_side
from .overlay import attribution_picture
from .sheet import contact_sheet

_MOST, _COLUMNS = 8, 4  # photos on a strip


@dataclass(frozen=True, eq=False, repr=False)
class OnPhotos:
    """Draws the maps of a batch on its photos.

    Attributes:
        photos, placements, names: for each image the photo, which part of it the model saw, and what it is called.
    """

    photos: Sequence[Image.Image]
    placements: Sequence[Placement]
    names: Sequence[str]

    def picture(
        self, attribution: Attribution, index: int, style: str | None = None
    ) -> Image.Image:
        """One image's map over its photo."""
        photo = self.photos[index]
        placement = self.placements[index].scaled(photo.size[::-1])  # photos are kept reduced
        return attribution_picture(attribution, index, photo, placement, style=style)

    def heat(self, attribution: Attribution, index: int) -> Tensor:
        """One image's heatmap at the photo's own size, (height, width); NaN where the model did not see."""
        frames = frames_of(attribution.heatmap()[index], attribution.image_size, fine=True)
        placed = self.placements[index].place(side_by_side(frames).numpy())
        return torch.from_numpy(placed)

    def strip(self, attribution: Attribution) -> Image.Image:
        """The maps of all images side by side, each with its name and label; of many the first, which it says."""
        shown = min(len(attribution), _MOST)
        cells = [
            (self.picture(attribution, i), f"{self.names[i]}: {attribution.labels[i]}")
            for i in range(shown)
        ]
        if shown < len(attribution):
            picture, caption = cells[-1]
            cells[-1] = picture, f"{caption} (and {len(attribution) - shown} more)"
        return contact_sheet(cells, columns=min(shown, _COLUMNS))
