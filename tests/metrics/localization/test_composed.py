"""Pairs and mosaics of photos of one object: what is chosen, where it lies, what is scored, and what is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.data.dataset import Example, LabeledImages
from seewhy.data.preprocess import Preprocess
from seewhy.engine.call import Call
from seewhy.errors import ImageError, InputError, ModelError, SeewhyWarning
from seewhy.methods.photos import Source
from seewhy.methods.request import Request
from seewhy.metrics import PairShare, PixelAveragePrecision
from seewhy.metrics.localization.board import TRUE_CLASS
from seewhy.metrics.localization.composed import (
    Cells,
    Composed,
    Singles,
    confident_cells,
    fill_of,
    mosaic_members,
    pair_members,
    singles_of_data,
    singles_of_photos,
    takes_size,
)
from seewhy.metrics.localization.evaluate_composed import composed_studies

SIDE = 8
PLAIN = Preprocess((SIDE, SIDE), None, (0.5,) * 3, (0.5,) * 3, "bilinear")
COLORS = ("red", "green", "blue", "yellow")
PIXELS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


class Colors(nn.Module):
    """Scores how much of each colour there is: its CAM is where that colour is."""

    def __init__(self, sure: float = 20.0) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 4, bias=False)
        colors = 2 * torch.tensor([PIXELS[name] for name in COLORS]) / 255 - 1
        with torch.no_grad():
            self.conv.weight.copy_(colors[:, :, None, None])
            self.conv.bias.fill_(-2.0)
            self.fc.weight.copy_(sure * torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


class OfOneSize(Colors):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (SIDE, SIDE):
            raise RuntimeError("another size")
        return super().forward(x)


def model_of(net: nn.Module) -> seewhy.Model:
    return seewhy.wrap(net.eval(), preprocess=PLAIN, labels=COLORS, name="colors", gives="logits")


def plain(color: str) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), PIXELS[color])


class Plain(LabeledImages):
    """Pictures of one colour each, some of which bear the name of another, and none is marked."""

    title, classes, multi_label = "plain", COLORS, False

    def __init__(self, shown: list[str], said: list[str] | None = None) -> None:
        self.shown = shown
        self.names = [f"{i}.png" for i in range(len(shown))]
        self.labels = [(COLORS.index(name),) for name in said or shown]

    def __getitem__(self, index: int) -> Example:
        return Example(self.names[index], plain(self.shown[index]), self.labels[index])


def cells_of(*colors: str) -> Cells:
    columns = [COLORS.index(color) for color in colors]
    names = [f"{i}" for i in range(len(colors))]
    rivals = [{column} for column in columns]
    return Cells(names, [plain(c) for c in colors], columns, rivals, len(colors))


def chosen(net: nn.Module, photos: list[Singles], confidence: float, enough: int = 99) -> Cells:
    return confident_cells(
        Call(net, gives="logits"), PLAIN, photos, confidence=confidence, enough=enough
    )


def test_only_photos_that_the_model_is_sure_of_and_right_about_are_taken() -> None:
    x = PLAIN.batch([plain("red"), plain("blue"), Image.new("RGB", (SIDE, SIDE))])[0]
    asked = Singles(("a", "b", "grey"), x)
    found = chosen(model_of(Colors()).module, [asked], 0.9)
    assert (found.names, found.columns, found.seen) == (["a", "b"], [0, 2], 3)
    assert not found.are_known
    assert found.pictures[1].getpixel((3, 3)) == PIXELS["blue"]
    known = chosen(model_of(Colors()).module, [asked._replace(columns=[0, 1, 3])], 0.0)
    assert (known.names, known.are_known) == (["a"], True)
    first = chosen(model_of(Colors()).module, [asked] * 5, 0.9, enough=3)
    assert (len(first), first.seen) == (4, 6)


def test_no_probability_is_told() -> None:
    net = seewhy.wrap(Colors().eval(), gives="score")
    x = PLAIN.batch([plain("red")])[0]
    with pytest.raises(ModelError, match="has no probability"):
        confident_cells(
            seewhy.Call(net.module, gives="score"), PLAIN, [Singles("a", x)], confidence=0, enough=1
        )


def test_pairs_are_of_two_classes_that_are_not_mixed_up() -> None:
    cells = cells_of("red", "red", "green", "blue")
    cells.rivals[3] |= {1}  # the blue one looks green too
    found = pair_members(cells, count=20, confidence=0.5, seed=0)
    assert {frozenset(pair) for pair in found} == {
        frozenset(pair) for pair in ((0, 2), (0, 3), (1, 2), (1, 3))
    }
    assert found == pair_members(cells, count=20, confidence=0.5, seed=0)
    assert len(pair_members(cells, count=2, confidence=0.5, seed=0)) == 2
    for few in (cells_of("red", "red"), cells_of("red"), cells_of()):
        with pytest.raises(
            InputError, match=r"no pair can be made: of . photos the model is sure of"
        ) as said:
            pair_members(few, count=5, confidence=0.5, seed=0)
        assert "\n" not in str(said.value)


def test_mosaics_are_of_four_classes() -> None:
    found = mosaic_members(cells_of(*COLORS, *COLORS), count=5, confidence=0.5, seed=3)
    assert all(len({i % 4 for i in members}) == 4 for members in found)
    assert len(mosaic_members(cells_of(*COLORS), count=99, confidence=0, seed=0)) == 1
    with pytest.raises(InputError, match="of 3 classes, and a mosaic needs 4"):
        mosaic_members(cells_of(*COLORS[:3]), count=5, confidence=0.5, seed=0)


def test_photos_lie_in_their_cells() -> None:
    cells, model = cells_of("blue", "red"), model_of(Colors())
    made = Composed(
        cells, [[0, 1]], shape=(1, 2), size=(SIDE, 2 * SIDE), fill=(0, 0, 0), model=model, title="t"
    )
    (example,) = made
    assert made.multi_label
    assert made.checked
    assert (made.classes, made.columns, made.labels) == (("red", "blue"), [0, 2], [(0, 1)])
    assert example.photo.getpixel((0, 0)) == PIXELS["blue"]
    assert example.photo.getpixel((SIDE, 0)) == PIXELS["red"]
    assert example.truth is not None
    assert example.truth.of(1).boxes.tolist() == [[0, 0, SIDE, SIDE]]
    shrunk = Composed(
        cells,
        [[0, 1]],
        shape=(1, 2),
        size=(SIDE, SIDE),
        fill=fill_of(PLAIN),
        model=model,
        title="t",
    )[0]
    assert shrunk.truth is not None
    assert shrunk.truth.of(0).boxes.tolist() == [[4, 2, 8, 6]]
    colors = np.asarray(shrunk.photo)
    assert (colors[3:5, :2] == PIXELS["blue"]).all()
    assert (colors[3:5, 6:] == PIXELS["red"]).all()
    assert (colors[[0, 1, 6, 7]] == fill_of(PLAIN)).all()


def test_a_map_that_is_where_its_class_is_has_all_of_the_evidence(tmp_path: Path) -> None:
    for i, color in enumerate(COLORS):
        plain(color).save(tmp_path / f"{i}.png")
    (tmp_path / "torn.png").write_bytes(b"no picture")
    bad: list[str] = []
    found = seewhy.evaluate_composed(
        model_of(Colors()),
        tmp_path,
        methods=["cam", "saliency"],
        count=3,
        batch_size=2,
        cases=1,
        on_bad_image=lambda path, error: bad.append(Path(path).name),
    )
    assert bad == ["torn.png"]
    assert list(found) == ["pairs", "pairs_shrunk", "mosaics", "mosaics_shrunk"]
    level = {"pairs": 0.5, "pairs_shrunk": 0.5, "mosaics": 0.25, "mosaics_shrunk": 0.25}
    for name, each in found.items():
        row = next(row for row in each if row.method == "cam")
        assert row.result.mean == pytest.approx(1.0, abs=0.02), name
        assert row.by_chance == pytest.approx(level[name])
        assert row.chance["random"].mean == pytest.approx(level[name], abs=0.1)
        assert "the model's own answers" in each.title
    assert found["pairs"].title.startswith("3 pairs of ")
    assert len(found["mosaics"].names) == 4  # of these photos there is one mosaic
    assert found["pairs"].cases


def test_classes_of_data_are_asked_where_there_are_any() -> None:
    data = Plain([*COLORS, "red"], [*COLORS, "blue"])  # the last is not what it is said to be
    found = seewhy.evaluate_composed(model_of(Colors()), data, methods="cam", chance=(), cases=0)
    assert "6 pairs of 4 photos" in found["pairs"].title
    assert "classes: of the data" in found["pairs"].title


def test_the_fill_is_the_mean_of_the_preprocessing() -> None:
    made = Preprocess((SIDE, SIDE), None, (0.2, 0.4, 0.6), (0.5, 0.25, 0.1), "bilinear")
    assert fill_of(made) == (51, 102, 153)  # 255 times the mean


@pytest.mark.parametrize(("count", "read"), [(60, 240), (3, 200)])
def test_four_sure_photos_are_read_for_each_picture_and_at_least_200(count: int, read: int) -> None:
    request = Request.of(model_of(Colors()), methods="cam", targets=TRUE_CLASS, batch_size=20)
    told: list[tuple[int, int]] = []
    composed_studies(
        request,
        Plain(list(COLORS) * 70),
        "pair_share",
        count=count,
        progress=lambda *at: told.append(at),
    )
    assert told[-1] == (read, 280)


def test_a_model_of_one_size_has_shrunk_pictures_alone() -> None:
    with pytest.warns(SeewhyWarning, match="colors takes no pictures of 8 x 16; pairs are of its"):
        found = seewhy.evaluate_composed(
            model_of(OfOneSize()),
            Plain(list(COLORS)),
            methods="saliency",
            metrics={"own": PairShare(side=4)},
            chance=(),
            cases=0,
        )
    assert list(found) == ["pairs_shrunk"]
    assert [row.metric for row in found["pairs_shrunk"]] == ["own"]


def test_what_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    model = model_of(Colors())
    (tmp_path / "torn.png").write_bytes(b"no picture")
    data = Plain(["red", "red"])
    cases = [
        (lambda: seewhy.evaluate_composed(model, data), "no pair can be made: of 2 photos"),
        (lambda: seewhy.evaluate_composed(model, data, count=0), "count=0"),
        (lambda: seewhy.evaluate_composed(model, data, confidence=2.0), "confidence=2"),
        (
            lambda: seewhy.evaluate_composed(model, data, metrics=[PixelAveragePrecision()]),
            "'pixel_ap' scores no pictures that are made of photos",
        ),
        (
            lambda: seewhy.evaluate_composed(
                model, tmp_path, on_bad_image=lambda path, error: None
            ),
            "none of the 1 pictures can be read",
        ),
        (
            lambda: seewhy.evaluate_composed(seewhy.wrap(Colors(), labels=COLORS), data),
            "does not say how photos become its input",
        ),
    ]
    for made, said in cases:
        with pytest.raises((InputError, ImageError, ModelError), match=said) as caught:
            made()
        assert "\n" not in str(caught.value)


class Scores(nn.Module):
    """Says of a picture what its first pixels hold, as scores."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : self.classes]


