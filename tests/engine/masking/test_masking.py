"""The engine of masked forward passes against pictures masked and run one by one."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from skimage.transform import resize
from torch import Tensor, nn

from oracles import bilinear
from seewhy.engine.call import Call
from seewhy.engine.masking import (
    Blur,
    Chunk,
    FieldMasks,
    GridMasks,
    Masks,
    MeanColor,
    Noise,
    PatchMasks,
    Picture,
    Running,
    ScorerError,
    Several,
    StepMasks,
    SuperpixelMasks,
    SuperpixelMean,
    Zeros,
    find_baseline,
    keep_allocator_memory,
    masked_scores,
    rows_of,
    settle,
    tuning,
)
from seewhy.engine.masking.masks import linear
from seewhy.engine.targets.classes import EmbeddingSimilarity, Logit, Margin, Probability
from seewhy.engine.targets.detection import DetectionBox
from seewhy.engine.targets.regions import SegmentationRegion
from seewhy.errors import ArgumentTypeError, InputError, SeewhyError, TargetError
from tiny_models import Called, ModelState, TinyCNN, pictures, randomised

CPU = torch.device("cpu")
PLAIN = Running(batch_size=16, memory_format="contiguous")


def rendered(masks: Masks) -> Tensor:
    return masks.render(0, len(masks), CPU)


def patches(n: int, size: tuple[int, int], seed: int = 0) -> PatchMasks:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.stack(
        [torch.randint(0, edge, (n,), generator=generator) for edge in (size[1], size[0])], 1
    )
    return PatchMasks(
        torch.cat([corners, corners + torch.randint(1, 9, (n, 2), generator=generator)], 1), size
    )


def grids(n: int, size: tuple[int, int], cells: int = 4) -> GridMasks:
    generator = torch.Generator().manual_seed(n)
    shifts = [torch.randint(0, -(-edge // cells), (n,), generator=generator) for edge in size]
    return GridMasks(
        torch.rand(n, cells, cells, generator=generator) < 0.5, torch.stack(shifts, 1), size
    )


def collected(chunks: Any, n: int, targets: int = 1) -> list[Tensor]:
    """The scores of each image in the order of its masks, after a look at the order."""
    found: list[list[Chunk]] = [[] for _ in range(n)]
    for chunk in chunks:
        assert chunk.start == (found[chunk.image][-1].stop if found[chunk.image] else 0)
        assert chunk.scores.shape == (chunk.stop - chunk.start, targets)
        assert len(chunk.masks) == len(chunk.scores)
        assert chunk.scores.dtype == torch.float64
        found[chunk.image].append(chunk)
    return [
        torch.cat([torch.zeros(0, targets).double(), *(chunk.scores for chunk in one)])
        for one in found
    ]


# --- masks ---


@pytest.mark.parametrize(
    ("size", "cells"), [((224, 224), 7), ((32, 48), 7), ((3, 5), 7), ((17, 23), 3), ((8, 8), 1)]
)
def test_grid_masks_are_those_of_the_authors(size: tuple[int, int], cells: int) -> None:
    masks = grids(6, size, cells)
    pitch = [-(-edge // cells) for edge in size]
    for i, found in enumerate(rendered(masks).numpy()):
        y, x = masks.shifts[i].tolist()
        whole = [(cells + 1) * edge for edge in pitch]
        up = resize(
            masks.cells[i].double().numpy(), whole, order=1, mode="reflect", anti_aliasing=False
        )
        np.testing.assert_allclose(found, up[y : y + size[0], x : x + size[1]], atol=2e-7)


def test_a_mask_is_the_same_in_every_chunk() -> None:
    labels = torch.arange(35).view(5, 7) // 6
    sources: list[Masks] = [
        grids(9, (5, 7)),
        SuperpixelMasks(torch.rand(9, 6, generator=torch.Generator().manual_seed(0)), labels),
        patches(9, (5, 7)),
        FieldMasks(
            torch.rand(9, 2, 3, generator=torch.Generator().manual_seed(0)), (5, 7), normalize=True
        ),
        StepMasks(torch.arange(35).flip(0).view(5, 7), range(0, 36, 4)),
    ]
    for source in sources:
        whole = rendered(source)
        assert whole.shape == (9, 5, 7)
        assert whole.dtype == torch.float32
        assert whole.min() >= 0
        assert whole.max() <= 1 + 1e-6
        for start, stop in itertools.pairwise((0, 1, 4, 9)):
            torch.testing.assert_close(
                source.render(start, stop, CPU), whole[start:stop], rtol=0, atol=1e-7
            )


def test_superpixel_patch_and_step_masks_pixel_by_pixel() -> None:
    labels = torch.tensor([[0, 0, 1], [2, 1, 1]])
    coefficients = torch.tensor([[1, 0, 1], [0, 1, 1]], dtype=torch.bool)
    boxes = torch.tensor([[1, 0, 3, 1], [-2, 1, 1, 9]])
    ranks = torch.tensor([[5, 0, 3], [1, 4, 2]])
    superpixels, patch = (
        rendered(SuperpixelMasks(coefficients, labels)),
        rendered(PatchMasks(boxes, (2, 3))),
    )
    going, coming = (
        rendered(StepMasks(ranks, [0, 2, 6], inserting=inserting)) for inserting in (False, True)
    )
    for y, x in itertools.product(range(2), range(3)):
        for i in range(2):
            x0, y0, x1, y1 = boxes[i].tolist()
            assert superpixels[i, y, x] == coefficients[i, labels[y, x]]
            assert patch[i, y, x] == (not (x0 <= x < x1 and y0 <= y < y1))
        for i, turned in enumerate((0, 2, 6)):
            assert coming[i, y, x] == (ranks[y, x] < turned)
            assert going[i, y, x] == 1 - coming[i, y, x]


def test_field_masks() -> None:
    fields = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(1))
    found = rendered(FieldMasks(fields, (6, 5)))
    for one, field in zip(found, fields, strict=True):
        np.testing.assert_allclose(one, bilinear(field.double().numpy(), (6, 5)), atol=1e-6)
    scaled = rendered(FieldMasks(5 * fields - 2, (6, 5), normalize=True))
    for one, mask in zip(scaled, found, strict=True):
        torch.testing.assert_close(one, (mask - mask.min()) / (mask.max() - mask.min()))
    assert not rendered(FieldMasks(torch.ones(1, 2, 2), (4, 4), normalize=True)).any()
    corners = rendered(FieldMasks(fields, (6, 5), align_corners=True))[:, ::5, ::4]
    torch.testing.assert_close(corners, fields[:, ::1, ::3])
    unasked = linear(fields[:, None], (6, 5))[:, 0]  # corners lie apart unless that is asked for
    torch.testing.assert_close(unasked, found, atol=1e-6, rtol=1e-5)


# --- baselines ---


def test_blur_is_that_of_the_authors_of_rise() -> None:
    x = pictures(1, (20, 13))[0]
    point = np.zeros((11, 11))
    point[5, 5] = 1
    kernel = torch.zeros(3, 3, 11, 11)
    for channel in range(3):
        kernel[channel, channel] = torch.tensor(gaussian_filter(point, 5))
    torch.testing.assert_close(
        Blur().picture(x), F.conv2d(x[None], kernel, padding=5)[0], rtol=1e-5, atol=1e-6
    )
    assert Blur(3, 1.0).picture(torch.rand(32, 3, 5)).shape == (32, 3, 5)
    with pytest.raises(InputError, match="odd kernel"):
        Blur(kernel=4)


def test_baselines_in_their_own_words() -> None:
    x = pictures(1, (6, 8), channels=5)[0]
    labels = torch.arange(48).view(6, 8) % 7
    assert not Zeros().picture(x).any()
    mean, pieces, noise = (
        MeanColor().picture(x),
        SuperpixelMean(labels).picture(x),
        Noise(3).picture(x),
    )
    for channel, (y, k) in itertools.product(range(5), itertools.product(range(6), range(8))):
        assert float(mean[channel, y, k]) == pytest.approx(float(x[channel].mean()), abs=1e-6)
        own = x[channel][labels == labels[y, k]].mean()
        assert float(pieces[channel, y, k]) == pytest.approx(float(own), abs=1e-6)
        assert x[channel].min() <= noise[channel, y, k] <= x[channel].max()
    assert torch.equal(noise, Noise(3).picture(x.clone()))
    assert not torch.equal(noise, Noise(4).picture(x))
    assert not torch.equal(noise, Noise(3).picture(x + 1) - 1)
    assert torch.equal(Picture(torch.tensor(2.0)).picture(x), torch.full_like(x, 2))
    with pytest.raises(InputError, match=r"baseline of shape \(4, 1, 1\) does not broadcast"):
        Picture(torch.zeros(4, 1, 1)).picture(x)
    with pytest.raises(InputError, match="do not fit an image"):
        SuperpixelMean(labels).picture(x[:, :5])


def test_what_masks_and_baselines_are_without_options() -> None:
    assert (Blur().kernel, Blur().sigma, Noise().seed) == (11, 5.0, 0)
    fields = FieldMasks(torch.ones(1, 2, 2), (4, 4))
    assert (fields.align_corners, fields.normalize) == (False, False)
    assert not StepMasks(torch.arange(4).view(2, 2), [1]).inserting
    assert Running() == Running(None, None, "float32", "auto", None)


@pytest.mark.parametrize(
    ("make", "within", "beyond"),
    [
        (Blur, {"kernel": 1}, {"kernel": -1}),
        (Blur, {"kernel": 3}, {"kernel": 2}),
        (Blur, {"sigma": 0.01}, {"sigma": 0.0}),
        (Running, {"batch_size": 1}, {"batch_size": 0}),
        (Running, {"memory": 1}, {"memory": 0}),
        (Running, {"precision": "bfloat16"}, {"precision": "half"}),
        (Running, {"memory_format": "contiguous"}, {"memory_format": "last"}),
        (find_baseline, {"baseline": 1e30}, {"baseline": float("inf")}),
        (
            find_baseline,
            {"baseline": torch.zeros(3, 1, 1)},
            {"baseline": torch.tensor([0, np.nan])},
        ),
    ],
)
def test_options_are_taken_up_to_their_bounds(make: Any, within: Any, beyond: Any) -> None:
    make(**within)
    with pytest.raises(InputError, match=f"{next(iter(beyond))}="):
        make(**beyond)


@pytest.mark.parametrize(
    "hollow",
    [
        torch.zeros(3, 1, 1, device="meta"),
        torch.eye(3).to_sparse(),
        torch.tensor([0.0, math.nan, 0.0])[:, None, None],
        math.inf,
    ],
)
def test_a_baseline_without_numbers_is_told(hollow: Any) -> None:
    with pytest.raises(InputError, match="is not finite; give numbers of the model's input"):
        find_baseline(hollow)


def test_baselines_by_name() -> None:
    assert [find_baseline(name).name for name in ("zeros", "mean", "blur", "noise")] == [
        "zeros",
        "mean",
        "blur",
        "noise",
    ]
    assert find_baseline("noise", seed=7) == Noise(7)
    assert find_baseline("noise") == Noise(0)
    assert find_baseline(["noise"]) == Several((Noise(0),))
    assert find_baseline(["noise"], seed=7) == Several((Noise(7),))
    assert find_baseline(["zeros", 0.5, Blur()]).name == "zeros + 0.5 + blur"
    own = MeanColor()
    assert find_baseline(own) is own
    assert find_baseline(torch.zeros(3, 1, 1)).name == "picture"
    with pytest.raises(InputError, match=r"baseline='blurr' is not known; did you mean 'blur'"):
        find_baseline("blurr")
    with pytest.raises(InputError, match="empty list"):
        find_baseline([])
    with pytest.raises(InputError, match="list within a list"):
        find_baseline([["zeros"]])
    with pytest.raises(ArgumentTypeError, match="baseline is a dict"):
        find_baseline({})  # type: ignore[arg-type]


# --- the engine ---


def one_by_one(
    net: nn.Module,
    x: Tensor,
    masks: list[Masks],
    target: int | list[int],
    baselines: list[Any] | None = None,
) -> list[Tensor]:
    """Every picture masked in float64 and run by itself."""
    found = []
    for i, (image, source) in enumerate(zip(x, masks, strict=True)):
        hidden = (
            [torch.zeros_like(image)]
            if baselines is None
            else [b.picture(image) for b in baselines]
        )
        index = target[i] if isinstance(target, list) else target
        scores = []
        for mask in rendered(source).double():
            shown = [(mask * image.double() + (1 - mask) * h.double()).float() for h in hidden]
            with torch.no_grad():
                scores.append(np.mean([float(net(picture[None])[0, index]) for picture in shown]))
        found.append(torch.tensor(scores, dtype=torch.float64)[:, None])
    return found


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_scores_are_those_of_single_pictures(
    batch_size: int, memory_format: Any, device: torch.device
) -> None:
    net, x = randomised(TinyCNN()).to(device), pictures(3, (12, 18))
    masks: list[Masks] = [grids(11, (12, 18)), patches(0, (12, 18)), patches(9, (12, 18))]
    before = ModelState(net)
    running = Running(batch_size=batch_size, memory_format=memory_format)
    with torch.inference_mode():
        chunks = list(
            masked_scores(net, x, masks, [Logit((1, 0, 4))], baseline=Zeros(), running=running)
        )
    before.assert_unchanged()
    expected = one_by_one(net.cpu(), x, masks, [1, 0, 4])
    for found, scores in zip(collected(chunks, 3), expected, strict=True):
        torch.testing.assert_close(found, scores, rtol=1e-5, atol=1e-5)
    packed = {chunk.image for chunk in chunks if chunk.start == 0 or chunk.image == 0}
    assert packed == {0, 2}
    assert max(len(chunk.scores) for chunk in chunks) <= batch_size
    assert not any(chunk.masks.is_inference() for chunk in chunks)


def test_several_images_share_a_batch() -> None:
    seen = []
    net = Called(lambda x: seen.append(len(x)) or x.mean((2, 3)))
    sources = [patches(n, (8, 8)) for n in (5, 1, 10, 3)]
    found = collected(
        masked_scores(net, pictures(4, 8), sources, [Logit(0)], baseline=Zeros(), running=PLAIN), 4
    )
    assert [len(scores) for scores in found] == [5, 1, 10, 3]
    assert (
        seen == [16] * 4 + [3] * 4
    )  # three more of each size, to see whether they depend on each other


def test_several_baselines_are_averaged_and_images_may_have_their_own() -> None:
    net, x = randomised(TinyCNN()), pictures(2, 12)
    masks: list[Masks] = [patches(6, (12, 12), seed) for seed in (0, 1)]
    pair = (Zeros(), Blur(3, 1.0), MeanColor())
    found = collected(
        masked_scores(net, x, masks, [Logit(2)], baseline=Several(pair), running=PLAIN), 2
    )
    for one, expected in zip(found, one_by_one(net, x, masks, 2, list(pair)), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-5)
    own = [Picture(image.flip(2)) for image in x]
    found = collected(masked_scores(net, x, masks, [Logit(2)], baseline=own, running=PLAIN), 2)
    for i in range(2):
        alone = one_by_one(net, x[i : i + 1], masks[i : i + 1], 2, [own[i]])
        torch.testing.assert_close(found[i], alone[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="baseline has 1 for 2 images"):
        masked_scores(net, x, masks, [Logit(2)], baseline=[Zeros()])
    with pytest.raises(InputError, match="in different numbers"):
        masked_scores(net, x, masks, [Logit(2)], baseline=[Zeros(), Several(pair)])


def test_targets_see_each_row_as_its_own_image() -> None:
    x, chosen = pictures(3, 8), torch.tensor([2, 0, 1])
    masks = [patches(n, (8, 8), n) for n in (4, 7, 2)]
    net = randomised(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
    reference = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))

    def by_closure(output: Tensor) -> Tensor:
        return output.gather(1, chosen[:, None])[:, 0]

    scores: list[Any] = [
        by_closure,
        Logit((2, 0, 1)),
        Margin((2, 0, 1), 3),
        Probability(4),
        lambda out: out[:, 1],
    ]
    scores += [EmbeddingSimilarity(reference), EmbeddingSimilarity(reference[0])]
    found = collected(
        masked_scores(net, x, masks, scores, baseline=Zeros(), running=PLAIN), 3, len(scores)
    )
    for i, source in enumerate(masks):
        with torch.no_grad():
            out = net(rendered(source)[:, None] * x[i])
        k = int(chosen[i])
        near = [torch.cosine_similarity(out, reference[j].expand_as(out)) for j in (i, 0)]
        columns = [
            out[:, k],
            out[:, k],
            out[:, k] - out[:, 3],
            out.softmax(1)[:, 4],
            out[:, 1],
            *near,
        ]
        torch.testing.assert_close(found[i], torch.stack(columns, 1).double(), rtol=1e-5, atol=1e-5)


def test_outputs_packed_in_anything() -> None:
    x = pictures(2, 8)
    masks = [patches(3, (8, 8)), patches(4, (8, 8))]
    boxes = torch.tensor([[[0.0, 0, 4, 4], [4, 4, 8, 8]]])

    def detector(x: Tensor) -> dict[str, Tensor]:
        means = torch.stack([x[:, :, :4, :4].mean((1, 2, 3)), x[:, :, 4:, 4:].mean((1, 2, 3))], 1)
        return {
            "boxes": boxes.expand(len(x), -1, -1),
            "scores": means[..., None],
            "scale": torch.tensor(2.0),
        }

    ways: list[tuple[Callable[..., Any], Any]] = [
        (detector, DetectionBox((0, 0, 4, 4), 0)),
        (detector, lambda out: out["scores"][:, 0, 0] * out["scale"] / 2),
        (lambda x: tuple(detector(x).values())[:2], lambda out: out[1][:, 0, 0]),
        (
            lambda x: [{"score": s} for s in detector(x)["scores"][:, 0, 0]],
            lambda out: torch.stack([o["score"] for o in out]),
        ),
        (lambda x: x, SegmentationRegion(0, torch.ones(2, 8, 8))),
    ]
    for function, score in ways:
        call = Call(Called(function), output=lambda out: out)
        chunks = masked_scores(call, x, masks, [score], baseline=Zeros(), running=PLAIN)
        for i, found in enumerate(collected(chunks, 2)):
            shown = rendered(masks[i])[:, None] * x[i]
            whole = isinstance(score, SegmentationRegion)
            expected = shown[:, 0].sum((1, 2)) if whole else shown[:, :, :4, :4].mean((1, 2, 3))
            torch.testing.assert_close(found[:, 0], expected.double(), rtol=1e-5, atol=1e-6)


def test_rows_of_rows() -> None:
    table = torch.arange(20.0).view(5, 4)
    for score in (Logit((3, 1, 2)), lambda out: out[torch.arange(3), torch.tensor([3, 1, 2])]):
        once = rows_of(score, [2, 0], 3)
        twice = rows_of(once, [1, 1, 0, 1, 0], 2)
        assert twice(table).tolist() == [3.0, 7.0, 10.0, 15.0, 18.0]


def test_further_inputs_follow_their_images() -> None:
    x, masks = pictures(2, 8), [patches(3, (8, 8)), patches(5, (8, 8))]
    shift, scale = torch.tensor([10.0, 20.0]), torch.tensor([0.5])

    class Shifted(nn.Module):
        def forward(self, x: Tensor, scale: Tensor, *, shift: Tensor) -> Tensor:
            return (x.mean((2, 3)) * scale + shift[:, None]).float()

    call = Call(Shifted(), args=(scale,), inputs={"shift": shift})
    chunks = masked_scores(call, x, masks, [Logit(1)], baseline=Zeros())
    for i, found in enumerate(collected(chunks, 2)):
        expected = (rendered(masks[i]) * x[i, 1]).mean((1, 2)) * scale + shift[i]
        torch.testing.assert_close(found[:, 0], expected.double(), rtol=1e-5, atol=1e-5)


class Keyword(nn.Module):
    def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
        return x.mean((2, 3)) * scale


def test_what_has_no_row_for_each_image_goes_in_as_it_is() -> None:
    x, masks = pictures(1, 8), [patches(5, (8, 8))]
    for scale in (torch.tensor([2.0]), torch.tensor([[2.0]]), torch.tensor(2.0)):
        call = Call(Keyword(), kwargs={"scale": scale})
        chunks = masked_scores(call, x, masks, [Logit(0)], baseline=Zeros())
        expected = 2 * (rendered(masks[0]) * x[0, 0]).mean((1, 2))
        torch.testing.assert_close(
            collected(chunks, 1)[0][:, 0], expected.double(), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_precision(dtype: torch.dtype) -> None:
    net, x, masks = randomised(TinyCNN()).to(dtype), pictures(1, 12), [patches(8, (12, 12))]
    found = collected(masked_scores(net, x, masks, [Logit(1)], baseline=Zeros(), running=PLAIN), 1)[
        0
    ]
    expected = one_by_one(randomised(TinyCNN()), x, masks, 1)[0]
    torch.testing.assert_close(found, expected.double(), rtol=0.05, atol=0.05)


def test_any_callable_is_a_model() -> None:
    x, masks = pictures(2, 8), [patches(6, (8, 8)), patches(2, (8, 8))]
    expected = [
        (rendered(source) * image[1]).mean((1, 2)) for source, image in zip(masks, x, strict=True)
    ]
    for function in (
        lambda x: x.numpy().mean((2, 3)),
        lambda x: x.mean((2, 3)).tolist(),
        lambda x: x.mean((2, 3)),
    ):
        found = collected(masked_scores(function, x, masks, [Logit(1)], baseline=Zeros()), 2)
        for scores, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(scores[:, 0], wanted.double(), rtol=1e-5, atol=1e-6)


def test_progress() -> None:
    seen: list[tuple[int, int]] = []
    running = Running(
        batch_size=4,
        memory_format="contiguous",
        progress=lambda done, all_: seen.append((done, all_)),
    )
    sources = [patches(5, (8, 8)), patches(4, (8, 8))]
    list(
        masked_scores(
            Keyless(), pictures(2, 8), sources, [Logit(0)], baseline=Zeros(), running=running
        )
    )
    assert seen == [(4, 9), (8, 9), (9, 9)]

    def interrupt(done: int, _: int) -> None:
        raise KeyboardInterrupt

    running = Running(batch_size=4, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(
            masked_scores(
                Keyless(), pictures(2, 8), sources, [Logit(0)], baseline=Zeros(), running=running
            )
        )


class Keyless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


# --- what goes wrong ---


class Failing(nn.Module):
    """Answers `calls` batches, and then does what it is told."""

    def __init__(self, calls: int, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.calls, self.then = calls, then

    def forward(self, x: Tensor) -> Tensor:
        self.calls -= 1
        means = x.mean((2, 3))
        return means if self.calls >= 0 else self.then(means)


def fail(_: Tensor) -> Tensor:
    raise OSError("the server went away.\nTraceback")


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (fail, "the server went away; look at"),
        (lambda means: means * float("nan"), "a score is not finite"),
        (
            lambda means: means[:-1],
            r"a target gave \(3,\), not one score for each of 4 pictures: \(4,\)",
        ),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_scorer_that_fails_amid_the_masks(
    then: Callable[[Tensor], Tensor], said: str, precision: Any
) -> None:
    running = Running(batch_size=4, memory_format="contiguous", precision=precision)
    net, found = (
        Failing(5, then),
        [],
    )  # two batches, and three that tell whether pictures depend on each other
    before = ModelState(net)
    stopped = rf"scoring stopped after 8 of 12 masked pictures: .*{said}"
    with pytest.raises(ScorerError, match=stopped) as caught:  # noqa: PT012
        for chunk in masked_scores(
            net,
            pictures(2, 8),
            [patches(6, (8, 8))] * 2,
            [Logit(0)],
            baseline=Zeros(),
            running=running,
        ):
            found.append((chunk.image, chunk.start, chunk.stop))
    assert found == [(0, 0, 4), (0, 4, 6), (1, 0, 2)]
    assert isinstance(caught.value, SeewhyError)
    before.assert_unchanged()


def test_one_score_that_is_not_finite_is_told() -> None:
    net = Called(lambda x: x.abs().mean((2, 3)).log())
    boxes = torch.tensor([[0, 0, 2, 2], [0, 0, 8, 8], [4, 4, 6, 6]])  # the second hides all
    masks: list[Masks] = [PatchMasks(boxes, (8, 8))]
    found = masked_scores(net, pictures(1, 8), masks, [Logit(0)], baseline=Zeros(), running=PLAIN)
    with pytest.raises(ScorerError, match="a score is not finite"):
        list(found)


def test_what_does_not_fit_says_so_at_once() -> None:
    net, x = randomised(TinyCNN()), pictures(1, 8)
    with pytest.raises(TargetError, match="target 9 is not a class"):
        list(masked_scores(net, x, [patches(3, (8, 8))], [Logit(9)], baseline=Zeros()))
    with pytest.raises(InputError, match="does not fit the model"):
        list(masked_scores(net, x[:, :2], [patches(3, (8, 8))], [Logit(0)], baseline=Zeros()))
    with pytest.raises(InputError, match="masks has 2 sources for 1 images"):
        masked_scores(net, x, [patches(3, (8, 8))] * 2, [Logit(0)], baseline=Zeros())
    with pytest.raises(
        InputError,
        match=r"masks\[0\] renders \(1, 8, 9\) for one mask, the image needs \(1, 8, 8\)",
    ):
        masked_scores(net, x, [patches(3, (8, 9))], [Logit(0)], baseline=Zeros())
    with pytest.raises(InputError, match="x has shape"):
        masked_scores(net, x[0], [patches(3, (8, 8))], [Logit(0)], baseline=Zeros())
    with pytest.raises(
        InputError, match="precision='float16' is not known; use 'auto', 'float32', 'bfloat16'"
    ):
        Running(precision="float16")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="batch_size=0 is too small"):
        Running(batch_size=0)


def test_a_batch_that_does_not_fit_on_the_device_is_halved() -> None:
    sizes: list[int] = []

    def model(x: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > 5:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return x.mean((2, 3))

    x, masks = pictures(2, 8), [patches(20, (8, 8), 1), patches(15, (8, 8), 2)]
    found = collected(
        masked_scores(Called(model), x, masks, [Logit(0)], baseline=Zeros(), running=PLAIN), 2
    )
    for i in range(2):
        expected = (rendered(masks[i]) * x[i, 0]).mean((1, 2))
        torch.testing.assert_close(found[i][:, 0], expected.double(), rtol=1e-5, atol=1e-6)
    assert sizes[:3] == [16, 8, 4]
    assert max(sizes[3:]) <= 5
    with pytest.raises(ScorerError, match="out of memory"):
        list(
            masked_scores(
                Called(fail_for_want_of_memory),
                x,
                masks,
                [Logit(0)],
                baseline=Zeros(),
                running=PLAIN,
            )
        )


def fail_for_want_of_memory(_: Tensor) -> Tensor:
    raise torch.cuda.OutOfMemoryError("out of memory")


# --- what is found by measuring ---


def clocked(
    cost: Callable[[Running, int], float], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Running, int], Tensor]:
    """A measurement on a clock of its own; scores are the same in every way of running."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def measure(way: Running, count: int) -> Tensor:
        nonlocal now
        now += cost(way, count)
        return torch.linspace(0, 1, count)[:, None].double()

    return measure


