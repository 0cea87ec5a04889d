"""Models saved and loaded: equal to the last bit in answer, preprocess, labels and numbers; what cannot be saved."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import InputError, ModelError, SeewhyWarning
from seewhy.models.networks.cards import read_card
from tiny_models import randomised

PREPROCESS = seewhy.Preprocess(
    (24, 20),
    (26, 22),
    (0.1, 0.2, 1 / 3),
    (0.3, 0.123456789, 0.5),
    "bicubic",
    1 / 127,
    "contain",
    (1, 2, 3),
    True,
    True,
)


class Net(nn.Module):
    """With a buffer, tied weights, and a part that is used twice."""

    def __init__(self, classes: int = 2, slope: float = 0.1) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(slope)
        self.fc = nn.Linear(4, classes)
        self.tied = nn.Linear(4, classes)
        self.tied.weight = self.fc.weight

    def forward(self, x: Tensor) -> Tensor:
        features = self.act(self.norm(self.conv(x))).mean((2, 3))
        answer: Tensor = self.fc(features) + self.tied(features)
        return answer


def halved() -> nn.Module:
    return Net(3, slope=0.2)


def function(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def box() -> object:
    return function


def parts(raw: dict[str, Tensor]) -> Tensor:
    return raw["second"]


def load_again(model: seewhy.Model, folder: Path, **options: Any) -> seewhy.Model:
    assert model.save(folder, **options) == folder
    if "factory" not in str(read_card(folder)["source"]) and not callable(model.output):
        return seewhy.load_model(folder)
    with pytest.warns(SeewhyWarning, match="runs the code of"):
        return seewhy.load_model(str(folder))


def check_equal(model: seewhy.Model, again: seewhy.Model) -> None:
    for field in ("name", "preprocess", "labels", "gives", "multi_label", "output"):
        assert getattr(model, field) == getattr(again, field), field
    x = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    x = x.to(next((p.dtype for p in model.module.parameters()), x.dtype))
    ours, theirs = (each(x) for each in (model, again))
    ours, theirs = (getattr(each, "logits", each) for each in (ours, theirs))
    assert torch.equal(ours, theirs)
    assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("gives", [None, "score", "sigmoids"])
@pytest.mark.parametrize("labels", [None, ["cat, Félis", "dog"]])
@pytest.mark.parametrize("preprocess", [None, PREPROCESS, seewhy.IMAGENET])
def test_all_that_wrap_was_told_comes_back(
    tmp_path: Path, preprocess: Any, labels: Any, gives: Any
) -> None:
    module = randomised(Net())
    several = gives is None
    model = seewhy.wrap(
        module, preprocess=preprocess, labels=labels, name="mine", gives=gives, multi_label=several
    )
    again = load_again(model, tmp_path / "new" / "folder")
    check_equal(model, again)
    if preprocess is not None:
        assert asdict(again.preprocess) == asdict(preprocess)  # type: ignore[arg-type]
        photo = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
        x, y = (m.preprocess(seewhy.images.read_image(photo))[0] for m in (model, again))  # type: ignore[misc]
        assert torch.equal(x, y)


def test_a_preprocess_of_lists_and_arrays_is_the_one_of_tuples(tmp_path: Path) -> None:
    mean: Any = np.array([0.1, 0.2, 0.3])
    size: Any = [24, 20]
    preprocess = seewhy.Preprocess(size, size, mean, list(mean), "bilinear")  # type: ignore[arg-type]
    assert preprocess == seewhy.Preprocess(
        (24, 20), (24, 20), (0.1, 0.2, 0.3), (0.1, 0.2, 0.3), "bilinear"
    )
    check_equal(
        model := seewhy.wrap(randomised(Net()), preprocess=preprocess), load_again(model, tmp_path)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_precision_and_the_model_is_only_borrowed(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    module = randomised(Net(), train=True).to(dtype)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    again = load_again(seewhy.wrap(module), tmp_path)
    assert module.training
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    check_equal(seewhy.wrap(module.eval()), again)
    mixed = randomised(Net())
    mixed.fc.to(dtype)
    kinds = {
        key: value.dtype
        for key, value in load_again(seewhy.wrap(mixed), tmp_path).module.state_dict().items()
    }
    assert kinds == {key: value.dtype for key, value in mixed.state_dict().items()}


def test_the_weights_file_of_a_folder_will_do_and_what_is_given_comes_first(tmp_path: Path) -> None:
    model = seewhy.wrap(randomised(Net()), preprocess=PREPROCESS, labels=["cat", "dog"])
    model.save(tmp_path)
    with pytest.warns(SeewhyWarning):
        other = seewhy.load_model(
            tmp_path / "model.safetensors", labels=["a", "b"], preprocess=seewhy.IMAGENET
        )
    assert (other.labels, other.preprocess) == (("a", "b"), seewhy.IMAGENET)
    check_equal(model, replace(other, labels=model.labels, preprocess=PREPROCESS))


def test_it_is_saved_again_from_where_it_was_loaded(tmp_path: Path) -> None:
    model = seewhy.wrap(randomised(halved()), labels=["a", "b", "c"])
    first = load_again(model, tmp_path / "1", factory=f"{__name__}:halved")
    check_equal(model, load_again(first, tmp_path / "2"))
    with torch.no_grad():
        first.module.conv.weight.mul_(2)  # type: ignore[union-attr, operator]
    check_equal(first, load_again(first, tmp_path / "2"))


@pytest.mark.parametrize(
    "spec", ["efficientnet_lite0", "timm:test_resnet", "torchvision:squeezenet1_1"]
)
def test_models_known_by_name_are_made_without_a_download(
    tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = seewhy.load_model(spec, pretrained=False)
    randomised(model.module)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", None)
    again = load_again(model, tmp_path)
    assert read_card(tmp_path)["source"] == {"spec": spec}
    check_equal(model, again)


def test_a_new_number_of_classes_and_a_module_of_timm_are_known(tmp_path: Path) -> None:
    import timm

    module = randomised(timm.create_model("test_resnet", num_classes=5))
    model = seewhy.wrap(module, labels=list("abcde"))
    check_equal(model, load_again(model, tmp_path / "wrapped"))
    torch.save(module.state_dict(), tmp_path / "w.pt")
    model = seewhy.load_model(f"timm:test_resnet@{tmp_path / 'w.pt'}", labels=list("edcba"))
    check_equal(model, load_again(model, tmp_path / "loaded"))


def test_models_of_transformers_bring_their_configuration(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    names = {0: "cat", 1: "dog", 2: "tea"}
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=(24, 20),
    )
    config.patch_size, config.id2label, config.label2id = (
        4,
        names,
        {name: i for i, name in names.items()},
    )
    module = transformers.AutoModelForImageClassification.from_config(config).eval()
    model = seewhy.wrap(module, preprocess=PREPROCESS)
    again = load_again(model, tmp_path / "mine")
    assert again.labels == ("cat", "dog", "tea")
    check_equal(model, again)
    module.save_pretrained(tmp_path / "theirs")
    transformers.ViTImageProcessor(size={"height": 24, "width": 20}).save_pretrained(
        tmp_path / "theirs"
    )
    loaded = seewhy.load_model(f"hf:{tmp_path / 'theirs'}")
    check_equal(loaded, load_again(loaded, tmp_path / "again"))
    assert "transformers" in read_card(tmp_path / "again")["source"]


def test_black_boxes_come_from_their_factory(tmp_path: Path) -> None:
    model = seewhy.wrap(function, preprocess=PREPROCESS, takes="array", gives="score", name="means")
    with pytest.raises(
        ModelError, match=r"means cannot be saved: a black box has no weights .* give factory="
    ):
        model.save(tmp_path)
    model = seewhy.wrap(function, preprocess=PREPROCESS, gives="score", name="means")
    again = load_again(model, tmp_path, factory=f"{__name__}:box")
    check_equal(model, again)
    assert again.module.preprocess == PREPROCESS
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("output", [1, "second", parts])
def test_which_output_is_meant_comes_back(tmp_path: Path, output: Any) -> None:
    model = seewhy.wrap(randomised(Net()), output=output)
    check_equal(model, load_again(model, tmp_path))
    with pytest.raises(
        ModelError,
        match="is a function that cannot be imported; give the name or number of the part",
    ):
        replace(model, output=lambda raw: raw).save(tmp_path)


class Local(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, 2)


def test_what_cannot_be_made_again_is_refused_with_the_way_out(tmp_path: Path) -> None:
    class Inner(nn.Module):
        pass

    changed = Net()
    changed.act = nn.LeakyReLU(0.3)
    swapped = Net()
    swapped.act = nn.GELU()  # type: ignore[assignment]
    for model, factory, said in (
        (
            Inner(),
            None,
            "Inner cannot be saved: its class is of the script that runs, or of a function",
        ),
        (Local(3), None, "Local cannot be saved: its class takes width"),
        (changed, None, "makes another network: 'act.negative_slope' is 0.1, here 0.3"),
        (swapped, None, "makes another network: 'act' is LeakyReLU, here GELU"),
        (
            Net(5),
            None,
            "does not make it: the weights do not fit Net: of its tensors 4 have another shape",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
            None,
            "of its tensors 2 are not the model's (1.bias, 1.weight)",
        ),
        (Net(), f"{__name__}:halved", f"'{__name__}:halved' does not make it"),
        (Net(), f"{__name__}:halve", "has no 'halve'; did you mean 'halved'"),
        (Net(), "net", "factory='net' is none; give 'package.module:factory'"),
        (Net(), "net:make@w.pt", "factory='net:make@w.pt' is none"),
    ):
        with pytest.raises(InputError) as raised:
            seewhy.wrap(model).save(tmp_path / "no", factory=factory)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
        assert not (tmp_path / "no").exists()
    with pytest.raises(
        ModelError, match=r"'conv\.weight' of its state is no tensor, or is not here"
    ):
        seewhy.wrap(Net().to("meta")).save(tmp_path / "no")


def test_folders_that_are_not_for_it_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written: .*; give one with rights and room"):
        seewhy.wrap(Net()).save(tmp_path / "file" / "deeper")
    (tmp_path / "card.json").write_text(
        json.dumps(
            {
                "format": "seewhy-localisation",
                "version": 1,
                "architecture": {},
                "labels": [],
                "preprocess": {},
            }
        )
    )
    with pytest.raises(InputError, match="holds what 'seewhy train' wrote; give another folder"):
        seewhy.wrap(Net()).save(tmp_path)


@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
def test_damage_is_said_in_one_line(tmp_path: Path) -> None:
    def error(**entries: Any) -> str:
        (tmp_path / "card.json").unlink(missing_ok=True)
        seewhy.wrap(randomised(Net())).save(tmp_path)
        card = {**read_card(tmp_path), **entries}
        (tmp_path / "card.json").write_text(json.dumps(card))
        with pytest.raises(ModelError) as raised:
            seewhy.load_model(tmp_path)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "has 11 tensors, its card says 8; save the model again" in error(tensors=8)
    assert "this seewhy reads 1: update it" in error(version=2)
    assert "is not of the format 'seewhy-localisation' or 'seewhy-model'" in error(format="else")
    assert (
        "when it was saved the factory was in '/x/net_gone.py': run from there, or set PYTHONPATH"
        in error(source={"factory": "net_gone:make", "file": "/x/net_gone.py"})
    )
    assert "preprocess" in error(preprocess={"size": [3, 3]})


SCRIPT = """
import sys, torch, seewhy
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Conv2d(3, 2, 1)
    def forward(self, x):
        return self.fc(x).mean((2, 3))
