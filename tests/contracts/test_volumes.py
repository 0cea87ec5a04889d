"""Volumes and video (N, C, D, H, W): maps (N, d, h, w), against plain autograd, slow loops and the picture's own."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.engine.masking.masks import PatchMasks
from seewhy.engine.places.places import Places, find_places, picture_layout
from seewhy.engine.trace import Trace
from seewhy.errors import InputError
from seewhy.methods.catalog import METHODS
from seewhy.methods.rise.state import RiseState
from tiny_models import pictures, randomised
from volume_models import (
    OfSlices,
    PatchNet,
    PictureNet,
    PlantedChannels,
    PlantedVideo,
    net_of,
    volumes,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:LIME of .*not locally linear"
)  # LIME's, of untrained models

SIZE = (8, 16, 16)
LABELS = (
    torch.arange(64)
    .view(4, 4, 4)
    .repeat_interleave(2, 0)
    .repeat_interleave(4, 1)
    .repeat_interleave(4, 2)
)
FAST: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 2},
    "integrated_gradients": {"steps": 3},
    "rise": {"samples": 32, "cells": 3},
    "lime": {"samples": 40, "superpixels": LABELS},
    "occlusion": {"window": (4, 8, 8)},
}
PAIRS = [
    (name, net)
    for name in METHODS
    for net in ("resnet", "video")
    if (name, net) != ("cam", "video")
]

cached = cache(net_of)


def run(name: str, net: nn.Module, x: Tensor, target: Any = 1, **options: Any) -> Tensor:
    return METHODS[name](net, x, target, **{**FAST.get(name, {}), **options})


def close(found: Tensor, expected: Tensor, share: float = 2e-5) -> None:
    torch.testing.assert_close(
        found, expected, rtol=1e-5, atol=share * float(expected.abs().max()) + 1e-12
    )


@pytest.mark.parametrize(("name", "net"), PAIRS)
def test_every_method_maps_volumes(name: str, net: str) -> None:
    x = volumes(2, SIZE)
    found = run(name, cached(net), x, [1, 3])
    layered = METHODS[name].at != "input" and name != "guided_grad_cam"
    grids = {(4, 2, 2), (4, 4, 4), (8, 8, 8)} if layered else {SIZE}
    assert tuple(found.shape[1:]) in grids
    assert found.isfinite().all()
    assert found.abs().max() > 0
    close(run(name, cached(net), x[1:], 3)[0], found[1])


# plain autograd


def pass_of(net: nn.Module, x: Tensor, layer: str) -> tuple[Tensor, Tensor, Tensor]:
    """The layer's output (N, C, d, h, w) and the gradients of class 1 there and at the input."""
    kept: list[Tensor] = []
    part = net.get_submodule(layer)
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        handle = part.register_forward_hook(lambda m, a, out: kept.append(out))
        score = net(leaf)[:, 1].sum()
        handle.remove()
        of_layer, of_input = torch.autograd.grad(score, (kept[0], leaf))
    a, g = kept[0].detach(), of_layer
    if a.ndim == 3:  # tokens after one of the class
        a, g = (t[:, 1:].mT.unflatten(2, (4, 4, 4)) for t in (a, g))
    return a, g, of_input


@pytest.mark.parametrize(("net", "layer"), [("resnet", "layer2"), ("video", "blocks.1.norm1")])
def test_maps_are_those_of_plain_autograd(net: str, layer: str) -> None:
    x = volumes(2, SIZE)
    a, g, of_input = pass_of(cached(net), x, layer)
    expected = {
        "grad_cam": F.relu((g.mean((2, 3, 4), keepdim=True) * a).sum(1)),
        "hires_cam": (g * a).sum(1),
        "layer_cam": F.relu((F.relu(g) * a).sum(1)),
        "elementwise_grad_cam": F.relu(g * a).sum(1),
        "saliency": of_input.abs().amax(1),
        "input_x_gradient": (x * of_input).sum(1),
    }
    weights = ((g * a).sum((2, 3, 4), keepdim=True) / a.sum((2, 3, 4), keepdim=True)).nan_to_num()
    expected["xgrad_cam"] = F.relu((weights * a).sum(1))
    alpha = 1 / (2 + F.relu(g) * a.sum((2, 3, 4), keepdim=True))
    if net == "resnet":  # whose activations have no sign
        expected["grad_cam_pp"] = F.relu(
            ((alpha * F.relu(g)).sum((2, 3, 4), keepdim=True) * a).sum(1)
        )
    for name, map_ in expected.items():
        layered = METHODS[name].at == "layer"
        close(run(name, cached(net), x, **({"layer": layer} if layered else {})), map_)


