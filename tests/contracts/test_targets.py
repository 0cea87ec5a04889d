"""What a target holds for each image goes with it through every batch, method and choice of layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.targets import (
    DetectionBox,
    EmbeddingSimilarity,
    Logit,
    LogOdds,
    Margin,
    RatherThan,
    Regression,
    SegmentationRegion,
    Target,
    one_each,
)
from seewhy.errors import InputError, TargetError
from seewhy.methods.catalog import find_method
from tiny_models import TinyCNN, pictures, randomised

pytestmark = pytest.mark.filterwarnings(
    "ignore:LIME of .*not locally linear"
)  # LIME's, of untrained models

N, SIZE = 4, 16
# one method for each way in which a model is run
WAYS: dict[str, dict[str, Any]] = {
    "grad_cam": {},
    "lrp": {},
    "clrp": {},
    "guided_backprop": {},
    "integrated_gradients": {"steps": 2},
    "fullgrad": {},
    "smooth:grad_cam": {"samples": 2},
    "occlusion": {"window": 8, "stride": 8},
    "rise": {"samples": 8, "cells": 2},
    "lime": {"samples": 12, "superpixels": "slic"},
    "score_cam": {},
    "ablation_cam": {},
}
NEEDS_ONE_CLASS = ("clrp",)


class Dense(nn.Module):
    """(N, 3, H, W) scores of a segmentation."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.out = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.out(self.stage(x))
        return scores


class Detector(Dense):
    """Boxes of quarters (N, 4, 4) and their scores (N, 4, 3)."""

    def forward(self, x: Tensor) -> Any:
        scores = nn.functional.adaptive_avg_pool2d(super().forward(x), 2).flatten(2).transpose(1, 2)
        corners = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 16, 16]])
        return corners.expand(len(x), 4, 4), scores


@dataclasses.dataclass(frozen=True, eq=False)
class Own:
    """A callable of somebody's own that says how it is cut."""

    weights: Tensor

    def __call__(self, output: Tensor) -> Tensor:
        return (output * self.weights).sum(1)

    def rows(self, images: Sequence[int]) -> Own:
        return Own(self.weights[list(images)])


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


CLASSES = [1, 0, 4, 2]
REGIONS = (drawn(N, SIZE, SIZE) > 0).float()
QUARTERS = [(x, y, x + 8, y + 8) for x, y in ((0.0, 0.0), (8.0, 0.0), (0.0, 8.0), (8.0, 8.0))]
KINDS: dict[
    str, tuple[Callable[[], nn.Module], Any, Callable[[int], Any]]
] = {  # of all, and of image i alone
    "classes": (TinyCNN, CLASSES, lambda i: CLASSES[i]),
    "array": (TinyCNN, np.array(CLASSES), lambda i: CLASSES[i]),
    "tensor": (TinyCNN, torch.tensor(CLASSES), lambda i: CLASSES[i]),
    "logit": (TinyCNN, Logit(tuple(CLASSES)), lambda i: CLASSES[i]),
    "margin": (TinyCNN, Margin(tuple(CLASSES), 3), lambda i: Margin(CLASSES[i], 3)),
    "others": (TinyCNN, Margin(3, tuple(CLASSES)), lambda i: Margin(3, CLASSES[i])),
    "log odds": (TinyCNN, LogOdds(tuple(CLASSES)), lambda i: LogOdds(CLASSES[i])),
    "rather than": (TinyCNN, RatherThan(tuple(CLASSES), 3), lambda i: RatherThan(CLASSES[i], 3)),
    "ranks": (TinyCNN, ["top1 rather than top2"] * N, lambda i: "top1 rather than top2"),
    "regression": (TinyCNN, Regression(tuple(CLASSES), 0.5), lambda i: Regression(CLASSES[i], 0.5)),
    "embedding": (
        TinyCNN,
        EmbeddingSimilarity(drawn(N, 5)),
        lambda i: EmbeddingSimilarity(drawn(N, 5)[i]),
    ),
    "region": (Dense, SegmentationRegion(1, REGIONS), lambda i: SegmentationRegion(1, REGIONS[i])),
    "boxes": (
        Detector,
        [DetectionBox(box, 1) for box in QUARTERS],
        lambda i: DetectionBox(QUARTERS[i], 1),
    ),
    "own": (TinyCNN, Own(drawn(N, 5)), lambda i: Own(drawn(N, 5)[i : i + 1])),
    "callables": (
        TinyCNN,
        [lambda o, k=k: o[:, k] ** 2 for k in CLASSES],
        lambda i: lambda o: o[:, CLASSES[i]] ** 2,
    ),
    "mixed": (
        TinyCNN,
        [1, "top1", lambda o: o[:, 2], Margin(0, 1)],
        lambda i: [1, "top1", 2, Margin(0, 1)][i],
    ),
}


