"""What rules cannot see: operations that are not called as functions of torch, and reach the graph all the same.

An `autograd.Function`, TorchScript, a compiled part or an operator of another library makes nodes of the autograd graph
outside of every call that a rule set handles. Nodes are numbered in the order in which they are made; a rule set notes
the numbers made within its calls, and what else lies between the output and the taps was hidden from it.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from ..graph import between, name_of
from .computed import gate_height
from .notes import tensors
from .operations import Arguments, Function, Options, is_foreign, usual

_made_so_far = torch._C._autograd._get_sequence_nr
_OF_TORCH = re.compile(r"(\w+?)Backward\d+")
_PARTS = {"DifferentiableGraph": "a scripted part", "CompiledFunction": "a compiled part"}


def torch_name(node: Node) -> str | None:
    """The operation of torch that made a node ("Relu"); None for nodes that are not torch's own."""
    found = _OF_TORCH.fullmatch(name_of(node))
    return found.group(1) if found else None


def operation_name(node: Node) -> str:
    """What made a node, as its author calls it."""
    whole = re.sub(r".*<(.*)>.*", r"\1", name_of(node))  # C++: CppNode<Name>
    name = re.sub(r"Backward\d*$", "", whole.rpartition("::")[2]).removeprefix(
        "GeneratedBackwardFor_"
    )
    return _PARTS.get(name, name)


def out_of_sight(hidden: Mapping[str, int], module: nn.Module) -> str:
    """The hidden operations in words."""
    listed = ", ".join(f"{name} ({n})" for name, n in hidden.items())
    return f"{listed} in {type(module).__name__}, hidden in autograd.Function, TorchScript, compiled code or C++"


# what full backward hooks of a module put around it
_IDENTITIES = ("BackwardHookFunctionBackward",)


class _Sight:
    """What was seen in one forward pass."""

    def __init__(self) -> None:
        self.taps: set[Node] = set()
        self.spans: list[tuple[int, int]] = []  # numbers of the nodes made within calls, ascending
        self.since: int | None = None  # the number at which the call that goes on began
        self.given: dict[
            tuple[Node, int], Tensor
        ] = {}  # what hidden operations were given, by its maker
        self.judged: dict[
            Node, bool
        ] = {}  # hidden operations, and whether the rules hold for them all the same

    def take_given(self, node: Node) -> Tensor | None:
        """What a hidden operation was given; None where that is not one tensor, or not known."""
        sources = [(maker, place) for maker, place in node.next_functions if maker is not None]
        if len(sources) == 1:
            return self.given.pop(sources[0], None)
        return None


class _Sights(threading.local):
    """The forward passes that are under way in this thread, the innermost last."""

    def __init__(self) -> None:
        self.open: list[_Sight] = []


