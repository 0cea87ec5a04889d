"""ImageNet's classification and localisation task (Russakovsky et al., IJCV 2015)."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import InputError
from ..dataset import OnError, check_split
from .annotation_xml import read_objects
from .files import Picture, PictureFiles, existing_folder, read_rows, read_text, torn
from .marks import Box, Marks


class ImageNet(PictureFiles):
    """ImageNet CLS-LOC, single-label, with boxes where they were drawn.

    Files: LOC_synset_mapping.txt; ILSVRC/Data/CLS-LOC/train/SYNSET/*.JPEG and val/*.JPEG; ILSVRC/Annotations/CLS-LOC
    likewise with .xml; LOC_val_solution.csv with the labels of val. Without that file, val's annotations say them.
    Boxes are written from 0 with the last pixel inside, and become half-open. Test pictures have no public labels.

    Args:
        root: the folder with LOC_synset_mapping.txt.
        split: "train" or "val".
        blacklist: a file of numbers, from 1, of pictures of val that the task leaves out, one a line.
        on_error: as in `LabelledImages`.

    Raises:
        InputError: a file that the layout needs is missing or torn, or the split is "test".
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        blacklist: str | Path | None = None,
        on_error: OnError = "raise",
    ) -> None:
        check_split(split)
        if split == "test":
            raise InputError("split='test' of ImageNet has no public labels; use 'val'")
        self.root = existing_folder(root, "ImageNet, with LOC_synset_mapping.txt in it")
        synsets = read_rows(self.root / "LOC_synset_mapping.txt", "the list of classes", 2)
        self._number = {synset: label for label, (synset, _) in enumerate(synsets)}
        folder = existing_folder(self.root / "ILSVRC" / "Data" / "CLS-LOC" / split, f"ImageNet's pictures, {split}")
        self._annotations = self.root / "ILSVRC" / "Annotations" / "CLS-LOC" / split
        labels = self._train(folder) if split == "train" else self._val(folder, blacklist)
        pictures = [
            Picture(name, folder / f"{name}.JPEG", (self._number[synset],)) for name, synset in sorted(labels.items())
        ]
        super().__init__(f"ImageNet, {split}", (title for _, title in synsets), pictures, on_error=on_error)

    def _train(self, folder: Path) -> dict[str, str]:
        """The synset of each picture, "SYNSET/ID", of the pictures in the synsets' folders."""
        unknown = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in self._number)
        if unknown:
            raise InputError(f"'{folder}' has '{unknown[0]}', which LOC_synset_mapping.txt has not; move it away")
        found = {}
        for synset in self._number:
            if (folder / synset).is_dir():
                with os.scandir(folder / synset) as entries:
                    names = [entry.name for entry in entries if entry.name.endswith(".JPEG")]
                found.update({f"{synset}/{name.removesuffix('.JPEG')}": synset for name in names})
        return found

    def _val(self, folder: Path, blacklist: str | Path | None) -> dict[str, str]:
        solution = self.root / "LOC_val_solution.csv"
        if solution.exists():
            rows = read_rows(solution, "the list of labels", 2, ",")[1:]  # after the names of the columns
            found = {name: said.split()[0] if said else "" for name, said in rows}
        else:
            found = {path.stem: self._annotated(path) for path in self._annotations.glob("*.xml")}
        unknown = sorted(set(found.values()) - set(self._number))
        if unknown:
            raise InputError(f"val has the label '{unknown[0]}', which LOC_synset_mapping.txt has not; get it anew")
        barred = set() if blacklist is None else _numbers(Path(blacklist).expanduser())
        return {name: synset for name, synset in found.items() if not barred or int(name.split("_")[-1]) not in barred}

    def _annotated(self, path: Path) -> str:
        objects = read_objects(path)
        return objects[0].name if objects else ""

    def marks(self, index: int, size: tuple[int, int]) -> Marks | None:
        path = self._annotations / f"{self.names[index]}.xml"
        if not path.exists():
            return None
        boxes: list[Box] = []
        labels: list[int] = []
        for one in read_objects(path):
            if one.name not in self._number:
                raise InputError(
                    f"annotation '{path}' has the class '{one.name}', which is not in the mapping; mend it"
                )
            x0, y0, x1, y1 = one.corners
            boxes.append((x0, y0, x1 + 1, y1 + 1))
            labels.append(self._number[one.name])
        return Marks(boxes, labels)


def _numbers(path: Path) -> set[int]:
    found = set()
    for number, line in enumerate(read_text(path, "the blacklist").split("\n"), 1):
        if line.strip() and not line.strip().isdecimal():
            raise torn(path, "the blacklist", number, line, "one number")
        found |= {int(line)} if line.strip() else set()
    return found
