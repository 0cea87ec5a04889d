"""The `>>>` examples of docstrings run, each with stand-ins for a user's network, photos and data sets."""

from __future__ import annotations

import ast
import doctest
import inspect
import io
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import data_layouts
import seewhy
from influence_cases import NOT_TRAINED

SRC = Path(__file__).parents[1] / "src" / "seewhy"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
COLORS = ("red", "green", "blue")
FACES = (
    seewhy,
    seewhy.data,
    seewhy.influence,
    seewhy.maps,
    seewhy.masking,
    seewhy.methods,
    seewhy.metrics,
    seewhy.render,
    seewhy.targets,
    seewhy.wsol,
)

# what a face offers and shows no use of; it only ever gets shorter
KNOWN_WITHOUT = {
    # their files are as long as files may be
    "seewhy.data.Placement",
    "seewhy.data.tensor_to_photos",
    "seewhy.methods.Result",
    "seewhy.methods.SharedPass",
    "seewhy.methods.shared_pass",
    # it changes the process, and here that is the tests'
    "seewhy.engine.masking.keep_allocator_memory",
}
pytestmark = [
    NOT_TRAINED,
    # of the small copies of data sets
    pytest.mark.filterwarnings("ignore:VOC2007, train has no picture:seewhy.errors.SeewhyWarning"),
]


def network() -> nn.Sequential:
    """64 times the mean of each color: a sixteenth of the picture in one color has a score of 4."""
    parts = OrderedDict(
        conv=nn.Conv2d(3, 3, 3, padding=1),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(3, 3),
    )
    net = nn.Sequential(parts).eval()
    with torch.no_grad():
        nn.init.dirac_(parts["conv"].weight)
        nn.init.zeros_(parts["conv"].bias)
        parts["fc"].weight.copy_(64 * torch.eye(3))
        nn.init.zeros_(parts["fc"].bias)
    return net


def square(color: int, *, top: int = 4, value: float = 1.0) -> Tensor:
    """A picture (3, 16, 16), black but for a square in one color."""
    picture = torch.zeros(3, 16, 16)
    picture[color, top : top + 4, 8:12] = value
    return picture


def photo_of(picture: Tensor) -> Image.Image:
    return Image.fromarray((picture * 255).byte().permute(1, 2, 0).numpy())


def given() -> dict[str, object]:
    """What examples take as given."""
    net = network()
    plain = seewhy.Preprocess((16, 16), None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")
    images = [square(i % 3, top=i, value=0.5 + 0.1 * i) for i in range(6)]
    return {
        "seewhy": seewhy,
        "torch": torch,
        "net": net,
        "model": seewhy.wrap(net, preprocess=plain, labels=COLORS, name="colors"),
        "x": square(0)[None],
        "photo": photo_of(square(0)),
        "photos": [photo_of(square(color)) for color in range(len(COLORS))],
        "images": torch.stack(images),
        "labels": torch.tensor([0, 1, 2, 0, 1, 0]),  # the last one is wrong
    }


def photos(folder: Path) -> None:
    for number, color in enumerate(COLORS):
        (folder / color).mkdir(parents=True)
        for i in range(2):
            photo_of(square(number, top=4 * i)).save(folder / color / f"{i}.png")


def stamps(folder: Path) -> None:
    stamp = Image.new("RGBA", (20, 20))
    stamp.paste((255, 0, 0, 255), (4, 4, 16, 16))
    (folder / "red").mkdir(parents=True)
    stamp.save(folder / "red" / "0.png")


def backgrounds(folder: Path) -> None:
    folder.mkdir()
    Image.new("RGB", (80, 80), (9, 9, 9)).save(folder / "0.png")


def table(path: Path) -> None:
    photo_of(square(0)).save(path.with_name("red.png"))
    path.write_text("path,label,x0,y0,x1,y1,split\nred.png,red,8,4,12,8,train\n")


# name of a file or folder that examples read -> what makes it
FILES: dict[str, Callable[[Path], object]] = {
    "photos": photos,
    "stamps": stamps,
    "backgrounds": backgrounds,
    "boxes.csv": table,
    "coco": data_layouts.coco,
    "imagenet": data_layouts.imagenet,
    "openimages": data_layouts.openimages,
    "stl10": data_layouts.stl10,
    "CUB_200_2011": lambda path: data_layouts.cub(path.parent),
    "VOCdevkit": data_layouts.voc,
}


def examples() -> Iterator[doctest.DocTest]:
    """Those of all docstrings, read off the sources: doctest's own finder overlooks what a decorator wraps."""
    parser = doctest.DocTestParser()
    for path in sorted(SRC.rglob("*.py")):
        file = path.relative_to(SRC).as_posix()
        for name, node in documented(ast.parse(path.read_text())):
            text = ast.get_docstring(node) or ""
            if ">>>" in text:
                where = f"{file}: {name}" if name else file
                yield parser.get_doctest(text, {}, where, str(path), None)


Documented = ast.Module | ast.ClassDef | ast.FunctionDef


def documented(node: Documented, name: str = "") -> Iterator[tuple[str, Documented]]:
    """What has a docstring, by its name within the file."""
    yield name, node
    for part in node.body:
        if isinstance(part, ast.ClassDef | ast.FunctionDef):
            yield from documented(part, f"{name}.{part.name}".lstrip("."))


@pytest.mark.parametrize("example", [pytest.param(one, id=one.name) for one in examples()])
def test_examples_say_what_comes(
    example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = "".join(one.source for one in example.examples)
    for name, make in FILES.items():
        if f'"{name}' in source:
            make(tmp_path / name)
    example.globs = given()
    told = io.StringIO()
    result = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=told.write)
    assert not result.failed, told.getvalue()


def without_example(face: ModuleType) -> set[str]:
    """The functions and classes that a face offers and that show no use of themselves."""
    offered = {name: getattr(face, name) for name in face.__all__}
    return {
        f"{face.__name__}.{name}"
        for name, one in offered.items()
        if (inspect.isclass(one) or inspect.isfunction(one)) and ">>>" not in (one.__doc__ or "")
    }


def test_all_that_is_offered_shows_its_use() -> None:
    found = set().union(*map(without_example, FACES))
    assert not found - KNOWN_WITHOUT, f"show a use in the docstring: {sorted(found)}"
    assert not KNOWN_WITHOUT - found, f"take these off the list: {sorted(KNOWN_WITHOUT - found)}"
