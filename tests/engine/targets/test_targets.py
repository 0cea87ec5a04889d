"""Targets: every class against its formula by hand, and what people may write for one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import oracles
from seewhy import Trace
from seewhy.engine.targets.classes import (
    Binary,
    Counterfactual,
    EmbeddingSimilarity,
    Logit,
    Margin,
    Probability,
    Regression,
)
from seewhy.engine.targets.detection import DetectionBox
from seewhy.engine.targets.numbers import Numbers
from seewhy.engine.targets.regions import SegmentationRegion
from seewhy.engine.targets.resolve import phrase, resolve
from seewhy.engine.targets.target import Target, describe
from seewhy.errors import ArgumentTypeError, ModelError, TargetError
from tiny_models import TinyCNN, pictures, randomised

LOGITS = Numbers("logits")
SCORES = torch.tensor([[1.0, 3.0, 2.0, -1.0], [0.5, -2.0, 4.0, 4.5]])
LABELS = ("tabby, tabby cat", "tiger cat", "crane", "Egyptian cat, tabby cat")


def close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float32), rtol=1e-6, atol=1e-6
    )


def test_classes_by_hand() -> None:
    close(Logit(1)(SCORES), [3, -2])
    close(Logit((0, 3))(SCORES), [1, 4.5])
    close(Margin(2, 0)(SCORES), [1, 3.5])
    close(Margin((2, 3), (0, 1))(SCORES), [1, 6.5])
    close(Counterfactual(1)(SCORES), [-3, 2])
    close(Regression(3)(SCORES), [-1, 4.5])
    close(Regression(3, value=1.0)(SCORES), [-4, -12.25])
    softmax = [
        math.exp(v) / sum(math.exp(u) for u in row)
        for row, v in ((SCORES[0], 3.0), (SCORES[1], -2.0))
    ]
    close(Probability(1)(SCORES), softmax)


def test_one_column_models() -> None:
    scores = torch.tensor([2.0, -1.0])
    for output in (scores, scores[:, None]):
        close(Binary()(output), [2, -1])
        close(Binary(positive=False)(output), [-2, 1])
        close(Logit(0)(output), [2, -1])
        close(Probability(0, LOGITS)(output), [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))])
        close(Regression(value=1.0)(output), [-1, -4])
        assert resolve("top1", output, numbers=LOGITS)[0].indices == (0, 0)
    with pytest.raises(TargetError, match="the model has 4"):
        Binary()(SCORES)


def test_segmentation_region() -> None:
    output = torch.randn(2, 3, 4, 6)
    region = torch.zeros(2, 3)
    region[0, 1:] = 1  # rows 0-1, columns 2-5 of the output
    expected = [
        sum(float(output[n, 1, i, j]) for i in range(2) for j in range(2, 6)) for n in range(2)
    ]
    close(SegmentationRegion(1, region)(output), expected)
    close(SegmentationRegion(1, torch.stack([region, 1 - region]))(output)[:1], expected[:1])
    predicted = [
        sum(
            float(output[n, 2, i, j])
            for i in range(4)
            for j in range(6)
            if int(output[n, :, i, j].argmax()) == 2
        )
        for n in range(2)
    ]
    close(SegmentationRegion(2)(output), predicted)
    with pytest.raises(TargetError, match=r"needs an output \(N, K, H, W\), got \(2, 4\)"):
        SegmentationRegion(0)(SCORES)
    with pytest.raises(TargetError, match="target 3 is not a class"):
        SegmentationRegion(3)(output)


def test_where_a_segmentation_predicts_a_class() -> None:
    one, many = torch.randn(2, 1, 4, 6), torch.randn(2, 3, 4, 6)
    close(SegmentationRegion(0)(one), one.clamp(min=0).sum((1, 2, 3)).tolist())
    chance = one.sigmoid()
    close(
        SegmentationRegion(0, numbers=Numbers("sigmoids"))(chance),
        (chance * (one > 0)).sum((1, 2, 3)).tolist(),
    )
    expected = many[:, 1].clamp(min=0).sum((1, 2)).tolist()
    several = Numbers("logits", multi_label=True)
    close(SegmentationRegion(1, numbers=several)(many), expected)
    (settled,) = resolve(SegmentationRegion(1), many, numbers=several)
    close(settled.score(many), expected)
    assert settled.name == "segmentation_region(1)"
    with pytest.raises(
        ModelError, match="gives="
    ):  # of sigmoids or of scores: the class is elsewhere
        SegmentationRegion(1)(many.sigmoid())


@pytest.mark.parametrize("form", ["xyxy", "cxcywh"])
def test_detection_box(form: Any) -> None:
    boxes = [
        (0.0, 0.0, 10.0, 10.0),
        (1.0, 0.0, 11.0, 10.0),
        (4.0, 0.0, 14.0, 10.0),
        (50.0, 50.0, 60.0, 60.0),
    ]
    overlaps = [oracles.iou(b, boxes[0]) for b in boxes]
    assert overlaps[0] == 1
    assert overlaps[2] < 0.5 < overlaps[1]
    as_written = torch.tensor([boxes])
    if form == "cxcywh":
        low, high = as_written[..., :2], as_written[..., 2:]
        as_written = torch.cat([(low + high) / 2, high - low], -1)
    scores = torch.randn(1, 4, 3)
    target = DetectionBox(boxes[0], 2, form=form)
    expected = float(scores[0, 0, 2]) + overlaps[1] * float(scores[0, 1, 2])
    for output in (
        (as_written, scores),
        {"boxes": as_written, "scores": scores},
        {"pred_boxes": as_written, "logits": scores},
    ):
        close(target(output).detach(), [expected])
    scores.requires_grad_()
    (g,) = torch.autograd.grad(target((as_written, scores)).sum(), scores)
    assert g.nonzero().tolist() == [[0, 0, 2], [0, 1, 2]]
    loose = float(scores.detach()[0, :3, 2] @ torch.tensor(overlaps[:3]))
    close(DetectionBox(boxes[0], 2, iou=0.1, form=form)((as_written, scores)).detach(), [loose])
    with pytest.raises(TargetError, match="target 3 is not a class of the model, which has 3"):
        DetectionBox(boxes[0], 3)((as_written, scores))
    with pytest.raises(TargetError, match="needs the raw"):
        DetectionBox(boxes[0], 0)(SCORES)


def test_embedding_similarity() -> None:
    reference = torch.tensor([1.0, 2.0, 0.0, -1.0])
    expected = [
        sum(a * b for a, b in zip(row, reference.tolist(), strict=True))
        / (math.hypot(*row) * math.sqrt(6))
        for row in SCORES.tolist()
    ]
    close(EmbeddingSimilarity(reference)(SCORES), expected)
    close(EmbeddingSimilarity(SCORES)(SCORES), [1, 1])
    with pytest.raises(TargetError, match=r"needs an output \(N, 3\), got \(2, 4\)"):
        EmbeddingSimilarity(torch.ones(3))(SCORES)


def scored(target: Any, labels: tuple[str, ...] | None = LABELS) -> list[float]:
    (found,) = resolve(target, SCORES, labels, numbers=LOGITS)
    return found.score(SCORES).tolist()


@pytest.mark.parametrize(
    ("target", "index"),
    [
        (1, 1),
        ("1", 1),
        ("tiger cat", 1),
        ("Tiger CAT", 1),
        ("  crane ", 2),
        ("tabby", 0),
        ("tabby, tabby cat", 0),
        ("egyptian cat", 3),
        (np.int64(2), 2),
        (torch.tensor(2), 2),
        ("logit:crane", 2),
    ],
)
def test_names_of_one_class(target: Any, index: int) -> None:
    (found,) = resolve(target, SCORES, LABELS, numbers=LOGITS)
    assert found.indices == (index, index)
    assert torch.equal(found.score(SCORES), SCORES[:, index])


@pytest.mark.parametrize(
    "target",
    [
        [2, 0],
        (2, 0),
        ["crane", "tabby"],
        ["crane", 0],
        torch.tensor([2, 0]),
        np.array([2, 0]),
        range(2, -1, -2),
    ],
)
def test_one_for_each_image(target: Any) -> None:
    (found,) = resolve(target, SCORES, LABELS, numbers=LOGITS)
    assert found.indices == (2, 0)
    assert found.score(SCORES).tolist() == [2.0, 0.5]


def test_top_k_is_in_order() -> None:
    first, second, third = resolve("top3", SCORES, LABELS, numbers=LOGITS)
    assert [t.name for t in (first, second, third)] == ["top1", "top2", "top3"]
    assert [t.indices for t in (first, second, third)] == [(1, 3), (2, 2), (0, 0)]
    assert second.score(SCORES).tolist() == [2.0, 4.0]


def test_forms() -> None:
    assert scored("margin:tabby/crane") == (SCORES[:, 0] - SCORES[:, 2]).tolist()
    assert scored("margin:0/2", None) == (SCORES[:, 0] - SCORES[:, 2]).tolist()
    assert scored("counterfactual:TIGER cat") == (-SCORES[:, 1]).tolist()
    assert scored("probability:crane") == SCORES.softmax(1)[:, 2].tolist()
    assert resolve("margin:tabby/crane", SCORES, LABELS, numbers=LOGITS)[0].indices == (0, 0)
    assert scored(Margin("crane", ("tabby", 1))) == [1.0, 6.0]


def test_a_target_says_itself_what_is_explained() -> None:
    said = {
        "tabby": "class 0",
        "probability:1": "class 1",
        "counterfactual:crane": "not class 2",
        "margin:tabby/crane": "class 0 rather than class 2",
    }
    for text, words in said.items():
        (found,) = resolve(text, SCORES, LABELS, numbers=LOGITS)
        assert phrase(found, 1, lambda column: f"class {column}") == words
    (each,) = resolve(["tabby", Counterfactual(1)], SCORES, LABELS, numbers=LOGITS)
    assert phrase(each, 1, str) == "not 1"
    assert describe(Counterfactual(1)) == "counterfactual(1)"


@dataclasses.dataclass(frozen=True)
class Share(Target):
    """A class's probability among two."""

    index: Any
    other: Any
    numbers: Numbers | None = None
    one_each = {"index": 1}  # noqa: RUF012

    def __call__(self, output: Tensor) -> Tensor:
        assert self.numbers is not None
        chances = self.numbers.probabilities(output)
        index = [self.index] * len(output) if isinstance(self.index, int) else list(self.index)
        one = chances.gather(1, torch.tensor(index)[:, None])[:, 0]
        return one / (one + chances[:, self.other])


