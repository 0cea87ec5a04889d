"""The same wrong values for every argument of every public function: right, or one line; nothing raw.

What a function of the user's raises where it is only told something (`progress`, `announce`) is the user's own.
"""

from __future__ import annotations

import importlib
import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy import targets
from seewhy.data.sources import SOURCES
from seewhy.errors import SeewhyError
from seewhy.influence import InfluenceIndex
from seewhy.methods.catalog import METHODS as METHODS_OF_ALL
from seewhy.metrics.catalog import LOCALIZATION, METRICS
from tiny_models import FAST, TinyCNN, pictures, randomised

SIZE = 16
UNIT = seewhy.Preprocess((SIZE, SIZE), SIZE, (0.5,) * 3, (0.5,) * 3, "bilinear")
WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "-1": lambda: -1,
    "5": lambda: 5,
    "1.5": lambda: 1.5,
    "1e12": lambda: 10**12,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "empty text": lambda: "",
    "text": lambda: "nothing",
    "digits": lambda: "8",
    "bytes": lambda: b"x",
    "empty list": list,
    "list of None": lambda: [None],
    "list of lists": lambda: [[1]],
    "list of texts": lambda: ["nothing"],
    "set": lambda: {1},
    "mapping": lambda: {"a": 1},
    "generator": lambda: (i for i in ()),
    "object": object,
    "class": lambda: int,
    "path": lambda: Path("nowhere"),
    "empty tensor": lambda: torch.zeros(0),
    "flat tensor": lambda: torch.zeros(4),
    "sparse tensor": lambda: torch.zeros(2, 3, SIZE, SIZE).to_sparse(),
    "meta tensor": lambda: torch.zeros(2, 3, SIZE, SIZE, device="meta"),
    "complex tensor": lambda: torch.zeros(2, 3, SIZE, SIZE, dtype=torch.complex64),
    "integer tensor": lambda: torch.zeros(2, 3, SIZE, SIZE, dtype=torch.long),
    "tensor of NaN": lambda: torch.full((2, 3, SIZE, SIZE), float("nan")),
    "empty array": lambda: np.array([]),
    "array of objects": lambda: np.array([object()]),
    "array of text": lambda: np.array("a"),
}
LONGEST = 1500
ARE_TOLD = ("progress", "announce", "on_bad_image", "on_part")  # with functions of the user's


@cache
def model() -> seewhy.Model:
    return seewhy.wrap(randomised(TinyCNN()), preprocess=UNIT)


@cache
def x() -> torch.Tensor:
    return pictures(2, SIZE).clamp(-1, 1)


@cache
def explanation() -> seewhy.Explanation:
    return seewhy.explain(model(), x())


@cache
def index() -> InfluenceIndex:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return InfluenceIndex.fit(model(), data(), solver="gradient_dot")


@cache
def data() -> Any:
    return pictures(5, SIZE), torch.arange(5)


@dataclass(frozen=True)
class Asked:
    """A public function: what it is called with, and which of its arguments are not tried."""

    function: Callable[[], Callable[..., Any]]
    given: Callable[[], dict[str, Any]] = dict
    but: tuple[str, ...] = ()
    only: tuple[str, ...] = field(default=())

    def arguments(self) -> Iterator[str]:
        for name, parameter in inspect.signature(self.function()).parameters.items():
            single = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if single and name not in ("self", *self.but) and (not self.only or name in self.only):
                yield name


def traced(**given: Any) -> Any:
    with seewhy.Trace(**given) as trace:
        return trace.signal(1)


traced.__signature__ = inspect.signature(seewhy.Trace)  # type: ignore[attr-defined]


def photo() -> dict[str, Any]:
    return {"model": model(), "images": x()}


def fitted(**given: Any) -> Any:
    return InfluenceIndex.fit(**given)


fitted.__signature__ = inspect.signature(InfluenceIndex.fit)  # type: ignore[attr-defined]

