"""Training pictures beside the test picture that they taught, and training pictures whose labels look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...data.images import ImageLike, drawn_photo
from ...data.placement import Placement
from ...engine.flow import LayerLike
from ...engine.targets.resolve import TargetLike
from ...errors import InputError, LayerError, ModelError
from ...maps.attribution import Attribution
from ...render import drawing, panels, reading
from ...render.overlay import attribution_picture, color_bar, seen_picture
from ...render.sheet import captioned, grid
from ..index.examples import shown
from ..index.index import InfluenceIndex
from ..index.manifest import chances_of, model_photo, outputs_of, preprocess_of
from ..index.questions import InfluenceQuery, Influential, Suspect
from ..solvers.solver import Solver, is_calibrated
from .matching import Matches, match_regions

TestPicture = Tensor | Sequence[ImageLike]  # (1, C, H, W), or a photo in a list
_MARGIN, _GAP, _SIDE, _TEST, _COLUMNS = 28, 22, 150, 230, 6
_WIDEST = 260  # of a caption that is wider than its picture
_MOST = 24  # training pictures of each end on a sheet
_MAPS = (
    "Bright places carry the influence, be it help or harm: above those of the training picture, below it those of the "
    "test picture. Each map is scaled by itself; its brightest 1 % share the top colour."
)
_NOWHERE = "nowhere", "no place of it carries this influence, which goes through the model's bias"
_NUMBER = (
    "Influence: by how much {} would {} (+) or {} (-) without the training picture, to first order."
)
_RANKS = "Score: that of {}. Only its order counts; it does not say by how much {} would change."
_INEXACT = (
    "The maps do not divide the scores of {}, "
    "but the product of both pictures' gradients at the model's last layer."
)
_ANSWERS = "Labelled: what the training data say. Model: its answer to the training picture, bold where that differs."
_FOOT = (
    "Sorted by {}, largest first: what the model could only learn by heart. Wrong labels are such, and so are rare or "
    "odd pictures; look before you relabel. Loss: the plain loss of the label, which often finds wrong labels as well."
)


@dataclass(frozen=True, eq=False)
class _Shown:
    """A picture, where on it the model looked, and a map to lay over it."""

    photo: Image.Image
    placement: Placement
    attribution: Attribution | None = None
    index: int = 0

    def draw(self, side: int) -> Image.Image:
        """At about `side` x `side` pixels."""
        size = panels.panel_size((self.photo.height, self.photo.width), side, longest=2 * side)
        photo, placement = panels.resized(self.photo, self.placement, size)
        if self.attribution is None:
            return seen_picture(photo, placement)
        if self.attribution.status[self.index] == "empty":
            picture = seen_picture(photo, placement)
            drawing.label_strip(picture, *_NOWHERE)
            return picture
        return attribution_picture(self.attribution, self.index, photo, placement, style="heatmap")


def influence_sheet(
    index: InfluenceIndex,
    image: TestPicture,
    found: InfluenceQuery,
    *,
    title: str = "What taught this answer",
    label: int | None = None,
    target: TargetLike | None = None,
    layer: LayerLike = None,
) -> Image.Image:
    """Draws a test picture, and in two rows the training pictures that helped and that harmed most.

    Below each training picture is the test picture again, where the two match (`seewhy.influence.match_regions`); these
    maps are left out where the model has no layer for them. At most 24 of each are drawn.

    Args:
        index: Fit with data, or opened with it.
        image: The test picture, as `index.query` was given it: (1, C, H, W), or a photo in a list.
        found: What `index.query` said of it.
        title: The headline.
        label: As `index.query` was given it.
        target: Likewise.
        layer: Where feature maps are read.
    """
    helpful = found.helpful[:_MOST]
    harmful = found.harmful[:_MOST]
    both = (*helpful, *harmful)
    ids = [one.index for one in both]
    matched = _maps(index, image, ids, label=label, target=target, layer=layer)
    sides = matched.carrying() if matched else None
    test = _test_picture(index, image)
    answers = _answers(index, [index.data[i][0][None] for i in ids])
    columns = [_column(index, one, answers[i], i, test, sides) for i, one in enumerate(both)]
    words = _words(index.solver, found.about)
    rows = [
        _row(words.helpful, words.no_helpful, columns[: len(helpful)]),
        _row(words.harmful, words.no_harmful, columns[len(helpful) :]),
    ]
    share = panels.percent(_answers(index, [index.inputs(image)])[0][1])
    says = (f"The model says: {found.predicted},", share, False)
    lines = [("The test picture", "", True), says, (f"Asked about: {found.about}", "", False)]
    left = _under_caption(lines, test.draw(_TEST), _TEST)
    right = _one_below_the_other(rows, 26)
    body = _beside(left, right)
    bar = color_bar("heatmap", length=180, labels=("no part", "carries most")) if sides else None
    notes = _notes(matched, index.solver.name)
    if both:
        notes += [words.number, _ANSWERS]
    if panels.is_cut(test.placement):
        notes.append(reading.UNSEEN)
    if max(len(found.helpful), len(found.harmful)) > _MOST:
        notes.append(f"Of each end the first {_MOST} are drawn.")
    return _page(title, body, notes, bar, found.remarks)


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    start = left.width + _GAP + 14
    size = (start + right.width, max(left.height, right.height))
    both = Image.new("RGB", size, drawing.PAPER)
    both.paste(left, (0, 0))
    both.paste(right, (start, 0))
    return both


def _notes(matched: Matches | None, solver: str) -> list[str]:
    """What is to be said of the maps, where there are any."""
    if matched is None:
        return []
    return [_MAPS] if matched.exact else [_MAPS, _INEXACT.format(solver)]


def mislabeled_sheet(index: InfluenceIndex, suspects: Sequence[Suspect]) -> Image.Image:
    """Draws training pictures whose label may be wrong, with the label and the model's answer.

    Args:
        index: Fit with data, or opened with it.
        suspects: See `seewhy.influence.mislabeled`.

    Raises:
        InputError: There are none.
    """
    if not suspects:
        raise InputError("suspects is empty; seewhy.influence.mislabeled(index) lists some")
    cells = []
    pictures = [_Shown(*index.data.photo(one.index)) for one in suspects]
    for one, loss, picture in zip(suspects, own_losses(index, suspects), pictures, strict=True):
        says = _says(index, one, (one.predicted_label, one.probability))
        score = (f"self-influence {one.score:.2g}", "", False)
        lines = [
            (f"labelled {one.label_name}", "", True),
            says,
            score,
            (f"loss {loss:.2g}", "", False),
        ]
        cells.append(
            _under_caption([*lines, (_example_name(one), "", False)], picture.draw(_SIDE), _SIDE)
        )
    body = _in_columns(cells)
    what = "influence" if is_calibrated(index.solver) else f"score by {index.solver.name}"
    notes = [_FOOT.format(f"the {what} of each training picture on its own loss"), _ANSWERS]
    cut = any(panels.is_cut(picture.placement) for picture in pictures)
    notes += [reading.UNSEEN] if cut else []
    return _page(f"Labels to check first, of {len(index):,}", body, notes, None, index.remarks)


def own_losses(index: InfluenceIndex, examples: Sequence[Influential]) -> list[float]:
    """The loss of each training example for its own label."""
    if not examples:
        return []
    labels = torch.tensor([one.label for one in examples])
    return [float(loss) for loss in index.problem.loss(_outputs(index, examples), labels)]


def _outputs(index: InfluenceIndex, examples: Sequence[Influential]) -> Tensor:
    """What the model says of training examples, (B, K)."""
    each = (index.data[one.index][0][None] for one in examples)
    return torch.cat([outputs_of(index.problem.call, image).float() for image in each])


def _answers(index: InfluenceIndex, images: Sequence[Tensor]) -> list[tuple[int, float]]:
    """The likeliest class of each picture (1, C, H, W), and its probability."""
    best = [chances_of(index.problem.call, image)[0].max(0) for image in images]
    return [(int(one.indices), float(one.values)) for one in best]


def _says(
    index: InfluenceIndex, one: Influential, answer: tuple[int, float]
) -> tuple[str, str, bool]:
    """A line of the model's answer to a training picture, bold where the label is another."""
    label, probability = answer
    return f"model: {index.classes[label]},", panels.percent(probability), label != one.label