def test_cam_is_the_weighted_sum_of_what_is_pooled() -> None:
    net, x = cached("resnet"), volumes(2, SIZE)
    a = pass_of(net, x, "layer2")[0]
    assert isinstance(net.fc, nn.Linear)
    close(run("cam", net, x), torch.einsum("c,ncdhw->ndhw", net.fc.weight[1].detach(), a))


def test_integrated_gradients_and_smooth_grad_are_means_of_gradients() -> None:
    net, x = cached("resnet"), volumes(1, SIZE)
    found = run("integrated_gradients", net, x, steps=48, channels=True)
    with torch.no_grad():
        complete = net(x)[0, 1] - net(torch.zeros_like(x))[0, 1]
    assert float(found.sum()) == pytest.approx(float(complete), rel=0.03)
    close(run("smooth_grad", net, x, noise=0.0), run("saliency", net, x))


def test_relevance_is_input_x_gradient_where_rules_are_plain() -> None:
    """LRP with epsilon of a network of rectifiers without biases (Ancona et al., ICLR 2018)."""
    convs = [
        nn.Conv3d(3, 6, 3, 2, 1, bias=False),
        nn.ReLU(),
        nn.Conv3d(6, 8, 3, (1, 2, 2), 1, bias=False),
        nn.ReLU(),
    ]
    net = randomised(
        nn.Sequential(*convs, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4, bias=False))
    )
    x = volumes(2, SIZE)
    a, g, of_input = pass_of(net, x, "3")
    plain = {"composite": "uniform_epsilon", "seed": "lrp"}
    close(run("lrp", net, x, **plain), (x * of_input).sum(1), 1e-3)
    close(run("layer_relevance", net, x, layer="3", **plain), (a * g).sum(1), 1e-3)
    weights = (a * g).mean((2, 3, 4), keepdim=True)
    field = (weights * a).sum(1)
    cam = run("relevance_cam", net, x, layer="3", **plain)
    close(cam, field - field.mean((1, 2, 3), keepdim=True), 1e-3)


@pytest.mark.parametrize("net", ["resnet", "video"])
def test_relevance_adds_up(net: str) -> None:
    x = volumes(2, SIZE)
    ex = seewhy.explain(cached(net), x, methods=["lrp"], targets=[1])
    for i, facts in enumerate(ex[0].facts):
        account = facts["relevance"]
        assert account["arrived"] == pytest.approx(
            float(ex[0].map[i].sum()), abs=1e-3 * account["size"]
        )
        parts = sum(
            account[name] for name in ("arrived", "off_picture", "kept", "absorbed", "rest")
        )
        assert parts == pytest.approx(account["started"], abs=1e-3 * account["size"])


def test_a_box_of_values_holds_for_volumes() -> None:
    net, x = randomised(PictureNet()), pictures(1, 32)
    found = [
        run(
            "lrp",
            seewhy.wrap(one, preprocess=seewhy.IMAGENET, gives="logits"),
            given,
            composite="epsilon_plus_box",
        )
        for one, given in ((net, x), (OfSlices(net).eval(), x[:, :, None]))
    ]
    close(found[1][:, 0], found[0], 1e-4)


# slow loops


def masked(net: nn.Module, x: Tensor, masks: Tensor) -> Tensor:
    """The scores of class 1 of one volume under masks (n, D, H, W)."""
    with torch.no_grad():
        return net(x * masks[:, None])[:, 1].double()


def test_occlusion_is_a_loop_over_boxes() -> None:
    net, x = cached("resnet"), volumes(1, (6, 10, 12))
    total, times = torch.zeros(6, 10, 12).double(), torch.zeros(6, 10, 12)
    whole = masked(net, x, torch.ones(1, 6, 10, 12))[0]
    for z in (0, 2, 3):  # the last ends at the border
        for top in (0, 3, 6):
            for left in (0, 4, 7):
                where = (slice(z, z + 3), slice(top, top + 4), slice(left, left + 5))
                mask = torch.ones(1, 6, 10, 12)
                mask[(0, *where)] = 0
                total[where] += whole - masked(net, x, mask)[0]
                times[where] += 1
    close(run("occlusion", net, x, window=(3, 4, 5), stride=(2, 3, 4))[0], (total / times).float())


