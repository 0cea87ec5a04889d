"""The engine: one forward pass under backward rules, any number of signals back from it.

The pass is lean. Everything before the earliest tapped layer runs without a graph; there the activation becomes a
leaf, and `torch.autograd.grad` goes back only that far and never into parameters. The model is borrowed: its mode,
hooks, gradients and parameters are afterwards as they were, also when something raised; threads may share it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from ..arguments import checked
from ..errors import LayerError, ModelError, SeewhyError, TargetError
from ..maps.ledger import Ledger
from .answers import Answer, OutputLike
from .borrowing import evaluating, uncompiled
from .call import Call, with_inputs
from .causes import (
    WITHOUT_GRADIENTS,
    Witness,
    check_differentiable,
    gradients,
    gradients_of_several,
)
from .defaults import own_defaults
from .inputs import settled_input
from .layers import INPUT, part_to_hear, resolve_layer, split_call, why_unheard
from .outputs import replace_first_tensor, tensors_in
from .pictures import matching_input
from .places.places import find_places
from .readings import checked_later
from .rules.checkpoints import Uncheckpointed
from .rules.hidden import SeeingMode
from .targets.classes import ScoreFunction
from .targets.numbers import numbers_of
from .targets.resolve import TargetLike, is_settled, resolve
from .targets.rows import ROWS_AS_INPUTS, asked


class Trace:
    """One forward pass that keeps layers' activations and answers with signals from any number of targets.

    >>> with seewhy.Trace(net, x, layers=["conv"]) as trace:
    ...     activation = trace.activations["conv"]  # what the layer gave
    ...     gradient = trace.signal(0)["conv"]  # of class 0 there
    >>> activation.shape, (activation * gradient).sum(), trace.output
    (torch.Size([1, 3, 16, 16]), tensor(4.), tensor([[4., 0., 0.]]))

    Args:
        module: any module, or a `Call` of one.
        x: (N, C, H, W); moved to the model's device and precision.
        layers: dotted names or modules; "input" is x itself. Kept in this order. A layer that is called several times
            is read at the last call that depends on x; "name@k" is its k-th call, from 0.
        rules: what the signal obeys on its way back; None is the gradient. Acts from the earliest tapped layer on.
        args, kwargs, inputs: further inputs of the model, as in `Call`: `inputs` have a row for each image.
        output: takes what the model returns to what targets read; `main_output` unless given.
        grad: False keeps activations alone, without a graph.

    Raises:
        LayerError: a layer is not in the model, did not run, or the output does not depend on any of them.
        ModelError: the output is not finite.
    """

    @checked
    def __init__(
        self,
        module: nn.Module | Call,
        x: Tensor,
        *,
        layers: Sequence[str | nn.Module],
        rules: TorchFunctionMode | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        inputs: Mapping[str, object] | None = None,
        output: OutputLike | None = None,
        grad: bool = True,
    ) -> None:
        self.call, self._x = settled_input(with_inputs(module, args, kwargs, inputs, output), x)
        self.call.check_rows(len(x))
        self.module = self.call.module
        self.layers = [resolve_layer(self.module, layer) for layer in layers]
        self.rules, self.grad = rules, grad
        self._tapped: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._calls = Counter[str]()  # of each layer
        # of a layer that is called several times, the call that is meant
        self._pinned: dict[str, int] = {}
        self._output: Answer = None
        self._open = False

    @own_defaults()
    def __enter__(self) -> Trace:
        with ExitStack() as unless_open:
            unless_open.callback(self._release_graph)
            self._run_forward(lean=True)
            if self._pin_calls():
                self._run_forward(lean=True)
            if self.grad and self.layers and not self._has_graph():
                # a model may run a part of itself under no_grad, and leave our graph with it
                self._run_forward(lean=False)
                if not self._has_graph():
                    raise self._why_unreached(self.layers[0])
            unless_open.pop_all()
        self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._release_graph()

    def _release_graph(self) -> None:
        """Lets go of the graph, and of all that hangs on it."""
        self._tapped = {name: tensor.detach() for name, tensor in self._tapped.items()}
        if isinstance(self._output, Tensor):
            self._output = self._output.detach()
        if isinstance(self.rules, SeeingMode):
            self.rules.let_go()
        self._open = False

    def _has_graph(self) -> bool:
        return not isinstance(self._output, Tensor) or self._output.requires_grad

    def _run_forward(self, *, lean: bool) -> None:
        self._tapped, self._versions, self._calls = {}, {}, Counter()
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(self.grad and not lean))
            stack.enter_context(evaluating(self.module))
            stack.enter_context(uncompiled())
            x = matching_input(self.module, self._x)
            for name in self.layers:
                if name != INPUT:
                    stack.callback(self._hook_layer(name, stack).remove)
            if INPUT in self.layers:
                self._check_input_has_gradient()
                x = self._keep_output(INPUT, x, stack)
            self._output = self.call.run(x)
            if isinstance(self.rules, SeeingMode):
                self.rules.look_back(tensors_in(self._output))
        missing = [name for name in self.layers if name not in self._tapped]
        if missing:
            said = f"layer {', '.join(missing)} did not run in the forward pass"
            raise LayerError(said + (why_unheard(self.module) or "; choose one that does"))

    def _check_input_has_gradient(self) -> None:
        if self.call.whole_numbers is not None and self.grad:
            raise LayerError(
                f"layer 'input' has no gradient: {type(self.module).__name__} takes {self.call.whole_numbers}, and "
                f"says something else, or nothing, of floats; name a layer, or use {WITHOUT_GRADIENTS}"
            )

    def _pin_calls(self) -> bool:
        """Looks which calls are meant of layers that are called several times; whether it is not the last of one."""
        several = [name for name, n in self._calls.items() if n > 1 and split_call(name)[1] is None]
        places = find_places(self.call, self._x) if several else None
        self._pinned = {name: places.call(name)[1] for name in several if places}
        return any(call + 1 < self._calls[name] for name, call in self._pinned.items())

    def _hook_layer(self, name: str, stack: ExitStack) -> RemovableHandle:
        owner = threading.get_ident()  # other threads may run the same module meanwhile
        wanted = self._pinned.get(name, split_call(name)[1])

        def tap(module: nn.Module, args: object, value: object) -> object:
            if threading.get_ident() != owner:
                return None
            self._calls[name] += 1
            if wanted is not None and self._calls[name] != wanted + 1:
                return None
            tensors = tensors_in(value)
            if not tensors:
                raise LayerError(
                    f"layer {name!r} gives a {type(value).__name__} without a tensor; choose another"
                )
            return replace_first_tensor(value, self._keep_output(name, tensors[0], stack))

        return part_to_hear(self.module, name).register_forward_hook(tap)

    def _keep_output(self, name: str, tensor: Tensor, stack: ExitStack) -> Tensor:
        """Keeps a layer's output, and returns the copy that the model goes on with (in-place operations may follow)."""
        if not self.grad:
            self._tapped[name], self._versions[name] = tensor, tensor._version
            return tensor.clone()
        first = not any(t.requires_grad for t in self._tapped.values())
        torch.set_grad_enabled(True)
        if not tensor.is_floating_point():
            raise LayerError(
                f"layer {name!r} gives {tensor.dtype}, which has no gradient; choose another"
            )
        if not tensor.requires_grad:  # nothing tapped lies before it
            tensor = tensor.detach().requires_grad_()
        self._tapped[name], self._versions[name] = tensor, tensor._version
        copy = tensor.clone()
        if isinstance(self.rules, SeeingMode):
            if first:
                stack.callback(self.rules.end)
                self.rules.begin(copy, self.module, name)
            else:
                self.rules.mark(copy)
        if first and self.rules is not None:
            stack.enter_context(self.rules)
            stack.enter_context(Uncheckpointed())
        self._tell_rules(copy, name)
        return copy

    def _tell_rules(self, copy: Tensor, name: str) -> None:
        """Rules that keep account want to know which layers are read."""
        tapped = getattr(self.rules, "tapped", None)
        if tapped:
            tapped(copy, name)

    @property
    def output(self) -> Answer:
        """What the model returned, after the `output` adapter; a tensor comes without its graph."""
        if isinstance(self._output, Tensor):
            return self._output.detach()
        return self._output

    @property
    def activations(self) -> dict[str, Tensor]:
        """For each layer what it gave, as it gave it, in the order in which the layers were asked for."""
        return {name: self._tapped[name].detach() for name in self.layers}

    @own_defaults()
    def scores(self, target: TargetLike) -> Tensor:
        """Returns the target's score for each image, (N,)."""
        return self._scores_with_graph(target).detach()

    def _scores_with_graph(self, target: TargetLike) -> Tensor:
        score = target if callable(target) and is_settled(target) else self._single_score(target)
        with torch.inference_mode(False), torch.set_grad_enabled(self.grad):
            value = asked(score, self._output, len(self._x))
        return check_scores(self.module, value, len(self._x))

    def _single_score(self, target: TargetLike) -> ScoreFunction:
        resolved = resolve(target, self._output, numbers=numbers_of(self.call, self._output))
        if len(resolved) > 1:
            raise TargetError(
                f"target {target!r} is {len(resolved)} targets; signal() answers for one"
            )
        return resolved[0].score

    @own_defaults()
    def signal(
        self, target: TargetLike, *, layers: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Carries the target back to the layers, under the rules: for each a tensor of its activation's shape.

        Args:
            target: as in `seewhy.targets`.
            layers: only these of the tapped layers; the way back is then no longer than it has to be.

        Raises:
            LayerError: no gradient reaches a layer, and why.
            TargetError: the score has no gradient, or does not depend on a layer.
            ModelError: the model is checkpointed in the way that torch cannot go back through.
        """
        names = list(self.layers if layers is None else layers)
        self._check_way_back(names)
        score, ledger = self._scores_with_graph(target), getattr(self.rules, "ledger", None)
        if ledger is not None:
            ledger.clear()
        signals = self._carried_back(score, [self._tapped[name] for name in names])
        carried: dict[str, Tensor] = {}
        for name, signal in zip(names, signals, strict=True):
            if signal is None:  # no gradient is not a gradient of zero
                raise self._why_unreached(name)
            carried[name] = signal.detach()
        return carried

    @own_defaults()
    def signals(self, starts: Tensor, layer: str) -> Tensor:
        """Carries several weightings of an output (N, K) back to a layer, all at once where the way back allows it.

        Args:
            starts: (k, N, K), weights of the output's numbers.
            layer: one of the tapped layers.

        Returns:
            k tensors of the shape of the layer's activation, stacked.

        Raises:
            LayerError, ModelError: as `signal` does.
        """
        self._check_way_back([layer])
        tapped, output = self._tapped[layer], self._output
        assert isinstance(output, Tensor)
        if not output.requires_grad:
            raise self._why_unreached(layer)
        with torch.inference_mode(False):
            found = gradients_of_several(output, tapped, starts)
        if found is None:
            raise self._why_unreached(layer)
        return found

    def _check_way_back(self, names: Sequence[str]) -> None:
        """Says why there is no way back to these layers, where that shows before it is tried."""
        if not self._open:
            raise SeewhyError("the trace is closed: ask for signals inside its 'with' block")
        if not self.grad:
            raise SeewhyError("the trace was made with grad=False and has no way back")
        for name in names:
            if self._tapped[name]._version != self._versions[name]:
                raise LayerError(
                    f"layer {name!r} was changed in place after it ran; choose the layer after it"
                )

    def _carried_back(self, score: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor | None]:
        if not score.requires_grad:
            if any(isinstance(t, Tensor) and t.requires_grad for t in tree_leaves(self._output)):
                check_differentiable(score)
            return [None] * len(tensors)
        with torch.inference_mode(False):
            return gradients(score.sum(), tensors)

    def _why_unreached(self, layer: str) -> SeewhyError:
        """What to raise where no gradient reaches a layer, with the cause as far as it shows in another pass."""
        with Witness(self.module) as witness:
            self._run_forward(lean=False)
        return witness.told(layer, self._tapped[layer], self._output)

    def ledger(self) -> Ledger:
        """Where the relevance of the last signal went, operation by operation, output first.

        Raises:
            SeewhyError: the rules keep no ledger; `Relevance(composite, ledger=Ledger())` does.
        """
        ledger = getattr(self.rules, "ledger", None)
        if ledger is None:
            raise SeewhyError(
                "the trace keeps no ledger: give it rules=Relevance(composite, ledger=Ledger())"
            )
        return Ledger(list(ledger.entries))


def check_scores(module: nn.Module, value: object, n: int) -> Tensor:
    """Returns what a target gave if it is one finite score for each of n images, (n,), or says what it is."""
    if not isinstance(value, Tensor) or value.shape != (n,):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TargetError(
            f"the target gave {shape}, not one score for each of the {n} images: ({n},){ROWS_AS_INPUTS}"
        )
    checked_later([value], lambda scores: _check_finite(module, scores))
    return value


def _check_finite(module: nn.Module, scores: Tensor) -> None:
    if not scores.isfinite().all():
        raise ModelError(f"the model's score is not finite{_broken_weights(module)}")


def _broken_weights(module: nn.Module) -> str:
    kinds = {"parameter": module.named_parameters(), "buffer": module.named_buffers()}
    for kind, named in kinds.items():
        for name, values in named:
            if not values.isfinite().all():
                return f": {kind} {name!r} has NaN or infinite values"
    return "; its weights and x are"
