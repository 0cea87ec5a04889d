"""ImageNet's classification and localisation task (Russakovsky et al., IJCV 2015)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...arguments import checked_class
from ...errors import InputError
from ..dataset import OnError, check_split
from ..intake.intake import Intake
from ..intake.listing import Elsewhere
from ..intake.records import Annotation, Box, Picture
from .annotation_xml import read_annotation
from .files import PictureFiles, existing_folder, files_by_stem, read_table, read_text, torn


@checked_class
class ImageNet(PictureFiles):
    """ImageNet CLS-LOC, single-label, with boxes where they were drawn.

    Files: LOC_synset_mapping.txt; ILSVRC/Data/CLS-LOC/train/SYNSET/*.JPEG and val/*.JPEG; ILSVRC/Annotations/CLS-LOC
    likewise with .xml; LOC_val_solution.csv with the labels of val. Without that file, val's annotations say them.
    Pictures may have other endings. Boxes are written from 0 with the last pixel inside, and become half-open. Test
    pictures have no public labels.

    Args:
        root: the folder with LOC_synset_mapping.txt.
        split: "train" or "val".
        blacklist: a file of numbers, from 1, of pictures of val that the task leaves out, one a line.
        on_error: as in `LabeledImages`.

    Raises:
        InputError: a file that the layout needs is missing or torn, or the split is "test".

    Example:
        >>> data = seewhy.data.ImageNet("imagenet", split="val")
        >>> data.classes, data[0].truth.boxes
        (('tench, Tinca tinca', 'goldfish, Carassius auratus'), tensor([[ 1.,  2., 11., 13.]]))
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
        synsets = read_table(self.root / "LOC_synset_mapping.txt", "the class")
        self._intake = Intake(synsets, _last_inside, on_error)
        self._number = {synset: label for label, synset in enumerate(synsets)}
        data = self.root / "ILSVRC" / "Data" / "CLS-LOC"
        folder = existing_folder(data / split, f"ImageNet's pictures, {split}")
        self._annotations = self.root / "ILSVRC" / "Annotations" / "CLS-LOC" / split
        pictures = self._train(folder) if split == "train" else self._val(folder, blacklist)
        pictures.sort()
        other = {"train": "val", "val": "train"}[split]
        others = (
            {other: Elsewhere(partial(_all_files, data / other), data / other)}
            if (data / other).is_dir()
            else {}
        )
        title = f"ImageNet, {split}"
        super().__init__(
            title,
            synsets.values(),
            pictures,
            self._intake,
            within=self.root,
            others=others,
            folder=folder,
        )

    def _train(self, folder: Path) -> list[Picture]:
        """The pictures, "SYNSET/ID", in the synsets' folders."""
        unknown = sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.is_dir() and entry.name not in self._number
        )
        if unknown:
            raise InputError(
                f"'{folder}' has '{unknown[0]}', which LOC_synset_mapping.txt has not; move it away"
            )
        found = []
        for synset, label in self._number.items():
            inside = folder / synset
            files = files_by_stem(inside)
            found += [
                Picture(f"{synset}/{stem}", inside / name, (label,)) for stem, name in files.items()
            ]
        return found

    def _val(self, folder: Path, blacklist: str | Path | None) -> list[Picture]:
        files = files_by_stem(folder)
        said = self._val_labels()
        for name in sorted(files.keys() - said.keys()):
            with self._intake.whole(name):
                raise InputError(
                    f"picture '{folder / files[name]}' has no label; add it to the list, or move it away"
                )
        barred = set() if blacklist is None else _numbers(Path(blacklist).expanduser())
        found = []
        for name, synset in said.items():
            if barred and _number_of(name) in barred:
                continue
            with self._intake.whole(name):
                if synset not in self._number:
                    raise InputError(
                        f"val has the label '{synset}' of '{name}', which LOC_synset_mapping.txt has not"
                    )
                found.append(
                    Picture(name, folder / files.get(name, f"{name}.JPEG"), (self._number[synset],))
                )
        return found

    def _val_labels(self) -> dict[str, str]:
        """The synset of each picture: as the list of labels has it, or else its annotation."""
        solution = self.root / "LOC_val_solution.csv"
        if solution.exists():
            rows = read_table(solution, "the picture", ",")
            rows.pop("ImageId", None)  # the names of the columns
            return {name: said.split()[0] if said else "" for name, said in rows.items()}
        found = {}
        for path in sorted(self._annotations.glob("*.xml")):
            with self._intake.whole(path.stem):
                found[path.stem] = _only_class(path)
        return found

    def annotation(self, index: int) -> Annotation | None:
        path = self._annotations / f"{self.names[index]}.xml"
        return read_annotation(path) if path.exists() else None


def _last_inside(x0: float, y0: float, x1: float, y1: float) -> Box:
    return x0, y0, x1 + 1, y1 + 1


def _only_class(path: Path) -> str:
    named = sorted({str(one.category) for one in read_annotation(path).objects})
    if len(named) > 1:
        raise InputError(
            f"annotation '{path}' has the classes {named}; a picture of ImageNet has one; mend it"
        )
    return named[0] if named else ""


def _all_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def _number_of(name: str) -> int | None:
    """What a picture's name ends in, "ILSVRC2012_val_00000293"."""
    end = name.rpartition("_")[2]
    return int(end) if end.isdecimal() else None


def _numbers(path: Path) -> set[int]:
    found = set()
    for number, line in enumerate(read_text(path, "the blacklist").split("\n"), 1):
        if line.strip() and not line.strip().isdecimal():
            raise torn(path, "the blacklist", number, line, "one number")
        found |= {int(line)} if line.strip() else set()
    return found