@dataclass(frozen=True)
class _Words:
    """What a sheet says of its two rows, of a row without pictures, and of the number above each picture."""

    helpful: str
    harmful: str
    no_helpful: str
    no_harmful: str
    number: str


def _words(solver: Solver, about: str) -> _Words:
    loss = about.startswith("the loss of ")
    what, (up, down) = (
        (about, ("rise", "fall")) if loss else (f"the score of {about}", ("fall", "rise"))
    )
    if is_calibrated(solver):
        helpful, harmful = (f"without each of them {what} would {way}" for way in (up, down))
        none, none_harmful = (
            f"there is no training picture without which {what} would {way}" for way in (up, down)
        )
        number = _NUMBER.format(what, up, down)
    else:
        helpful, harmful = (f"{end} scores by {solver.name}" for end in ("highest", "lowest"))
        none, none_harmful = (
            f"no training picture has a score {side} 0" for side in ("above", "below")
        )
        number = _RANKS.format(solver.name, what)
    heads = f"Most helpful: {helpful}", f"Most harmful: {harmful}"
    return _Words(*heads, f"None: {none}.", f"None: {none_harmful}.", number)


def _test_picture(index: InfluenceIndex, image: TestPicture) -> _Shown:
    if isinstance(image, Tensor):
        return _Shown(*shown(image[0], preprocess_of(index.model)))
    photo, preprocess = model_photo(index.model, image[0])
    drawn = drawn_photo(photo)
    return _Shown(drawn, preprocess(photo)[1].scaled(drawn.size[::-1]))