@cache
def net_of(kind: str) -> nn.Module:
    return randomised(KINDS[kind][0]())


def explained(kind: str, name: str, x: Tensor, target: Any, **more: Any) -> Tensor:
    output = (lambda answer: answer) if kind == "boxes" else None
    options = {name: WAYS[name]}
    how = {"batch_size": 8, "layers": "relu2" if KINDS[kind][0] is TinyCNN else "stage", **more}
    found = seewhy.explain(
        net_of(kind), x, methods=name, targets=[target], options=options, output=output, **how
    )
    return found[0].map


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(
        found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()) + 1e-9
    )


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_image_has_its_own(kind: str, name: str) -> None:
    if name in NEEDS_ONE_CLASS and kind not in ("classes", "array", "tensor", "logit"):
        pytest.skip("contrastive relevance needs one class")
    x, (_, target, own) = pictures(N, SIZE), KINDS[kind]
    expected = torch.cat([explained(kind, name, x[i : i + 1], own(i)) for i in range(N)])
    for size in (1, 3, 8) if name in ("grad_cam", "occlusion") else (3,):
        close(explained(kind, name, x, target, batch_size=size), expected)
    assert expected.count_nonzero()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("own", "boxes")])
def test_a_method_is_given_all_at_once(kind: str) -> None:
    x, (_, target, own) = pictures(N, SIZE), KINDS[kind]
    for name in ("saliency", "occlusion"):
        method = find_method(name)
        close(
            method(net_of(kind), x, target),
            torch.cat([method(net_of(kind), x[i : i + 1], own(i)) for i in range(N)]),
        )


@pytest.mark.parametrize("kind", ["embedding", "region", "own", "callables"])
def test_evaluation_cuts_them_too(kind: str) -> None:
    x, (_, target, own) = pictures(N, SIZE), KINDS[kind]
    metric = seewhy.metrics.Deletion(step=128, output="logit")
    how: dict[str, Any] = {"methods": "saliency", "metrics": {"deletion": metric}, "chance": ()}

    def means(x: Tensor, target: Any, size: int) -> float:
        found = seewhy.evaluate(net_of(kind), x, targets=[target], batch_size=size, **how)
        return float(found.rows[0].result.mean)

    alone = np.mean([means(x[i : i + 1], own(i), 1) for i in range(N)])
    for size in (1, 3):
        assert means(x, target, size) == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "own"])
def test_how_many_must_be_as_many_as_images(kind: str) -> None:
    x, (_, target, _) = pictures(N - 1, SIZE), KINDS[kind]
    assert one_each(target) == N
    for size in (3, 8):
        with pytest.raises(TargetError, match=f"{N} .*{N - 1} ") as raised:
            explained(kind, "grad_cam", x, target, batch_size=size)
        assert "\n" not in str(raised.value)
    if kind != "boxes":
        for name in ("grad_cam", "occlusion"):
            with pytest.raises(InputError, match=f"{N}.*{N - 1}"):
                find_method(name)(net_of(kind), x, target)


def test_one_row_is_for_all() -> None:
    x, one = pictures(3, SIZE), drawn(1, 5)
    for name in ("saliency", "occlusion"):
        method = find_method(name)
        close(
            method(net_of("embedding"), x, EmbeddingSimilarity(one)),
            method(net_of("embedding"), x, EmbeddingSimilarity(one[0])),
        )