def settled(measure: Any, running: Running | None = None, total: int = 4000) -> Running:
    return tuning.settled(
        running or Running(),
        measure,
        call=Call(nn.Identity()),
        picture=torch.zeros(3, 8, 8),
        total=total,
    )


def test_the_batch_grows_while_a_picture_gets_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(way: Running, count: int) -> float:
        return (
            8 + count + (5 if count > 32 else 0)
        )  # a start-up of 8; above 32 something no longer fits

    found = settled(clocked(cost, monkeypatch))
    assert found == Running(batch_size=32, memory_format="contiguous")
    assert (
        settled(clocked(lambda way, count: count, monkeypatch)).batch_size == 4
    )  # nothing to gain
    assert settled(clocked(cost, monkeypatch), Running(batch_size=5)).batch_size == 5


def test_formats_and_precisions_are_taken_where_they_are_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cost(way: Running, count: int) -> float:
        return (
            count
            * (0.7 if way.memory_format == "channels_last" else 1)
            * (0.5 if way.precision == "bfloat16" else 1)
        )

    assert settled(clocked(cost, monkeypatch)).memory_format == "channels_last"
    assert settled(clocked(cost, monkeypatch)).precision == "float32"
    auto = Running(precision="auto")
    assert settled(clocked(cost, monkeypatch), auto).precision == "bfloat16"
    assert settled(clocked(lambda way, count: count, monkeypatch), auto).precision == "float32"
    exact = clocked(cost, monkeypatch)

    def shuffled(way: Running, count: int) -> Tensor:
        return exact(way, count).flip(0) if way.precision == "bfloat16" else exact(way, count)

    assert settled(shuffled, auto).precision == "float32"
    few = settled(exact, auto, total=100)  # too few to measure
    assert few == Running(batch_size=16, precision="float32", memory_format="contiguous")


