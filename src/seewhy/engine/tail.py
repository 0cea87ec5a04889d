"""The network after a layer, run again and again on changed activations; what comes before is not computed again.

The first pass of an image is recorded: what each operation before the layer returned. In the passes after it these
operations return that again, whatever module, function or operator calls them, so the model's own forward runs, and
costs from the layer on. It is called with one image and goes on with a batch of activations; what bypasses the layer
broadcasts. Whether this gives what the whole network gives is tried first; where not, activations go one by one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import LayerError, ModelError
from .answers import Answer
from .borrowing import evaluating, uncompiled
from .call import Call, as_call
from .layers import INPUT, part_to_hear, split_call, why_unheard
from .outputs import replace_first_tensor, tensors_in
from .pictures import matching_input
from .places.places import find_places

# a model's answer to so many pictures -> (pictures, T), float64 on the CPU
Read = Callable[[Answer, int], Tensor]


class Tail:
    """What a model says of one image when a layer gives something else.

    Attributes:
        activation: what the layer gives, as it gives it; at the call that is meant (`Trace`).
        scores: what is read from the model's own answer, (1, T).
        replays: whether what comes before the layer is kept.
        together: whether a batch of activations runs at once; None until it was tried.

    Args:
        model: any module, or how it is called.
        x: one image (1, C, H, W).
        layer: a dotted name, with "@k" for its k-th call.
        read: takes the model's answer, and the number of pictures that it is for, to scores.

    Raises:
        LayerError: the layer is the input, did not run, or gives no tensor of numbers.
    """

    def __init__(
        self,
        model: Call | nn.Module,
        x: Tensor,
        layer: str,
        *,
        read: Read,
    ) -> None:
        if layer == INPUT:
            raise LayerError(
                "layer 'input' has no network before it to keep; give a layer of the model"
            )
        self.call, self.layer = as_call(model), layer
        self.module = self.call.module
        self._read = read
        self._x = matching_input(self.module, x)
        _, wanted = split_call(layer)
        self._tape = _Tape(wanted)
        self.scores = read(self._run_forward(self._tape.listen, replay=True), 1)
        seen = (
            find_places(self.call, x).call(layer)[1]
            if self._tape.calls > 1 and wanted is None
            else None
        )
        if seen is not None:
            self._tape = _Tape(seen)
            self.scores = read(self._run_forward(self._tape.listen, replay=True), 1)
        if self._tape.calls <= (wanted or 0):
            said = f"layer {layer!r} did not run in the forward pass"
            raise LayerError(said + (why_unheard(self.module) or "; choose one that does"))
        self.activation = self._tape.activation
        self.replays = self._tape.untouched()
        self.together: bool | None = None if self.replays else False

    def run(self, changed: Tensor, *, dim: int = 0) -> Tensor:
        """The scores of B activations, (B, T).

        Args:
            changed: as `activation`, with B in place of 1 along `dim`; the model may write into it.
            dim: of the batch.
        """
        if self.together is None:
            self._try_shortcuts(dim)
        if self.together:
            return self._scores_of(changed, changed.shape[dim])
        return torch.cat([self._scores_of(one, 1) for one in torch.split(changed, 1, dim)])

    def _scores_of(self, changed: Tensor, n: int) -> Tensor:
        self._tape.rewind()
        return self._read(
            self._run_forward(
                lambda value: self._tape.exchange(value, changed), replay=self.replays
            ),
            n,
        )

    def _try_shortcuts(self, dim: int) -> None:
        """Keeps to what agrees with the whole network on the activation as it is and with half of its values gone."""
        every_other = torch.arange(self.activation.numel(), device=self.activation.device) % 2
        half = self.activation * every_other.view(self.activation.shape)
        self.together = self.replays = False
        expected = torch.cat([self.scores, self.run(half.clone(), dim=dim)])
        near = torch.finfo(half.dtype).eps ** 0.5 * float(expected.abs().max())
        self.replays = True
        for self.together in (True, False):
            try:
                found = self.run(torch.cat([self.activation, half], dim), dim=dim)
            except Exception:  # what cannot broadcast fails with whatever it likes
                continue
            if found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=near):
                return
        self.replays = False

    def _run_forward(self, at_layer: Callable[[object], object], *, replay: bool) -> Answer:
        owner = threading.get_ident()  # other threads may run the same module meanwhile

        def tap(module: nn.Module, args: object, value: object) -> object:
            if threading.get_ident() == owner:
                return at_layer(value)
            return None

        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            stack.enter_context(evaluating(self.module))
            stack.enter_context(uncompiled())
            stack.callback(part_to_hear(self.module, self.layer).register_forward_hook(tap).remove)
            x = self._x.clone()  # the model may write into it
            if replay:
                stack.enter_context(self._tape)
            return self.call.run(x)


class _Tape(TorchFunctionMode):
    """Records what each operation returns, then returns that in its place up to the call of the layer that is meant.

    Attributes:
        calls: of the layer in one pass.
        activation: what the layer gave then.

    Args:
        wanted: the call, counted from 0; None is the last.
    """

    def __init__(self, wanted: int | None) -> None:
        super().__init__()
        self.calls, self._wanted = 0, wanted
        self.activation = torch.empty(0)
        self._kept: list[tuple[Callable[..., object], object]] = []
        self._end = 0  # of what was kept when the layer was called
        self._versions: list[int] = []
        self._state: Literal["recording", "replaying", "passing"] = "recording"
        self._position, self._call = 0, 0

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if self._state == "recording":
            value = func(*args, **kwargs or {})
            self._kept.append((func, value))
            return value
        if self._state == "passing":
            return func(*args, **kwargs or {})
        if self._position == len(self._kept) or self._kept[self._position][0] != func:
            raise ModelError("the model does not call the same operations for the same image")
        self._position += 1
        return self._kept[self._position - 1][1]

    def listen(self, value: object) -> object:
        """Takes down a call of the layer, and returns the copy that the model goes on with."""
        self.calls += 1
        if self._wanted is not None and self.calls < self._wanted + 1:
            return _with_own_memory(value)
        if self._wanted is not None and self.calls > self._wanted + 1:
            return value
        self._state = "passing"
        tensors = tensors_in(value)
        if not tensors or not tensors[0].is_floating_point():
            kind = tensors[0].dtype if tensors else f"a {type(value).__name__} without a tensor"
            raise LayerError(f"the layer gives {kind}; choose another")
        self.activation, self._end = tensors[0], len(self._kept)
        self._versions = self._versions_now()
        self._state = "recording"
        return replace_first_tensor(value, self.activation.clone())

    def untouched(self) -> bool:
        """Ends the recording; whether nothing that was kept has changed since the layer ran."""
        self._state = "passing"
        del self._kept[self._end :]
        return self._versions_now() == self._versions

    def rewind(self) -> None:
        self._state, self._position, self._call = "replaying", 0, 0

    def exchange(self, value: object, changed: Tensor) -> object:
        """What the layer gives in place of its value; earlier calls give what they gave, later ones what they give."""
        self._call += 1
        wanted = self.calls if self._wanted is None else self._wanted + 1
        if self._call < wanted:
            return _with_own_memory(value)
        if self._call > wanted:
            return value
        self._state = "passing"
        return replace_first_tensor(value, changed)

    def _versions_now(self) -> list[int]:
        return [
            tensor._version for _, value in self._kept[: self._end] for tensor in tensors_in(value)
        ]


def _with_own_memory(value: object) -> object:
    """What a layer gave, for the model to write into."""
    tensors = tensors_in(value)
    if tensors:
        return replace_first_tensor(value, tensors[0].clone())
    return value
