"""Caltech-UCSD Birds 200-2011 (Wah et al., 2011)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...arguments import checked_class
from ...errors import InputError
from ..dataset import OnError, check_split
from ..intake.intake import Intake, extent
from ..intake.listing import elsewhere
from ..intake.masks import read_mask
from ..intake.records import Annotation, MarkedObject, Mask, Picture, Size
from .files import PictureFiles, existing_folder, hash_split, read_table

_HELD_OUT = {"val": 0.1}


@checked_class
class Cub(PictureFiles):
    """CUB-200-2011, single-label, with a box for each bird, and its mask where "segmentations" is there.

    Files: images.txt, classes.txt, train_test_split.txt, image_class_labels.txt, bounding_boxes.txt, images/. Boxes (x,
    y, width, height), from 0, become half-open corners. A mask's pixels are those that more than half of the annotators
    marked. The authors have no "val": a tenth of each class's training pictures, by a hash of their paths, is it, and
    is not in "train".

    Args:
        root: CUB_200_2011.
        split: "train", "val" or "test".
        seed: of the hash.
        on_error: as in `LabeledImages`.

    Raises:
        InputError: a file that the layout needs is missing or torn.

    Example:
        >>> data = seewhy.data.Cub("CUB_200_2011")
        >>> data.classes, data[0].truth.boxes
        (('Black footed Albatross', 'Laysan Albatross'), tensor([[ 2.,  2., 12.,  7.]]))
    """

    def __init__(
        self, root: str | Path, *, split: str = "train", seed: int = 0, on_error: OnError = "raise"
    ) -> None:
        check_split(split)
        folder = existing_folder(root, "CUB-200-2011: CUB_200_2011")
        names = read_table(folder / "images.txt", "picture")
        classes = read_table(folder / "classes.txt", "class")
        intake = Intake(classes, extent, on_error)
        label_of, trained_on, boxes = (
            _of_pictures(folder / name, names, intake)
            for name in ("image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt")
        )
        split_of = _splits(names, label_of, trained_on, seed)
        self._masks = folder / "segmentations"
        files = [folder / "images" / name for name in names.values()]
        self._birds: list[MarkedObject] = []
        pictures = []
        for key, path in zip(names, files, strict=True):
            if split_of[key] != split:
                continue
            bird = MarkedObject(f"bird {key}", label_of[key], boxes[key].split())
            labels = intake.shown(names[key], [bird])
            with intake.whole(names[key]):
                if not labels:
                    raise InputError(
                        f"'{names[key]}' has the class {label_of[key]!r}, which classes.txt has not; mend it"
                    )
                pictures.append(Picture(names[key], path, labels))
                self._birds.append(bird)
        titles = (name.split(".", 1)[-1].replace("_", " ") for name in classes.values())
        others = elsewhere(files, list(split_of.values()), split)
        super().__init__(
            f"CUB-200-2011, {split}", titles, pictures, intake, within=folder, others=others
        )

    def annotation(self, index: int) -> Annotation:
        path = (self._masks / self.names[index]).with_suffix(".png")
        mask = partial(_half_of_the_votes, path) if path.exists() else None
        return Annotation([self._birds[index]._replace(mask=mask)], scaled=True)


def _splits(
    names: dict[str, str], label_of: dict[str, str], trained_on: dict[str, str], seed: int
) -> dict[str, str]:
    """The split of each picture, in the order of their names."""
    for key, said in trained_on.items():
        if said not in ("0", "1"):
            raise InputError(f"'train_test_split.txt' has {said!r} of picture {key}; give 0 or 1")
    keys = [key for key in names if trained_on[key] == "1"]
    held_out = hash_split(
        [names[k] for k in keys], [label_of[k] for k in keys], seed=seed, shares=_HELD_OUT
    )
    return dict.fromkeys(names, "test") | dict(zip(keys, held_out, strict=True))


def _of_pictures(path: Path, names: dict[str, str], intake: Intake) -> dict[str, str]:
    """What a file says of each picture; of one that is not listed, a fault."""
    found = read_table(path, "picture")
    for key in names:
        if key not in found:
            raise InputError(
                f"'{path}' says nothing of picture {key}, which images.txt has; get it anew"
            )
    for key in found.keys() - names.keys():
        intake.fault(f"picture {key}", f"'{path.name}': its picture is not listed")
    return found


def _half_of_the_votes(path: Path, size: Size) -> Mask:
    return read_mask(path, above=127)
