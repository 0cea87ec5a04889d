"""Backward rules that carry relevance, as g = R / a, through every operation of a model as it is called.

Additions, concatenation, pooling, indexing, reshaping and fan-out need no rule: their derivative does it. Linear maps
follow the rules that a composite gives them; BatchNorm merges with the linear map whose tensor it is given; activations
pass relevance as it is; norms divide by a constant; gates and attention weights are coefficients, without relevance of
their own, unless the composite says otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.autograd.graph import Node

from ...maps.ledger import Ledger
from ..layers import INPUT
from ..readings import is_read_at_once
from . import handlers, norms
from . import operations as ops
from .attention import attention, multi_head
from .balance import Balance, on_the_way_back
from .composites import Composite, Operation, find_composite
from .hidden import SeeingMode
from .in_place import current, supersede, twin
from .joined import JoinedConstants, JoinedKind
from .kept_weights import forget_weights
from .linear_map import LinearMap
from .lrp import Rule
from .mode import NONE
from .notes import Kind, Notes, replaced, tensors
from .operations import Arguments, Function, Options
from .propagation import RuledLinear, Tally, stabilized


class _Pass:
    """What belongs to one forward pass."""

    def __init__(self, module: nn.Module, layer: str) -> None:
        self.notes, self.at_input = Notes(), layer == INPUT
        self.deepest = 0  # linear maps after the tap so far
        self.names = {id(p): name.rpartition(".")[0] for name, p in module.named_parameters()}
        self.joined = JoinedConstants(module)


class _Passes(threading.local):
    """The forward passes that are under way in this thread, the innermost last."""

    def __init__(self) -> None:
        self.open: list[_Pass] = []


class Relevance(SeeingMode):
    """Overrides what operations do to relevance on its way back; forward values stay as they are.

    Args:
        composite: which rule where, or its name in `COMPOSITES`.
        ledger: keeps account of where relevance goes.

    `unknown` counts the operations that changed relevance without a rule; `balance` has what stayed behind of each
    image's relevance.
    """

    def __init__(self, composite: str | Composite, *, ledger: Ledger | None = None) -> None:
        super().__init__()
        self.composite, self.ledger = find_composite(composite), ledger
        self.balance, self.unknown = Balance(), dict[str, int]()
        self._passes = _Passes()

    def begin(self, x: Tensor, module: nn.Module, layer: str) -> None:
        """Opens a forward pass, at the tensor from which on the rules hold: the output of this layer of the module."""
        forget_weights()
        self._passes.open.append(_Pass(module, layer))
        super().begin(x, module, layer)

    def let_go(self) -> None:
        super().let_go()
        forget_weights()

    def mark(self, x: Tensor) -> None:
        super().mark(x)
        if not self.notes.live(x):
            known = is_read_at_once(x) and bool((x >= 0).all())
            self.notes.tag(x, depth=0, non_negative=known)

    def end(self) -> None:
        """Closes the forward pass, and forgets what is known of its tensors; the way back needs nothing of it."""
        super().end()
        self._passes.open.pop().notes.clear()

    def look_back(self, outputs: Sequence[Tensor]) -> None:
        super().look_back(outputs)
        for name, n in self.hidden.items():
            self.unknown[name] = self.unknown.get(name, 0) + n

    def concerns(self, node: Node) -> bool:
        return True

    def rectify(self, node: Node, x: Tensor, y: Tensor, height: float) -> bool:
        if current(x, self.notes) is not x:  # the model has overwritten it since
            return False
        ratio = y.detach() / stabilized(x.detach(), 1e-9)
        node.register_hook(
            lambda made, given: tuple(None if g is None else given[0] * ratio for g in made)
        )
        return True

    def call_hidden(self, func: Function, args: Arguments, kwargs: Options) -> object:
        args, kwargs = replaced((args, kwargs), partial(current, notes=self.notes))
        return func(*args, **kwargs)

    @property
    def notes(self) -> Notes:
        """What is known of the tensors of this forward pass."""
        return self._passes.open[-1].notes

    def tapped(self, x: Tensor, layer: str) -> None:
        """Marks the output of a layer that is read."""
        balance = self.balance
        on_the_way_back(x, lambda g: balance.reach(layer, g.device))

    def handle(self, func: Function, args: Arguments, kwargs: Options) -> object:
        if func in ops.QUESTIONS:
            return func(*args, **kwargs)
        named, notes = ops.first_argument(args, kwargs), self.notes
        args, given = replaced((args, kwargs), partial(current, notes=notes))
        incoming = [x for x in tensors((*args, *given.values())) if self._comes_from_a_tap(x)]
        if not incoming:
            made = func(*args, **given)
            self.joined.follow(made, tensors((*args, *given.values())))
            return made
        call = _out_of_place(func, args, given)
        if call is None:
            return self._handled_out_of_place(func, incoming, args, given)
        out = self._handled_out_of_place(call[0], incoming, call[1], call[2])
        now = ops.first_argument(args, given)
        assert isinstance(out, Tensor)
        done = supersede(now, out, notes)
        if named is not now and isinstance(named, Tensor):
            done &= supersede(named, out, notes)
        if not done:
            self.note(func)
        return out

    def _comes_from_a_tap(self, x: Tensor) -> bool:
        """Whether a value may carry relevance; what a hidden operation gave may if it depends on a tap."""
        if x.grad_fn is None or self.has_seen(x.grad_fn) or not self.leads_to_a_tap(x.grad_fn):
            return self.notes.live(x)
        if not self.notes.live(x):
            self.notes.tag(x, depth=self._passes.open[-1].deepest)
        return True

    def _handled_out_of_place(
        self, func: Function, incoming: list[Tensor], args: Arguments, kwargs: Options
    ) -> object:
        notes = self.notes
        out = _HANDLERS.get(func, handlers.transparent)(self, func, args, kwargs)
        depth = max(notes.depth(x) or 0 for x in incoming)
        carriers = [x for x in incoming if x.requires_grad]
        coefficient = bool(carriers) and all(map(notes.is_coefficient, carriers))
        for y in tensors((out,)):
            if not notes.live(y):
                notes.tag(y, depth=depth)
            if coefficient:
                notes.tag(y, coefficient=True)
        return out

    @property
    def joined(self) -> JoinedConstants:
        """The class token, registers and position embedding of the model."""
        return self._passes.open[-1].joined

    def keep(
        self,
        name: str,
        out: Tensor,
        constant: Tensor | float,
        *,
        bias: bool = False,
        finite: bool = False,
        parts: Mapping[JoinedKind, Tensor] = NONE,
    ) -> None:
        """Accounts for what a constant, or a bias, that is part of an output keeps, and those parts of it.

        One that is known to be `finite` is taken as it is; a mask is infinite where no signal comes.
        """
        is_zero = isinstance(constant, int | float) and not constant
        if not out.requires_grad or isinstance(constant, bool) or is_zero:
            return
        kept = constant.detach() if isinstance(constant, Tensor) else float(constant)
        ledger, balance = self.ledger, self.balance

        def account(g: Tensor) -> None:
            if ledger is None and not balance.is_kept:
                return
            relevance = _kept_by(g, kept, finite=finite)
            balance.add("absorbed" if bias else "kept", relevance)
            for kind, part in parts.items():
                whole = part is constant  # it alone is what joined
                balance.add(kind, relevance if whole else _kept_by(g, part))
            if ledger is not None:
                ledger.kept(name, relevance, bias=bias)

        on_the_way_back(out, account)

    def note(self, func: Function) -> None:
        """Counts an operation without a rule."""
        name = getattr(func, "__name__", str(func))
        self.unknown[name] = self.unknown.get(name, 0) + 1

    def ruled(
        self,
        z: Tensor,
        x: Tensor,
        linear: Callable[[], LinearMap],
        kind: Kind,
        depthwise: bool,
        weight: Tensor,
    ) -> Tensor:
        """A linear map's own value under the composite's rule."""
        now, depth = self._passes.open[-1], self.notes.depth(x) or 0
        first = depth == 0 and now.at_input
        name = now.names.get(id(weight), "")
        rule = self.composite.rule(Operation(kind, depth, first, depthwise, name))
        account = _AccountOfLinearMap(self.balance, self.ledger, name or kind, rule)
        non_negative = now.notes.is_non_negative(x)
        detailed = self.ledger is not None
        y: Tensor = RuledLinear.apply(x, z, linear, rule, non_negative, account, detailed)
        now.deepest = max(now.deepest, depth + 1)
        return now.notes.tag(y, depth=depth + 1)


def _kept_by(g: Tensor, constant: Tensor | float, *, finite: bool = False) -> Tensor:
    """Relevance of a constant; none where no signal comes, though a mask's is infinite."""
    relevance = g * constant
    return relevance if finite else relevance.masked_fill_(g == 0, 0)