def test_what_was_found_is_kept_for_the_model() -> None:
    net, x, masks = randomised(TinyCNN()), pictures(1, 12), [patches(600, (12, 12))]
    how: dict[str, Any] = {"baseline": Zeros(), "running": Running(precision="auto")}
    first = settle(net, x, masks, [Logit(0)], **how)
    assert first.batch_size is not None
    assert "auto" not in (first.precision, first.memory_format)
    assert settle(net, x, masks, [Logit(0)], **how) == first
    runs = [
        collected(masked_scores(net, x, masks, [Logit(0)], baseline=Zeros()), 1)[0]
        for _ in range(2)
    ]
    assert torch.equal(*runs)


def test_live_memory_of_a_known_network() -> None:
    net, x = (
        nn.Sequential(nn.Flatten(), nn.Linear(48, 100), nn.ReLU(), nn.Linear(100, 10)),
        torch.zeros(2, 3, 4, 4),
    )
    with torch.no_grad(), tuning.LiveMemory() as live:
        net(x)
    assert live.peak == 4 * 2 * (100 + 100)  # the linear map's result and the rectifier's
    with torch.no_grad(), tuning.LiveMemory() as live:
        kept = [x + 1 for _ in range(5)]
        del kept
        x + 1
    assert live.peak == 5 * x.nbytes