@pytest.mark.parametrize(
    ("classes", "rivals"), [(2, 1), (19, 1), (20, 2), (59, 5), (190, 19), (200, 20), (250, 20)]
)
def test_rivals_are_the_best_tenth_of_the_classes_and_at_most_twenty(
    classes: int, rivals: int
) -> None:
    x = torch.rand(3, 3, 10, 10)
    found = chosen(Scores(classes), [Singles("abc", x)], 0.0)
    best = x.flatten(1)[:, :classes].argsort(1, descending=True)[:, :rivals]
    assert found.rivals == [set(each) for each in best.tolist()]
    assert found.columns == best[:, 0].tolist()


def test_a_photo_with_just_that_confidence_is_taken_and_reading_ends_with_enough() -> None:
    x = torch.zeros(2, 3, 4, 4)  # each of two classes has one half
    batches = iter([Singles("ab", x), Singles("cd", x), Singles("ef", x)])
    told: list[int] = []
    found = confident_cells(
        Call(Scores(2), gives="logits"),
        PLAIN,
        batches,
        confidence=0.5,
        enough=4,
        progress=told.append,
    )
    assert (found.names, found.seen, told) == (list("abcd"), 4, [2, 4])
    assert next(batches).names == "ef"
    assert len(chosen(Scores(2), [Singles("ab", x)], 0.501)) == 0