@dataclass(frozen=True, eq=False)
class _AccountOfLinearMap:
    """What is told of a linear map on the way back."""

    balance: Balance
    ledger: Ledger | None
    name: str
    rule: Rule

    def listens(self) -> bool:
        return self.ledger is not None or (self.balance.is_kept and not self.rule.hands_all_on)

    def settle(self, received: Tensor, handed_on: Tensor, tally: Tally | None) -> None:
        if self.ledger is not None:
            self.ledger.linear(self.name, received, handed_on, tally)
        if not self.rule.hands_all_on:
            self.balance.absorb(received, handed_on)

    def absorb(self, share: Tensor, own: Tensor) -> None:
        self.balance.absorb_shares(share, own)


def _out_of_place(func: Function, args: Arguments, kwargs: Options) -> handlers.Called | None:
    """A call in place as the call out of place that gives the same; None where it is not in place."""
    if kwargs.get("inplace"):
        return func, args, {**kwargs, "inplace": False}
    other = twin(func)
    return None if other is None else (other, args, kwargs)


_HANDLERS: dict[Function, handlers.Handler] = {
    **dict.fromkeys(ops.CONVOLUTIONS, handlers.convolve),
    **dict.fromkeys(ops.LINEAR, handlers.dense_layer),
    **dict.fromkeys(ops.BATCH_NORM, handlers.batch_norm),
    **dict.fromkeys(ops.LAYER_NORMS, norms.layer_norm),
    **dict.fromkeys(ops.RMS_NORMS | ops.NORMALIZE | ops.ACTIVATIONS, handlers.activation),
    **dict.fromkeys(ops.GATES, handlers.gate),
    **dict.fromkeys(ops.STATISTICS, handlers.statistic),
    **dict.fromkeys(ops.MOMENTS, handlers.moments),
    **dict.fromkeys(ops.ADD | ops.SUBTRACT, handlers.add),
    **dict.fromkeys(ops.PRODUCTS, handlers.product),
    **dict.fromkeys(ops.DIVIDE, handlers.divide),
    **dict.fromkeys(ops.GRID_SAMPLE, handlers.grid_sample),
    **dict.fromkeys(handlers.WRITTEN_OUT, handlers.written_out),
    **dict.fromkeys(ops.ATTENTION, attention),
    **dict.fromkeys(ops.MULTI_HEAD, multi_head),
}
