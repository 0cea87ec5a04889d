"""Occlusion against a slow loop over windows, and on planted patches."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.engine.call import Call
from seewhy.engine.masking import MeanColor, Running, ScorerError
from seewhy.engine.targets.classes import Logit, Probability, ScoreFunction
from seewhy.errors import InputError
from seewhy.maps.attribution import Estimate
from seewhy.methods.occlusion import occlusion, spread, windows
from tiny_models import Called, ModelState, TinyCNN, pictures, randomised


def explain(model: nn.Module, x: Tensor, *scores: ScoreFunction, **options: Any) -> list[Estimate]:
    assert occlusion.run is not None
    return list(
        occlusion.run(
            Call(model), x, scores or (Logit(0),), layer=None, **{**occlusion.options, **options}
        )
    )


def slow(
    model: nn.Module,
    image: Tensor,
    score: ScoreFunction,
    window: Any,
    stride: Any,
    baseline: Tensor,
) -> Tensor:
    """Window by window in float64, one picture at a time; the last window of each row and column ends at the border."""
    h, w = image.shape[1:]

    def starts(length: int, size: int, step: int) -> list[int]:
        found = list(range(0, length - size + 1, step))
        return found if found[-1] + size == length else [*found, length - size]

    with torch.no_grad():
        whole = score(model(image[None])).double()[0]
        total, count = torch.zeros(2, h, w, dtype=torch.float64)
        for y in starts(h, window[0], stride[0]):
            for x in starts(w, window[1], stride[1]):
                hidden = image.clone()
                where = (slice(None), slice(y, y + window[0]), slice(x, x + window[1]))
                hidden[where] = baseline.expand_as(image)[where]
                total[where[1:]] += whole - score(model(hidden[None])).double()[0]
                count[where[1:]] += 1
    return total / count


@pytest.mark.parametrize(
    ("window", "stride", "sizes", "steps"),
    [
        (None, None, (2, 3), (1, 1)),
        (4, 4, (4, 4), (4, 4)),
        ((3, 5), (2, 5), (3, 5), (2, 5)),
        ((12, 3), 2, (12, 3), (2, 2)),
    ],
)
def test_the_map_is_the_mean_over_windows(window: Any, stride: Any, sizes: Any, steps: Any) -> None:
    net, x = randomised(TinyCNN()), pictures(2, (12, 17))
    before = ModelState(net)
    found = explain(net, x, Logit(2), Probability((1, 3)), window=window, stride=stride)
    before.assert_unchanged()
    for estimate, classes in zip(
        found, ((Logit(2), Logit(2)), (Probability(1), Probability(3))), strict=True
    ):
        assert estimate.map.dtype == torch.float32
        for i, score in enumerate(classes):
            expected = slow(net, x[i], score, sizes, steps, torch.zeros(()))
            torch.testing.assert_close(estimate.map[i].double(), expected, rtol=1e-5, atol=1e-5)
    assert found[0].interval is None
    json.dumps(found[0].facts)


@pytest.mark.parametrize(("baseline", "shown"), [("mean", None), (MeanColor(), None), (0.7, 0.7)])
def test_baselines(baseline: Any, shown: float | None) -> None:
    net, x = randomised(TinyCNN()), pictures(1, 10)
    colour = x[0].mean((1, 2), keepdim=True) if shown is None else torch.tensor(shown)
    found = explain(net, x, Logit(1), window=4, stride=3, baseline=baseline)[0]
    expected = slow(net, x[0], Logit(1), (4, 4), (3, 3), colour)
    torch.testing.assert_close(found.map[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_a_patch_is_found() -> None:
    patch = Called(
        lambda x: torch.stack(
            [x[:, :, 8:12, 18:22].mean((1, 2, 3)), -x[:, :, 8:12, 2:6].mean((1, 2, 3))], 1
        )
    )
    x = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0)) + 0.5
    towards, against = explain(patch, x, Logit(0), Logit(1), window=4, stride=2)
    for maps, columns in ((towards.map, slice(18, 22)), (-against.map, slice(2, 6))):
        for one in maps:
            inside = torch.zeros_like(one, dtype=torch.bool)
            inside[8:12, columns] = True
            assert one[inside].min() > 0
            assert inside.flatten()[one.argmax()]
            near = torch.zeros_like(inside)
            near[4:16, max(columns.start - 4, 0) : columns.stop + 4] = True
            assert not one[~near].any()
    pixels = explain(Called(lambda x: x.flatten(2).sum(2)), x, Logit(1), window=1)[
        0
    ]  # a linear model, window 1
    torch.testing.assert_close(pixels.map, x[:, 1], rtol=1e-4, atol=2e-4)
    assert pixels.facts[0] == {"windows": 768, "of": 768, "partial": False}


def test_windows_cover_everything() -> None:
    for size in ((1, 1), (5, 9), (224, 224), (7, 300)):
        boxes = windows(size)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2] <= size[1]).all()
        assert (boxes[:, 3] <= size[0]).all()
        covered = spread(boxes, torch.ones(len(boxes), 1), size)[0]
        slowly = torch.zeros(size, dtype=torch.float64)
        for x0, y0, x1, y1 in boxes.tolist():
            slowly[y0:y1, x0:x1] += 1
        assert torch.equal(covered, slowly)
        assert covered.min() >= 1
    assert len(windows((224, 224))) == 169
    assert windows((224, 224))[0].tolist() == [0, 0, 32, 32]
    assert windows((10, 10), 50).tolist() == [[0, 0, 10, 10]]


def test_batches_channels_and_sizes() -> None:
    net, x = randomised(TinyCNN()), pictures(3, (10, 14))
    whole = explain(net, x)[0]
    for size in (1, 5, 300):
        other = explain(net, x.flip(0), running=Running(batch_size=size))[0].map.flip(0)
        torch.testing.assert_close(other, whole.map, rtol=1e-5, atol=1e-5)
    for channels in (1, 2, 4, 32):
        for size in ((5, 9), (1, 1)):
            found = occlusion(
                Called(lambda x: x.mean((2, 3))), pictures(1, size, channels=channels), channels - 1
            )
            assert found.shape == (1, *size)
            assert found.isfinite().all()


def test_what_was_scored_before_a_failure_is_returned() -> None:
    net, x = randomised(TinyCNN()), pictures(2, 14)
    left = 280  # three batches of them, to see whether they depend on each other

    def fails(x: Tensor) -> Tensor:
        nonlocal left
        left -= len(x)
        if left < 0:
            raise OSError("the service is gone")
        return net(x)

    options: dict[str, Any] = {"running": Running(batch_size=10, memory_format="contiguous")}
    found = explain(Called(fails), x, **options)[0]
    assert found.facts[0] == {"windows": 169, "of": 169, "partial": False}
    assert {k: v for k, v in found.facts[1].items() if k != "failed"} == {
        "windows": 79,
        "of": 169,
        "partial": True,
    }
    assert found.facts[1]["failed"].startswith("scoring stopped after 250 of 340")
    full = explain(net, x, **options)[0].map
    torch.testing.assert_close(found.map[0], full[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.map[1, :6], full[1, :6], rtol=1e-5, atol=1e-5)
    assert not found.map[1, 9:].any()
    left = 5
    with pytest.raises(ScorerError, match="the service is gone"):
        explain(Called(fails), x, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 0}, "window=0 cannot be used"),
        ({"window": (3, 3, 3)}, r"window=\(3, 3, 3\)"),
        ({"window": 3, "stride": 0}, "stride=0"),
        ({"window": 3, "stride": 4}, "pixels would never be hidden"),
        ({"baseline": "zeroes"}, "did you mean 'zeros'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        explain(randomised(TinyCNN()), pictures(1, 12), **options)
