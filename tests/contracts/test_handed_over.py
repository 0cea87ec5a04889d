"""Every method, and every room that runs a model, over what people hand over: right, or one line of the cause.

Right is what plain autograd gives of the plain network's logits where the tests have the formula, else what the method
gives for that network; a score of an evaluation is the metric's of those maps and that network.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import oracles
import seewhy
from handed_over import (
    CLASSES,
    SIZE,
    AtEveryPlace,
    Beside,
    Dense,
    Drawn,
    Ended,
    Estimator,
    Keeping,
    OnTokens,
    Session,
    WholeNumbers,
    WithLoss,
    configured,
    configured_for_several,
    kept_from_inference,
    linear,
    of_arrays,
    plain,
)
from seewhy.errors import SeewhyError, SeewhyWarning
from seewhy.influence import InfluenceIndex
from seewhy.methods.catalog import METHODS
from tiny_models import Called, offloaded, pictures, randomised

_UNSURE = (
    "not locally linear",
    "its error is",
)  # LIME's and RISE's, of untrained models and few samples
FAST: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
    "rise": {"samples": 16, "cells": 3},
    "lime": {"samples": 20, "superpixels": "grid"},
    "occlusion": {"window": 8, "stride": 8},
}
OUTSIDE = ("rise", "lime", "occlusion")
NEED_THE_INPUT = (
    *(
        name
        for name, method in METHODS.items()
        if method.at == "input" and method.family != "perturbation"
    ),
    "guided_grad_cam",
)
UNTRAINED = "gives probabilities|no parameters"
OF_ONE_CLASS = ("clrp", "clrp_two_pass", "sglrp")
NO_OTHER_CLASS = "Finer-CAM compares|say what they are|class scores"  # to tell the target's from
RELEVANCE = tuple(name for name, method in METHODS.items() if method.family == "relevance")
NAMES = ("first", "second", "third", "fourth")
UNIT = seewhy.Preprocess((SIZE, SIZE), SIZE, (0.5,) * 3, (0.5,) * 3, "bilinear")
PIXELS = replace(UNIT, mean=(0.0,) * 3, std=(1 / 255,) * 3)
REFERENCE = torch.randn(CLASSES, generator=torch.Generator().manual_seed(2))


@dataclass(frozen=True)
class Handed:
    """One situation.

    Attributes:
        make: what is handed over.
        usual: the plain network of the same weights.
        end: what it makes of the plain network's logits.
        target: of what is handed over, which is `column` of `end`, or `score` of the logits.
        words: what a refusal or a warning has to name; None where there is nothing to refuse.
        right: methods that may not be refused.
        gives: what it gives behind its end.
        numbers: what `seewhy.wrap` is told of the plain network so that it has the same probabilities.
        no_chance: what a metric of probabilities has to name where there are none.
        no_loss: what influence has to name where its loss is not of these numbers.
        no_place: what localisation has to name where what it marks has no class.
        names, columns: of the data's classes, and which they are of the plain network's.
        x: what is explained.
        preprocess: how photos become inputs.
        rooms: where it is tried beside the methods.
    """

    make: Callable[[], Any]
    usual: Callable[[], nn.Module] = plain
    end: Callable[[Tensor], Tensor] | None = None
    target: Any = 1
    column: int = 1
    score: Callable[[Tensor], Tensor] | None = None
    words: str | None = None
    right: tuple[str, ...] = OUTSIDE
    gives: Any = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    no_chance: str | None = None
    no_loss: str | None = None
    no_place: str | None = None
    names: tuple[str, ...] = ("0", "1", "2", "3")
    columns: tuple[int, ...] = (0, 1, 2, 3)
    x: Callable[[], Tensor] = lambda: two_pictures()
    preprocess: seewhy.Preprocess = UNIT
    rooms: tuple[str, ...] = ("evaluating", "localizing", "influence")

    def of_column(self, column: int) -> Any:
        """The target that is a column, of the plain network."""
        if self.end is None:
            return column
        end = self.end
        return lambda logits: end(logits)[:, column]

    @property
    def usual_target(self) -> Any:
        return self.of_column(self.column) if self.score is None else self.score


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)


def percentages(logits: Tensor) -> Tensor:
    return 100 * logits.softmax(1)


@cache
def two_pictures() -> Tensor:
    return pictures(2, SIZE)


@cache
def whole_pictures() -> Tensor:
    return (pictures(2, SIZE) * 40 + 120).clamp(0, 255).round().to(torch.uint8)


def of_foreground(logits: Tensor) -> Tensor:
    return (logits[:, 0] * (logits[:, 0] > 0)).flatten(1).sum(1)


def of_second_segment(logits: Tensor) -> Tensor:
    return (logits[:, 1] * (logits.argmax(1) == 1)).flatten(1).sum(1)


def one() -> nn.Module:
    """Of one column, which it says is a logit."""
    net = plain(1)
    net.gives = "logits"
    return net


def all_but(*names: str) -> tuple[str, ...]:
    return tuple(name for name in METHODS if name not in names)


SIGMOIDS = {
    "end": torch.sigmoid,
    "gives": "sigmoids",
    "numbers": {"multi_label": True},
    "no_loss": "gives sigmoids",
}
SOFTMAX = {"end": softmax, "gives": "probabilities", "no_loss": "gives probabilities"}
NO_CHANCE = "gives a score, which has no probability"
NO_SCORE = {
    "words": NO_CHANCE,
    "right": all_but("sglrp"),
    "no_chance": NO_CHANCE,
    "no_loss": "gives score",
}
NOT_TOLD = "may be probabilities.*gives="
OF_ONE_NUMBER = dict.fromkeys(
    ("words", "no_chance", "no_loss"), "may be a logit or the value of a regression"
)
NO_CLASS = {"words": "needs one class as the target", "right": all_but("cam", *OF_ONE_CLASS)}
NO_TABLE = {
    "words": r"not \(N, K\) class scores", "right": all_but("cam", *OF_ONE_CLASS, "relevance_cam"),
    "no_loss": r"\(N, K\) class scores", "no_place": r"\(N, K\) class scores",
    "no_chance": "is no class, and has no probability",
}  # fmt: skip
ONE = {"usual": one, "target": 0, "column": 0, "names": ("0",), "columns": (0,)}

NUMBERS: dict[str, Handed] = {
    "a softmax at its end": Handed(lambda: nn.Sequential(plain(), nn.Softmax(1)), **SOFTMAX),
    "a softmax within": Handed(lambda: Ended(softmax), **SOFTMAX),
    "sigmoids at its end": Handed(lambda: nn.Sequential(plain(), nn.Sigmoid()), **SIGMOIDS),
    "sigmoids within, told": Handed(lambda: seewhy.wrap(Ended(torch.sigmoid), gives="sigmoids"), **SIGMOIDS),
    "sigmoids within, not told": Handed(
        lambda: Ended(torch.sigmoid), end=torch.sigmoid, words=NOT_TOLD, right=all_but("sglrp"), no_chance=NOT_TOLD,
        no_loss="may be probabilities",
    ),
    "a log-softmax at its end": Handed(
        lambda: nn.Sequential(plain(), nn.LogSoftmax(1)), end=lambda logits: logits.log_softmax(1), gives="logits"
    ),
    "one sigmoid": Handed(lambda: nn.Sequential(one(), nn.Sigmoid()), **ONE, **SIGMOIDS),
    "percentages": Handed(
        lambda: Ended(percentages), end=percentages, words="may be percentages", right=all_but("sglrp"),
        no_chance="may be percentages", no_loss="may be percentages",
    ),
    "percentages, told": Handed(
        lambda: seewhy.wrap(Ended(percentages), output=lambda p: p / 100, gives="probabilities"), **SOFTMAX
    ),
    "one number, not told": Handed(lambda: plain(1), **ONE, **{**NO_SCORE, **OF_ONE_NUMBER}),
    "several labels": Handed(
        lambda: seewhy.wrap(plain(), multi_label=True), target="probability:1", **NO_CLASS,
        score=lambda logits: logits[:, 1].sigmoid(), numbers={"multi_label": True},
    ),
    "several labels, as transformers say it": Handed(
        configured_for_several, target="probability:1", **NO_CLASS,
        score=lambda logits: logits[:, 1].sigmoid(), numbers={"multi_label": True},
    ),
    "a regression": Handed(lambda: seewhy.wrap(one(), gives="score"), **ONE, **NO_SCORE),
    "an embedding": Handed(
        lambda: seewhy.wrap(plain(), gives="embedding"), target=seewhy.targets.EmbeddingSimilarity(REFERENCE),
        score=lambda logits: torch.cosine_similarity(logits, REFERENCE.expand_as(logits)), no_place="has no classes",
        no_chance="is no class, and has no probability",
        no_loss="gives embedding", **NO_CLASS,
    ),
    "an embedding, asked for a class": Handed(
        lambda: seewhy.wrap(plain(), gives="embedding"), words="gives an embedding, which has no classes", right=(),
        no_loss="gives embedding",
    ),
    "logits told to be probabilities": Handed(
        lambda: seewhy.wrap(plain(), gives="probabilities"), words=r"gives='probabilities'.*not in \[0, 1\]", right=()
    ),
    "sigmoids told to be probabilities": Handed(
        lambda: seewhy.wrap(Ended(torch.sigmoid), gives="probabilities"), words="gives='probabilities'.*sum to",
        right=(),
    ),
    "probabilities told to be logits": Handed(
        lambda: seewhy.wrap(Ended(softmax), gives="logits"), end=softmax, words="gives='logits'.*sum to 1", right=(),
    ),
}  # fmt: skip

NAMED: dict[str, Handed] = {
    "too few names": Handed(
        lambda: seewhy.wrap(plain(), labels=NAMES[:3]), right=(), names=NAMES[:3],
        words="labels has 3 names, the model gives 4 columns",
    ),
    "too many names": Handed(
        lambda: seewhy.wrap(plain(), labels=["background", *NAMES]), right=(), names=NAMES,
        words="labels has 5 names, the model gives 4 columns",
    ),
    "numbers for names": Handed(
        lambda: seewhy.wrap(plain(), labels=["3", "2", "1", "0"]), target="2", columns=(3, 2, 1, 0)
    ),
    "numbers from one for names": Handed(
        lambda: seewhy.wrap(plain(), labels=["1", "2", "3", "4"]), target="2", names=("1", "2", "3", "4")
    ),
    "texts for columns": Handed(
        lambda: configured({str(i): name for i, name in reversed(list(enumerate(NAMES)))}), target="second",
        names=NAMES[::-1], columns=(3, 2, 1, 0),
    ),
}  # fmt: skip

OUTPUTS: dict[str, Handed] = {
    "features before logits": Handed(lambda: randomised(Beside()), words="output=", right=()),
    "features before logits, output told": Handed(lambda: seewhy.wrap(randomised(Beside()), output=1)),
    "a loss before logits": Handed(lambda: randomised(WithLoss())),
    "a squeezed score of one picture": Handed(
        lambda: Ended(lambda logits: logits.squeeze(), 1, gives="logits"), **ONE, x=lambda: two_pictures()[:1]
    ),
    "a squeezed score of each": Handed(lambda: Ended(lambda logits: logits.squeeze(), 1, gives="logits"), **ONE),
    "a score of each": Handed(lambda: seewhy.wrap(Ended(lambda logits: logits[:, 0], 1), gives="logits"), **ONE),
    "a head at every place": Handed(lambda: randomised(AtEveryPlace()), lambda: randomised(OnTokens())),
    "a segmentation of one channel": Handed(
        lambda: randomised(Dense(1)), lambda: randomised(Dense(1)), names=("0",), columns=(0,),
        target=seewhy.targets.SegmentationRegion(0), score=of_foreground, **NO_TABLE,
    ),
    "a segmentation of several": Handed(
        lambda: randomised(Dense(4)), lambda: randomised(Dense(4)),
        target=seewhy.targets.SegmentationRegion(1), score=of_second_segment, **NO_TABLE,
    ),
}  # fmt: skip

INPUTS: dict[str, Handed] = {
    "whole numbers alone": Handed(
        lambda: randomised(WholeNumbers(floats=False)), lambda: randomised(WholeNumbers(floats=True)),
        words=r"takes torch\.uint8", x=whole_pictures, right=all_but(*NEED_THE_INPUT),
        preprocess=PIXELS,
    ),
    "weights that hooks bring": Handed(
        lambda: offloaded(plain()), words="meta", right=all_but("cam"), no_loss="meta device"
    ),
    "tensors kept from inference mode": Handed(
        kept_from_inference, lambda: randomised(Keeping()), words="inference_mode", no_loss="inference_mode"
    ),
    "a function of arrays": Handed(
        lambda: seewhy.wrap(of_arrays, takes="array"), end=softmax, words="black box", no_loss=UNTRAINED
    ),
    "an estimator of rows": Handed(
        lambda: seewhy.wrap(Estimator(), takes="rows"), linear, end=softmax, target="second", words="black box",
        names=NAMES, no_loss=UNTRAINED,
    ),
    "a session with labels": Handed(lambda: seewhy.wrap(Session()), words="black box", no_loss=UNTRAINED),
}  # fmt: skip

ZOO = NUMBERS | NAMED | OUTPUTS | INPUTS


@cache
def model_of(kind: str) -> Any:
    return ZOO[kind].make()


@cache
def usual_of(
    make: Callable[[], nn.Module], end: Callable[[Tensor], Tensor] | None = None, gives: Any = None
) -> Any:
    """The plain network, or a model of the same behind its end."""
    return make() if end is None else seewhy.wrap(nn.Sequential(make(), Called(end)), gives=gives)


def told_beside(ask: Callable[[], Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = ask()
    said = [str(w.message) for w in caught if issubclass(w.category, SeewhyWarning)]
    return found, [
        line for line in said if not any(each in line for each in _UNSURE)
    ]  # LIME's, of untrained models


def expected(case: Handed, name: str, x: Tensor, column: int | None = None) -> Tensor:
    """The right map, of the target, or of a column."""
    target = case.usual_target if column is None else case.of_column(column)
    through_the_end = (*RELEVANCE, "finer_cam")  # which goes back through the end, or undoes it
    if name in through_the_end and case.end is not None:
        return of_usual(usual_of(case.usual, case.end, case.gives), name, x, case.column)
    if callable(target):
        return of_usual.__wrapped__(usual_of(case.usual), name, x, target)
    return of_usual(usual_of(case.usual), name, x, target)


@cache
def of_usual(usual: Any, name: str, x: Tensor, target: Any) -> Tensor:
    x = x.float()
    if name in oracles.CAMS and hasattr(usual, "b"):
        layer = usual.a if name == "layer_cam" else usual.b  # the stage before the last
        a, g = with_gradient(usual, x, target, layer)
        maps = [oracles.CAMS[name](a[i].numpy(), g[i].numpy()) for i in range(len(a))]
        return torch.stack([torch.as_tensor(one) for one in maps]).float()
    if name in ("saliency", "input_x_gradient"):
        _, g = with_gradient(usual, x, target)
        return g.abs().amax(1) if name == "saliency" else (g * x).sum(1)
    return told_beside(lambda: METHODS[name](usual, x, target, **FAST.get(name, {})))[0]


def with_gradient(
    module: nn.Module, x: Tensor, target: Any, layer: nn.Module | None = None
) -> tuple[Tensor, Tensor]:
    """The input's or a layer's values, and the gradient of the target there, by plain autograd."""
    kept = [x.clone().requires_grad_()]
    handle = (
        layer.register_forward_hook(lambda _, __, value: kept.append(value))
        if layer is not None
        else None
    )
    said = module(kept[0])
    if handle is not None:
        handle.remove()
    score = target(said) if callable(target) else said[:, target]
    (g,) = torch.autograd.grad(score.sum(), kept[-1], allow_unused=True)
    return kept[-1].detach(), torch.zeros_like(kept[-1]) if g is None else g


def close(found: Any, wanted: Any) -> bool:
    found, wanted = torch.as_tensor(found), torch.as_tensor(wanted)
    return found.shape == wanted.shape and bool(
        (found - wanted).abs().max() <= 1e-4 * wanted.abs().max() + 1e-12
    )


def told(words: str | None, said: str) -> None:
    assert "\n" not in said
    assert words is not None, f"there is nothing to refuse: {said}"
    assert re.search(words, said), f"no word of the cause, {words}: {said}"


def refused(case: Handed, name: str, said: str) -> None:
    if name == "finer_cam" and re.search(NO_OTHER_CLASS, said):
        return
    if name != "cam" or "grad_cam" not in said:
        assert name not in case.right, f"{name} works there: {said}"
        told(case.words, said)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ZOO for name in METHODS])
def test_every_method(kind: str, name: str) -> None:
    case = ZOO[kind]
    x = case.x()
    try:
        found, said = told_beside(
            lambda: METHODS[name](model_of(kind), x, case.target, **FAST.get(name, {}))
        )
    except SeewhyError as error:
        refused(case, name, str(error))
        return
    if case.words and name not in case.right and any(re.search(case.words, line) for line in said):
        return
    assert case.right, f"a map of what cannot be explained; told {said or 'nothing'}"
    assert close(found, expected(case, name, x)), f"another map; told {said or 'nothing'}"


def right_or_told(words: str | None, found: Callable[[], Any], wanted: Callable[[], Any]) -> None:
    try:
        said, lines = told_beside(found)
    except SeewhyError as error:
        told(words, str(error))
        return
    if words is not None:
        assert any(re.search(words, line) for line in lines), (
            f"no word of the cause, {words}; told {lines or 'nothing'}"
        )
        return
    assert close(said, wanted())


def spoiled(case: Handed) -> str | None:
    """What everything has to name where nothing can be right."""
    return None if case.right else case.words


@pytest.mark.parametrize("kind", [kind for kind, case in ZOO.items() if "evaluating" in case.rooms])
def test_evaluating(kind: str) -> None:
    case = ZOO[kind]
    x = case.x()
    steps = {
        "deletion": seewhy.metrics.Deletion(step=64),
        "insertion": seewhy.metrics.Insertion(step=64),
    }

    def found() -> list[float]:
        asked: dict[str, Any] = {
            "methods": "occlusion",
            "chance": (),
            "options": FAST,
            "targets": [case.target],
        }
        return [
            float(row.result.mean)
            for row in seewhy.evaluate(model_of(kind), x, metrics=steps, **asked).rows
        ]

    def wanted() -> list[float]:
        plainly = seewhy.wrap(usual_of(case.usual), **{"gives": "logits", **case.numbers})
        for metric in steps.values():
            metric.reset()
            metric.update(expected(case, "occlusion", x), plainly, x.float(), case.column)
        return [float(metric.compute().mean) for metric in steps.values()]

    right_or_told(spoiled(case) or case.no_chance, found, wanted)


@pytest.mark.parametrize("kind", [kind for kind, case in ZOO.items() if "localizing" in case.rooms])
def test_localizing(kind: str) -> None:
    case, data = ZOO[kind], Drawn(ZOO[kind].names)

    def found() -> float:
        model = replace(seewhy.wrap(model_of(kind)), preprocess=case.preprocess)
        asked: dict[str, Any] = {
            "methods": "occlusion",
            "metrics": "energy_pointing",
            "chance": (),
            "cases": 0,
        }
        return float(
            seewhy.evaluate_localization(model, data, options=FAST, **asked).rows[0].result.mean
        )

    def wanted() -> float:
        metric = seewhy.metrics.EnergyPointing()
        for example in data:
            x = case.preprocess(example.photo)[0][None]
            metric.update(
                expected(case, "occlusion", x, case.columns[example.labels[0]]), [example.truth]
            )
        return float(metric.compute().mean)

    right_or_told(spoiled(case) or case.no_place, found, wanted)


@pytest.mark.parametrize("kind", [kind for kind, case in ZOO.items() if "influence" in case.rooms])
def test_influence(kind: str) -> None:
    case = ZOO[kind]
    x, labels = (
        torch.cat([case.x().roll(i, 3) for i in range(3)]),
        torch.arange(3 * len(case.x())) % len(case.names),
    )

    def scores(model: Any, x: Tensor) -> Tensor:
        return InfluenceIndex.fit(model, (x, labels), solver="gradient_dot").scores(
            x[:2], labels[:2]
        )

    right_or_told(
        case.no_loss or spoiled(case),
        lambda: scores(model_of(kind), x),
        lambda: scores(usual_of(case.usual), x.float()),
    )
