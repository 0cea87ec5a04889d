"""What is remembered of a model is remembered for the question that was asked, and for the model as it was."""

from __future__ import annotations

import copy
import gc
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
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
    net = nn.Sequential(first, stage(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    net.options = {"early": False}  # type: ignore[assignment]
    return randomised(net)


def reader(key: str) -> Callable[[Any], Any]:
    return lambda answer: answer[key]


LARGE = torch.zeros(2**20)  # not read
AT = "a"


def indirect(answer: Any) -> Any:
    return (lambda inner: inner[AT])(answer)


THE_SAME: list[tuple[Any, Any]] = [
    (3, 3),
    ((1, "a"), (1, "a")),
    ([1, 2], [1, 2]),
    ({"a": torch.ones(2)}, {"a": torch.ones(2)}),
    (reader("a"), reader("a")),
    (len, len),
]
THE_SAME += [
    (partial(max, 1), partial(max, 1)),
    (np.float64(2.5), np.float64(2.5)),
    (np.arange(3), np.arange(3)),
    (LARGE, LARGE),
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


def test_what_a_function_reads_counts_however_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(indirect)
    assert key_of(indirect) == before
    monkeypatch.setattr(sys.modules[__name__], "AT", "b")
    assert key_of(indirect) != before


def test_attributes_of_an_object_count() -> None:
    class Reads:
        def __init__(self, key: str) -> None:
            self.key = key

        def __call__(self, answer: Any) -> Any:
            return answer[self.key]

        def read(self, answer: Any) -> Any:
            return answer[self.key]

    reads = Reads("a")
    before = key_of(reads), key_of(reads.read)
    assert (key_of(reads), key_of(reads.read)) == before
    reads.key = "b"
    assert key_of(reads) != before[0]
    assert key_of(reads.read) != before[1]


def test_large_tensors_are_not_read_but_watched() -> None:
    large = torch.zeros(2**20)
    before = key_of(large)
    assert key_of(large) == before
    large[0] = 1
    assert key_of(large) != before


class Hostile(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no")


REGISTRY: dict[str, Any] = {}


def registered(answer: Any) -> Any:
    return REGISTRY["registered"](answer)


REGISTRY["registered"] = registered
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
DEEP: list[Any] = []
for _ in range(3000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_csr(),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch.empty(2, device="meta"),
        np.array([object()]),
        CIRCLE,
        DEEP,
        Hostile(a=1),
        registered,
        {"a": float("nan")},
        nn.ModuleList([nn.Linear(2, 2)]),
        object(),
        iter([1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_keys_never_raise(value: Any) -> None:
    hash(key_of(value))
    key_of(value) == key_of(value)  # noqa: B015  (whatever it is, it says)


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


def set_a_function(net: nn.Sequential) -> None:
    net.act = torch.relu  # type: ignore[assignment]


def set_in_a_dictionary(net: nn.Sequential) -> None:
    net.options["early"] = True  # type: ignore[index, operator]


def set_a_size(net: nn.Sequential) -> None:
    net.grid = torch.Size([2, 2])  # type: ignore[assignment]


def hook(net: nn.Sequential) -> None:
    net[1].register_forward_hook(lambda module, args, out: out * 1.0)


def patch(net: nn.Sequential) -> None:
    part = net[1]
    part.forward = lambda x: x  # type: ignore[method-assign]


CHANGES = [
    exchange,
    insert,
    add_inside,
    set_a_number,
    set_a_flag,
    set_a_function,
    set_in_a_dictionary,
    set_a_size,
    hook,
    patch,
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_structure_of_a_model_as_it_now_is(change: Callable[[nn.Sequential], None]) -> None:
    net = plain()
    before = structure_key(net)
    assert structure_key(net) == before
    assert structure_key(net.train()) == structure_key(net.eval()) == before
    change(net)
    assert structure_key(net) != before


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "method", ["grad_cam", "relevance_cam", "cam", "score_cam", "smooth:grad_cam"]
)
def test_a_changed_model_is_explained_as_a_new_one(
    method: str, change: Callable[[nn.Sequential], None]
) -> None:
    net, x = plain(), pictures(2)
    explain = seewhy.methods.find_method(method)
    explain(net, x, 1)
    change(net)
    randomised(net, 1)
    torch.testing.assert_close(
        explain(net, x, 1), explain(copy.deepcopy(net), x, 1), rtol=1e-4, atol=1e-6
    )


def test_weights_count_for_layers() -> None:
    """A head of zeros shows no evidence anywhere; once it is loaded, the layers are those of the loaded model."""
    net, x = tiny_vit(), pictures(1)
    loaded = randomised(tiny_vit()).state_dict()
    nn.init.zeros_(net.head.weight)
    find_flow(net.eval(), x)
    net.load_state_dict(loaded)
    assert find_flow(net, x).chosen == find_flow(randomised(tiny_vit()), x).chosen


class Early(nn.Module):
    """Its own weights choose between two heads at two depths."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()), stage()
        self.share = nn.Parameter(torch.zeros(2))
        self.register_buffer("gate", torch.zeros(()))
        self.a, self.b = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        late = self.share[0] + self.gate
        return self.a(h.mean((2, 3))) if late == 0 else self.b(self.second(h).mean((2, 3)))


def exchanged(net: Early) -> None:
    net.share = nn.Parameter(torch.ones(2))


def pointed_elsewhere(net: Early) -> None:
    net.share.data = torch.ones(2)


def written(net: Early) -> None:
    with torch.no_grad():
        net.share.add_(1)


def a_buffer(net: Early) -> None:
    net.gate.add_(1)


@pytest.mark.parametrize("change", [exchanged, pointed_elsewhere, written, a_buffer])
def test_weights_that_change_the_layers(change: Callable[[Early], None]) -> None:
    for _ in range(10):  # memory that is used again must not be taken for the same
        net = randomised(Early())
        with torch.no_grad():
            net.share.zero_()
            net.gate.zero_()
        assert find_flow(net, pictures(1)).chosen == ("first",)
        change(net)
        assert find_flow(net, pictures(1)).chosen[-1] == "second"


def test_state_that_the_model_itself_writes_is_no_setting() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.steps, self.last = plain(), 0, ()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.steps += 1
            self.last = (float(x.detach().mean()),)
            self.seen.add_(1)
            return self.net(x)  # type: ignore[no-any-return]

    net, x = Counts(), pictures(1)
    first = find_flow(net, x)
    assert all(find_flow(net, x) is first for _ in range(3))
    net.net[1] = stage()
    assert find_flow(net, x) is not first


def test_weights_that_somebody_writes_meanwhile_still_count() -> None:
    net, known = nn.Linear(2, 2), Remembered[str]()

    def trained_meanwhile() -> str:
        with torch.no_grad():
            net.weight.add_(1)
        return "first"

    known.get(net, 0, trained_meanwhile, weights=True)
    assert known.get(net, 0, lambda: "other", weights=True) == "first"
    with torch.no_grad():
        net.weight.add_(1)
    assert known.get(net, 0, lambda: "other", weights=True) == "other"


def test_other_threads_that_look_at_the_model_change_nothing() -> None:
    net, x = plain(), pictures(1)
    first = find_flow(net, x)
    seen: list[bool] = []

    def ask(module: nn.Module, args: Any, out: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        thread = threading.Thread(target=lambda: seen.append(find_flow(net, x) is first))
        thread.start()
        thread.join()

    handle = net[4].register_forward_hook(ask)
    ask.__module__ = "seewhy.engine.trace"
    with seewhy.Trace(net, x, layers=["1"]):
        pass
    handle.remove()
    assert seen == [True]


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
    known.get(net, call.asked, lambda: "x")
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