class SeeingMode(TorchFunctionMode, ABC):
    """A rule set: is given every function of torch that a model calls from its taps on, and knows what was hidden.

    `hidden` counts, by name, the operations that the rules should have been given and were not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, int] = {}
        self._sights = _Sights()

    @abstractmethod
    def handle(self, func: Function, args: Arguments, kwargs: Options) -> object:
        """What a call gives under the rules."""

    @abstractmethod
    def concerns(self, node: Node) -> bool:
        """Whether a hidden operation may be one that the rules are about."""

    @abstractmethod
    def rectify(self, node: Node, x: Tensor, y: Tensor, height: float) -> bool:
        """Puts the rule on a hidden operation that turned out to rectify x to y; whether it could."""

    def begin(self, x: Tensor, module: nn.Module, layer: str) -> None:
        """Opens a forward pass, at the tensor from which on the rules hold: the output of this layer of the module."""
        self._sights.open.append(_Sight())
        self.mark(x)

    def let_go(self) -> None:
        """Forgets what was made for ways back, none of which follows."""
        return

    def mark(self, x: Tensor) -> None:
        """Tells of a further tensor that the signal is carried back to."""
        if x.grad_fn is not None:
            self._sights.open[-1].taps.add(x.grad_fn)

    def look_back(self, outputs: Sequence[Tensor]) -> None:
        """Finds what was hidden, once the model has returned these tensors."""
        taps = self._sights.open[-1].taps if self._sights.open else set[Node]()
        with torch._C.DisableTorchFunction():
            for y in outputs:
                self._judge_by_values(y)
        made = [y.grad_fn for y in outputs if y.grad_fn is not None]
        found = Counter[str]()
        for node in between(made, taps):
            if not self._is_accounted_for(node) and self.concerns(node):
                found[operation_name(node)] += 1
        self.hidden = dict(found)

    def _is_accounted_for(self, node: Node) -> bool:
        """Whether the rules hold for an operation, or need not."""
        judged = self._sights.open[-1].judged
        return self.has_seen(node) or judged.get(node, False) or name_of(node) in _IDENTITIES

    @property
    def under_way(self) -> bool:
        """Whether the forward pass goes on: gradients that are looked at meanwhile are no signal."""
        return bool(self._sights.open)

    def end(self) -> None:
        """Closes the forward pass, and lets go of its graph."""
        self._sights.open.pop()

    def __torch_function__(
        self,
        func: Function,
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        given = tuple(args), dict(kwargs or {})
        if not self._sights.open:
            return func(*given[0], **given[1])
        for x in tensors(given):
            self._judge_by_values(x)
        # hidden is what an autograd.Function does in here
        if is_foreign(func) or not torch.is_grad_enabled():
            return self._called_within(func, *given)
        now = self._sights.open[-1]
        if now.since is not None:  # a part of a call that is handled
            return self.handle(usual(func), *given)
        now.since = _made_so_far()
        try:
            return self.handle(usual(func), *given)
        finally:
            _add_span(now.spans, now.since, _made_so_far())
            now.since = None

    def _called_within(self, func: Function, args: Arguments, kwargs: Options) -> object:
        for x in tensors((args, kwargs)):
            if x.grad_fn is not None:
                self._sights.open[-1].given[x.grad_fn, x.output_nr] = x
        return self.call_hidden(func, args, kwargs)

    def call_hidden(self, func: Function, args: Arguments, kwargs: Options) -> object:
        """A call without rules."""
        return func(*args, **kwargs)

    def _judge_by_values(self, y: Tensor) -> None:
        """A hidden operation that works place by place, and by its values rectifies, is known after all."""
        node = y.grad_fn
        if node is None or not self._sights.open or self.has_seen(node):
            return
        now = self._sights.open[-1]
        if node in now.judged or node in now.taps:
            return
        x = now.take_given(node)
        opened = None if x is None or x is y else _height_by_place(x, y)
        now.judged[node] = x is not None and opened is not None and self.rectify(node, x, y, opened)

    def has_seen(self, node: Node) -> bool:
        """Whether a node was made within a call that was handled."""
        now, number = self._sights.open[-1], node._sequence_nr()
        if now.since is not None and number >= now.since:
            return True
        return any(start <= number < stop for start, stop in reversed(now.spans))

    def leads_to_a_tap(self, node: Node) -> bool:
        taps = self._sights.open[-1].taps
        return node in taps or bool(between([node], taps))


def _add_span(spans: list[tuple[int, int]], start: int, stop: int) -> None:
    if spans and spans[-1][1] == start:
        start = spans.pop()[0]
    spans.append((start, stop))


def _height_by_place(x: Tensor, y: Tensor) -> float | None:
    """How far the gate opens where y is x rectified, place by place; else None."""
    opened = gate_height(x.detach(), y.detach()) if x.shape == y.shape else None
    if opened is not None and _by_place(x, y):
        return opened
    return None


def _by_place(x: Tensor, y: Tensor) -> bool:
    """Whether each place of y depends on the same place of x alone: then its derivative is a product with a field."""
    drawn = (
        torch.rand(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(y)
        - 0.5
    )
    back = [
        torch.autograd.grad(y, x, v, retain_graph=True, allow_unused=True)[0]
        for v in (torch.ones_like(y), drawn)
    ]
    return (
        back[0] is not None
        and back[1] is not None
        and torch.allclose(back[0] * drawn, back[1], rtol=1e-3)
    )