def test_the_batch_stays_within_the_memory() -> None:
    x, masks = pictures(1, 16), [patches(600, (16, 16))]
    sizes: list[int] = []
    net = Called(lambda x: sizes.append(len(x)) or x.mean((2, 3)))
    each = x.nbytes
    list(
        masked_scores(
            net, x, masks, [Logit(0)], baseline=Zeros(), running=Running(memory=20 * each)
        )
    )
    assert 1 <= max(sizes) <= 20
    list(masked_scores(net, x, masks, [Logit(0)], baseline=Zeros(), running=Running(memory=1)))
    assert sizes[-1] == 1


def test_spearman() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        a, b = torch.randint(0, 9, (2, 30), generator=generator).double()
        assert tuning.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert np.isnan(tuning.spearman(a, torch.ones(30).double()))


def test_bfloat16_runs_the_model_under_autocast() -> None:
    seen: list[torch.dtype] = []
    net, x, masks = randomised(TinyCNN()), pictures(1, 12), [patches(8, (12, 12))]
    net.fc.register_forward_hook(lambda module, args, value: seen.append(value.dtype))
    before = ModelState(net)
    running = Running(batch_size=8, precision="bfloat16", memory_format="contiguous")
    found = collected(
        masked_scores(net, x, masks, [Logit(1)], baseline=Zeros(), running=running), 1
    )[0]
    before.assert_unchanged()
    assert seen == [torch.bfloat16] * 4  # three more, to see whether pictures depend on each other
    torch.testing.assert_close(found, one_by_one(net, x, masks, 1)[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("batch_size", "count", "casts"),
    [(8, 128, 2), (1, 64, 1), (1, 65, 2), (64, 128, 2), (100, 101, 2)],
)
def test_bfloat16_casts_the_weights_once_for_64_masks(
    batch_size: int, count: int, casts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, masks = randomised(TinyCNN()), pictures(1, 12), [patches(count, (12, 12))]
    cleared: list[int] = []
    clear = torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: cleared.append(1) or clear())
    running = Running(batch_size=batch_size, precision="bfloat16", memory_format="contiguous")
    list(masked_scores(net, x, masks, [Logit(1)], baseline=Zeros(), running=running))
    assert len(cleared) == casts


def test_the_callers_autocast_changes_nothing() -> None:
    net, x, masks = randomised(TinyCNN()), pictures(1, 12), [grids(16, (12, 12))]
    plain = collected(masked_scores(net, x, masks, [Logit(1)], baseline=Zeros(), running=PLAIN), 1)[
        0
    ]
    with torch.autocast("cpu", torch.bfloat16):
        found = collected(
            masked_scores(net, x, masks, [Logit(1)], baseline=Blur(3, 1.0), running=PLAIN), 1
        )[0]
        assert torch.is_autocast_enabled("cpu")
        same = collected(
            masked_scores(net, x, masks, [Logit(1)], baseline=Zeros(), running=PLAIN), 1
        )[0]
    assert torch.equal(same, plain)
    assert not torch.equal(found, plain)


def test_the_allocator_keeps_memory_only_when_asked() -> None:
    assert keep_allocator_memory() in (True, False)
    assert torch.zeros(10, 10).sum() == 0