@pytest.mark.parametrize(
    ("size", "takes"), [((SIDE, 2 * SIDE), True), ((SIDE, SIDE), True), ((2 * SIDE, SIDE), False)]
)
def test_a_size_is_tried_with_one_picture(size: tuple[int, int], takes: bool) -> None:
    class OneWide(nn.Module):
        """Takes pictures one at a time, and only flat ones."""

        def forward(self, x: Tensor) -> Tensor:
            if len(x) != 1 or x.shape[1] != 3 or x.shape[2] > SIDE:
                raise RuntimeError("no such batch")
            return x.mean((2, 3))

    assert takes_size(Call(OneWide()), torch.ones(1, 3, 1, 1), size) == takes


def test_classes_of_cells_are_in_the_order_of_their_photos() -> None:
    assert cells_of("blue", "red", "blue").by_class() == {2: [0, 2], 0: [1]}
    assert (len(Cells()), Cells().seen, Cells().are_known) == (0, 0, False)


@pytest.mark.parametrize(
    ("members", "shape", "size"),
    [
        ([[0, 1, 2, 3]], (2, 2), (2 * 6, 2 * 10)),
        ([[3, 0, 1, 2]], (2, 2), (7, 20)),  # wider than the cells together
        ([[3, 0, 1, 2]], (2, 2), (19, 10)),  # higher
        ([[1, 0, 2]], (3, 1), (18, 11)),
        ([[1, 0, 2]], (1, 3), (3, 15)),
    ],
)
def test_cells_lie_row_by_row_in_the_middle_of_the_picture(
    members: list[list[int]], shape: tuple[int, int], size: tuple[int, int]
) -> None:
    width, height = 10, 6
    cells = cells_of("red", "green", "blue", "yellow")
    cells.pictures = [Image.new("RGB", (width, height), PIXELS[color]) for color in COLORS]
    made = Composed(
        cells, members, shape=shape, size=size, fill=(1, 2, 3), model=model_of(Colors()), title="t"
    )
    example = made[0]
    assert example.truth is not None
    assert (example.truth.size, example.photo.size) == (size, size[::-1])
    scale = min(size[0] / (shape[0] * height), size[1] / (shape[1] * width))
    inner = [round(shape[0] * height * scale), round(shape[1] * width * scale)]
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    seen, is_fill = np.asarray(example.photo), np.ones(size, dtype=bool)
    is_fill[top : top + inner[0], left : left + inner[1]] = False
    assert (seen[is_fill] == (1, 2, 3)).all()
    for place, member in enumerate(members[0]):
        row, column = divmod(place, shape[1])
        box = [
            left + column * width * scale,
            top + row * height * scale,
            left + (column + 1) * width * scale,
            top + (row + 1) * height * scale,
        ]
        found = example.truth.of(made.columns.index(member)).boxes
        assert found.tolist() == [pytest.approx(box)]
        middle = seen[int((box[1] + box[3]) / 2), int((box[0] + box[2]) / 2)]
        assert np.abs(middle.astype(int) - PIXELS[COLORS[member]]).max() < 40
    assert made.names == [" + ".join(map(str, members[0]))]


