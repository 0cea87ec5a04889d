"""How the evidence flows through a model: one forward pass with a graph and one way back, remembered for each model.

From it `find_flow` chooses the layers to look at. It runs on the first image of a batch and costs about three forward
passes, once for each model and input size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import overload

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from ..errors import LayerError, did_you_mean
from ..names import REPR, at_most, table_lines
from .borrowing import evaluating, uncompiled
from .call import Call, as_call
from .causes import gradients
from .defaults import own_defaults
from .graph import children_first, name_of
from .inputs import settled_input
from .keys import Remembered
from .layers import INPUT, LayerRecord, choose, is_pool, is_projection, resolve_layer, why_unheard
from .outputs import LayerCall, listening, memory_of, replace_first_tensor, tensors_in
from .pictures import matching_input
from .places.places import Places, find_places
from .stages import Stage, columns_of_picture, stages_of, title_of_layers

_known: Remembered[Flow] = Remembered()

LayerLike = str | nn.Module | None


@dataclass(frozen=True, repr=False)
class Flow:
    """Every layer's output in the order in which the layers finished, and the layers chosen: one for each resolution.

    `records` names a tensor that several modules return once, by the outermost of those around its maker; `chosen` is
    ordered finest first, and its last is the default; `places` says where the layers' numbers lie. It is a sequence of
    its records, which a name finds too, and prints as a table.
    """

    records: tuple[LayerRecord, ...]
    chosen: tuple[str, ...]
    places: Places = field(repr=False)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[LayerRecord]:
        return iter(self.records)

    @overload
    def __getitem__(self, key: int | str) -> LayerRecord: ...

    @overload
    def __getitem__(self, key: slice) -> tuple[LayerRecord, ...]: ...

    def __getitem__(self, key: int | str | slice) -> LayerRecord | tuple[LayerRecord, ...]:
        """A layer by its place or its name, or several by a slice.

        Raises:
            LayerError: no layer of that name.
        """
        if not isinstance(key, str):
            return self.records[key]
        found = {record.name: record for record in self.records}
        if key not in found:
            raise LayerError(
                f"layer {key!r} is not among these{did_you_mean(key, found)}; print() lists them"
            )
        return found[key]

    @property
    def default(self) -> str:
        """The layer that is read where nobody names one: the last that is a picture."""
        return self.chosen[-1]

    def title(self, label: str) -> str | None:
        """What people call a layer, or several named as one, such as "last stage, 7 x 7"; None if it is no picture."""
        return title_of_layers(self._stages, label)

    @cached_property
    def _stages(self) -> dict[str, Stage]:
        return stages_of(self.records)

    def table(self, *, every: bool = False) -> list[dict[str, str | int]]:
        """A row for each layer that is a picture, or for every one: name, kind, shape, stage, grid, what chooses it."""
        rows: list[dict[str, str | int]] = []
        for r in self.records:
            if not (every or r.layout):
                continue
            by_all = "all-stages" if r.name in self.chosen else ""
            row: dict[str, str | int] = {"layer": r.name or "(the model)", "kind": r.kind}
            row["shape"] = "x".join(map(str, r.shape[1:]))
            row |= columns_of_picture(r.layout, self._stages.get(r.name))
            rows.append({**row, "chosen": "default" if r.name == self.default else by_all})
        return rows

    def __str__(self) -> str:
        return "\n".join(table_lines(self.table(every=True)))

    def __repr__(self) -> str:
        chosen = ", ".join(
            f"{name} ({'x'.join(map(str, self[name].shape[1:]))})" for name in self.chosen
        )
        pictures = sum(1 for record in self.records if record.layout)
        text = f"<Flow of {len(self)} layers, {pictures} of them pictures; all-stages, the last the default: {chosen}"
        return at_most(f"{text}; print() lists all, [i] and [name] give one", REPR - 1) + ">"

    @property
    def stage_before_the_last(self) -> str:
        """The layer with which the resolution before the last ends; of one resolution alone the default.

        Of the layers of that resolution which all evidence passes it is the last of the least nested: a stage's own
        output rather than a part of the next stage, which begins at its resolution.
        """
        if len(self.chosen) == 1:
            return self.default
        last = self[self.chosen[-2]]
        whole = [r for r in self.records if _can_be_read_for(last, r)] or [last]
        least = min(r.name.count(".") for r in whole)
        return [r.name for r in whole if r.name.count(".") == least][-1]

    @property
    def before_tokens_mix(self) -> str:
        """The first layer that all evidence passes and that has the tokens of the default one; else the default.

        In a transformer of one resolution these are the tokens at their positions, before the first block.
        """
        default = self[self.default]
        if default.layout is None or "tokens" not in default.layout.kind:
            return self.default
        alike = (r for r in self.records if r.shape == default.shape)
        return next((r for r in alike if _can_be_read_for(default, r)), default).name

    def by_places(self, chosen: str) -> list[str]:
        """The layers of a chosen layer's resolution that are read place by place, or else the chosen one itself."""
        size = next(record.layout for record in self.records if record.name == chosen)
        alike = [
            r.name
            for r in self.records
            if r.by_places and size and r.layout and r.layout.grid == size.grid
        ]
        return alike or [chosen]


