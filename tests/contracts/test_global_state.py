"""Nothing of the process is other than it was after anything that a user asks for, on every way out."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

import seewhy
from seewhy.cli import run
from seewhy.errors import SeewhyError
from seewhy.influence import InfluenceIndex
from seewhy.methods.catalog import METHODS
from tiny_models import FAST, TinyCNN, pictures, randomised

UNIT = seewhy.Preprocess((16, 16), 16, (0.5,) * 3, (0.5,) * 3, "bilinear")


def state() -> dict[str, Any]:
    """What a process has one of."""
    kind, numbers, *rest = np.random.get_state()  # noqa: NPY002 - the global one is meant
    return {
        "torch's random state": torch.get_rng_state().tolist(),
        "NumPy's random state": (kind, numbers.tolist(), *rest),
        "Python's random state": random.getstate(),
        "defaults": (torch.get_default_dtype(), torch.empty(0).device, torch.is_grad_enabled()),
        "inference mode": (torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "threads": (torch.get_num_threads(), threading.active_count()),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
        ),
        "precision": (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "environment": dict(os.environ),
        "Pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "matplotlib": dict(mpl.rcParams),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
        "folder": os.getcwd(),
    }


def unchanged(act: Callable[[], object]) -> None:
    before = state()
    with contextlib.suppress(SeewhyError):
        act()
    after = state()
    assert [name for name in before if before[name] != after[name]] == []


@pytest.fixture(scope="module")
def model() -> seewhy.Model:
    made = seewhy.wrap(randomised(TinyCNN()), preprocess=UNIT)
    everything(made)  # what is imported on the way may set things once
    return made


def everything(model: seewhy.Model) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    ex = seewhy.explain(model, photo, methods=list(METHODS), options=FAST, layers="all-stages")
    ex.fuse()
    ex.sheet()
    seewhy.evaluate(model, photo, methods="occlusion", metrics="deletion", chance=(), options=FAST)
    seewhy.list_layers(model)


@pytest.mark.filterwarnings("ignore:the model is not locally linear")
def test_asking_about_a_model(model: seewhy.Model, tmp_path: Path) -> None:
    unchanged(lambda: everything(model))
    ex = seewhy.explain(model, pictures(2, 16).clamp(-1, 1))
    unchanged(lambda: ex.save(tmp_path / "saved"))
    unchanged(lambda: ex.report(tmp_path / "page.html"))


@pytest.mark.parametrize(
    "wrong", [{"targets": 99}, {"methods": "nothing"}, {"layers": "nowhere"}, {"images": []}]
)
def test_errors(model: seewhy.Model, wrong: dict[str, Any]) -> None:
    unchanged(lambda: seewhy.explain(model, **{"images": pictures(1, 16).clamp(-1, 1), **wrong}))


def test_influence(model: seewhy.Model, tmp_path: Path) -> None:
    data = pictures(6, 16).clamp(-1, 1), torch.arange(6) % 5

    def ask() -> None:
        index = InfluenceIndex.fit(model, data, solver="gradient_dot", out=tmp_path / "index")
        index.query(data[0][:1])
        index.self_influence()

    ask()
    unchanged(ask)


def test_loading_models(tmp_path: Path) -> None:
    file = tmp_path / "drawing.py"
    file.write_text(
        "import random, numpy, torch\nfrom torch import nn\n\n\ndef make():\n    torch.manual_seed(3)\n"
        "    numpy.random.seed(4)\n    random.seed(5)\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))\n"
    )
    specs = ("efficientnet_lite0", "timm:resnet18", "torchvision:resnet18", f"{file}:make")
    for spec in specs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seewhy.load_model(spec, pretrained=spec == specs[0])
            unchanged(lambda spec=spec: seewhy.load_model(spec, pretrained=spec == specs[0]))


def test_the_command_line(model: seewhy.Model, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "photo.png")
    words = ["explain", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), "--target"]
    run([*words, "top1"])
    unchanged(lambda: run([*words, "top1"]))
    unchanged(lambda: run([*words, "nothing that is there"]))
