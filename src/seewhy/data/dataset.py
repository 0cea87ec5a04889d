"""What every data set is: pictures with labels, and with boxes and masks where they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch.utils.data import Dataset

from ..results import Truth


@dataclass(frozen=True, eq=False)
class Example:
    """One picture of a data set.

    Attributes:
        name: unique in the data set: a path below its root, or an id.
        photo: RGB.
        labels: the classes it shows, in order; exactly one in a single-label data set.
        truth: where they are; None where nobody marked it.
    """

    name: str
    photo: Image.Image
    labels: tuple[int, ...]
    truth: Truth | None = None


class LabelledImages(Dataset[Example]):
    """Pictures with labels, read one by one.

    Attributes:
        title: what the data set is called, for reports.
        classes: a name for each class, in order.
        multi_label: whether a picture may show several classes, or none.
        names: of the pictures, in order.
        labels: of the pictures, known without opening them.
    """

    title: str
    classes: tuple[str, ...]
    multi_label: bool
    names: Sequence[str]
    labels: Sequence[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """Reads one picture; ImageError, with its name, where it cannot be read."""
        raise NotImplementedError