def _can_be_read_for(chosen: LayerRecord, other: LayerRecord) -> bool:
    """Whether all evidence passes a layer of the resolution of the chosen one, which makes a feature of it."""
    if not (chosen.layout and other.layout) or chosen.layout.grid != other.layout.grid:
        return False
    return other.trunk and other.evidence and not other.pools and not other.projects


@own_defaults()
def find_flow(model: Call | nn.Module, x: Tensor) -> Flow:
    """Traces one image of x (N, C, H, W) through the model; the answer is remembered.

    It is remembered by the call, the model's parts, settings and weights as they now are, and the size of the input.

    Raises:
        LayerError: no layer's output is a picture.
        InputError: x is no batch of pictures, or does not fit the model.

    Example:
        >>> flow = seewhy.methods.find_flow(net, x)
        >>> flow.chosen, flow["conv"].shape
        (('relu',), (1, 3, 16, 16))
    """
    call, x = settled_input(as_call(model), x)
    call.check_rows(len(x))
    asked = (call.asked, tuple(x.shape[1:]))

    def trace() -> Flow:
        return _FlowRecorder(call.rows([0]), x[:1], find_places(call, x)).record()

    return _known.get(call.module, asked, trace, weights=True)


def find_layer(call: Call, x: Tensor, layer: LayerLike) -> str:
    """The name of the layer given, or of the one found."""
    if layer is not None:
        return resolve_layer(call.module, layer)
    return find_flow(call, x).default


@dataclass
class _Seen:
    """A layer's output while the graph lives."""

    record: LayerRecord
    edge: GradientEdge | None
    tensor: Tensor  # held, so that its memory is not taken by another


