"""Names as people write them, of methods, metrics, solvers and styles, and of a model's classes. Loads nothing slow."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from .errors import InputError, TargetError, did_you_mean

REPR = 590  # characters of a repr: notebooks store it beside every picture
CROPS = ("center", "none")
FITS = ("squash", "pad")
AUTO = "auto"  # the method that localizes best and tells classes apart best, by measurement:
FIRST, INSTEAD = "layer_relevance", "grad_cam"  # the one, and what stands in where it cannot
_SHOWN = 4  # of several classes of one name
_TOP = re.compile(r"top(\d+)")
_RATHER_THAN = re.compile(r"\s+rather[ _]than\s+")
_THE_REST = re.compile(r"\s+rather[ _]than\s+the rest\s*$")
_OF_TWO = ("margin", "rather_than")  # forms of two classes


def find_name(
    given: str, known: Iterable[str], titles: Mapping[str, str] | None = None
) -> str | None:
    """Which of the known names is meant; None for none, or for several.

    A name is found as it is, else whatever its case, blanks and hyphens: "Grad-CAM", "gradcam" and "grad cam" are
    grad_cam, "grad-cam++" is grad_cam_pp. `titles` are what people call some of them.
    """
    names = list(known)
    if given in names:
        return given
    meant = {
        name
        for name in names
        if plain(given) in (plain(name), plain((titles or {}).get(name, name)))
    }
    return meant.pop() if len(meant) == 1 else None


def is_auto(methods: Sequence[object]) -> bool:
    """Whether the choice of the method is left to seewhy.

    Raises:
        InputError: and others are named beside.
    """
    if AUTO in methods and len(methods) > 1:
        raise InputError("method 'auto' chooses one by itself; leave it out beside others")
    return AUTO in methods


def known_name(
    given: str,
    known: Iterable[str],
    *,
    what: str,
    titles: Mapping[str, str] | None = None,
    ways: str = "",
) -> str:
    """As `find_name`, of what there has to be.

    Args:
        given: as it was written.
        known: all there are.
        what: kind of name, for the error.
        titles: as in `find_name`.
        ways: how to learn which there are, for the error; all are named unless given.

    Raises:
        InputError: none is meant, or several are.
    """
    names = list(known)
    found = find_name(given, names, titles)
    if found is None:
        listed = ways or f"accepted: {', '.join(names)}"
        raise InputError(f"{what} {given!r} is unknown{did_you_mean(given, names)} ({listed})")
    return found


def check_option(of: str, option: str, known: Iterable[str]) -> None:
    """Says that something has no such option, and which it has.

    Raises:
        InputError: it is not among the known.
    """
    names = list(known)
    if option not in names:
        hint = did_you_mean(option, names)
        raise InputError(
            f"{of} has no option {option!r}{hint}; its options: {', '.join(names) or 'none'}"
        )


def check_device(name: str, kinds: Iterable[str]) -> None:
    """Says that a text names no kind of device, such as "cuda:one".

    Raises:
        InputError: it is none of the kinds, with or without a number.
    """
    kind, colon, number = str(name).partition(":")
    known = list(kinds)
    if kind not in known or (colon and not number.isdecimal()):
        hint = did_you_mean(kind, known) if kind not in known else ""
        accepted = f"accepted: {', '.join(known)}, with a number as 'cuda:1'"
        raise InputError(f"device {name!r} cannot be used{hint}; {accepted}; 'cpu' always can")


def read_seen(crop: str | None, resize: int | str | None) -> tuple[str | None, int | str | None]:
    """Which part of a photo a model is to see (`data.Preprocess.seeing`): one of `CROPS`, and of `FITS` or a number.

    Raises:
        InputError: one of them is unknown, or they say two things.
    """
    if crop is not None:
        crop = known_name(crop, CROPS, what="crop")
    if isinstance(resize, str):
        number = as_number(resize)
        ways = f"accepted: {', '.join(FITS)}, or the pixels of the shorter side before the crop"
        resize = known_name(resize, FITS, what="resize", ways=ways) if number is None else number
    if crop == "none" and isinstance(resize, int):
        raise InputError(
            f"crop 'none' shows the whole photo, and resize {resize} is for one that is cropped; use 'squash' or 'pad'"
        )
    if crop == "center" and isinstance(resize, str):
        raise InputError(
            f"resize {resize!r} shows the whole photo, of which crop 'center' has nothing to cut; leave out either"
        )
    return crop, resize


def plain(name: str) -> str:
    """A name without case, blanks, hyphens and spellings that differ between countries; "++" is "pp"."""
    letters = re.sub(
        r"[^\w]|_", "", name.casefold().replace("+", "p").replace("\N{MULTIPLICATION SIGN}", "x")
    )
    return letters.replace("iz", "is").replace("gray", "grey")


def split_names(text: str, is_one: Callable[[str], bool] = lambda _: False) -> list[str]:
    """The parts of a list with commas; what `is_one` says is a name stays whole, the longest first.

    "top3,top1" are two; "crane, bird" is one where a class is called so.
    """
    pieces = text.split(",")
    found: list[str] = []
    start = 0
    while start < len(pieces):
        runs = (",".join(pieces[start:stop]) for stop in range(len(pieces), start + 1, -1))
        run = next((run for run in runs if is_one(run.strip())), pieces[start])
        found.append(run.strip() if len(pieces) > 1 else run)
        start += run.count(",") + 1
    return [one for one in found if one] or [text]


def split_targets(text: str, labels: Spellings | None, forms: Iterable[str]) -> list[str]:
    """The targets in a list with commas; what is a class's name, or a form of one, stays whole."""
    known = list(forms)

    def is_one(part: str) -> bool:
        _, asked = parted_form(part, known)
        readings = [(asked,), *pairs_in(asked)]
        return any(all(map(is_class, reading)) for reading in readings)

    def is_class(name: str) -> bool:
        if labels is None:
            return False
        return bool(labels.columns(name)) or rank_in(name) is not None

    return split_names(text, is_one)