def test_a_target_of_ones_own_is_one_class() -> None:
    """It is looked up, told what the numbers are, cut with the images and named, and nothing else knows of it."""
    (found,) = resolve(Share(("tabby", "crane"), "tiger cat"), SCORES, LABELS, numbers=LOGITS)
    assert found.indices == (0, 2)
    close(found.score(SCORES), [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-6))])
    assert found.score.rows([1, 1]).index == (2, 2)
    assert phrase(found, 0, str) == found.name == "share(('tabby', 'crane'), tiger cat)"


def test_forms_take_what_plain_targets_take() -> None:
    first, second = resolve("probability:top2", SCORES, LABELS, numbers=LOGITS)
    assert [t.name for t in (first, second)] == ["probability(top1)", "probability(top2)"]
    assert [t.indices for t in (first, second)] == [(1, 3), (2, 2)]
    best = SCORES.softmax(1).topk(2, dim=1).values
    assert [t.score(SCORES).tolist() for t in (first, second)] == best.T.tolist()
    assert scored("probability: top1") == scored("probability:top1") == best[:, 0].tolist()
    assert (
        scored("probability:2") == scored("probability:crane") == SCORES.softmax(1)[:, 2].tolist()
    )
    assert scored("counterfactual:top1") == (-SCORES.amax(1)).tolist()
    (plain,) = resolve("logit:top1", SCORES, LABELS, numbers=LOGITS)
    assert (plain.name, plain.score(SCORES).tolist()) == ("top1", [3.0, 4.5])
    with pytest.raises(TargetError, match="'top9' asks for 9 classes, the model has 4"):
        resolve("probability:top9", SCORES, LABELS, numbers=LOGITS)


