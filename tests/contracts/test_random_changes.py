"""A working model and call, changed in ways that change no answer: the same map, or one line that names the change."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seewhy.errors import SeewhyError, SeewhyWarning
from seewhy.methods.catalog import METHODS
from tiny_models import pictures, randomised

_UNSURE = (
    "not locally linear",
    "its error is",
)  # LIME's and RISE's, of untrained models and few samples
FAST: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 2, "noise": 0.0},
    "integrated_gradients": {"steps": 4},
    "rise": {"samples": 16, "cells": 3},
    "lime": {"samples": 16, "superpixels": "grid"},
    "occlusion": {"window": 8, "stride": 8},
}


class Working(nn.Module):
    """What usual networks are made of: convolutions, BatchNorm, rectifiers in place, a pool, dropout, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = (
            nn.Conv2d(3, 6, 3, 1, 1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.MaxPool2d(2)
        self.conv2, self.bn2, self.relu2 = (
            nn.Conv2d(6, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
        )
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.bn1(self.conv1(x))))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.fc(self.drop(x.mean((2, 3))))


class Packed(nn.Module):
    def __init__(self, net: nn.Module, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.pack = net, pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(self.net(x))


class Pair(NamedTuple):
    logits: Tensor
    note: str


@dataclass
class Answer:
    logits: Tensor
    note: str = "of a dataclass"


WRAPPERS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "none": lambda net, x: net,
    "DataParallel": lambda net, x: nn.DataParallel(net),
    "DataParallel twice": lambda net, x: nn.DataParallel(nn.DataParallel(net)),
    "compile": lambda net, x: torch.compile(net, backend="eager"),
    "Sequential": lambda net, x: nn.Sequential(net),
    "script": lambda net, x: torch.jit.script(net),
    "trace": lambda net, x: torch.jit.trace(net.eval(), x),
}
PREFIXES = {"Sequential": "0."}
HOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "none": lambda net: None,
    "looks": lambda net: net.pool.register_forward_hook(lambda *_: None),
    "copies": lambda net: net.pool.register_forward_hook(lambda _, __, value: value.clone()),
    "doubles": lambda net: net.pool.register_forward_hook(lambda _, __, value: value * 2),
    "before": lambda net: net.pool.register_forward_pre_hook(lambda _, args: (args[0] * 2,)),
}
OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "none": lambda out: out,
    "tuple": lambda out: (out,),
    "list": lambda out: [out],
    "named tuple": lambda out: Pair(out, "first"),
    "dict": lambda out: {"logits": out, "note": "of a dict"},
    "dict of one": lambda out: {"prediction": out},
    "dataclass": Answer,
    "(N,)": lambda out: out[:, 1],
    "nested": lambda out: {"head": [{"logits": out}]},
    "loss first": lambda out: (out.sum(), out),
}
DTYPES = {
    "none": torch.float32,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "double": torch.float64,
}
MEMORIES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "transposed": lambda x: x.mT.contiguous().mT,
    "requires_grad": lambda x: x.clone().requires_grad_(),
    "has a graph": lambda x: x.clone().requires_grad_() * 1,
}
AROUND: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "none": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "double by default": lambda: double_by_default(),
}
SIZES = [(16, 16), (16, 24), (24, 16), (17, 16), (20, 36)]
# a change is small as it comes, and each call slow: nothing is shrunk
PLAIN = settings(
    deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
# what a refusal or a warning has to name of a change; the others are none to refuse
WORDS = {
    "script": "[Ss]cript|jit",
    "trace": "[Ss]cript|jit|traced",
    "half": "float16|[Hh]alf|finite|precision",
    "bfloat16": "bfloat16|precision",
    "(N,)": r"shape \(\d+,\)|output|not a class of the model",
    "nested": "output",
    "loss first": "output|loss",
}


class double_by_default(AbstractContextManager[None]):  # noqa: N801, named as torch's are
    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)


@dataclass(frozen=True)
class Change:
    """What differs from the plain call; the first of each is no change."""

    wrapper: str
    hook: str
    output: str
    precision: str
    of_x_too: bool
    memory: str
    around: str
    batch: int
    size: tuple[int, int]
    frozen: bool
    training: bool
    named: bool

    @property
    def words(self) -> list[str]:
        return [WORDS[value] for f in fields(self) if (value := getattr(self, f.name)) in WORDS]

    @property
    def possible(self) -> bool:
        """Whether torch can run it: what is scripted has neither hooks of Python nor any output."""
        scripted = self.wrapper in ("script", "trace")
        mixed = self.precision == "half" and self.around == "autocast"
        return not (scripted and (self.hook != "none" or self.output != "none")) and not mixed