def _maps(
    index: InfluenceIndex,
    image: object,
    ids: Sequence[int],
    *,
    label: int | None,
    target: TargetLike | None,
    layer: LayerLike,
) -> Matches | None:
    """Where each training picture and the test picture match; None where the model cannot say."""
    if not ids:
        return None
    try:
        return match_regions(index, image, ids, label=label, target=target, layer=layer)
    except (LayerError, ModelError):
        if layer is not None:
            raise
        return None


def _column(
    index: InfluenceIndex,
    one: Influential,
    answer: tuple[int, float],
    i: int,
    test: _Shown,
    sides: tuple[Attribution, Attribution] | None,
) -> Image.Image:
    """A training picture with its caption, and where there are maps the test picture below it."""
    photo, placement = index.data.photo(one.index)
    picture = _Shown(photo, placement, sides and sides[1], i).draw(_SIDE)
    number = "influence" if is_calibrated(index.solver) else "score"
    lines = [(f"labelled {one.label_name}", "", True), (number, f"{one.score:+.2g}", False)]
    cells = [
        _under_caption(
            [*lines, _says(index, one, answer), (_example_name(one), "", False)], picture, _SIDE
        )
    ]
    if sides:
        cells.append(_Shown(test.photo, test.placement, sides[0], i).draw(_SIDE))
    return _one_below_the_other(cells, 8)


def _under_caption(
    lines: Sequence[tuple[str, str, bool]],
    picture: Image.Image,
    least: int,
    *,
    widest: int = _WIDEST,
) -> Image.Image:
    """A picture under its caption: at least so wide, and wider where the words need it."""
    face = drawing.font(13, bold=True)
    needed = int(max(face.getlength(f"{text} {ending}") for text, ending, _ in lines)) + 1
    return captioned(picture, lines, max(picture.width, least, min(needed, widest)))


def _example_name(one: Influential) -> str:
    """A name that fits below a picture: a path's last part."""
    return f"example {one.index}" if one.name == str(one.index) else one.name.rpartition("/")[2]


def _row(title: str, nothing: str, cells: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side under a line of words."""
    face = drawing.font(14, bold=True)
    empty = Image.new("RGB", (1, 1), drawing.PAPER)
    body = (
        _in_columns(cells)
        if cells
        else _under_caption([(nothing, "", False)], empty, 300, widest=900)
    )
    tall = drawing.line_height(face) + 8
    row = Image.new(
        "RGB", (max(body.width, int(face.getlength(title)) + 1), tall + body.height), drawing.PAPER
    )
    ImageDraw.Draw(row).text((0, 0), title, font=face, fill=drawing.ACCENT)
    row.paste(body, (0, tall))
    return row


def _in_columns(cells: Sequence[Image.Image]) -> Image.Image:
    """Cells in rows of equal columns."""
    return grid([list(cells[i : i + _COLUMNS]) for i in range(0, len(cells), _COLUMNS)])


def _one_below_the_other(cells: Sequence[Image.Image], gap: int) -> Image.Image:
    height = sum(cell.height for cell in cells) + gap * (len(cells) - 1)
    whole = Image.new("RGB", (max(cell.width for cell in cells), height), drawing.PAPER)
    y = 0
    for cell in cells:
        whole.paste(cell, (0, y))
        y += cell.height + gap
    return whole


def _page(
    title: str,
    body: Image.Image,
    notes: Sequence[str],
    bar: Image.Image | None,
    remarks: Sequence[str] = (),
) -> Image.Image:
    """A headline with what is to know first, the body, a rule, and notes beside a colour bar."""
    head, face = drawing.font(20, bold=True), drawing.font(12)
    content = max(body.width, 480)
    left = bar.width + 18 if bar else 0
    lines = [line for note in notes for line in drawing.wrap(note, face, content - left)]
    warned = [
        line
        for said in remarks
        for line in drawing.wrap(f"{reading.UNSURE}: {said}", face, content)
    ]
    tall = drawing.line_height(face) + 3
    first = _MARGIN + drawing.line_height(head) + 8
    top = first + 10 + tall * len(warned)
    foot = max(tall * len(lines), bar.height if bar else 0)
    page = Image.new(
        "RGB", (content + 2 * _MARGIN, top + body.height + 20 + foot + _MARGIN), drawing.PAPER
    )
    draw, y = ImageDraw.Draw(page), top + body.height + 20
    draw.text(
        (_MARGIN, _MARGIN), drawing.shorten(title, head, content), font=head, fill=drawing.INK
    )
    for i, line in enumerate(warned):
        draw.text((_MARGIN, first + i * tall), line, font=face, fill=drawing.WARN)
    page.paste(body, (_MARGIN, top))
    draw.line((_MARGIN, y - 12, page.width - _MARGIN - 1, y - 12), fill=drawing.RULE)
    if bar:
        page.paste(bar, (_MARGIN, y))
    for i, line in enumerate(lines):
        draw.text((_MARGIN + left, y + i * tall), line, font=face, fill=drawing.FAINT)
    return page
