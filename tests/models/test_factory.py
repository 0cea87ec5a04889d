"""Models of one's own by name: every kind of factory, what is none, and each fault in one line."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import seewhy
from seewhy.errors import ModelError, SeewhyWarning
from seewhy.models.factory import read_factory

NET = """
import functools
import torch
from torch import nn, Tensor
import seewhy

class Net(nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))

    @classmethod
    def make(cls):
        torch.manual_seed(0)
        return cls()

class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = Net.make()

    def forward(self, x):
        return self.module(x)

def make(*, size=8, **rest):
    return Net.make()

def wrapped():
    return seewhy.wrap(Net.make(), preprocess=seewhy.Preprocess((16, 16), 16, (0.5,) * 3, (0.2,) * 3, "bilinear"),
                       labels=["cat", "dog"], name="mine", gives="score")

def box():
    return lambda x: x.mean((2, 3))[:, :2]

model = Net.make()
ready = wrapped()
three = functools.partial(Net, classes=3)

def sized(classes, *rest): return Net(classes)
def nothing(): pass
def forgot(): return Net
def pair(): return Net(), "preprocess"
def fails(): return Net("two")
def leaves(): raise SystemExit(2)
"""
_numbers = itertools.count()


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current directory, another one for each test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"own_net_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(NET)
    before = set(sys.modules)
    yield name
    for added in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[added], "__file__", "")):
            del sys.modules[added]


def load(spec: str) -> seewhy.Model:
    with pytest.warns(SeewhyWarning, match="runs the code of") as warned:
        model = seewhy.load_model(spec)
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)
    return model


def refusal(spec: str) -> str:
    """The error of loading, with or without a warning before it."""
    with pytest.raises(ModelError) as raised:
        seewhy.load_model(spec)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def warnings_allowed() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeewhyWarning)
        yield


@pytest.mark.parametrize("path", ["make", "Net.make", "model", "Net", "three", "Wrapper"])
def test_functions_classes_and_modules_are_models(net: str, path: str) -> None:
    model = load(f"{net}:{path}")
    assert isinstance(model.module, nn.Module)
    assert not model.module.training
    assert model.name == f"{net}:{path}"
    x = torch.rand(2, 3, 8, 8)
    assert model(x).shape == (2, 3 if path == "three" else 2)
    if path in ("make", "Net.make", "model", "Wrapper"):
        assert torch.equal(model(x), sys.modules[net].Net.make()(x))


@pytest.mark.parametrize("path", ["wrapped", "ready"])
def test_what_is_a_model_stays_one_and_what_is_given_comes_before_it(
    net: str, tmp_path: Path, path: str
) -> None:
    model = load(f"{net}:{path}")
    assert (model.name, model.labels, model.gives) == ("mine", ("cat", "dog"), "score")
    assert model.preprocess == sys.modules[net].ready.preprocess
    (tmp_path / "names.txt").write_text("tea\ncoffee\n")
    with pytest.warns(SeewhyWarning):
        other = seewhy.load_model(
            f"{net}:{path}", labels=tmp_path / "names.txt", preprocess=seewhy.IMAGENET
        )
    assert other.labels == ("tea", "coffee")
    assert other.preprocess == seewhy.IMAGENET
    assert other.gives == "score"


def test_a_callable_is_a_black_box(net: str) -> None:
    model = load(f"{net}:box")
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(model(x), x.mean((2, 3))[:, :2])


def test_a_file_is_named_by_its_path_and_finds_what_lies_beside_it(
    net: str, tmp_path: Path
) -> None:
    folder = tmp_path / "some where"
    folder.mkdir()
    (folder / f"{net}_beside.py").write_text("CLASSES = 5\n")
    (folder / f"{net}_file.py").write_text(
        f"from {net}_beside import CLASSES\nfrom {net} import Net\ndef make(): return Net(CLASSES)\n"
    )
    x = torch.rand(1, 3, 8, 8)
    assert load(f"{folder}/{net}_file.py:make")(x).shape == (1, 5)
    assert load(f"some where/{net}_file.py:make")(x).shape == (1, 5)


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_weights_come_from_a_file(net: str, tmp_path: Path, suffix: str, prefix: str) -> None:
    load(f"{net}:make")
    torch.manual_seed(3)
    other = sys.modules[net].Net()
    file, state = (
        tmp_path / f"w@1.{suffix}",
        {prefix + key: value for key, value in other.state_dict().items()},
    )
    if suffix == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(load(f"{net}:make@{file}")(x), other(x))
    assert torch.equal(load(f"{net}:wrapped@{file}")(x), other(x))


def test_a_part_that_is_called_module_keeps_its_name(net: str, tmp_path: Path) -> None:
    state = load(f"{net}:Wrapper").module.state_dict()
    torch.save({key: value + 1 for key, value in state.items()}, tmp_path / "w.pt")
    again = load(f"{net}:Wrapper@w.pt").module.state_dict()
    assert all(torch.equal(again[key], value + 1) for key, value in state.items())


@pytest.mark.usefixtures("warnings_allowed")
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("mak", "has no 'mak'; did you mean 'make'?"),
        ("Net.mkae", "has no 'mkae'; did you mean 'make'?"),
        ("zzz", "has no 'zzz'; it has Net, Wrapper, make, wrapped"),
        (
            "sized",
            "needs the arguments classes; give a function without any, such as: def make(): return sized(...)",
        ),
        ("Net.forward", "needs the arguments self, x"),
        (
            "nothing",
            "gives a NoneType; it should return an nn.Module, a seewhy.Model or a callable",
        ),
        ("forgot", "gives the class Net; it should return"),
        ("pair", "gives a tuple; it should return"),
        ("leaves", "raised SystemExit: 2 ("),
        ("make@nowhere.pt", "weights file 'nowhere.pt' does not exist"),
        (
            "make@other.pt",
            "do not fit Net: of its tensors 4 are missing (conv.bias, conv.weight ...) and 1 are not",
        ),
        ("make@wide.pt", "2 have another shape (fc.weight is (3, 4), the model's (2, 4))"),
        (
            "box@wide.pt",
            "do not fit BlackBox: of its tensors 4 are not the model's (conv.bias, conv.weight ...)",
        ),
    ],
)
def test_what_is_wrong_with_a_factory_is_said_in_one_line(
    net: str, tmp_path: Path, path: str, said: str
) -> None:
    torch.save({"x": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save(seewhy.load_model(f"{net}:three").module.state_dict(), tmp_path / "wide.pt")
    assert said in refusal(f"{net}:{path}")


@pytest.mark.usefixtures("warnings_allowed")
def test_an_error_of_the_factory_has_its_line(net: str) -> None:
    line = next(i for i, text in enumerate(NET.splitlines(), 1) if "nn.Conv2d" in text)
    assert f"factory '{net}:fails' raised TypeError: " in refusal(f"{net}:fails")
    assert refusal(f"{net}:fails").endswith(f"{net}.py, line {line})")


@pytest.mark.usefixtures("warnings_allowed")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torch\n1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero ("),
        ("def make(:\n", "cannot be imported: SyntaxError: invalid syntax ("),
        (
            "import nowhere_to_be_found\n",
            "cannot be imported: ModuleNotFoundError: No module named 'nowhere_to_be_",
        ),
        ("raise SystemExit(0)\n", "cannot be imported: SystemExit: 0 ("),
    ],
)
def test_a_module_that_fails_says_why_and_where(
    net: str, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / f"{net}_bad.py").write_text(text)
    found = refusal(f"{net}_bad:make")
    assert said in found
    assert f"{net}_bad.py, line {1 + text.startswith('import torch')}" in found


def test_a_module_that_is_not_there_runs_nothing_and_says_where_it_was_looked_for(
    net: str, tmp_path: Path
) -> None:
    said = refusal(f"{net}x:make")  # a warning would be an error here
    assert (
        f"no module '{net}x' in the current directory '{tmp_path}' or installed; did you mean '{net}'?"
        in said
    )
    assert "did you mean 'timm'?" in refusal("tim:resnet18")
    assert "does not exist" in refusal("nowhere/net.py:make")
    (tmp_path / "net-2.py").write_text(NET)
    assert "'net-2' is no name of a module; rename the file" in refusal("net-2.py:make")
    with pytest.warns(SeewhyWarning):
        assert f"no module '{net}.deeper'" in refusal(f"{net}.deeper:make")


def test_a_file_that_another_module_hides_is_not_taken_for_it(net: str, tmp_path: Path) -> None:
    (tmp_path / "types.py").write_text(NET)
    assert "another module 'types' is loaded already" in refusal("types:make")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{net}.py").write_text(NET)
    load(f"{net}:make")
    assert f"and hides '{elsewhere / net}.py'" in refusal(f"elsewhere/{net}.py:make")


@pytest.mark.parametrize(
    ("spec", "read"),
    [
        ("net:make", ("net", "make", None)),
        ("a.b.net:Net.make@w/x.pt", ("a.b.net", "Net.make", "w/x.pt")),
        (r"net:make@C:\w.pt", ("net", "make", r"C:\w.pt")),
        (r"C:\nets\net.py:make@D:\w@2.pt", (r"C:\nets\net.py", "make", r"D:\w@2.pt")),
        ("../a@b/net.py:make", ("../a@b/net.py", "make", None)),
        ("timm:resnet50", None),
        ("torchvision:vgg16@w.pt", None),
        ("hf:facebook/deit-tiny-patch16-224", None),
        (r"C:\runs\mine", None),
        ("C:/runs/mine/model.safetensors", None),
        ("runs/mine", None),
        ("net:", None),
        (":make", None),
        ("net:make@", None),
        ("a/b:make", None),
    ],
)
def test_what_is_a_factory_and_what_is_none(
    spec: str, read: tuple[str, str, str | None] | None
) -> None:
    found = read_factory(spec)
    assert (found and (found.place, found.path, found.weights)) == read


def test_modules_of_others_are_factories_too() -> None:
    model = load("torchvision.models:resnet18")
    assert type(model.module).__name__ == "ResNet"


def test_wrap_takes_a_file_of_labels(tmp_path: Path, net: str) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    make: Callable[[], nn.Module] = load(f"{net}:make").module.make  # type: ignore[assignment]
    assert seewhy.wrap(make(), labels="names.txt").labels == ("cat", "dog")