def test_a_callable_that_cannot_be_cut_says_so() -> None:
    weights = drawn(N, 5)
    with pytest.raises(TargetError, match=r"output of 3 images.*rows\(images\)"):
        seewhy.explain(
            net_of("classes"),
            pictures(N, SIZE),
            targets=lambda o: (o * weights).sum(1),
            batch_size=3,
        )


def test_a_target_of_ones_own_names_its_fields() -> None:
    @dataclasses.dataclass(frozen=True, eq=False)
    class Weighted(Target):
        weights: Tensor
        one_each = {"weights": 2}  # noqa: RUF012

        def __call__(self, output: Tensor) -> Tensor:
            return (output * self.weights).sum(1)

    x, target = pictures(N, SIZE), Weighted(drawn(N, 5))
    for name in ("grad_cam", "occlusion"):
        close(
            explained("own", name, x, target, batch_size=3),
            explained("own", name, x, KINDS["own"][1], batch_size=8),
        )
    assert target.rows([3, 0, 0]).weights.equal(drawn(N, 5)[[3, 0, 0]])
    assert target.images == N
    assert Weighted(drawn(5)).images is None
    assert Weighted(drawn(5)).rows([0, 0]).weights.equal(drawn(5))


def test_words_of_each_image() -> None:
    model = seewhy.wrap(net_of("mixed"), labels=list("abcde"))
    found = seewhy.explain(
        model, pictures(3, SIZE), targets=[["b", Margin("a", "c"), lambda o: o[:, 2]]], batch_size=2
    )
    assert found[0].labels == ("b", "a rather than c", "<lambda>")
    with pytest.raises(TargetError, match="'top2' is 2 targets"):
        seewhy.explain(model, pictures(2, SIZE), targets=[["top2", lambda o: o[:, 2]]])
    with pytest.raises(TargetError, match=r"gave \(1, 5\)"):
        seewhy.explain(model, pictures(2, SIZE), targets=[[lambda o: o, lambda o: o[:, 2]]])


WITHOUT_GRADIENT: dict[str, Callable[[Tensor], Any]] = {
    "argmax": lambda o: o.argmax(1),
    "comparison": lambda o: o[:, 0] > o[:, 1],
    "whole numbers": lambda o: (10 * o[:, 0]).long(),
    "constant": lambda o: torch.ones(len(o)),
    "numpy": lambda o: torch.from_numpy(o[:, 0].numpy()),
}


@pytest.mark.parametrize("said", WITHOUT_GRADIENT)
def test_a_callable_without_a_gradient(said: str) -> None:
    """Methods that go back say so; those that look from outside may follow it."""
    x, target = pictures(2, SIZE), WITHOUT_GRADIENT[said]
    for name in ("saliency", "grad_cam", "lrp", "integrated_gradients", "guided_backprop"):
        for run in (
            find_method(name),
            lambda *of, name=name: seewhy.explain(*of[:2], methods=name, targets=of[2]),
        ):
            with pytest.raises(TargetError, match="no gradient") as raised:
                run(net_of("classes"), x, target)
            assert "\n" not in str(raised.value)
    assert explained("classes", "occlusion", x, target).shape == (2, SIZE, SIZE)


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (lambda o: o, r"\(2, 5\)"),
        (lambda o: o[:, :1], r"\(2, 1\)"),
        (lambda o: o.sum(), r"\(\)"),
        (lambda o: o[0], r"\(5,\)"),
        (lambda o: None, "NoneType"),
        (lambda o: [1.0, 2.0], "list"),
        (lambda o: o[:, 0].detach().numpy(), "ndarray"),
    ],
)
def test_a_callable_gives_one_score_for_each_image(target: Any, shape: str) -> None:
    x = pictures(2, SIZE)
    for name in ("guided_backprop", "grad_cam", "occlusion", "score_cam"):
        with pytest.raises(
            TargetError, match=rf"the target gave {shape}, not one score for each of the 2 images"
        ):
            explained("classes", name, x, target)
    metric = seewhy.metrics.Deletion(step=128, output="logit")
    with pytest.raises(TargetError, match=f"the target gave {shape}"):
        metric.update(torch.rand(2, SIZE, SIZE), net_of("classes"), x, target)
