"""Where the objects of one picture are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Truth:
    """Where the objects of one picture are, in its pixels.

    Attributes:
        size: (H, W) of the picture.
        boxes: (B, 4) float32, (x0, y0, x1, y1), half-open: a box of one pixel is (x, y, x + 1, y + 1).
        labels: (B,) int64, the class of each box.
        masks: (B, H, W) bool, the pixels of each object; None where only boxes are known.
        difficult: (B,) bool, what Pascal VOC calls so; all False elsewhere.
        ignore: (H, W) bool, pixels that count neither for nor against; None for none.

    Raises:
        InputError: shapes that do not go together, a box without area or beyond the picture.
    """

    size: tuple[int, int]
    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None
    difficult: Tensor | None = None
    ignore: Tensor | None = None

    def __post_init__(self) -> None:
        (height, width), n = self.size, len(self.boxes)
        object.__setattr__(
            self, "boxes", torch.as_tensor(self.boxes, dtype=torch.float32).reshape(-1, 4)
        )
        object.__setattr__(
            self, "labels", torch.as_tensor(self.labels, dtype=torch.long).reshape(-1)
        )
        if self.difficult is None:
            object.__setattr__(self, "difficult", torch.zeros(n, dtype=torch.bool))
        for name, tensor, shape in (
            ("labels", self.labels, (n,)),
            ("difficult", self.difficult, (n,)),
            ("masks", self.masks, (n, height, width)),
            ("ignore", self.ignore, (height, width)),
        ):
            if tensor is not None and tuple(tensor.shape) != shape:
                raise InputError(
                    f"{name} has shape {tuple(tensor.shape)}; {n} boxes of {self.size} need {shape}"
                )
        x0, y0, x1, y1 = self.boxes.unbind(1)
        for wrong, said in (
            ((x1 <= x0) | (y1 <= y0), "has no area"),
            (
                (x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height),
                f"reaches beyond the picture of {width} x {height}",
            ),
        ):
            if bool(wrong.any()):
                raise InputError(
                    f"box {self.boxes[wrong][0].tolist()} {said}; accepted: 0 <= x0 < x1 <= width, and y"
                )

    def of(self, label: int) -> Truth:
        """Returns the objects of one class; the pixels to ignore stay."""
        kept = self.labels == label
        assert self.difficult is not None
        masks = None if self.masks is None else self.masks[kept]
        return Truth(
            self.size, self.boxes[kept], self.labels[kept], masks, self.difficult[kept], self.ignore
        )

    def cropped(self, box: tuple[float, float, float, float], size: tuple[int, int]) -> Truth:
        """Returns the truth of what a model saw: the part in `box`, (x0, y0, x1, y1) in pixels, brought to (H, W).

        The box may reach beyond the picture, where nothing is. Objects with nothing left in it are left out.
        """
        x0, y0, x1, y1 = box
        scale = torch.tensor([size[1] / (x1 - x0), size[0] / (y1 - y0)]).repeat(2)
        limit = torch.tensor([size[1], size[0]]).repeat(2)
        boxes = ((self.boxes - torch.tensor([x0, y0, x0, y0])) * scale).clamp(min=0).minimum(limit)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        # the pixel of the picture that lies under the centre of each new pixel
        rows, cols = (
            ((torch.arange(n) + 0.5) * (stop - start) / n + start).floor().long()
            for n, start, stop in ((size[0], y0, y1), (size[1], x0, x1))
        )
        within = ((rows >= 0) & (rows < self.size[0]))[:, None] & (
            (cols >= 0) & (cols < self.size[1])
        )

        def seen(pixels: Tensor) -> Tensor:
            picked = pixels[..., rows.clamp(0, self.size[0] - 1), :][
                ..., cols.clamp(0, self.size[1] - 1)
            ]
            return picked & within

        masks = None
        if self.masks is not None:
            masks = seen(self.masks[kept])
            shown = masks.flatten(1).any(1)
            kept[kept.clone()], masks = shown, masks[shown]
        assert self.difficult is not None
        ignore = None if self.ignore is None else seen(self.ignore)
        return Truth(size, boxes[kept], self.labels[kept], masks, self.difficult[kept], ignore)

    def region(self) -> Tensor:
        """Returns (H, W) bool: the union of the objects, their masks where there are any, else their boxes."""
        if self.masks is not None:
            return self.masks.any(0)
        ys, xs = (torch.arange(n) + 0.5 for n in self.size)
        x0, y0, x1, y1 = self.boxes[:, :, None].unbind(1)
        inside = ((ys >= y0) & (ys < y1))[:, :, None] & ((xs >= x0) & (xs < x1))[
            :, None, :
        ]  # (B, H, W)
        return inside.any(0)