@pytest.mark.parametrize(
    "target", ["probability:top1", "probability:tiger cat", "probability:1", Probability(1)]
)
def test_of_several_labels_probabilities_are_sigmoids(target: Any) -> None:
    (found,) = resolve(target, SCORES, LABELS, numbers=Numbers("logits", multi_label=True))
    by_hand = [
        1 / (1 + math.exp(-float(SCORES[n, i])))
        for n, i in enumerate(found.indices)
        if i is not None
    ]
    close(found.score(SCORES), by_hand)
    (again,) = resolve(found.score, SCORES, numbers=LOGITS)  # as metrics do that run a method again
    close(again.score(SCORES), by_hand)
    (plain,) = resolve(target, SCORES, LABELS, numbers=LOGITS)
    assert found.name == plain.name
    close(
        plain.score(SCORES),
        [float(SCORES[n].softmax(0)[i]) for n, i in enumerate(plain.indices) if i is not None],
    )


def test_a_slash_belongs_to_the_name_but_in_margins() -> None:
    assert (
        scored("probability:TV/monitor", ("a", "TV/monitor", "b", "c"))
        == SCORES.softmax(1)[:, 1].tolist()
    )


@pytest.mark.parametrize(
    ("target", "labels", "says"),
    [
        (
            "tiger catt",
            LABELS,
            r"'tiger catt' is not a label of the model; did you mean 'tiger cat'",
        ),
        (
            "tabby cat",
            LABELS,
            r"several classes: 0 \(tabby, tabby cat\), 3 \(Egyptian cat, tabby cat\); give the index",
        ),
        ("crane", ("crane", "b", "crane", "d"), r"several classes: 0 \(crane\), 2 \(crane\)"),
        ("margin:tabby", LABELS, r"'margin:tabby' needs two classes"),
        ("margin:tabby/", LABELS, r"needs two classes"),
        ("margin:tabby/zebra", LABELS, r"'zebra' is not a label"),
        (["tabby", "zebra"], LABELS, r"'zebra' is not a label"),
        ("zebra", None, r"'zebra' is a name, and the model has no labels"),
        ("7", LABELS, r"target 7 is not a class of the model, which has 4: 0 to 3"),
        ("probability:9", LABELS, r"target 9 is not a class"),
    ],
)
def test_names_that_are_none(target: Any, labels: Any, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        scored(target, labels)


@pytest.mark.parametrize(
    "target", [None, True, 2.5, object(), [1.5, 0.0], [None, None], [True, False]]
)
def test_types_that_are_none(target: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="target"):
        scored(target)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (torch.zeros(2, 3, 4, 4), r"shape \(2, 3, 4, 4\).*SegmentationRegion"),
        ({"features": 1}, r"is a dict, not one tensor"),
        ({"boxes": 1}, r"a detector's records; .*DetectionBox"),
        ([{"boxes": 1}, {"boxes": 2}], r"a detector's records; .*DetectionBox"),
    ],
)
def test_outputs_without_classes(output: Any, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        resolve("top1", output, numbers=LOGITS)
    with pytest.raises(TargetError, match=says):
        Logit(0)(output)


def test_callables_keep_their_name_and_their_own_index() -> None:
    class Custom:
        index = ("not", "a label")

        def __call__(self, output: Tensor) -> Tensor:
            return output[:, 0] * 2

    (found,) = resolve(Custom(), SCORES, LABELS, numbers=LOGITS)
    assert found.score(SCORES).tolist() == [2.0, 1.0]
    assert found.name == "Custom"

    def doubled(output: Tensor) -> Tensor:
        return output[:, 0] * 2

    (found,) = resolve(doubled, SCORES, LABELS, numbers=LOGITS)
    assert found.name == "doubled"
    assert found.indices == (None, None)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (3, "3"),
        ("tabby", "tabby"),
        ([0, "crane"], "0,crane"),
        (Margin(1, 2), "margin(1, 2)"),
        ("counterfactual:tabby", "counterfactual(tabby)"),
        (Regression(), "regression(0)"),
    ],
)
def test_short_names(target: Any, name: str) -> None:
    assert resolve(target, SCORES, LABELS, numbers=LOGITS)[0].name == name


def test_targets_pull_the_gradient_they_should() -> None:
    net, x = randomised(TinyCNN()), pictures()
    with Trace(net, x, layers=["relu2"]) as trace:

        def signal(target: Any) -> Tensor:
            return trace.signal(target)["relu2"]

        torch.testing.assert_close(signal(Margin(1, 2)), signal(1) - signal(2))
        torch.testing.assert_close(signal(Counterfactual(1)), -signal(1))
        p = trace.output.softmax(1)
        by_hand = sum(
            p[:, 1] * (float(k == 1) - p[:, k]) * signal(k).permute(1, 2, 3, 0) for k in range(5)
        )
        torch.testing.assert_close(
            signal(Probability(1)).permute(1, 2, 3, 0), by_hand, rtol=1e-4, atol=1e-7
        )
        torch.testing.assert_close(
            signal(Regression(1, value=2.0)).permute(1, 2, 3, 0),
            -2 * (trace.output[:, 1] - 2) * signal(1).permute(1, 2, 3, 0),
        )


def test_probabilities_are_float32_whatever_the_model() -> None:
    assert LOGITS.probabilities(SCORES.bfloat16()).dtype == torch.float32