def mostly(first: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(first), st.sampled_from([first, *others]))


CHANGES = st.builds(
    Change,
    wrapper=mostly(*WRAPPERS),
    hook=mostly(*HOOKS),
    output=mostly(*OUTPUTS),
    precision=mostly(*DTYPES),
    of_x_too=st.booleans(),
    memory=mostly(*MEMORIES),
    around=mostly(*AROUND),
    batch=st.integers(1, 9),
    size=st.sampled_from(SIZES),
    frozen=st.booleans(),
    training=st.booleans(),
    named=st.booleans(),
)


def plain() -> nn.Module:
    return randomised(Working())


def changed(change: Change, x: Tensor) -> tuple[Any, str]:
    """The model, and the name of its last stage."""
    net, layer = plain(), "relu2"
    HOOKS[change.hook](net)
    net.to(DTYPES[change.precision]).requires_grad_(not change.frozen)
    if change.output != "none":
        net, layer = Packed(net, OUTPUTS[change.output]), f"net.{layer}"
    model = WRAPPERS[change.wrapper](net, x.to(DTYPES[change.precision]))
    return model.train(change.training and change.wrapper != "trace"), PREFIXES.get(
        change.wrapper, ""
    ) + layer


def unchanged(change: Change) -> nn.Module:
    """The model without hooks: one that doubles what a convolution reads is a convolution of twice the weights."""
    net = plain()
    if change.hook in ("doubles", "before"):
        net.conv2.weight.data *= 2
    return net


def ask(name: str, model: Any, x: Tensor, layer: str) -> tuple[Tensor, list[str]]:
    at = {"layer": layer} if METHODS[name].at == "layer" and layer else {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = METHODS[name](model, x, 1, **at, **FAST.get(name, {}))
    said = [str(w.message) for w in caught if issubclass(w.category, SeewhyWarning)]
    return found, [line for line in said if not any(each in line for each in _UNSURE)]


def same(found: Tensor, wanted: Tensor, change: Change) -> bool:
    if found.dtype != torch.float32 or found.shape != wanted.shape or not found.isfinite().all():
        return False
    if (
        change.precision in ("half", "bfloat16") or change.around == "autocast"
    ):  # kinks and largest values move
        pairs = zip(found.flatten(1).double(), wanted.flatten(1).double(), strict=True)
        least = (
            torch.finfo(torch.float16).tiny if change.precision == "half" else 0.0
        )  # below it there is nothing
        alike = [torch.cosine_similarity(a, b, 0) for a, b in pairs if float(b.abs().max()) > least]
        return not alike or float(torch.stack(alike).mean()) > 0.9
    return float((found - wanted).abs().max()) <= 1e-3 * float(wanted.abs().max())


def right_or_told(name: str, change: Change) -> None:
    x = pictures(change.batch, change.size)
    layer = "relu2" if change.named else ""
    wanted, _ = ask(name, unchanged(change), x, layer)
    model, inner = changed(change, x)
    given_x = MEMORIES[change.memory](x.to(DTYPES[change.precision]) if change.of_x_too else x)
    try:
        with AROUND[change.around]():
            found, told = ask(name, model, given_x, inner if change.named else "")
    except SeewhyError as error:
        refused(change, name, str(error))
        return
    if any(re.search(words, line) for words in change.words for line in told):
        return
    assert same(found, wanted, change), f"another map; told {told or 'nothing'}"


def refused(change: Change, name: str, said: str) -> None:
    assert "\n" not in said
    if name != "cam" or "grad_cam" not in said:
        assert any(re.search(words, said) for words in change.words), (
            f"no word of the cause: {said}"
        )


def try_changes(name: str, examples: int) -> None:
    @seed(zlib.crc32(name.encode()))
    @settings(PLAIN, max_examples=examples)
    @given(CHANGES)
    def each(change: Change) -> None:
        assume(change.possible)
        right_or_told(name, change)

    each()


@pytest.mark.parametrize("name", METHODS)
def test_a_change(name: str) -> None:
    try_changes(name, 2)  # of which the first is nearly none


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_many_changes(name: str) -> None:
    try_changes(name, 11)