@pytest.mark.parametrize(
    ("form", "masks"),
    [("paper", "sobol"), ("paper", "iid"), ("ratio", "antithetic"), ("centred", "sobol")],
)
def test_rise_is_a_loop_over_its_masks(form: str, masks: str) -> None:
    net, x, state = cached("video"), volumes(1, SIZE), RiseState()
    found = run("rise", net, x, samples=48, masks=masks, form=form, state=state)[0]
    drawn = state.grids(0, 48).render(0, 48, torch.device("cpu"))
    assert tuple(drawn.shape) == (48, *SIZE)
    scores = torch.cat([masked(net, x, mask[None]) for mask in drawn])
    total, mean = torch.zeros(SIZE).double(), scores.mean()
    for mask, score in zip(drawn, scores, strict=True):
        total += (score - mean if form == "centred" else score) * mask
    expected = total / drawn.double().sum(0) if form == "ratio" else total / (48 * 0.5)
    close(found, expected.float(), 1e-4)


def test_masks_of_rise_are_trilinear_between_their_cells() -> None:
    state = RiseState()
    run("rise", cached("video"), volumes(1, SIZE), samples=8, state=state)
    grids = state.grids(0, 8)
    for i, mask in enumerate(grids.render(0, 8, torch.device("cpu"))):
        pitch = [-(-side // count) for side, count in zip(SIZE, grids.cells.shape[1:], strict=True)]
        large = [(count + 1) * p for count, p in zip(grids.cells.shape[1:], pitch, strict=True)]
        whole = F.interpolate(
            grids.cells[i][None, None].float(), large, mode="trilinear", align_corners=False
        )[0, 0]
        where = tuple(
            slice(int(s), int(s) + side) for s, side in zip(grids.shifts[i], SIZE, strict=True)
        )
        inner = tuple(
            slice(p, side - p) for p, side in zip(pitch, SIZE, strict=True)
        )  # borders are mirrored
        close(mask[inner], whole[where][inner])


def test_the_adjusted_form_of_rise_is_right_in_expectation() -> None:
    """Of a linear score the control variate knows all: with half of the samples the map is the same."""
    weight = volumes(1, SIZE, channels=1, seed=3)[0, 0]
    net = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 2, bias=False))
    net[1].weight.data = torch.stack([torch.zeros(weight.numel()), weight.flatten()])
    x = torch.ones(1, 1, *SIZE)
    few, many = (run("rise", net, x, samples=n, form="adjusted")[0] for n in (512, 4096))
    assert float((few - many).square().mean().sqrt()) < 0.1 * float(many.std())


def test_boxes_of_volumes_hide_what_they_say() -> None:
    masks = PatchMasks(torch.tensor([[1, 2, 0, 4, 3, 2], [0, 0, 0, 0, 0, 0]]), (3, 5, 6)).render(
        0, 2, torch.device("cpu")
    )
    expected = torch.ones(2, 3, 5, 6)
    expected[0, 0:2, 2:3, 1:4] = 0
    assert torch.equal(masks, expected)


# a volume of one slice is a picture


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", [PictureNet, PatchNet])
def test_one_slice_has_the_map_of_the_picture(name: str, kind: type[nn.Module]) -> None:
    if name == "cam" and kind is PatchNet:
        pytest.skip("it has no head that CAM reads")
    net, x = randomised(kind()), pictures(2, 32)
    labels = torch.arange(16).view(4, 4).repeat_interleave(8, 0).repeat_interleave(8, 1)
    own = {"lime": {"superpixels": labels}, "occlusion": {"window": 8}}.get(name, {})
    of_picture = run(name, net, x, **own)
    own = {"lime": {"superpixels": labels[None]}, "occlusion": {"window": (1, 8, 8)}}.get(name, {})
    of_volume = run(name, randomised(OfSlices(net)), x[:, :, None], **own)
    assert of_volume.shape == (2, 1, *of_picture.shape[1:])
    close(of_volume[:, 0], of_picture, 1e-4)


@pytest.mark.parametrize("baseline", ["mean", "blur", "noise"])
def test_one_slice_is_hidden_as_the_picture(baseline: str) -> None:
    net, x = randomised(PictureNet()), pictures(1, 32)
    deep = OfSlices(net).eval()
    for name in ("occlusion", "rise"):
        window = {"window": 8} if name == "occlusion" else {}
        deep_window = {"window": (1, 8, 8)} if name == "occlusion" else {}
        expected = run(name, net, x, baseline=baseline, **window)
        close(
            run(name, deep, x[:, :, None], baseline=baseline, **deep_window)[:, 0], expected, 1e-4
        )


# where layers' numbers lie: every cell of the volume is changed in turn


