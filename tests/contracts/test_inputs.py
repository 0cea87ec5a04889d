"""Pictures as people bring them, and the settings they call from: right as in plain settings, or one line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.errors import InputError, LayerError, ModelError, SeewhyError, SeewhyWarning
from seewhy.methods.catalog import METHODS, find_method
from tiny_models import TinyCNN, offloaded, pictures, randomised, tiny_vit

pytestmark = pytest.mark.filterwarnings(
    "ignore:LIME of .*not locally linear"
)  # LIME's, of untrained models

FAST: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
    "rise": {"samples": 16, "cells": 3},
    "lime": {"samples": 30, "superpixels": "grid"},
}
NEED_THE_INPUT = [
    name
    for name, method in METHODS.items()
    if method.at == "input" and method.family != "perturbation"
]
SIZE = 16


def run(name: str, model: Any, x: Tensor, **options: Any) -> Tensor:
    return find_method(name)(model, x, 1, **FAST.get(name, {}), **options)


def close(found: Tensor, expected: Tensor, share: float = 2e-5) -> None:
    torch.testing.assert_close(
        found, expected, rtol=1e-5, atol=share * float(expected.abs().max()) + 1e-12
    )


def whole_pictures(n: int = 2) -> Tensor:
    return (pictures(n, SIZE) * 40 + 120).clamp(0, 255).round().to(torch.uint8)


class Scaling(nn.Module):
    """Scales pixel values by itself; floats are scaled too, are refused, or are taken for scaled."""

    def __init__(self, floats: str = "scaled", net: nn.Module | None = None) -> None:
        super().__init__()
        self.net, self.floats = net or randomised(TinyCNN()), floats

    def forward(self, x: Tensor) -> Tensor:
        if self.floats == "refused" and x.is_floating_point():
            raise TypeError("expected pixels")
        if self.floats == "rounded":
            x = x.round().clamp(0, 255)
        scaled = self.floats != "as they are" or not x.is_floating_point()
        answer: Tensor = self.net(x.float() / 64 - 2 if scaled else x)
        return answer


TYPES = (torch.int16, torch.int64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, torch.uint8) for name in METHODS]
    + [(name, dtype) for name in ("smooth_grad", "rise") for dtype in TYPES],
)
def test_numbers_of_every_type_are_those_as_floats(name: str, dtype: torch.dtype) -> None:
    x = whole_pictures().to(dtype)
    close(run(name, Scaling(), x), run(name, Scaling(), x.float()))


@pytest.mark.parametrize(
    ("name", "floats"),
    [(name, "refused") for name in METHODS]
    + [(name, "as they are") for name in ("grad_cam", "saliency", "occlusion")],
)
def test_models_of_whole_numbers_alone_are_given_those(name: str, floats: str) -> None:
    x, model = whole_pictures(), Scaling(floats)
    if name in NEED_THE_INPUT or name == "guided_grad_cam":
        with pytest.raises(
            LayerError, match=r"Scaling takes torch.uint8.*use rise, lime or occlusion"
        ):
            run(name, model, x)
    else:
        close(run(name, model, x), run(name, Scaling("rounded"), x.float()))


def test_layers_are_found_without_a_gradient_of_whole_numbers() -> None:
    x = (pictures(1) * 40 + 120).clamp(0, 255).to(torch.uint8)
    found = [seewhy.list_layers(Scaling(floats, tiny_vit()), x) for floats in ("refused", "scaled")]
    assert found[0].chosen == found[1].chosen
    assert [r.evidence for r in found[0].records] == [r.evidence for r in found[1].records]


@pytest.mark.parametrize("floats", ["scaled", "refused"])
def test_explaining_and_evaluating_whole_numbers(floats: str) -> None:
    x, model, plain = (
        whole_pictures(3),
        Scaling(floats),
        Scaling("scaled" if floats == "scaled" else "rounded"),
    )
    ours = seewhy.explain(model, x, methods=["grad_cam", "occlusion"], targets=1, batch_size=2)
    theirs = seewhy.explain(
        plain, x.float(), methods=["grad_cam", "occlusion"], targets=1, batch_size=2
    )
    for a, b in zip(ours, theirs, strict=True):
        close(a.map, b.map)
        assert a.scores == pytest.approx(b.scores, rel=1e-5)
    judges = {
        "deletion": seewhy.metrics.Deletion(step=64),
        "max_sensitivity": seewhy.metrics.MaxSensitivity(samples=2),
    }
    metrics = {"metrics": judges, "methods": "grad_cam", "chance": ()}
    scored = [seewhy.evaluate(m, given, **metrics) for m, given in ((model, x), (plain, x.float()))]
    for a, b in zip(scored[0].rows, scored[1].rows, strict=True):
        assert a.result.mean == pytest.approx(b.result.mean, rel=1e-4)


def test_photos_become_whole_numbers_where_the_model_takes_those_alone() -> None:
    pixels = seewhy.Preprocess((SIZE, SIZE), SIZE, (0.0,) * 3, (1 / 255,) * 3, "bilinear")
    photo = Image.fromarray(whole_pictures(1)[0].permute(1, 2, 0).numpy())
    found, plain = (
        seewhy.explain(
            seewhy.wrap(Scaling(floats), preprocess=pixels),
            photo,
            methods=["grad_cam", "rise"],
            targets=1,
        )
        for floats in ("refused", "rounded")
    )
    for a, b in zip(found, plain, strict=True):
        close(a.map, b.map)
    scaled = seewhy.wrap(Scaling("refused"), preprocess=seewhy.IMAGENET)
    with pytest.raises(InputError, match=r"takes torch\.uint8.*\(expected pixels\).*std is 1/255"):
        seewhy.explain(scaled, photo)


def test_floats_are_asked_for_once() -> None:
    model, x, given = Scaling("refused"), whole_pictures().float(), []
    handle = model.register_forward_pre_hook(lambda _, args: given.append(args[0].dtype))
    run("grad_cam", model, x)
    assert torch.float32 in given
    given.clear()
    run("grad_cam", model, x)
    handle.remove()
    assert given == [torch.uint8]


def test_numbers_that_are_no_pictures() -> None:
    with pytest.raises(InputError, match=r"x is torch\.complex64; give floats"):
        run("saliency", TinyCNN(), torch.zeros(1, 3, SIZE, SIZE, dtype=torch.complex64))
    with pytest.raises(InputError, match="x is on the meta device, which holds no data"):
        run("saliency", TinyCNN(), torch.zeros(1, 3, SIZE, SIZE, device="meta"))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "meta": lambda: default_device("meta"),
    "deterministic": deterministic,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


def settings() -> tuple[Any, ...]:
    modes = (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )
    return (
        torch.get_default_dtype(),
        torch.empty(0).device,
        torch.are_deterministic_algorithms_enabled(),
        modes,
    )


@cache
def in_plain_settings(name: str) -> Tensor:
    return run(name, randomised(TinyCNN()), pictures(2, SIZE))


@pytest.mark.parametrize(
    ("name", "setting"),
    [(name, setting) for name in METHODS for setting in ("float64", "meta")]
    + [
        (name, setting)
        for name in ("grad_cam", "smooth_grad", "lrp", "rise", "lime")
        for setting in SETTINGS
    ],
)
def test_the_callers_settings_change_nothing(name: str, setting: str) -> None:
    model, x, expected = randomised(TinyCNN()), pictures(2, SIZE), in_plain_settings(name)
    with SETTINGS[setting]():
        before = settings()
        found = run(name, model, x)
        assert settings() == before
    assert found.dtype == torch.float32
    close(found, expected)


@pytest.mark.parametrize("setting", SETTINGS)
def test_explaining_and_evaluating_under_the_callers_settings(setting: str) -> None:
    x, asked = (
        pictures(2, SIZE) / 4,
        {"methods": ["grad_cam", "smooth_grad"], "options": {"smooth_grad": {"samples": 2}}},
    )
    photos = [Image.fromarray(np.asarray(whole_pictures(1)[0].permute(1, 2, 0)))]
    found, steps = [], seewhy.metrics.Deletion(step=64)
    for under in (torch.enable_grad, SETTINGS[setting]):
        model = seewhy.wrap(
            randomised(TinyCNN()),
            preprocess=seewhy.Preprocess((SIZE, SIZE), SIZE, (0.5,) * 3, (0.5,) * 3, "bilinear"),
        )
        with under():
            maps = [a.map for images in (x, photos) for a in seewhy.explain(model, images, **asked)]
            rows = seewhy.evaluate(
                model, x[:1], metrics={"deletion": steps}, methods="grad_cam"
            ).rows
            layers = seewhy.list_layers(model).chosen
        found.append((maps, rows, layers))
    for ours, plain in zip(*(maps for maps, _, _ in found), strict=True):
        close(ours, plain)
    for ours, plain in zip(*(rows for _, rows, _ in found), strict=True):
        assert ours.result.mean == pytest.approx(plain.result.mean, rel=1e-3)
    assert found[0][2] == found[1][2]


def test_a_model_runs_under_the_callers_default_device() -> None:
    class Noting(TinyCNN):
        made: str | None = None

        def forward(self, x: Tensor) -> Any:
            self.made = torch.zeros(1).device.type
            return super().forward(x)

    model, x = randomised(Noting()), pictures(1, SIZE)
    for name in ("grad_cam", "occlusion"):
        model.made = None
        with default_device("meta"):
            run(name, model, x)
        assert model.made == "meta"


@pytest.mark.parametrize("name", METHODS)
def test_weights_that_hooks_bring(name: str) -> None:
    x, model = pictures(2, SIZE), offloaded(randomised(TinyCNN()))
    if name == "cam":
        with pytest.raises(ModelError, match="wait on the meta device"):
            run(name, model, x)
    else:
        close(run(name, model, x), in_plain_settings(name))


def test_weights_that_nothing_brings() -> None:
    for name in ("grad_cam", "saliency", "lrp", "occlusion", "rise"):
        with pytest.raises(
            ModelError, match="on the meta device, which holds no data, and no hook brings them"
        ):
            run(name, randomised(TinyCNN()).to("meta"), pictures(1, SIZE))


class Keeping(TinyCNN):
    """Keeps a tensor from its first call, as detectors keep their anchors."""

    kept: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Any:
        if self.kept is None:
            self.kept = [torch.linspace(0.5, 1.5, 5)]
        return super().forward(x) * self.kept[0]


@pytest.mark.parametrize("name", METHODS)
def test_tensors_kept_from_inference_mode(name: str) -> None:
    x, model, plain = pictures(1, SIZE), randomised(Keeping()), randomised(Keeping())
    with torch.inference_mode():
        model(x)
    try:
        found = run(name, model, x)
    except SeewhyError as error:
        named = "from an earlier call under torch.inference_mode (kept)" in str(error)
        assert named or name == "cam"
    else:
        close(found, run(name, plain, x))


@pytest.mark.parametrize("name", ["grad_cam", "saliency", "occlusion", "lrp"])
def test_channels_that_come_last(name: str) -> None:
    x = pictures(2, SIZE)
    with pytest.raises(
        InputError, match=r"channels seem to come last: give x.permute\(0, 3, 1, 2\)"
    ):
        run(name, randomised(TinyCNN()), x.permute(0, 2, 3, 1))
    with pytest.raises(InputError, match=r"x\.permute\(2, 0, 1\)\[None\]"):
        run(name, randomised(TinyCNN()), x[0].permute(1, 2, 0))


def test_a_black_box_that_is_given_channels_last() -> None:
    net = randomised(TinyCNN())
    with pytest.raises(InputError, match=r"x.permute\(0, 3, 1, 2\)"):
        run("occlusion", lambda x: net(x), pictures(1, SIZE).permute(0, 2, 3, 1))


def test_arrays_are_photos() -> None:
    model = seewhy.wrap(
        randomised(TinyCNN()),
        preprocess=seewhy.Preprocess((SIZE, SIZE), SIZE, (0.5,) * 3, (0.5,) * 3, "bilinear"),
    )
    array = np.asarray(whole_pictures(2).permute(0, 2, 3, 1))
    expected = seewhy.explain(model, [Image.fromarray(one) for one in array])[0].map
    with pytest.raises(SeewhyError, match=r"move channels first: \.permute\(2, 0, 1\)"):
        seewhy.explain(model, torch.from_numpy(array[0].copy()))
    for given in (list(array), array, list(array / 255.0), array.astype(np.float32) / 255):
        assert torch.equal(seewhy.explain(model, given)[0].map, expected)


HALF = seewhy.Preprocess((SIZE, SIZE), SIZE, (0.5,) * 3, (0.5,) * 3, "bilinear")
RAW = seewhy.Preprocess((SIZE, SIZE), SIZE, (0.0,) * 3, (1.0,) * 3, "bilinear", scale=1.0)


@pytest.mark.parametrize(
    ("how", "x", "warned"),
    [
        (HALF, whole_pictures(2).float(), "x ranges from .* preprocessing gives -1 to 1"),
        (HALF, whole_pictures(2), "x ranges from .* preprocessing gives -1 to 1"),
        (RAW, whole_pictures(2).float() / 255, "x ranges from .* preprocessing gives 0 to 255"),
        (HALF, whole_pictures(2).float() / 127.5 - 1, None),
        (HALF, whole_pictures(2).float() / 255, None),  # a picture of light grey would be the same
        (HALF, torch.zeros(2, 3, SIZE, SIZE), None),
        (RAW, whole_pictures(2).float(), None),
    ],
)
def test_a_range_that_cannot_be_right_is_warned_of_once(
    how: Any, x: Tensor, warned: str | None
) -> None:
    model = seewhy.wrap(randomised(TinyCNN()), preprocess=how)
    for ask in (
        lambda: run("grad_cam", model, x),
        lambda: seewhy.explain(model, x, batch_size=1),
        lambda: seewhy.evaluate(
            model, x, metrics="deletion", methods="grad_cam", batch_size=1, chance=()
        ),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SeewhyWarning)
            ask()
        told = [str(w.message) for w in caught if issubclass(w.category, SeewhyWarning)]
        assert len(told) == (warned is not None)
        if warned is not None:
            with pytest.warns(SeewhyWarning, match=warned):
                ask()
