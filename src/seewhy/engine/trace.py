"""The engine: one forward pass under backward rules, any number of signals back from it.

The pass is lean. Everything before the earliest tapped layer runs without a graph; there the activation becomes a
leaf, and `torch.autograd.grad` goes back only that far and never into parameters. The model is borrowed: its mode,
hooks, gradients and parameters are afterwards as they were, also when something raised; threads may share it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import is_dataclass
from dataclasses import replace as replace_field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import LayerError, ModelError, SeewhyError, TargetError
from ..maps.ledger import Ledger
from .call import Call, OutputAdapter, check_input, evaluating, matching_input, with_inputs
from .layers import INPUT, resolve_layer
from .targets.resolve import TargetLike, resolve


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a layer's output: itself, or those in a tuple, mapping or dataclass."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    elif is_dataclass(value):
        value = list(vars(value).values())
    return [v for v in value if isinstance(v, Tensor)] if isinstance(value, tuple | list) else []


def replace_first_tensor(value: Any, new: Tensor) -> Any:
    """The same output with the first of its tensors exchanged: that one stands for the layer."""
    if isinstance(value, Tensor):
        return new
    old = tensors_in(value)[0]
    if isinstance(value, Mapping):
        key = next(k for k, v in value.items() if v is old)
        try:
            return type(value)({**value, key: new})  # type: ignore[call-arg]
        except TypeError:  # transformers' outputs are mappings that take keywords
            return type(value)(**{**value, key: new})
    if is_dataclass(value) and not isinstance(value, type):
        return replace_field(value, **{next(k for k, v in vars(value).items() if v is old): new})
    items = [new if v is old else v for v in value]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # named tuples take arguments


class Trace:
    """One forward pass that keeps layers' activations and answers with signals from any number of targets.

    ```
    with seewhy.Trace(module, x, layers=["layer4"]) as trace:
        trace.output                      # what the model said
        trace.activations["layer4"]       # what the layer gave
        trace.signal(281)["layer4"]       # the gradient of class 281 there
    ```

    Args:
        module: any module, or a `Call` of one.
        x: (N, C, H, W); moved to the model's device and precision.
        layers: dotted names or modules; "input" is x itself. Kept in this order. A layer that is called several times
            is read at its last call.
        rules: what the signal obeys on its way back; None is the gradient. Acts from the earliest tapped layer on.
        args, kwargs, inputs: further inputs of the model, as in `Call`: `inputs` have a row for each image.
        output: takes what the model returns to what targets read; `main_output` unless given.
        grad: False keeps activations alone, without a graph.

    Raises:
        LayerError: a layer is not in the model, did not run, or the output does not depend on any of them.
        ModelError: the output is not finite.
    """

    def __init__(
        self,
        module: nn.Module | Call,
        x: Tensor,
        *,
        layers: Sequence[str | nn.Module],
        rules: TorchFunctionMode | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        output: OutputAdapter | None = None,
        grad: bool = True,
    ) -> None:
        check_input(x)
        self.call = with_inputs(module, args, kwargs, inputs, output)
        self.call.check_rows(len(x))
        self.module = self.call.module
        self.layers = [resolve_layer(self.module, layer) for layer in layers]
        self.rules, self.grad = rules, grad
        self._x = x
        self._tapped: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._output: Any = None
        self._open = False

    def __enter__(self) -> Trace:
        with ExitStack() as unless_open:
            unless_open.callback(self._close)
            self._forward(lean=True)
            if self.grad and self.layers and not self._differentiable():
                # a model may run a part of itself under no_grad, and leave our graph with it
                self._forward(lean=False)
                if not self._differentiable():
                    raise LayerError(
                        f"no gradient reaches layer {', '.join(self.layers)} from the output; choose a later one"
                    )
            unless_open.pop_all()
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        """Lets go of the graph, and of all that hangs on it."""
        self._tapped = {name: tensor.detach() for name, tensor in self._tapped.items()}
        if isinstance(self._output, Tensor):
            self._output = self._output.detach()
        self._open = False

    def _differentiable(self) -> bool:
        return not isinstance(self._output, Tensor) or self._output.requires_grad

    def _forward(self, *, lean: bool) -> None:
        self._tapped, self._versions = {}, {}
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(self.grad and not lean))
            stack.enter_context(evaluating(self.module))
            x = matching_input(self.module, self._x)
            for name in self.layers:
                if name != INPUT:
                    stack.callback(self._hook(name, stack).remove)
            if INPUT in self.layers:
                x = self._tap(INPUT, x, stack)
            self._output = self.call.run(x)
        missing = [name for name in self.layers if name not in self._tapped]
        if missing:
            raise LayerError(f"layer {', '.join(missing)} did not run in the forward pass; choose one that does")

    def _hook(self, name: str, stack: ExitStack) -> Any:
        owner = threading.get_ident()  # other threads may run the same module meanwhile

        def tap(module: nn.Module, args: Any, value: Any) -> Any:
            if threading.get_ident() != owner:
                return None
            tensors = tensors_in(value)
            if not tensors:
                raise LayerError(f"layer {name!r} gives a {type(value).__name__} without a tensor; choose another")
            return replace_first_tensor(value, self._tap(name, tensors[0], stack))

        return self.module.get_submodule(name).register_forward_hook(tap)

    def _tap(self, name: str, tensor: Tensor, stack: ExitStack) -> Tensor:
        """Keeps a layer's output, and returns the copy that the model goes on with (in-place operations may follow)."""
        if not self.grad:
            self._tapped[name], self._versions[name] = tensor, tensor._version
            return tensor.clone()
        first = not any(t.requires_grad for t in self._tapped.values())
        torch.set_grad_enabled(True)
        if not tensor.is_floating_point():
            raise LayerError(f"layer {name!r} gives {tensor.dtype}, which has no gradient; choose another")
        if not tensor.requires_grad:  # nothing tapped lies before it
            tensor = tensor.detach().requires_grad_()
        self._tapped[name], self._versions[name] = tensor, tensor._version
        copy = tensor.clone()
        if first and self.rules is not None:
            # rules that follow tensors want to know where they start, and when to forget them
            begin, end = (getattr(self.rules, name, None) for name in ("begin", "end"))
            if begin:
                begin(copy, self.module, name)
            if end:
                stack.callback(end)
            stack.enter_context(self.rules)
        self._tell_rules(copy, name)
        return copy

    def _tell_rules(self, copy: Tensor, name: str) -> None:
        """Rules that keep account want to know which layers are read."""
        tapped = getattr(self.rules, "tapped", None)
        if tapped:
            tapped(copy, name)

    @property
    def output(self) -> Any:
        """What the model returned, after the `output` adapter; a tensor comes without its graph."""
        return self._output.detach() if isinstance(self._output, Tensor) else self._output

    @property
    def activations(self) -> dict[str, Tensor]:
        """For each layer what it gave, as it gave it, in the order in which the layers were asked for."""
        return {name: self._tapped[name].detach() for name in self.layers}

    def scores(self, target: TargetLike) -> Tensor:
        """Returns the target's score for each image, (N,)."""
        return self._scores(target).detach()

    def _scores(self, target: TargetLike) -> Tensor:
        score = target if callable(target) and not isinstance(target, str) else self._single(target)
        with torch.inference_mode(False), torch.set_grad_enabled(self.grad):
            value = score(self._output)
        return check_scores(self.module, value, len(self._x))

    def _single(self, target: TargetLike) -> Callable[[Any], Tensor]:
        resolved = resolve(target, self._output)
        if len(resolved) > 1:
            raise TargetError(f"target {target!r} is {len(resolved)} targets; signal() answers for one")
        return resolved[0].score

    def signal(self, target: TargetLike, *, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Carries the target back to the layers, under the rules: for each a tensor of its activation's shape.

        Args:
            target: as in `seewhy.targets`.
            layers: only these of the tapped layers; the way back is then no longer than it has to be.
        """
        if not self._open:
            raise SeewhyError("the trace is closed: ask for signals inside its 'with' block")
        if not self.grad:
            raise SeewhyError("the trace was made with grad=False and has no way back")
        names = list(self.layers if layers is None else layers)
        tensors = [self._tapped[name] for name in names]
        changed = [n for n in names if self._tapped[n]._version != self._versions[n]]
        if changed:
            raise LayerError(f"layer {changed[0]!r} was changed in place after it ran; choose the layer after it")
        score, ledger = self._scores(target), getattr(self.rules, "ledger", None)
        if ledger is not None:
            ledger.clear()
        if not score.requires_grad:
            return {name: torch.zeros_like(t) for name, t in zip(names, tensors, strict=True)}
        with torch.inference_mode(False):
            found = torch.autograd.grad(score.sum(), tensors, retain_graph=True, allow_unused=True)
        return {
            name: torch.zeros_like(t) if g is None else g.detach()
            for name, t, g in zip(names, tensors, found, strict=True)
        }

    def ledger(self) -> Ledger:
        """Where the relevance of the last signal went, operation by operation, output first.

        Raises:
            SeewhyError: the rules keep no ledger; `Relevance(composite, ledger=Ledger())` does.
        """
        ledger = getattr(self.rules, "ledger", None)
        if ledger is None:
            raise SeewhyError("the trace keeps no ledger: give it rules=Relevance(composite, ledger=Ledger())")
        return Ledger(list(ledger.entries))


def check_scores(module: nn.Module, value: Any, n: int) -> Tensor:
    """Returns what a target gave if it is one finite score for each of n images, (n,), or says what it is."""
    if not isinstance(value, Tensor) or value.shape != (n,):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TargetError(f"the target gave {shape}, not one score for each of the {n} images: ({n},)")
    if not value.detach().isfinite().all():
        raise ModelError(f"the model's score is not finite{_broken_weights(module)}")
    return value


def _broken_weights(module: nn.Module) -> str:
    kinds = (("parameter", module.named_parameters()), ("buffer", module.named_buffers()))
    broken = next((f"{kind} {name!r}" for kind, named in kinds for name, t in named if not t.isfinite().all()), None)
    return f": {broken} has NaN or infinite values" if broken else "; its weights and x are"
