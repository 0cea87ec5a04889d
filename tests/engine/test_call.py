"""A call that cannot be made is told in one line that names what is wrong; one that can is not told anything."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.call import Call
from seewhy.errors import ArgumentTypeError, InputError, ModelError
from seewhy.influence import InfluenceIndex, Problem
from tiny_models import TinyCNN, pictures, randomised

NET = randomised(TinyCNN())
X = pictures(2)


class Inner(nn.Module):
    """Calls a part of itself wrongly, which is no matter of how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        return self.net(x, 1, 2, **options)  # type: ignore[no-any-return]


WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    (
        "args of a tensor",
        {"args": torch.ones(2)},
        ArgumentTypeError,
        r"args is <Tensor of shape \(2,\)>; give a tuple",
    ),
    ("args of a number", {"args": 5}, ArgumentTypeError, r"args is 5; give a tuple"),
    (
        "kwargs of a list",
        {"kwargs": [1]},
        ArgumentTypeError,
        r"kwargs is \[1\]; give a mapping of names",
    ),
    (
        "kwargs of a tensor",
        {"kwargs": torch.ones(2)},
        ArgumentTypeError,
        r"kwargs is <Tensor .*; give a mapping",
    ),
    (
        "inputs of a tensor",
        {"inputs": torch.ones(2)},
        ArgumentTypeError,
        r"inputs is <Tensor .*; give a mapping",
    ),
    (
        "inputs by number",
        {"inputs": {0: torch.ones(2)}},
        ArgumentTypeError,
        r"inputs is .*; give a mapping of names",
    ),
    (
        "output of a name",
        {"output": "logits"},
        ModelError,
        r"output='logits' is no part of what the model returns",
    ),
    (
        "output of a number",
        {"output": 3},
        ModelError,
        r"output=3 is no part of what the model returns",
    ),
    ("output of nothing", {"output": True}, ArgumentTypeError, r"output=True cannot be called"),
    ("too many", {"args": (1, 2)}, InputError, r"TinyCNN cannot be called so: .*forward\(\) takes"),
    ("unknown", {"kwargs": {"meta": 1}}, InputError, r"TinyCNN cannot be called so: .*'meta'"),
]


@pytest.mark.parametrize(
    ("given", "error", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
@pytest.mark.parametrize("ask", ["method", "explain", "layers", "trace", "evaluate"])
def test_wrong_calls_are_told(
    ask: str, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    asked: dict[str, Callable[..., Any]] = {
        "method": lambda **how: seewhy.methods.grad_cam(NET, X, 1, **how),
        "explain": lambda **how: seewhy.explain(NET, X, **how),
        "layers": lambda **how: seewhy.list_layers(NET, X, **how),
        "trace": lambda **how: seewhy.Trace(NET, X, layers=["relu2"], **how).__enter__(),
        "evaluate": lambda **how: seewhy.evaluate(NET, X, metrics="deletion", **how),
    }
    with pytest.raises(error, match=said) as told:
        asked[ask](**given)
    assert "\n" not in str(told.value)


def test_a_fault_inside_the_model_is_its_own() -> None:
    with pytest.raises(TypeError, match=r"forward\(\)") as told:
        seewhy.methods.grad_cam(Inner(), X, 1)
    assert "cannot be called so" not in str(told.value)


def test_a_model_is_not_a_module() -> None:
    with pytest.raises(ArgumentTypeError, match="module is a Model; give its module, "):
        Call(seewhy.wrap(NET))  # type: ignore[arg-type]


def test_further_inputs_made_under_inference_mode() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = NET

        def forward(self, x: Tensor, by: Tensor) -> Tensor:
            return self.net(x * by.view(-1, 1, 1, 1))  # type: ignore[no-any-return]

    by = torch.tensor([1.0, 2.0])
    with torch.inference_mode():
        made = by.clone()
    expected = seewhy.methods.saliency(Scaled(), X, 1, inputs={"by": by})
    for given in ({"inputs": {"by": made}}, {"args": (made,)}, {"kwargs": {"by": made}}):
        assert torch.equal(seewhy.methods.saliency(Scaled(), X, 1, **given), expected)  # type: ignore[arg-type]


def test_what_the_caller_changes_later_does_not_count() -> None:
    kwargs, inputs = {"a": 1}, {"b": torch.ones(2)}
    call = Call(NET, kwargs=kwargs, inputs=inputs)
    kwargs["a"], inputs["c"] = 2, torch.ones(2)
    assert call.kwargs == {"a": 1}
    assert list(call.inputs) == ["b"]


def test_calls_travel() -> None:
    call = Call(
        NET, args=(1,), inputs={"rows": np.arange(4), "words": list("abcd")}, output=torch.relu
    )
    for other in (copy.deepcopy(call), pickle.loads(pickle.dumps(call))):
        assert other.args == (1,)
        assert other.output is torch.relu
        cut = other.rows([2, 0, 2])
        assert cut.inputs["rows"].tolist() == [2, 0, 2]
        assert cut.inputs["words"] == ["c", "a", "c"]


def test_problems_keep_their_output() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = NET

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.net(x)[:, :2], "cls": self.net(x)}

    for given in (seewhy.wrap(Named(), output=read_cls), Call(Named(), output=read_cls)):
        problem = Problem(modules=(given,), count=2)
        for one in (problem, dataclasses.replace(problem, l2=0.5), copy.deepcopy(problem)):
            assert one.call.answer(X).shape == (2, 5)
        index = InfluenceIndex.fit(given, (pictures(5), torch.arange(5)), solver="loss")
        assert index.scores(X).shape == (2, 5)


def read_cls(answer: dict[str, Tensor]) -> Tensor:
    return answer["cls"]