FUNCTIONS: dict[str, Asked] = {
    "explain": Asked(lambda: seewhy.explain, lambda: {**photo(), "methods": "grad_cam"}),
    "explain_batches": Asked(
        lambda: lambda **given: list(seewhy.explain_batches(**given)),
        photo,
        only=("on_bad_image", "batch_size"),
    ),
    "evaluate": Asked(
        lambda: seewhy.evaluate,
        lambda: {**photo(), "metrics": "sparseness", "chance": ()},
        but=("model", "inputs"),
    ),
    "list_layers": Asked(lambda: seewhy.list_layers, lambda: {"model": model(), "x": x()}),
    "load_model": Asked(
        lambda: seewhy.load_model, lambda: {"spec": "timm:resnet10t", "pretrained": False}
    ),
    "wrap": Asked(lambda: seewhy.wrap, lambda: {"module": model().module}),
    "grad_cam": Asked(
        lambda: seewhy.METHODS["grad_cam"].__call__,
        lambda: {"model": model(), "x": x(), "target": 1},
    ),
    "Trace": Asked(
        lambda: traced, lambda: {"module": model().module, "x": x(), "layers": ["input"]}
    ),
    "Preprocess": Asked(
        lambda: seewhy.Preprocess,
        lambda: {
            "size": (8, 8),
            "resize": 8,
            "mean": (0.5,),
            "std": (0.5,),
            "interpolation": "bilinear",
        },
    ),
    "boxes": Asked(lambda: seewhy.localize.boxes, lambda: {"maps": torch.rand(1, 8, 8)}),
    "select": Asked(lambda: explanation().select),
    "fuse": Asked(lambda: explanation().fuse),
    "picture": Asked(lambda: explanation().picture, lambda: {"attribution": explanation()[0]}),
    "sheet": Asked(lambda: explanation().sheet),
    "save": Asked(lambda: explanation().save, lambda: {"folder": "out"}),
    "report": Asked(lambda: explanation().report, lambda: {"path": "page.html"}),
    "read_image": Asked(lambda: seewhy.images.read_image, lambda: {"source": "photo.png"}),
    "find_images": Asked(lambda: seewhy.images.find_images),
    "InfluenceIndex.fit": Asked(
        lambda: fitted,
        lambda: {"model": model(), "train_data": data(), "solver": "gradient_dot"},
        but=("workers",),
    ),
    "query": Asked(lambda: index().query, lambda: {"images": data()[0][:1]}),
    "scores": Asked(lambda: index().scores, lambda: {"images": data()[0][:1]}),
    "remove": Asked(lambda: index().remove, lambda: {"ids": [99]}),
    "mislabelled": Asked(lambda: seewhy.influence.mislabeled, lambda: {"index": index()}),
    "match_regions": Asked(
        lambda: seewhy.influence.match_regions,
        lambda: {"index": index(), "image": data()[0][:1], "ids": [0]},
    ),
    **{
        name: Asked(partial(lambda kind: kind, kind))
        for name, kind in {**METRICS, **LOCALIZATION}.items()
    },
}


def answer(*shape: int) -> torch.Tensor:
    return torch.linspace(-1, 1, math.prod(shape)).reshape(shape)


def detected() -> tuple[torch.Tensor, torch.Tensor]:
    corners = torch.tensor([0.0, 0.0, 4.0, 4.0])
    return corners.expand(2, 3, 4), answer(2, 3, 5).sigmoid()


BOX = (0.0, 0.0, 4.0, 4.0)
# each kind of target: its fields, right, and what a model answers
TARGETS: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "Logit": ({"index": 1}, lambda: answer(2, 5)),
    "Probability": ({"index": 1}, lambda: answer(2, 5)),
    "Margin": ({"index": 1, "other": 2}, lambda: answer(2, 5)),
    "Counterfactual": ({"index": 1}, lambda: answer(2, 5)),
    "Regression": ({"index": 1, "value": 0.5}, lambda: answer(2, 5)),
    "Binary": ({}, lambda: answer(2, 1)),
    "EmbeddingSimilarity": ({"reference": torch.ones(4)}, lambda: answer(2, 4)),
    "DetectionBox": ({"box": BOX, "index": 1}, detected),
    "DetectionSimilarity": ({"box": BOX, "classes": 1}, detected),
    "SegmentationRegion": ({"index": 1}, lambda: answer(2, 5, 4, 4)),
    "OneEach": ({"targets": (targets.Logit(1), targets.Logit(2))}, lambda: answer(2, 5)),
}


def scored(name: str) -> Callable[..., Any]:
    """Makes a target of these fields and asks it."""
    kind, given = getattr(targets, name), TARGETS[name][1]

    def ask(**fields: Any) -> Any:
        return kind(**fields)(given())

    ask.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
    return ask