def test_photos_are_read_a_batch_at_a_time_and_those_that_cannot_are_passed_over(
    tmp_path: Path,
) -> None:
    for i in range(5):
        plain(COLORS[i % 4]).save(tmp_path / f"{i}.png")
    for i in (2, 3):  # the second batch has none
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    model = model_of(Colors())
    source = Source(tmp_path, model, lambda path, error: None)
    batches = list(singles_of_photos(source, torch.device("cpu"), 2))
    assert [[Path(name).name for name in each.names] for each in batches] == [
        ["0.png", "1.png"],
        ["4.png"],
    ]
    assert all(each.columns is None for each in batches)


def test_pictures_of_one_class_alone_are_read_from_data_with_the_columns_of_the_model() -> None:
    data = Plain(["red", "blue", "green", "yellow", "red"])
    data.labels[1], data.labels[3] = (1, 2), ()
    found = list(singles_of_data(model_of(Colors()), data, [3, 2, 1, 0], 2, None))
    assert [(list(each.names), each.columns) for each in found] == [
        (["0.png", "2.png"], [3, 2]),
        (["4.png"], [3]),
    ]
    assert all(each.x.shape == (len(each.names), 3, SIDE, SIDE) for each in found)


def test_each_pair_and_each_mosaic_is_tried_for_often() -> None:
    """One of 45 pairs is of photos that are told apart."""
    cells = cells_of(*["red"] * 9, "green")
    for i in range(8):
        cells.rivals[i] |= {1}
    (found,) = pair_members(cells, count=20, confidence=0.5, seed=1)
    assert set(found) == {8, 9}
    assert mosaic_members(cells_of(*COLORS), count=0, confidence=0, seed=0) == []
