"""Why no gradient reaches a layer, in words: the model runs once more, and is watched for where the way back ends."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import CheckpointFunction

from ..errors import LayerError, ModelError, TargetError
from .graph import leads_to, name_of

WITHOUT_GRADIENTS = "rise, lime or occlusion, which need no gradient"
NO_DERIVATIVE = "NotImplemented"  # how autograd calls the nodes of operations that have none
REENTRANT = (
    "re-entrant checkpointing (torch.utils.checkpoint); give it use_reentrant=False, or switch it off, as timm's "
    f"model.set_grad_checkpointing(False) does; or use {WITHOUT_GRADIENTS}"
)


def is_reentrant(operations: Iterable[str]) -> bool:
    """Whether operations of a graph, by their names, are checkpointed in the re-entrant way."""
    return any(CheckpointFunction.__name__ in name for name in operations)


def is_a_dead_end(operations: Iterable[str]) -> bool:
    """Whether the way back through operations of a graph, by their names, ends in an error."""
    names = list(operations)
    return is_reentrant(names) or any(NO_DERIVATIVE in name for name in names)


def gradients(
    score: Tensor, tensors: Sequence[Tensor], start: Tensor | None = None
) -> tuple[Tensor | None, ...]:
    """The gradient of a number, or of numbers weighted by a start, by each of the tensors; the graph stays.

    It is None where no way leads back.

    Raises:
        ModelError: the graph leads through a part that torch cannot go back through so.
    """
    try:
        return torch.autograd.grad(score, tensors, start, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "checkpoint" not in str(error).lower():
            raise
        raise ModelError(f"no gradient passes through {REENTRANT}") from error


def gradients_of_several(output: Tensor, tensor: Tensor, starts: Tensor) -> Tensor | None:
    """The gradients by a tensor of several weighted sums of an output, stacked; None where no way leads back.

    All are carried back at once, unless there is an operation on the way that cannot be.

    Raises:
        ModelError: as `gradients` does.
    """
    try:
        (found,) = torch.autograd.grad(
            output,
            tensor,
            starts,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
    except RuntimeError:
        each = [gradients(output, [tensor], start)[0] for start in starts]
        there = [gradient for gradient in each if gradient is not None]
        return torch.stack(there) if there else None
    return None if found is None else found.detach()


def check_differentiable(scores: Tensor) -> Tensor:
    """Returns a target's scores if they have a gradient, or says that the target gives none."""
    if not scores.requires_grad:
        raise TargetError(
            "the target's score has no gradient by the model's output, as argmax, a comparison or a constant has none; "
            f"give a target that has, or use {WITHOUT_GRADIENTS}"
        )
    return scores


@dataclass(frozen=True, eq=False)
class _Call:
    """A part's call in a forward pass, in the order in which the calls ended."""

    name: str
    kind: str
    given: list[Node]
    returned: list[Node]
    with_grad: bool
    checkpointed: bool
    quantized: bool


class Witness:
    """Watches one forward pass of a module: which tensors with a graph every part is given and returns."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._calls: list[_Call] = []
        self._hooks = ExitStack()
        self._owner = threading.get_ident()  # other threads may run the same module meanwhile

    def __enter__(self) -> Witness:
        for name, part in self.module.named_modules():
            if not isinstance(part, torch.jit.ScriptModule):
                self._hooks.callback(
                    part.register_forward_hook(self._hook_that_notes(name), with_kwargs=True).remove
                )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._hooks.close()

    def _hook_that_notes(self, name: str) -> Callable[[nn.Module, object, object, object], None]:
        def note(part: nn.Module, args: object, kwargs: object, value: object) -> None:
            if threading.get_ident() == self._owner:
                given, returned = _nodes_of((args, kwargs)), _nodes_of(value)
                kind = f"{type(part).__module__}.{type(part).__qualname__}"
                states = torch.is_grad_enabled(), _is_checkpointed(), "quantized" in kind
                self._calls.append(_Call(name, type(part).__qualname__, given, returned, *states))

        return note

    def told(self, layer: str, tapped: Tensor, output: object) -> LayerError | TargetError:
        """What to raise where the way back to a layer's output ends before it.

        Args:
            layer: its name.
            tapped: what it gave in the pass that was watched.
            output: what targets read of the model's answer.
        """
        way = _WayBack(get_gradient_edge(tapped).node)
        read = _nodes_of(output)
        if any(map(way.leads_from, read)):
            return TargetError(
                f"the target's score does not depend on layer {layer!r} by anything that has a gradient; leave the "
                f"layer out, give another target, or use {WITHOUT_GRADIENTS}"
            )
        return LayerError(
            f"no gradient reaches layer {layer!r} from the output: {self._where_lost(layer, way)}"
        )

    def _where_lost(self, layer: str, way: _WayBack) -> str:
        last = _Call(layer, "", [], [], True, False, False)
        for call in self._calls:
            if call.name == layer or any(map(way.leads_from, call.returned)):
                last = call
            elif call.name and any(map(way.leads_from, call.given)):
                return _lost_in(call)
        if last.checkpointed:
            return f"it runs under {REENTRANT}"
        return (
            f"after {last.name!r} nothing the target reads comes of it by operations that have a derivative (detach(), "
            f"no_grad, numpy and argmax have none); choose a later layer, or use {WITHOUT_GRADIENTS}"
        )


def _lost_in(call: _Call) -> str:
    if call.checkpointed:
        return f"{call.name!r} runs under {REENTRANT}"
    place = f"{call.name!r} ({call.kind})"
    if call.quantized:
        return f"{place} is quantized and has none; explain the model as it was before, or use {WITHOUT_GRADIENTS}"
    if not call.with_grad:
        return f"{place} runs under torch.no_grad(); choose a layer after it, or use {WITHOUT_GRADIENTS}"
    return f"it is lost in {place}; choose a layer after it, or use {WITHOUT_GRADIENTS}"


def _is_checkpointed() -> bool:
    """Whether this is called from within a re-entrant checkpoint, which shows in nothing but the stack."""
    within = CheckpointFunction.forward.__code__
    return any(frame.f_code is within for frame, _ in traceback.walk_stack(None))


def _nodes_of(value: object) -> list[Node]:
    tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return [get_gradient_edge(tensor).node for tensor in tensors if tensor.requires_grad]


class _WayBack:
    """Whether autograd's graph leads from a node to a certain one; every node is looked at once."""

    def __init__(self, end: Node) -> None:
        self._leading, self._others = {end}, set[Node]()

    def leads_from(self, start: Node) -> bool:
        seen, rest = set[Node](), [start]
        while rest:
            node = rest.pop()
            if node in self._leading:
                self._leading.add(start)
                return True
            if (
                node not in seen
                and node not in self._others
                and not name_of(node).endswith(NO_DERIVATIVE)
            ):
                seen.add(node)
                rest += [child for child, _ in leads_to(node) if child is not None]
        self._others |= seen
        return False
