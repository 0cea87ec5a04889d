"""Pooled features and the linear classifiers that take a network's last layer's place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.data.dataset import Example, LabeledImages
from seewhy.data.preprocess import Preprocess
from seewhy.errors import InputError, ModelError
from seewhy.models.training.features import linear_svm, pooled_features, with_head

PLAIN = Preprocess((16, 16), None, (0.5,) * 3, (0.5,) * 3, "bilinear")


class Blots(LabeledImages):
    """Grey noise with a blot of the class's colour, whose place is known."""

    title, multi_label = "blots", False

    def __init__(self, classes: int = 3, count: int = 30) -> None:
        self.classes = tuple(f"colour {i}" for i in range(classes))
        self.names = [f"{i}" for i in range(count)]
        self.labels = [(i % classes,) for i in range(count)]

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng(index)
        pixels = rng.integers(100, 140, (16, 16, 3), dtype=np.uint8)
        y, x = self.corner(index)
        pixels[y : y + 6, x : x + 6, self.labels[index][0]] = 250
        return Example(self.names[index], Image.fromarray(pixels), self.labels[index])

    def corner(self, index: int) -> tuple[int, int]:
        return 2 * (index % 5), 2 * (index // 3 % 5)


@pytest.fixture
def model() -> seewhy.Model:
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU())
    module = nn.Sequential(convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 7))
    return seewhy.wrap(module.train(), preprocess=PLAIN, name="tiny")


def test_features_are_what_the_last_layer_is_given(model: seewhy.Model) -> None:
    data = Blots(count=5)
    found = pooled_features(model, data, batch_size=2)
    assert model.module.training
    x = PLAIN.batch([data[i].photo for i in range(5)])[0]
    torch.testing.assert_close(found, model.module[:3](x).detach())


def test_the_machine_is_scikit_learns(model: seewhy.Model) -> None:
    svm = pytest.importorskip("sklearn.svm")
    data = Blots()
    fitted = linear_svm(model, data, batch_size=7)
    features = pooled_features(model, data).double().numpy()
    features = (features - features.mean(0)) / features.std(0, ddof=1)
    labels = [label for (label,) in data.labels]
    theirs = svm.LinearSVC(random_state=0).fit(features, labels).decision_function(features)
    x = PLAIN.batch([data[i].photo for i in range(len(data))])[0]
    ours = fitted.module.eval()(x).detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)
    assert fitted.labels == data.classes
    assert model.module[-1].out_features == 7  # the network that was given is as it was


def test_cam_of_a_fitted_class_points_at_it(model: seewhy.Model) -> None:
    data = Blots()
    fitted = linear_svm(model, data)
    x = PLAIN.batch([data[i].photo for i in range(6)])[0]
    labels = [label for (label,) in data.labels[:6]]
    maps = seewhy.methods.cam(fitted, x, labels)
    for i, one in enumerate(maps):
        y, x0 = divmod(int(one.argmax()), 16)
        top, left = data.corner(i)
        assert top - 1 <= y <= top + 6
        assert left - 1 <= x0 <= left + 6


def test_two_classes(model: seewhy.Model) -> None:
    data = Blots(classes=2)
    fitted = linear_svm(model, data)
    x = PLAIN.batch([data[i].photo for i in range(8)])[0]
    assert fitted.module.eval()(x).argmax(1).tolist() == [label for (label,) in data.labels[:8]]


def test_several_classes_a_picture(model: seewhy.Model) -> None:
    data = Blots()
    data.multi_label, data.classes = True, (*data.classes, "grey", "never")
    data.labels = [(label, 3) if i % 2 else (label,) for i, (label,) in enumerate(data.labels)]
    fitted = linear_svm(model, data)
    assert fitted.labels == ("colour 0", "colour 1", "colour 2", "grey")
    x = PLAIN.batch([data[i].photo for i in range(9)])[0]
    scores = fitted.module.eval()(x)
    assert scores[:, :3].argmax(1).tolist() == [labels[0] for labels in data.labels[:9]]


def test_what_cannot_be_used_is_said(model: seewhy.Model) -> None:
    with pytest.raises(InputError, match="shows 'colour 0' in every picture"):
        linear_svm(model, Blots(classes=1))
    with pytest.raises(ModelError, match=r"needs \(K, 12\)"):
        with_head(model, torch.zeros(2, 5), torch.zeros(2), ["a", "b"])
    convolutions = nn.Sequential(nn.Conv2d(3, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ModelError, match="does not end in a linear layer"):
        pooled_features(seewhy.wrap(convolutions, preprocess=PLAIN), Blots(count=2))
    with pytest.raises(ModelError, match="does not say how photos"):
        pooled_features(seewhy.wrap(model.module), Blots(count=2))
