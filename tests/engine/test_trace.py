"""The engine: what it gives, that it is lean, that it borrows, what it says when it cannot."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, ImageClassifierOutput

import seewhy.methods
import tiny_models
from oracles import activation_and_gradient
from seewhy import Trace
from seewhy.engine.rules.guided import Rectifiers
from seewhy.errors import (
    ArgumentTypeError,
    InputError,
    LayerError,
    ModelError,
    SeewhyError,
    TargetError,
)
from tiny_models import ModelState, Returning, TinyCNN, TinyResNet, pictures, randomised

Pair = namedtuple("Pair", "first second")


@dataclass
class Packed:
    note: str
    value: Tensor


# ---------------------------------------------------------------- what it gives


@pytest.mark.parametrize("layers", [["input"], ["conv1"], ["relu2", "bn1", "conv2"], []])
def test_output_is_the_plain_forward_bit_for_bit(layers: list[str]) -> None:
    net, x = randomised(TinyCNN()), pictures()
    with torch.no_grad():
        plain = net(x)
    with Trace(net, x, layers=layers) as trace:
        assert torch.equal(trace.output, plain)
        assert not trace.output.requires_grad


@pytest.mark.parametrize("make", [TinyCNN, TinyResNet, tiny_models.tiny_vit])
def test_signals_are_plain_autograd(make: Callable[[], nn.Module]) -> None:
    net, x = randomised(make()).double(), pictures().double()
    names = [
        name
        for name, part in net.named_modules()
        if name and isinstance(part, nn.Conv2d | nn.ReLU | nn.Linear)
    ]
    names = [name for name in names if name != "layer1.relu"]  # called twice: see below
    names = [name for name in names if name not in ("layer2.relu", "head", "fc")][::-1]
    with Trace(net, x, layers=names) as trace:
        signal = trace.signal(3)
        assert list(signal) == list(trace.activations) == names
        for name in names:
            a, g = activation_and_gradient(net, net.get_submodule(name), x, 3)
            torch.testing.assert_close(trace.activations[name], a, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(signal[name], g, rtol=1e-12, atol=1e-14)


def test_float32_signals_equal_autograd_at_any_number_of_layers() -> None:
    net, x = randomised(TinyResNet()), pictures()
    together = ["layer2", "input", "stem", "layer1"]
    with Trace(net, x, layers=together) as trace:
        signal = trace.signal(1)
        assert list(signal) == list(trace.activations) == together
    for name in ("layer2", "stem", "layer1"):
        _, g = activation_and_gradient(net, net.get_submodule(name), x, 1)
        torch.testing.assert_close(signal[name], g, rtol=1e-6, atol=1e-8)
        with Trace(net, x, layers=[net.get_submodule(name)]) as alone:
            assert torch.equal(alone.signal(1)[name], signal[name])
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(signal["input"], g, rtol=1e-6, atol=1e-8)


def test_a_subset_of_layers_can_be_asked_for() -> None:
    with Trace(randomised(TinyCNN()), pictures(), layers=["input", "conv1", "relu2"]) as trace:
        assert list(trace.signal(0, layers=["relu2"])) == ["relu2"]
        assert torch.equal(trace.signal(0, layers=["conv1"])["conv1"], trace.signal(0)["conv1"])


def test_layer_before_an_inplace_relu_is_read_before_it() -> None:
    net, x = randomised(TinyCNN(inplace=True)), pictures()
    with Trace(net, x, layers=["bn2"]) as trace:
        a, g = trace.activations["bn2"], trace.signal(2)["bn2"]
    assert (a < 0).any()
    assert (g[a < 0] == 0).all()
    weight = net.fc.weight[2].view(-1, 1, 1) / (a.shape[2] * a.shape[3])
    torch.testing.assert_close(g, (weight * (a > 0)).detach())


def test_a_module_used_twice_is_read_at_its_last_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x).tanh()).tanh().sum((2, 3))

    net, x = randomised(Twice()), pictures(1, 8)
    second = net.conv(net.conv(x).tanh()).detach().requires_grad_()
    (g,) = torch.autograd.grad(second.tanh().sum((2, 3))[:, 1].sum(), second)
    with Trace(net, x, layers=["conv"]) as trace:
        torch.testing.assert_close(trace.activations["conv"], second.detach())
        torch.testing.assert_close(trace.signal(1)["conv"], g)


PACKINGS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tuple": (lambda t: (t, None, "aux"), lambda v: v[0]),
    "list": (lambda t: [t, t * 2], lambda v: v[0]),
    "named tuple": (lambda t: Pair(t, 3), lambda v: v.first),
    "dict": (lambda t: {"note": "x", "value": t}, lambda v: v["value"]),
    "ordered dict": (lambda t: OrderedDict(value=t), lambda v: v["value"]),
    "dataclass": (lambda t: Packed("x", t), lambda v: v.value),
    "model output": (lambda t: BaseModelOutput(last_hidden_state=t), lambda v: v.last_hidden_state),
}


@pytest.mark.parametrize("kind", PACKINGS)
def test_layers_may_return_anything_that_holds_a_tensor(kind: str) -> None:
    pack, unpack = PACKINGS[kind]
    net, x = randomised(Returning(pack, unpack)), pictures()
    a, g = activation_and_gradient(net.net, net.net.relu2, x, 1)
    types: list[type] = []
    net.stage.register_forward_hook(lambda m, i, value: types.append(type(value)))
    with Trace(net, x, layers=["stage"]) as trace:
        assert torch.equal(trace.activations["stage"], a)
        torch.testing.assert_close(trace.signal(1)["stage"], g)
    assert types == [type(pack(x))]


@pytest.mark.parametrize(
    "pack",
    [
        lambda t: (t, "more"),
        lambda t: [t],
        lambda t: {"logits": t, "features": t * 3},
        lambda t: {"features": t * 3, "out": t},
        lambda t: {"anything": t},
        lambda t: ImageClassifierOutput(loss=None, logits=t),
        lambda t: Pair(t, "more"),
    ],
)
def test_models_may_return_anything_that_holds_scores(pack: Callable[[Tensor], Any]) -> None:
    net, x = randomised(TinyCNN()), pictures()
    plain = net(x).detach()
    packing = nn.Sequential(OrderedDict(net=net, pack=Pack(pack)))
    with Trace(packing, x, layers=["net.relu2"]) as trace:
        assert torch.equal(trace.output, plain)
        signal = trace.signal(2)["net.relu2"]
    with Trace(net, x, layers=["relu2"]) as trace:
        assert torch.equal(signal, trace.signal(2)["relu2"])


class Pack(nn.Module):
    def __init__(self, pack: Callable[[Any], Any]) -> None:
        super().__init__()
        self.pack = pack

    def forward(self, value: Any) -> Any:
        return self.pack(value)


def test_an_output_adapter_picks_the_scores() -> None:
    packing = nn.Sequential(randomised(TinyCNN()), Pack(lambda t: {"a": t * 2, "b": t}))
    x = pictures()
    with Trace(packing, x, layers=["0.relu2"], output=lambda raw: raw["b"]) as trace:
        assert torch.equal(trace.output, packing[0](x))
        assert trace.signal(0)["0.relu2"].any()


def test_further_inputs_go_through() -> None:
    class Conditioned(TinyCNN):
        def forward(self, x: Tensor, scale: Tensor, *, shift: float = 0.0) -> Tensor:  # type: ignore[override]
            return super().forward(x) * scale + shift

    net, x = randomised(Conditioned()), pictures()
    plain = TinyCNN.forward(net, x).detach()
    with Trace(net, x, layers=["relu2"], args=(torch.tensor(3.0),), kwargs={"shift": 7.0}) as trace:
        torch.testing.assert_close(trace.output, plain * 3 + 7)
        tripled = trace.signal(1)["relu2"]
    with Trace(net, x, layers=["relu2"], args=(torch.tensor(1.0),)) as trace:
        torch.testing.assert_close(tripled, 3 * trace.signal(1)["relu2"])


def test_callable_targets_and_scores() -> None:
    net, x = randomised(TinyCNN()), pictures(3)
    with Trace(net, x, layers=["relu2"]) as trace:
        assert torch.equal(trace.scores([0, 4, 2]), trace.output[range(3), [0, 4, 2]])
        both = trace.signal(lambda out: 2 * out[:, 1] - out[:, 0])["relu2"]
        torch.testing.assert_close(both, 2 * trace.signal(1)["relu2"] - trace.signal(0)["relu2"])


def test_activations_and_output_outlive_the_trace() -> None:
    with Trace(randomised(TinyCNN()), pictures(), layers=["relu2"]) as trace:
        inside = trace.activations["relu2"]
    assert torch.equal(trace.activations["relu2"], inside)
    assert not trace.activations["relu2"].requires_grad
    assert trace.output.shape == (2, 5)


# ---------------------------------------------------------------- where it runs


def under(mode: str) -> Any:
    return {
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "enable_grad": torch.enable_grad,
    }[mode]()


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
@pytest.mark.parametrize("rules", [None, "guided", "deconvnet"])
def test_works_under_the_callers_mode(mode: str, rules: Any) -> None:
    net, x = randomised(TinyCNN()), pictures()

    def signals(x: Tensor) -> dict[str, Tensor]:
        with Trace(
            net, x, layers=["input", "relu1"], rules=Rectifiers(rules) if rules else None
        ) as trace:
            return trace.signal("top1")

    plain = signals(x)
    with under(mode):
        made_inside = x.clone()  # under inference_mode an inference tensor
        for name, g in signals(made_inside).items():
            assert torch.equal(g, plain[name])
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode == "inference_mode")
    assert torch.is_grad_enabled()


def test_x_with_a_graph_is_left_alone() -> None:
    x = pictures().requires_grad_()
    y = x * 2
    with Trace(randomised(TinyCNN()), y, layers=["input"]) as trace:
        trace.signal(0)
    assert x.grad is None
    assert y.grad_fn is not None


def test_frozen_weights() -> None:
    net, x = randomised(TinyCNN()), pictures()
    with Trace(net, x, layers=["relu1", "relu2"]) as trace:
        before = trace.signal(0)
    net.requires_grad_(False)
    with Trace(net, x, layers=["relu1", "relu2"]) as trace:
        assert all(torch.equal(g, before[name]) for name, g in trace.signal(0).items())


class Backbone(nn.Module):
    """Runs its features under its own no_grad, as some fine-tuned models do."""

    def __init__(self, *, detach: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1))
        self.norm, self.fc, self.detach = nn.ReLU(), nn.Linear(8, 4), detach

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            a = self.features(x)
        return self.fc(self.norm(a.detach() if self.detach else a).mean((2, 3)))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("layer", ["features.2", "features", "norm", "features.1"])
def test_a_backbone_under_its_own_no_grad(layer: str, frozen: bool) -> None:
    net, x = randomised(Backbone()).requires_grad_(not frozen), pictures()
    free = randomised(Backbone())
    free.forward = lambda x: free.fc(free.norm(free.features(x)).mean((2, 3)))  # type: ignore[method-assign]
    _, g = activation_and_gradient(free, free.get_submodule(layer), x, 1)
    with Trace(net, x, layers=[layer]) as trace:
        torch.testing.assert_close(trace.signal(1)[layer], g)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_that_no_gradient_reaches(frozen: bool) -> None:
    net = randomised(Backbone(detach=True)).requires_grad_(not frozen)
    with (
        pytest.raises(LayerError, match=r"no gradient reaches layer 'features'.*later"),
        Trace(net, pictures(), layers=["features"]) as trace,
    ):
        trace.signal(1)
    with Trace(net, pictures(), layers=["norm"]) as trace:
        assert trace.signal(1)["norm"].any()


def test_everything_detached_after_the_layer() -> None:
    net = nn.Sequential(randomised(TinyCNN()), Pack(lambda t: t.detach()))
    with (
        pytest.raises(LayerError, match=r"no gradient reaches layer '0.relu2'"),
        Trace(net, pictures(), layers=["0.relu2"]),
    ):
        pass


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(dtype: torch.dtype, device: torch.device) -> None:
    net, x = randomised(TinyCNN()), pictures()
    with Trace(net, x, layers=["relu2", "input"]) as trace:
        single = trace.signal(1)
    net.to(device, dtype)
    with Trace(net, x, layers=["relu2", "input"]) as trace:  # x is moved and cast
        signal = trace.signal(1)
    for name, g in signal.items():
        assert g.dtype == dtype
        error = (g.float().cpu() - single[name]).norm() / single[name].norm()
        assert error < {torch.float64: 1e-5, torch.float16: 0.05, torch.bfloat16: 0.3}[dtype], (
            f"{name}: {error}"
        )


@pytest.mark.parametrize(
    "wrapper", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")]
)
def test_wrappers_are_looked_through(wrapper: Callable[[nn.Module], Any]) -> None:
    net, x = randomised(TinyCNN()), pictures()
    wrapped = wrapper(net)
    with Trace(net, x, layers=["relu2"]) as trace:
        plain = trace.signal(1)["relu2"]
    with Trace(wrapped, x, layers=["relu2"]) as trace:
        assert torch.equal(trace.signal(1)["relu2"], plain)
    with Trace(wrapped, x, layers=[net.relu2]) as trace:
        assert torch.equal(trace.signal(1)["relu2"], plain)


# ---------------------------------------------------------------- lean


def test_no_graph_before_the_earliest_tapped_layer() -> None:
    net, x = randomised(TinyCNN()), pictures()
    graphs: dict[str, bool] = {}
    handles = [
        part.register_forward_hook(
            lambda m, i, out, name=name: graphs.update({name: out.requires_grad})
        )
        for name, part in net.named_children()
    ]
    with Trace(net, x, layers=["relu2", "conv2"]) as trace:
        trace.signal(0)
    for handle in handles:
        handle.remove()
    assert graphs == {n: n in ("bn2", "relu2", "drop", "fc") for n in graphs}


def test_what_is_saved_for_the_way_back_shrinks_with_the_layer() -> None:
    net, x = randomised(TinyResNet()), pictures()

    def saved(layer: str) -> int:
        count = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
            Trace(net, x, layers=[layer]) as trace,
        ):
            trace.signal(0)
        return count

    assert saved("layer2") < saved("layer1") < saved("stem") < saved("input")
    assert saved("layer2") <= 4  # the linear layer alone


def test_parameters_never_get_gradients() -> None:
    net = randomised(TinyCNN())
    with Trace(net, pictures(), layers=["input", "relu2"]) as trace:
        trace.signal(0)
        trace.signal(1)
    assert all(p.grad is None for p in net.parameters())


def test_without_grad_there_is_no_graph_and_no_way_back() -> None:
    with Trace(randomised(TinyCNN()), pictures(), layers=["conv2"], grad=False) as trace:
        assert (trace.activations["conv2"] < 0).any()
        with pytest.raises(SeewhyError, match="grad=False"):
            trace.signal(0)


# ---------------------------------------------------------------- errors


def test_signals_end_with_the_trace() -> None:
    with Trace(randomised(TinyCNN()), pictures(), layers=["relu2"]) as trace:
        pass
    with pytest.raises(SeewhyError, match="closed"):
        trace.signal(0)


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        (5, TargetError, r"target 5 is not a class of the model, which has 5: 0 to 4"),
        (-1, TargetError, r"target -1 is not a class"),
        ([0], TargetError, r"1 classes for 2 images"),
        ([0, 1, 2], TargetError, r"3 classes for 2 images"),
        ("tabby", TargetError, r"'tabby' is a name, and the model has no labels"),
        ("top3", TargetError, r"'top3' is 3 targets"),
        ("top9", TargetError, r"asks for 9 classes, the model has 5"),
        ("top0", TargetError, r"asks for 0 classes"),
        (None, ArgumentTypeError, r"target=None"),
        (True, ArgumentTypeError, r"target=True"),
        (1.5, ArgumentTypeError, r"target=1.5"),
        ([0.5, 1.0], ArgumentTypeError, r"0\.5"),
        (lambda out: out, TargetError, r"gave \(2, 5\), not one score for each of the 2 images"),
        (lambda out: 3.0, TargetError, r"gave float"),
        (lambda out: out.sum(), TargetError, r"gave \(\)"),
    ],
)
def test_bad_targets(target: Any, error: type[Exception], says: str) -> None:
    with (
        Trace(randomised(TinyCNN()), pictures(2), layers=["relu2"]) as trace,
        pytest.raises(error, match=says),
    ):
        trace.signal(target)


@pytest.mark.parametrize("target", [lambda out: torch.ones(2), lambda out: out.argmax(1).float()])
def test_scores_without_a_gradient_are_none(target: Any) -> None:
    with Trace(randomised(TinyCNN()), pictures(2), layers=["relu2"]) as trace:
        with pytest.raises(TargetError, match=r"no gradient by the model's output.*rise"):
            trace.signal(target)
        assert (
            trace.signal(lambda out: 0 * out[:, 1])["relu2"].count_nonzero() == 0
        )  # a gradient of zero is one


@pytest.mark.parametrize("where", ["conv1.weight", "bn2.running_var", "bn1.running_mean"])
def test_nan_weights_are_named(where: str) -> None:
    net = randomised(TinyCNN())
    net.state_dict()[where].view(-1)[0] = float("nan")
    with Trace(net, pictures(), layers=["relu2"]) as trace, pytest.raises(ModelError, match=where):
        trace.signal(0)


BAD_X: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "nan": (
        lambda x: x.index_fill(0, torch.tensor(1), float("nan")),
        InputError,
        r"NaN or infinite values in image 1",
    ),
    "inf": (lambda x: x / 0, InputError, r"image 0, 1"),
    "channels": (
        lambda x: x[:, :1],
        InputError,
        r"\(\d, 1, 32, 32\) does not fit the model: .*channels",
    ),
    "empty": (lambda x: x[:0], InputError, r"batch is empty"),
    "single": (lambda x: x[0], InputError, r"x\[None\]"),
    "text": (lambda x: "cat.jpg", ArgumentTypeError, r"x is a str"),
    "array": (lambda x: x.numpy(), ArgumentTypeError, r"x is a ndarray"),
}


def enter(net: nn.Module, x: Any) -> None:
    with Trace(net, x, layers=["relu2"]):
        pass


WAYS_IN: dict[str, Callable[[nn.Module, Any], Any]] = {
    "trace": enter,
    "layer named": lambda net, x: seewhy.methods.grad_cam(net, x, 0, layer="relu2"),
    "layer found": lambda net, x: seewhy.methods.grad_cam(net, x, 0),
    "input": lambda net, x: seewhy.methods.saliency(net, x, 0),
    "cam": lambda net, x: seewhy.methods.cam(net, x, 0),
    "steps": lambda net, x: seewhy.methods.integrated_gradients(net, x, 0, steps=2),
}


@pytest.mark.parametrize("kind", BAD_X)
@pytest.mark.parametrize("way", WAYS_IN)
def test_bad_inputs(kind: str, way: str) -> None:
    spoil, error, says = BAD_X[kind]
    net, x = randomised(TinyCNN()), spoil(pictures())
    before = ModelState(net)
    with pytest.raises(error, match=says):
        WAYS_IN[way](net, x)
    before.assert_unchanged()


def test_a_bad_input_does_not_spoil_the_next_call() -> None:
    net, x = randomised(TinyCNN()), pictures()
    with pytest.raises(InputError):
        seewhy.methods.grad_cam(net, x / 0, 0)
    expected = seewhy.methods.grad_cam(net, x, 0, layer="relu2")
    assert torch.equal(seewhy.methods.grad_cam(net, x, 0), expected)


@pytest.mark.parametrize(
    ("layer", "error", "says"),
    [
        ("realu2", LayerError, r"'realu2' is not in TinyCNN; did you mean 'relu2'"),
        ("stem.9", LayerError, r"not in TinyCNN"),
        (nn.ReLU(), LayerError, r"layer ReLU is not a part of TinyCNN"),
        (
            3,
            ArgumentTypeError,
            r"layers=\[3\] is of type list; give a list, each a text or a module",
        ),
        ("unused", LayerError, r"layer unused did not run"),
    ],
)
def test_bad_layers(layer: Any, error: type[Exception], says: str) -> None:
    net = randomised(TinyCNN())
    net.unused = nn.Identity()
    with pytest.raises(error, match=says), Trace(net, pictures(), layers=[layer]):
        pass


def test_a_layer_without_a_tensor() -> None:
    net = nn.Sequential(
        OrderedDict(tell=Pack(lambda x: {"words": "none"}), fall=Pack(lambda d: torch.ones(2, 3)))
    )
    with (
        pytest.raises(LayerError, match=r"'tell' gives a dict without a tensor"),
        Trace(net, pictures(), layers=["tell"]),
    ):
        pass


def test_a_layer_of_integers_has_no_gradient() -> None:
    net = nn.Sequential(
        OrderedDict(
            index=Pack(lambda x: x.argmax(1)), out=Pack(lambda i: i.float().sum((1, 2))[:, None])
        )
    )
    with pytest.raises(LayerError, match="index"), Trace(net, pictures(), layers=["index"]):
        pass


def test_the_models_own_errors_come_through() -> None:
    def fail(x: Tensor) -> Tensor:
        raise KeyError("its own")

    with (
        pytest.raises(KeyError, match="its own"),
        Trace(nn.Sequential(Pack(fail)), pictures(), layers=["0"]),
    ):
        pass


def test_weights_made_under_inference_mode() -> None:
    with torch.inference_mode():
        net = TinyCNN().eval()
    with (
        pytest.raises(ModelError, match="inference_mode"),
        Trace(net, pictures(), layers=["conv1"]) as trace,
    ):
        trace.signal(0)


# ---------------------------------------------------------------- borrowing


class FailingError(RuntimeError):
    pass


def mixed(net: nn.Module) -> nn.Module:
    """Training mode with one part in evaluation, a frozen part, and a gradient that is already there."""
    net.train()
    net.bn1.eval()
    net.conv1.weight.requires_grad_(False)
    net.fc.weight.grad = torch.full_like(net.fc.weight, 7.0)
    return net


@pytest.mark.filterwarnings("ignore:LIME of .*not locally linear")
@pytest.mark.parametrize("name", seewhy.methods.METHODS)
def test_methods_leave_the_model_as_it_was(name: str) -> None:
    net = mixed(randomised(TinyCNN(dropout=0.5)))
    options = (
        {"samples": 2}
        if name == "smooth_grad"
        else {"steps": 2}
        if name == "integrated_gradients"
        else {}
    )
    before, x = ModelState(net), pictures()
    copy = x.clone()
    seewhy.methods.METHODS[name](net, x, "top1", **options)
    before.assert_unchanged()
    assert torch.equal(x, copy)


@pytest.mark.parametrize("rules", [None, "guided", "deconvnet"])
@pytest.mark.parametrize(
    "where", ["forward", "after a tap", "target", "adapter", "hook", "body", "interrupt"]
)
def test_every_error_leaves_the_model_as_it_was(where: str, rules: Any) -> None:
    net = mixed(
        randomised(TinyCNN(dropout=0.5, inplace=False))
    )  # torch forbids backward hooks before in-place
    error = KeyboardInterrupt if where == "interrupt" else FailingError

    def fail(*_: Any) -> Any:
        raise error

    user_hooks = {"forward": net.conv1, "interrupt": net.conv2, "after a tap": net.fc}
    if where in user_hooks:
        user_hooks[where].register_forward_hook(fail)
    if where == "hook":  # on the way back
        net.bn1.register_full_backward_hook(fail)
    before = ModelState(net)
    with pytest.raises(error):  # noqa: PT012, SIM117
        with Trace(
            net,
            pictures(),
            layers=["input", "relu2"],
            rules=Rectifiers(rules) if rules else None,
            output=fail if where == "adapter" else None,
        ) as trace:
            trace.signal(fail if where == "target" else 0)
            if where == "body":
                fail()
    before.assert_unchanged()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    "name", ["grad_cam", "guided_grad_cam", "cam", "fullgrad", "smooth_grad", "deconvnet"]
)
def test_methods_that_fail_leave_the_model_as_it_was(name: str) -> None:
    net = mixed(randomised(TinyCNN(dropout=0.5)))

    def fail(output: Tensor) -> Tensor:
        raise FailingError

    before = ModelState(net)
    with pytest.raises(FailingError):
        seewhy.methods.METHODS[name](net, pictures(), fail)
    before.assert_unchanged()


def test_training_mode_plays_no_part() -> None:
    net, x = randomised(TinyCNN(dropout=0.5)), pictures()
    still = seewhy.methods.grad_cam(net, x, 1)
    net.train()
    assert torch.equal(seewhy.methods.grad_cam(net, x, 1), still)
    assert net.training
    assert net.drop.training


def test_eval_is_not_called_for_its_side_effects() -> None:
    class Counting(TinyCNN):
        calls = 0

        def train(self, mode: bool = True) -> Counting:
            type(self).calls += 1
            return super().train(mode)

    net = randomised(Counting(), train=True)
    Counting.calls = 0
    with Trace(net, pictures(), layers=["relu2"]):
        pass
    assert Counting.calls == 0


def test_the_users_hooks_stay_and_run() -> None:
    net = randomised(TinyCNN())
    seen: list[int] = []
    net.relu2.register_forward_hook(lambda m, i, out: seen.append(1))
    with Trace(net, pictures(), layers=["relu2"]):
        pass
    assert seen == [1]
    assert len(net.relu2._forward_hooks) == 1


def test_traces_nest() -> None:
    net, x = randomised(TinyCNN(), train=True), pictures()
    with Trace(net, x, layers=["relu2"]) as outer:
        with Trace(net, -x, layers=["relu2", "relu1"]) as inner:
            inner.signal(0)
        second = outer.signal(0)["relu2"]
    with Trace(net, x, layers=["relu2"]) as alone:
        assert torch.equal(alone.signal(0)["relu2"], second)
    assert net.training


# ---------------------------------------------------------------- threads


def test_threads_share_a_model_in_training_mode() -> None:
    net = randomised(TinyResNet(), train=True)
    net.layer1.bn1.eval()
    flags = [part.training for part in net.modules()]
    names = [
        "grad_cam",
        "guided_backprop",
        "deconvnet",
        "layer_cam",
        "cam",
        "saliency",
        "guided_grad_cam",
        "fullgrad",
    ]
    jobs = [(name, pictures(1, 24, seed=s), s % 5) for s in range(12) for name in names]

    def answer(job: tuple[str, Tensor, int]) -> Tensor:
        name, x, target = job
        return seewhy.methods.METHODS[name](net, x, target)

    sequential = [answer(job) for job in jobs]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            threaded = list(pool.map(answer, jobs))
    finally:
        sys.setswitchinterval(interval)
    for job, first, second in zip(jobs, sequential, threaded, strict=True):
        torch.testing.assert_close(
            first, second, rtol=1e-5, atol=1e-7, msg=lambda m, job=job: f"{job[0]}: {m}"
        )
    assert [part.training for part in net.modules()] == flags
    assert not any(part._forward_hooks for part in net.modules())


def test_another_threads_forward_is_not_tapped() -> None:
    net, x = randomised(TinyCNN()), pictures()
    inside, go = threading.Event(), threading.Event()

    def wait(module: nn.Module, args: Any, output: Any) -> None:
        if threading.current_thread().name == "explains":
            inside.set()
            go.wait(10)

    handle = net.fc.register_forward_hook(wait)
    kept: list[Tensor] = []

    def explain() -> None:
        with Trace(net, x, layers=["relu2"]) as trace:
            kept.append(trace.activations["relu2"])

    thread = threading.Thread(target=explain, name="explains")
    thread.start()
    assert inside.wait(10)
    with torch.no_grad():
        assert not net(-x).requires_grad
    go.set()
    thread.join()
    handle.remove()
    assert torch.equal(kept[0], activation_and_gradient(net, net.relu2, x, 0)[0])