def shift_of(
    net: nn.Module, places: Places, x: Tensor, layer: str, cell: tuple[slice, ...]
) -> Tensor:
    """How much each place of a layer changes with a cell of the volume, (d, h, w), by the layout found."""
    changed = x.clone()
    changed[(slice(None), slice(None), *cell)] += 2.0
    seen = []
    for volume in (x, changed):
        with Trace(net, volume, layers=[layer], grad=False) as trace:
            given = trace.activations[layer]
        seen.append(picture_layout(places, x, layer, given).to_grid(given))
    return (seen[1] - seen[0]).square().sum(1)[0]


def check_every_cell(net: nn.Module, x: Tensor, layer: str) -> None:
    places = find_places(net, x)
    grid = places.layouts[places.call(layer)].grid
    sides = [side // n for side, n in zip(x.shape[2:], grid, strict=True)]
    for cell in torch.cartesian_prod(*map(torch.arange, grid)).tolist():
        where = tuple(slice(i * side, (i + 1) * side) for i, side in zip(cell, sides, strict=True))
        change = shift_of(net, places, x, layer, where)
        assert list(torch.unravel_index(change.argmax(), grid)) == cell
        assert change[tuple(cell)] > 0.999 * change.sum()  # nothing else of `at` has heard of it


SHUFFLED = torch.randperm(48, generator=torch.Generator().manual_seed(5)).tolist()


@pytest.mark.parametrize(
    ("convolved", "order", "dims", "before"),
    [
        (True, None, (0, 1, 2), 0),
        (True, None, (0, 2, 1), 5),
        (True, SHUFFLED, (1, 0, 2), 1),
        (False, None, (1, 0, 2), 1),
        (False, None, (0, 1, 2), 5),
        (False, SHUFFLED, (0, 2, 1), 0),
    ],
    ids=lambda value: "shuffled" if value is SHUFFLED else None,
)
def test_planted_tokens(
    convolved: bool, order: list[int] | None, dims: tuple[int, int, int], before: int
) -> None:
    net = randomised(PlantedVideo(order=order, dims=dims, convolved=convolved, before=before))
    x = volumes(1, (6, 16, 16))
    places = find_places(net, x)
    with Trace(net, x, layers=["at"], grad=False) as trace:
        given = trace.activations["at"]
    assert torch.equal(picture_layout(places, x, "at", given).to_grid(given), net.truth(given))


def test_every_cell_of_tokens_in_an_order_of_their_own() -> None:
    check_every_cell(randomised(PlantedVideo(order=SHUFFLED)), volumes(1, (6, 16, 16)), "at")


@pytest.mark.parametrize("dims", [(0, 1, 2, 3, 4), (0, 2, 3, 4, 1)])
@pytest.mark.parametrize("size", [(6, 16, 20), (12, 12, 12), (4, 24, 12)])
def test_every_cell_of_channels_first_and_last(
    dims: tuple[int, ...], size: tuple[int, int, int]
) -> None:
    check_every_cell(randomised(PlantedChannels(dims)), volumes(1, size), "at")


@pytest.mark.parametrize(
    "dims", [(0, 1, 3, 4, 2), (0, 1, 4, 3, 2), (0, 4, 2, 3, 1), (0, 3, 2, 4, 1), (0, 2, 1, 3, 4)]
)
def test_turned_volumes_have_an_order_of_their_own_or_none(dims: tuple[int, ...]) -> None:
    net, x = randomised(PlantedChannels(dims, channels=6, stride=(3, 3, 3))), volumes(1, (9, 9, 9))
    layout = find_places(net, x).layouts.get(("at", 0))
    if dims == (0, 2, 1, 3, 4):  # channels among the places
        assert layout is None
    else:
        assert layout is not None
        assert layout.order is not None
        check_every_cell(net, x, "at")


def test_a_crop_in_a_volume_is_said() -> None:
    class Cropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net_of("resnet")

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x[:, :, 4:, :, 8:])

    with pytest.warns(
        seewhy.SeewhyWarning,
        match="looks only at slices 4 to 16 and columns 8 to 32 of the 16 x 24 x 32",
    ):
        ex = seewhy.explain(Cropped().eval(), volumes(1, (16, 24, 32)), targets=[1])
    assert ex[0].status == ("misplaced",)
    assert ex[0].facts[0]["extent"] == (8, 0, 4, 32, 24, 16)


# what cannot be


def test_superpixels_are_of_pictures() -> None:
    with pytest.raises(InputError, match="give labels"):
        METHODS["lime"](cached("resnet"), volumes(1, SIZE), 1)


def test_a_series_is_told_the_way() -> None:
    with pytest.raises(InputError, match=r"a series \(N, C, L\) goes as pictures of one row"):
        METHODS["saliency"](nn.Conv1d(3, 2, 3), torch.zeros(2, 3, 9), 1)