def pictures_by_class(root: str = "pictures") -> str:
    for split in ("train", "test"):
        for label in "ab":
            Path(root, split, label).mkdir(parents=True, exist_ok=True)
            Image.new("RGBA", (SIZE, SIZE)).save(Path(root, split, label, f"{split}.png"))
    return root


def made_of_folder(name: str) -> Asked:
    """A data set of a folder: each kind says first that the folder is none of its own."""
    return Asked(lambda: getattr(formats_and_drawn(), name), lambda: {"root": pictures_by_class()})


def formats_and_drawn() -> SimpleNamespace:
    sources = {source.name: source.module for source in SOURCES.values()}
    return SimpleNamespace(
        **{
            name: getattr(importlib.import_module(f"seewhy.data.{module}"), name)
            for name, module in sources.items()
        }
    )


def table() -> str:
    Image.new("RGB", (SIZE, SIZE)).save("photo.png")
    Path("list.csv").write_text("photo.png,a\n")
    return "list.csv"


OF_ROOT = [
    source.name
    for source in SOURCES.values()
    if source.paths == 1 and source.name != "PictureTable"
]
FUNCTIONS |= {
    f"targets.{name}": Asked(partial(scored, name), partial(dict, fields))
    for name, (fields, _) in TARGETS.items()
}
FUNCTIONS |= {name: made_of_folder(name) for name in OF_ROOT}
FUNCTIONS |= {
    "PictureTable": Asked(lambda: formats_and_drawn().PictureTable, lambda: {"path": table()}),
    "Cutouts": Asked(
        lambda: formats_and_drawn().Cutouts,
        lambda: {"stamps": pictures_by_class(), "backgrounds": pictures_by_class(), "count": 2},
    ),
    "Scenes": Asked(lambda: formats_and_drawn().Scenes, lambda: {"count": 2}),
    "find_data": Asked(lambda: seewhy.data.find_data, lambda: {"spec": "scenes:count=2"}),
    "wsol.train": Asked(
        lambda: seewhy.wsol.train,
        lambda: {
            "data": formats_and_drawn().Scenes(2, size=32, scale=(0.4, 0.5)),
            "pretrained": False,
            "size": (32, 32),
            "stages": 1,
            "lr": 0.0,  # refused as the last: nothing is trained
        },
        but=("lr", "seed"),
    ),
    "wsol.train, the last": Asked(
        lambda: seewhy.wsol.train,
        lambda: {"data": formats_and_drawn().Scenes(2, size=32, scale=(0.4, 0.5)), "seed": -1},
        only=("lr",),
    ),
}


def said_of(ask: Callable[[], object]) -> str:
    """What an error says, nothing where there is none.

    Raises:
        Exception: what is raised is not ours.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ask()
        except SeewhyError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_values(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (SIZE, SIZE)).save("photo.png")
    asked, raw = FUNCTIONS[name], []
    for argument in asked.arguments():
        for kind, make in WRONG.items():
            try:
                said = said_of(lambda: asked.function()(**{**asked.given(), argument: make()}))  # noqa: B023 - at once
            except Exception as error:
                if argument not in ARE_TOLD:
                    raw.append(
                        f"{argument}={kind}: {type(error).__name__}: {str(error).splitlines()[:1]}"
                    )
                continue
            assert "\n" not in said
            assert len(said) < LONGEST
    assert raw == []


OPTIONS = [
    (name, option) for name, method in METHODS_OF_ALL.items() for option in method.told_options
]
TAKES_FOR_EVER = {("smooth_grad", "samples"): "1e12"}  # and may be meant


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_wrong_values_of_options(name: str, option: str) -> None:
    raw = []
    for kind, make in WRONG.items():
        if TAKES_FOR_EVER.get((name, option)) == kind:
            continue
        options = {**FAST.get(name, {}), option: make()}
        try:
            said = said_of(lambda: METHODS_OF_ALL[name](model(), x()[:1], 1, **options))  # noqa: B023 - at once
        except Exception as error:
            raw.append(f"{option}={kind}: {type(error).__name__}: {str(error).splitlines()[:1]}")
            continue
        assert "\n" not in said
        assert not said or option.split("_")[-1] in said
    assert raw == []