class _FlowRecorder:
    def __init__(self, call: Call, x: Tensor, places: Places) -> None:
        self.call, self.module, self.x, self.places = call, call.module, x, places
        self.seen: dict[str, _Seen] = {}
        self.by_memory: dict[Hashable, str] = {}  # (storage, version) -> layer
        self.evidence: set[str] = set()
        self.leaf: Tensor | None = None  # where the way back ends

    def record(self) -> Flow:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(evaluating(self.module))
            stack.enter_context(uncompiled())
            stack.enter_context(listening(self.module, self._hear_layer))
            x = matching_input(self.module, self.x)
            if self.call.whole_numbers is None:
                self.leaf = x.requires_grad_()
                x = x.clone()
            self.by_memory[memory_of(x)] = INPUT  # what is handed on as it came is no layer's
            score = _any_score(self.call.run(x))
            if score is None or self.leaf is None:
                return Flow(
                    self._records_so_far(),
                    tuple(record.name for record in self._chosen_records()),
                    self.places,
                )
            self._find_trunk(score, self.leaf)
            self._find_evidence(score, self.leaf)
            self._find_what_is_read_by_places(score)
            chosen = self._chosen_records()
            chosen[-1] = self._nearer_the_output(chosen[-1], score, self.leaf)
        return Flow(self._records_so_far(), tuple(record.name for record in chosen), self.places)

    def _records_so_far(self) -> tuple[LayerRecord, ...]:
        return tuple(seen.record for seen in self.seen.values())

    def _chosen_records(self) -> list[LayerRecord]:
        records = self._records_so_far()
        unheard = why_unheard(self.module)
        if unheard and not any(record.layout for record in records):
            raise LayerError(f"no layer can be found{unheard}")
        return choose(records, self.places.why_none())

    def _hear_layer(self, layer_call: LayerCall, module: nn.Module, value: object) -> object:
        tensors = tensors_in(value)
        # whole numbers have no gradient
        if tensors and self.leaf is None and tensors[0].is_floating_point():
            self.leaf = tensors[0].detach().requires_grad_()
            value = replace_first_tensor(value, self.leaf.clone())
            tensors = tensors_in(value)
        if tensors:
            self._note_output(layer_call, module, tensors[0], alone=len(tensors) == 1)
        return value

    def _note_output(
        self, layer_call: LayerCall, module: nn.Module, tensor: Tensor, *, alone: bool
    ) -> None:
        key = memory_of(tensor)
        if self.by_memory.get(key) == INPUT:
            return
        name, maker = self.places.name(layer_call), layer_call[0]
        pools, projects = is_pool(module), is_projection(module)
        previous = self.by_memory.get(key)
        if previous in self.seen:
            made = self.seen[previous]
            maker, pools, projects = made.record.maker, made.record.pools, made.record.projects
            if not maker.startswith(f"{layer_call[0]}.") or not alone:
                # the model, or what hands on what another made, or hands on more, which may have been made from it
                return
            del self.seen[previous]
        shape, layout = tuple(tensor.shape), self.places.layouts.get(layer_call)
        edge = get_gradient_edge(tensor) if tensor.requires_grad else None
        record = LayerRecord(
            name, maker, type(module).__name__, shape, layout, False, False, pools, projects
        )
        self.seen[name] = _Seen(record, edge, tensor)
        self.by_memory[key] = name

    def _find_trunk(self, score: Tensor, leaf: Tensor) -> None:
        trunk = _nodes_on_every_path(get_gradient_edge(score).node, get_gradient_edge(leaf).node)
        for seen in self.seen.values():
            if seen.edge is not None and seen.edge.node in trunk:
                seen.record = replace(seen.record, trunk=True)

    def _find_evidence(self, score: Tensor, leaf: Tensor) -> None:
        with ExitStack() as stack:
            for name, seen in self.seen.items():
                if seen.edge is not None and seen.record.layout:
                    stack.callback(
                        seen.edge.node.register_prehook(self._evidence_hook(name, seen)).remove
                    )
            gradients(score, [leaf])
        for name in self.evidence:
            self.seen[name].record = replace(self.seen[name].record, evidence=True)

    def _evidence_hook(self, name: str, seen: _Seen) -> Callable[[tuple[Tensor | None, ...]], None]:
        def look(gradients: tuple[Tensor | None, ...]) -> None:
            gradient = gradients[seen.edge.output_nr] if seen.edge else None
            layout = seen.record.layout
            if gradient is None or layout is None or gradient.shape != seen.record.shape:
                return
            if layout.to_grid(gradient).count_nonzero():
                self.evidence.add(name)

        return look

    def _find_what_is_read_by_places(self, score: Tensor) -> None:
        edges = {
            (s.edge.node, s.edge.output_nr): s for s in self.seen.values() if s.edge is not None
        }
        for node in children_first(get_gradient_edge(score).node):
            if not name_of(node).startswith("ConvolutionBackward"):
                continue
            read = edges.get(node.next_functions[0])  # type: ignore[arg-type]
            kernel = node._saved_weight.shape[2:]  # type: ignore[attr-defined]
            if (
                read
                and read.record.layout
                and all(k == 1 for k in kernel)
                and bool((read.tensor >= 0).all())
            ):
                read.record = replace(read.record, by_places=True)

    def _nearer_the_output(self, default: LayerRecord, score: Tensor, leaf: Tensor) -> LayerRecord:
        """The last layer of the same shape that alone carries what the places of the default layer say.

        In a ViT read at its class token this is the norm before the last attention: there tokens of large norm are no
        longer loud, and no path bypasses it but the class token's own.
        """
        names = list(self.seen)
        for name in reversed(names[names.index(default.name) + 1 :]):
            record = self.seen[name].record
            alike = (record.layout, record.channels) == (default.layout, default.channels)
            readable = alike and record.evidence and not record.projects and not record.pools
            if readable and self._carries_all(name, default.name, score, leaf):
                return record
        return default

    def _carries_all(self, name: str, upstream: str, score: Tensor, leaf: Tensor) -> bool:
        """Whether no evidence reaches the layer `upstream` once the signal is stopped at the layer `name`."""
        blocked = self.seen[name].edge
        if blocked is None:
            return False
        self.evidence.discard(upstream)

        def block(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            return tuple(
                torch.zeros_like(g) if i == blocked.output_nr and g is not None else g
                for i, g in enumerate(gradients)
            )

        seen = self.seen[upstream]
        if seen.edge is None:
            return False
        with ExitStack() as stack:
            stack.callback(blocked.node.register_prehook(block).remove)
            stack.callback(
                seen.edge.node.register_prehook(self._evidence_hook(upstream, seen)).remove
            )
            gradients(score, [leaf])
        return upstream not in self.evidence


def _any_score(answer: object) -> Tensor | None:
    """A scalar that depends on all of the output, without a symmetry that could cancel; None without a gradient."""
    if not isinstance(answer, Tensor) or not answer.is_floating_point() or not answer.requires_grad:
        return None
    weights = torch.arange(1, answer.numel() + 1, device=answer.device, dtype=torch.float32).cos()
    return (answer.flatten().float() * weights).sum()


def _nodes_on_every_path(start: Node, end: Node) -> set[Node]:
    """The nodes of an autograd graph that every path from start to end passes.

    Those for which the number of paths to them times that of paths from them is the number of all paths.
    """
    order = children_first(start)
    to_end: dict[Node, int] = {}
    for node in order:
        to_end[node] = 1 if node == end else sum(to_end[child] for child in _child_nodes(node))
    from_start = dict.fromkeys(order, 0)
    from_start[start] = 1
    for node in reversed(order):
        for child in _child_nodes(node):
            from_start[child] += from_start[node]
    paths = to_end[start]
    if not paths:
        return set()
    return {node for node in order if to_end[node] * from_start[node] == paths}


def _child_nodes(node: Node) -> list[Node]:
    return [child for child, _ in node.next_functions if child is not None]