class OfSeries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(2, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(x[:, :, 0])).mean(2))


def test_a_series_goes_as_pictures_of_one_row() -> None:
    net, x = (
        randomised(OfSeries()),
        torch.randn(2, 2, 1, 24, generator=torch.Generator().manual_seed(0)),
    )
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    close(run("saliency", net, x), gradient.abs().amax(1))
    for name in ("lrp", "input_x_gradient", "rise", "occlusion"):
        options = {"occlusion": {"window": (1, 6)}, "lrp": {"seed": "lrp"}}.get(name, {})
        assert run(name, net, x, **options).shape == (2, 1, 24)
    with pytest.warns(seewhy.SeewhyWarning, match="other classes are not taken away: no layer"):
        run("lrp", net, x)


# the facade


def test_explain_draws_saves_and_reports(tmp_path: Path) -> None:
    x = volumes(2, (16, 16, 24))
    model = seewhy.wrap(cached("resnet"), labels=list("abcde"), gives="logits")
    options = {"rise": {"samples": 16, "cells": 2}}
    methods = ["grad_cam", "lrp", "rise"]
    ex = seewhy.explain(
        model, x, methods=methods, targets=["top1", "c"], layers="layer1", options=options
    )
    for a in ex:
        assert a.image_size == (16, 16, 24)
        assert a.heatmap().shape == x[:, 0].shape
        assert float(a.heatmap().max()) <= 1
    torch.testing.assert_close(ex[0].map, METHODS["grad_cam"](model, x, "top1", layer="layer1"))
    expected = F.interpolate(ex[0].map[:, None], (16, 16, 24), mode="trilinear")[:, 0]
    close(ex[0].heatmap(), expected / expected.amax((1, 2, 3), keepdim=True))
    assert ex.photos[0].size == (4 * 24, 2 * 16)  # eight frames
    assert ex.fuse("method")[-1].map.shape == x[:, 0].shape
    said = json.loads(ex.save(tmp_path / "out").read_text())["images"][1]
    assert (said["size"], said["frames"]) == ([16, 16, 24], [0, 2, 4, 6, 9, 11, 13, 15])
    kept = np.load(tmp_path / "out" / said["attributions"][0]["map"]["file"])
    assert np.array_equal(kept[said["attributions"][0]["map"]["key"]], ex[0].map[1].numpy())
    place = torch.unravel_index(ex[0].map[1].argmax(), ex[0].map.shape[1:])
    per_cell = [side / n for side, n in zip((16, 16, 24), ex[0].map.shape[1:], strict=True)]
    peak = [(int(at) + 0.5) * size for at, size in zip(place, per_cell, strict=True)][::-1]
    assert said["attributions"][0]["peak"] in (None, pytest.approx(peak, abs=0.06))
    assert (tmp_path / "out" / said["sheet"]).exists()
    assert "of frame" in ex.report(tmp_path / "report.html").read_text()


def test_photos_of_volumes_undo_the_preprocessing() -> None:
    x = volumes(1, (3, 8, 8))
    model = seewhy.wrap(cached("resnet"), preprocess=seewhy.IMAGENET, gives="logits")
    photo = np.asarray(seewhy.explain(model, x, methods="saliency", targets=1).photos[0])
    frames = [seewhy.IMAGENET.invert(x[:, :, k])[0] for k in range(3)]
    assert np.array_equal(photo, np.concatenate(frames, 1))


def test_metrics_are_of_pictures() -> None:
    net, x = cached("resnet"), volumes(2, SIZE)
    with pytest.raises(InputError, match=r"metrics are of pictures \(N, C, H, W\), not of volumes"):
        seewhy.metrics.Deletion().update(torch.rand(2, 16, 16), net, x, 1)
    with pytest.raises(InputError, match=r"of volumes judge one slice, maps\[:, k\]"):
        seewhy.metrics.Complexity().update(torch.rand(2, *SIZE))
    with pytest.raises(InputError, match=r"give \(N, h, w\)"):
        seewhy.localize.boxes(torch.rand(2, *SIZE))


def test_influence_of_volumes() -> None:
    """The gradient product of every pair, by autograd."""
    net, x, labels = randomised(net_of("resnet")), volumes(5, SIZE), torch.arange(5)
    index = seewhy.influence.InfluenceIndex.fit(net, (x, labels), solver="gradient_dot")
    slopes = []
    for one, label in zip(x, labels, strict=True):
        loss = F.cross_entropy(net(one[None]), label[None])
        slopes.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
        )
    gradients = torch.stack(slopes)
    close(index.scores(x[:2], labels[:2]), gradients[:2] @ gradients.T / len(x))
