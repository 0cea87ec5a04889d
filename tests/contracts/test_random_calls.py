"""Calls drawn at random over what people hand over: the right map, or one line that names what cannot be."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import oracles
import seewhy
from handed_over import CLASSES, SIZE, Ended, plain
from seewhy.errors import SeewhyError, SeewhyWarning
from seewhy.methods.catalog import METHODS
from tiny_models import pictures

NAMES = ["first", "second", "third", "fourth"]
PIXELS = seewhy.Preprocess((SIZE, SIZE), SIZE, (0.0,) * 3, (1.0,) * 3, "bilinear", scale=1.0)
WAYS: dict[str, dict[str, Any]] = {
    "saliency": {},
    "input_x_gradient": {},
    "grad_cam": {},
    "occlusion": {"window": 8, "stride": 8},
}
# what it makes of (N, 4) logits: its numbers, and how they come
NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda logits: logits,
    "softmax": lambda logits: logits.softmax(1),
    "sigmoids": torch.sigmoid,
    "(N, 1)": lambda logits: logits[:, 1:2],
}
PACKED: dict[str, Callable[[Tensor], Any]] = {
    "as it is": lambda scores: scores,
    "(N,)": lambda scores: scores[:, 0],
    "tuple": lambda scores: (scores,),
    "loss first": lambda scores: (scores.sum(), scores),
    "dict": lambda scores: {"logits": scores, "note": "of a dict"},
}
GIVES = [None, None, "logits", "probabilities", "sigmoids", "score", "embedding"]
DTYPES = [torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
AXES = ["NCHW", "NCHW", "NCHW", "NHWC", "CHW", "HWC array"]
LABELS: dict[str, Callable[[int], Any]] = {
    "none": lambda k: None,
    "right": lambda k: NAMES[:k],
    "too many": lambda k: [*NAMES[:k], "other"],
    "by column": lambda k: {str(i): NAMES[i] for i in reversed(range(k))},
    "set": lambda k: set(NAMES[:k]),
    "numbers": lambda k: np.arange(10, 10 + k),
}
TARGETS: dict[str, Callable[[int, int, Any], Any]] = {
    "int": lambda column, n, name: column,
    "numpy": lambda column, n, name: np.int64(column),
    "name": lambda column, n, name: name,
    "numpy text": lambda column, n, name: np.str_(name),
    "number as text": lambda column, n, name: str(column),
    "list": lambda column, n, name: [column] * n,
    "array": lambda column, n, name: np.full(n, column),
    "tensor": lambda column, n, name: torch.tensor([column] * n),
    "callable": lambda column, n, name: lambda said: said.reshape(len(said), -1)[:, column],
    "float": lambda column, n, name: float(column),
    "nothing": lambda column, n, name: None,
}


@dataclass(frozen=True)
class Asked:
    """A call."""

    numbers: str
    packed: str
    gives: str | None
    dtype: torch.dtype
    axes: str
    labels: str
    target: str
    column: int
    method: str
    by_explain: bool

    @property
    def columns(self) -> int:
        return 1 if self.numbers == "(N, 1)" or self.packed == "(N,)" else CLASSES

    @property
    def one_column(self) -> int:
        return min(self.column, self.columns - 1)

    @property
    def images(self) -> int:
        return 2 if self.axes in ("NCHW", "NHWC") else 1


CALLS = st.builds(
    Asked,
    numbers=st.sampled_from(list(NUMBERS)),
    packed=st.sampled_from(list(PACKED)),
    gives=st.sampled_from(GIVES),
    dtype=st.sampled_from(DTYPES),
    axes=st.sampled_from(AXES),
    labels=st.sampled_from(list(LABELS)),
    target=st.sampled_from(list(TARGETS)),
    column=st.integers(0, CLASSES - 1),
    method=st.sampled_from(list(WAYS)),
    by_explain=st.booleans(),
)


@cache
def whole() -> Tensor:
    """(2, 3, H, W) of whole numbers, which every type has."""
    return (pictures(2, SIZE) * 3 + 8).round().clamp(0, 15)


@cache
def logits_of() -> nn.Module:
    return plain()


def handed(asked: Asked) -> Any:
    """The pictures, as they are handed over."""
    x = whole()[: asked.images].to(asked.dtype)
    if asked.axes == "NCHW":
        return x
    if asked.axes == "NHWC":
        return x.permute(0, 2, 3, 1)
    if asked.axes == "CHW":
        return x[0]
    x = x.float() if asked.dtype == torch.bfloat16 else x  # of which numpy has none
    return x[0].permute(1, 2, 0).numpy()


def why_not(asked: Asked) -> list[str]:
    """For what it has to be refused."""
    table = NUMBERS[asked.numbers](logits_of()(whole()[: asked.images]))[:, : asked.columns]
    within = bool((table >= 0).all() and (table <= 1).all())
    sums = asked.columns == 1 or bool(((table.sum(1) - 1).abs() < 1e-4).all())
    name_of_none = asked.labels == "none" and asked.target in ("name", "numpy text")
    photo = asked.by_explain and asked.axes in ("CHW", "HWC array")
    causes = {
        r"labels has \d names, the model gives": asked.labels == "too many",
        "labels is a set": asked.labels == "set",
        r"gives='(probabilities|sigmoids)'": (asked.gives in ("probabilities", "sigmoids") and not within)
        or (asked.gives == "probabilities" and not sums),
        "gives an embedding": asked.gives == "embedding" and asked.target != "callable",
        "is no target": asked.target in ("float", "nothing"),
        "is a name, and the model has no labels": name_of_none,
        "is not a label": asked.labels == "numbers" and asked.target == "number as text",
        "channels": asked.axes == "NHWC",
        r"x is a ndarray|x has shape .*not \(N, C, H, W\)": asked.axes in ("CHW", "HWC array") and not asked.by_explain,
        r"accepted: (uint8|floats in \[0, 1\])": photo and asked.dtype != torch.uint8,
    }  # fmt: skip
    return [words for words, so in causes.items() if so]


def ask(asked: Asked) -> Tensor:
    net = Ended(lambda logits: PACKED[asked.packed](NUMBERS[asked.numbers](logits)))
    labels = LABELS[asked.labels](asked.columns)
    model = seewhy.wrap(net, labels=labels, preprocess=PIXELS, gives=asked.gives)  # type: ignore[arg-type]
    column = asked.one_column
    name = str(10 + column) if asked.labels == "numbers" else NAMES[column]
    target = TARGETS[asked.target](column, asked.images, name)
    if not asked.by_explain:
        return METHODS[asked.method](model, handed(asked), target, **WAYS[asked.method])
    found = seewhy.explain(
        model, handed(asked), methods=asked.method, targets=[target], options=WAYS
    )
    return found[0].map


def wanted(asked: Asked) -> Tensor:
    """By plain autograd; of occlusion, the map of the plain network."""
    x, net = whole()[: asked.images].clone().requires_grad_(), logits_of()

    def score(logits: Tensor) -> Tensor:
        return NUMBERS[asked.numbers](logits)[:, asked.one_column]

    if asked.method == "occlusion":
        return METHODS["occlusion"](net, x, score, **WAYS["occlusion"])
    kept: list[Tensor] = []
    with net.b.register_forward_hook(lambda _, __, value: kept.append(value)):
        total = score(net(x)).sum()
    gradients = torch.autograd.grad(total, [x, *kept])
    if asked.method == "grad_cam":
        pairs = zip(kept[0].detach().numpy(), gradients[1].numpy(), strict=True)
        return torch.stack([torch.as_tensor(oracles.grad_cam(a, g)) for a, g in pairs]).float()
    return (
        gradients[0].abs().amax(1)
        if asked.method == "saliency"
        else (gradients[0] * x).sum(1).detach()
    )


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(CALLS)
def test_a_call_is_right_or_told_why_not(asked: Asked) -> None:
    causes = why_not(asked)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = ask(asked)
        except SeewhyError as error:
            told(causes, str(error))
            return
    assert not causes, f"a map, in spite of {causes}"
    expected = wanted(asked)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    said = [str(w.message) for w in caught if issubclass(w.category, SeewhyWarning)]
    assert all(re.search(r"gives='logits'|may be probabilities", line) for line in said), said


def told(causes: list[str], said: str) -> None:
    assert "\n" not in said
    assert any(re.search(words, said) for words in causes), (
        f"no word of {causes or 'anything to refuse'}: {said}"
    )