print("runs")
model = seewhy.wrap(Net(), preprocess=seewhy.IMAGENET)
try:
    model.save("mine")
except seewhy.errors.ModelError as error:
    print(error)
if __name__ == "__main__":
    model.save("mine", factory="script:Net")
"""


def test_a_script_saves_its_own_model_without_running_again(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines().count("runs") == 1
    assert "Net cannot be saved: its class is of the script that runs" in done.stdout
    assert read_card(tmp_path / "mine")["source"] == {
        "factory": "script:Net",
        "file": str(tmp_path / "script.py"),
    }


def card_with(folder: Path, **entries: Any) -> Path:
    """A saved model whose card somebody has written into."""
    seewhy.wrap(seewhy.load_model("timm:test_resnet", pretrained=False)).save(folder)
    told = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**told, **entries}))
    return folder


def test_a_card_names_no_code_outside_its_folder_unless_trusted(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("raise RuntimeError('it ran')\n")
    for named in (f"{tmp_path}/elsewhere.py:make", f"{tmp_path}/mine/../elsewhere.py:make"):
        folder = card_with(tmp_path / "mine", source={"factory": named, "file": None})
        with pytest.raises(
            ModelError, match=r"names '.*elsewhere.py', which is outside of it; --trust-paths"
        ):
            seewhy.load_model(folder)
        with (
            pytest.raises(ModelError, match="it ran"),
            pytest.warns(SeewhyWarning, match="runs the code"),
        ):
            seewhy.load_model(folder, trust_paths=True)
    folder = card_with(tmp_path / "other", output={"function": f"{tmp_path}/elsewhere.py:make"})
    with pytest.raises(ModelError, match=r"is outside of it; --trust-paths"):
        seewhy.load_model(folder)


def test_a_card_names_no_folder_of_a_family_outside_its_own(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    folder = card_with(tmp_path / "mine", source={"spec": f"hf:{tmp_path / 'config'}"})
    with pytest.raises(
        ModelError, match=r"names '.*config', which is outside of it; --trust-paths"
    ):
        seewhy.load_model(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deep"),
        ("[]", "holds a list"),
        ('{"a', "cannot be read"),
        ("{}", "format"),
    ],
)
def test_a_card_that_does_not_read(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ModelError, match=said) as error:
        seewhy.load_model(tmp_path)
    assert "\n" not in str(error.value)