def parted_form(target: str, forms: Iterable[str]) -> tuple[str, str]:
    """What a target asks of which class: ("margin", "A/B") of "margin:A/B", and ("", "A") of a name alone.

    "A rather than B" is the form "rather_than", "A rather than the rest" is "log_odds:A".
    """
    known = list(forms)
    form, colon, text = target.partition(":")
    if colon and form in known:
        return form, text.strip()
    rest = _THE_REST.search(target)
    if rest and "log_odds" in known:
        return "log_odds", target[: rest.start()].strip()
    if "rather_than" in known and _RATHER_THAN.search(target):
        return "rather_than", target.strip()
    return "", target


def rank_in(text: str) -> int | None:
    """The 2 of "top2"."""
    found = _TOP.fullmatch(text)
    return int(found[1]) if found else None


def pairs_in(text: str) -> list[tuple[str, str]]:
    """Every way to read a text as two, neither of which is empty: "A rather than B", else "A/B"."""
    cuts = list(_RATHER_THAN.finditer(text)) or list(re.finditer("/", text))
    pairs = [(text[: cut.start()], text[cut.end() :]) for cut in cuts]
    return [pair for pair in pairs if all(pair)]


def check_classes(target: str, labels: Spellings, forms: Iterable[str]) -> None:
    """Says of the class that a target such as "tabby", "probability:tabby" or "margin:A/B" names that there is none.

    Raises:
        TargetError: there is none of that name, or several are meant.
    """
    form, asked = ("", target) if labels.columns(target) else parted_form(target, forms)
    pairs = pairs_in(asked) if form in _OF_TWO else []
    if len(pairs) > 1:
        return  # which of them is meant, the model's names say
    for each in pairs[0] if pairs else (asked,):
        if rank_in(each) is None:
            check_column(labels.column(each), len(labels.labels))


def check_column(index: int, k: int) -> int:
    """Returns the column if it is one of k.

    Raises:
        TargetError: it is none.
    """
    if not 0 <= index < k:
        raise TargetError(
            f"target {index} is not a class of the model, which has {k}: 0 to {k - 1}"
        )
    return index


class Spellings:
    """The columns that class names mean: by the name as it is written, else in any case, else by a synonym.

    Synonyms are the parts of a name between commas.

    Args:
        labels: a name for each column.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels
        self._written: dict[str, list[int]] = {}
        self._whole: dict[str, list[int]] = {}
        self._synonyms: dict[str, list[int]] = {}
        for i, label in enumerate(labels):
            self._written.setdefault(label, []).append(i)
            self._whole.setdefault(label.strip().casefold(), []).append(i)
            for part in {part.strip().casefold() for part in label.split(",")}:
                self._synonyms.setdefault(part, []).append(i)
        self._all_numbers = all(as_number(label) is not None for label in labels)

    def columns(self, name: str) -> list[int]:
        """The columns that have this name: one where it says which, several, or none."""
        folded = name.strip().casefold()
        if not folded:
            return []
        return (
            self._written.get(name) or self._whole.get(folded) or self._synonyms.get(folded) or []
        )

    def column(self, name: str, *, asked: str = "target") -> int:
        """The column that a text names, or the number it is.

        Raises:
            TargetError: no class or several have this name.
        """
        found = self.columns(name)
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(
                f"{i} ({self.labels[i]})" for i in found[:_SHOWN]
            )  # ImageNet has two cranes
            raise TargetError(
                f"{asked} {name!r} is the name of several classes: {several}; give the index"
            )
        number = as_number(name)
        if number is not None and not self._all_numbers:
            return number
        hint = did_you_mean(name, self.labels)
        if number is not None:
            first, last = self.labels[0], self.labels[-1]
            hint = f", whose classes have numbers for names: {first} to {last}; a whole number is the column"
        raise TargetError(f"{asked} {name!r} is not a label of the model{hint}")


def as_number(text: str) -> int | None:
    """The whole number that a text is, None where it is none."""
    text = text.strip()
    return int(text) if text.removeprefix("-").isdecimal() else None


def at_most(text: str, most: int = REPR) -> str:
    """A text cut in its middle to at most so many characters."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 3]} … {text[-end:]}"


def table_lines(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Rows of equal keys as lines in columns two blanks apart, below a line of the keys; wide letters count twice."""
    cells = [[*rows[0]], *([*map(str, row.values())] for row in rows)] if rows else []
    widths = [max(map(_columns_of, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(_padded, row, widths)).rstrip() for row in cells]


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _columns_of(text))


def _columns_of(text: str) -> int:
    """How wide a terminal shows a text."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
