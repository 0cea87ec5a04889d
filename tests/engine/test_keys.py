"""What is remembered of a model is remembered for the question that was asked, and for the model as it was."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine import keys
from seewhy.engine.call import Call
from seewhy.engine.flow import find_flow
from seewhy.engine.keys import Remembered, key_of, structure_key
from tiny_models import TinyCNN, TinyResNet, pictures, randomised, tiny_vit


def stage() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())


def plain() -> nn.Sequential:
    """A net whose default layer is the last stage, whatever its number."""
    first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
    return randomised(nn.Sequential(first, stage(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)))


def reader(key: str) -> Callable[[Any], Any]:
    return lambda answer: answer[key]


THE_SAME: list[tuple[Any, Any]] = [
    (3, 3),
    ((1, "a"), (1, "a")),
    ([1, 2], [1, 2]),
    ({"a": torch.ones(2)}, {"a": torch.ones(2)}),
    (reader("a"), reader("a")),
    (len, len),
]
OTHERS: list[tuple[Any, Any]] = [
    (3, 3.0),
    (1, True),
    ((1,), [1]),
    (torch.ones(2), torch.zeros(2)),
    (torch.ones(2), torch.ones(2, 1)),
    (torch.ones(2), torch.ones(2).double()),
    (reader("a"), reader("b")),
    (lambda answer: answer["a"], lambda answer: answer["b"]),
    (partial(max, 1), partial(max, 2)),
    ({"a": 1}, {"b": 1}),
]


@pytest.mark.parametrize(("one", "two"), THE_SAME)
def test_keys_of_the_same(one: Any, two: Any) -> None:
    assert key_of(one) == key_of(two)
    assert hash(key_of(one)) == hash(key_of(two))


@pytest.mark.parametrize(("one", "two"), OTHERS)
def test_keys_of_others(one: Any, two: Any) -> None:
    assert key_of(one) != key_of(two)


def test_a_key_of_what_is_gone_equals_no_other() -> None:
    class Thing:
        pass

    thing = Thing()
    key, again = key_of(thing), key_of(thing)
    assert key == again
    del thing
    gc.collect()
    assert key != again


def exchange(net: nn.Sequential) -> None:
    net[1] = nn.Identity()


def insert(net: nn.Sequential) -> None:
    net.insert(2, stage())


def add_inside(net: nn.Sequential) -> None:
    net[1].append(nn.Identity())  # type: ignore[operator, union-attr]


def set_a_number(net: nn.Sequential) -> None:
    net[1][0].stride = (2, 2)  # type: ignore[index, union-attr]


def set_a_flag(net: nn.Sequential) -> None:
    net.checkpointing = True  # type: ignore[assignment]


CHANGES = [exchange, insert, add_inside, set_a_number, set_a_flag]


@pytest.mark.parametrize("change", CHANGES)
def test_the_structure_of_a_model_as_it_now_is(change: Callable[[nn.Sequential], None]) -> None:
    net = plain()
    before = structure_key(net)
    assert structure_key(net) == before
    assert structure_key(net.train()) == structure_key(net.eval()) == before
    change(net)
    assert structure_key(net) != before


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("method", ["grad_cam", "relevance_cam", "cam", "score_cam", "smooth:grad_cam"])
def test_a_changed_model_is_explained_as_a_new_one(method: str, change: Callable[[nn.Sequential], None]) -> None:
    net, x = plain(), pictures(2)
    explain = seewhy.methods.find_method(method)
    explain(net, x, 1)
    change(net)
    randomised(net, 1)
    torch.testing.assert_close(explain(net, x, 1), explain(copy.deepcopy(net), x, 1), rtol=1e-4, atol=1e-6)


def test_weights_count_for_layers() -> None:
    """A head of zeros shows no evidence anywhere; once it is loaded, the layers are those of the loaded model."""
    net, x = tiny_vit(), pictures(1)
    loaded = randomised(tiny_vit()).state_dict()
    nn.init.zeros_(net.head.weight)
    find_flow(net.eval(), x)
    net.load_state_dict(loaded)
    assert find_flow(net, x).chosen == find_flow(randomised(tiny_vit()), x).chosen


@pytest.mark.parametrize("make", [TinyCNN, TinyResNet, tiny_vit])
def test_flows_are_remembered(make: Callable[[], nn.Module]) -> None:
    net, x = randomised(make()), pictures(1)
    first = find_flow(net, x)
    assert find_flow(net, pictures(3, seed=2)) is first
    net.train()
    assert find_flow(net, x) is first
    if make is not tiny_vit:  # which takes one size
        assert find_flow(net, pictures(1, 64)) is not first


def test_an_adapter_made_anew_for_each_call_is_the_same_question() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    flows = [find_flow(Call(net, output=reader_of(i)), x) for i in (0, 0, 1)]
    assert flows[0] is flows[1]
    assert flows[0] is not flows[2]


def reader_of(first: int) -> Callable[[Tensor], Tensor]:
    return lambda out: out[:, first:]


def test_scripted_and_exported_models() -> None:
    net, x = plain(), pictures(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [torch.jit.script(net), torch.jit.trace(net, x), torch.fx.symbolic_trace(net)]
    expected = seewhy.methods.saliency(net, x, 1)
    for model in models:
        assert structure_key(model) == structure_key(model)
        torch.testing.assert_close(seewhy.methods.saliency(model, x, 1), expected)


def test_little_is_kept_and_nothing_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_KEPT", 3)
    known: Remembered[str] = Remembered()
    net = nn.Linear(2, 2)
    made: list[int] = []

    def make(i: int) -> str:
        made.append(i)
        return str(i)

    for i in (0, 1, 2, 0, 3, 1, 0):
        assert known.get(net, i, lambda i=i: make(i)) == str(i)  # type: ignore[misc]
    assert made == [0, 1, 2, 3, 0]
    gone = weakref.ref(net)
    call = Call(net, output=net.forward, kwargs={"self": net})
    known.get(net, call.key, lambda: "x")
    del net, call
    gc.collect()
    assert gone() is None


def test_memory_does_not_grow_with_calls() -> None:
    net, x = randomised(TinyCNN()), pictures(1)
    for i in range(3 * keys._KEPT):
        find_flow(Call(net, output=lambda out, i=i: out[:, : 1 + i % 5]), pictures(1, 8 + i))  # type: ignore[misc]
    from seewhy.engine import flow

    assert len(flow._known._of[net]) <= keys._KEPT
    assert find_flow(net, x).chosen
