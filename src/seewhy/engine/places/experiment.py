"""What each layer of a model gives for a picture, and how that changes with a part of the picture or of a layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ..borrowing import evaluating, uncompiled
from ..call import Call
from ..outputs import LayerCall, Listener, listening, memory_of, replace_first_tensor, tensors_in
from ..pictures import matching_input

Disturb = Callable[[Tensor], Tensor]  # of a layer's output (rows first), each row in its own way
Measure = Callable[
    [LayerCall, Tensor, Tensor], None
]  # rows as disturbed (B, ...), the row as it was (1, ...)
ROWS = 8  # that run at once
FOLDED = "its batch has"
_MANY = 2**14

_Read = Callable[[LayerCall, Tensor], Tensor | None]


class Experiment:
    """One picture's pass through a model, to compare others with.

    Attributes:
        given: for each call of a layer what it gave.
        makers: for each call of a layer the one that made the same tensor before, or itself.
        batch_dims: for each call of a layer the dimension of its images, or why it has none; known after a comparison.

    Args:
        call: how the model is called, for one image.
        x: the image (1, C, H, W), or the volume (1, C, D, H, W).
    """

    def __init__(self, call: Call, x: Tensor) -> None:
        self.call, self.x = call, matching_input(call.module, x)
        self.given: dict[LayerCall, Tensor] = {}
        self.makers: dict[LayerCall, LayerCall] = {}
        self.batch_dims: dict[LayerCall, int | str] = {}
        self.together = True  # whether several rows run at once
        self._at: dict[Hashable, LayerCall] = {}
        self._run_and_read(self.x, self._keep_answer)
        self._at.clear()

    def _keep_answer(self, key: LayerCall, tensor: Tensor) -> None:
        memory = memory_of(tensor), tensor.shape
        maker = self._at.setdefault(memory, key)
        if maker in self.given and not _is_same(self.given[maker], tensor):
            maker = self._at[memory] = key  # the memory was another's
        self.makers[key] = maker
        self.given[key] = self.given[maker] if maker != key else tensor.clone()

    def compare(
        self, rows: Tensor, measure: Measure, disturb: Mapping[LayerCall, Disturb] | None = None
    ) -> None:
        """Runs pictures (B, C, H, W), layers disturbed, and measures each layer against what it gave for the picture.

        Several run at once where the model takes that, else one by one; what was measured before that failed is then
        measured anew.
        """
        if self.together:
            try:
                self._compare_rows(rows, measure, disturb or {})
            except Exception:  # what cannot take several fails with whatever it likes
                self.together = False
        if not self.together:
            self._one_by_one(rows, measure, disturb or {})

    def _compare_rows(
        self, rows: Tensor, measure: Measure, disturb: Mapping[LayerCall, Disturb]
    ) -> None:
        def read(key: LayerCall, tensor: Tensor) -> Tensor | None:
            if key not in self.given:
                return None
            dim = batch_dim(tuple(self.given[key].shape), tuple(tensor.shape), len(rows))
            self.batch_dims[key] = dim
            if isinstance(dim, str):
                return None
            tensor = tensor.movedim(dim, 0)
            changed = disturb[key](tensor) if key in disturb else None
            if self.makers[key] == key:
                measure(
                    key, tensor if changed is None else changed, self.given[key].movedim(dim, 0)
                )
            return None if changed is None else changed.movedim(0, dim)

        self._run_and_read(rows, read)

    def _one_by_one(
        self, rows: Tensor, measure: Measure, disturb: Mapping[LayerCall, Disturb]
    ) -> None:
        found: dict[LayerCall, list[Tensor]] = {}
        for row in range(len(rows)):

            def read(key: LayerCall, tensor: Tensor, row: int = row) -> Tensor | None:
                dim = self.batch_dims.setdefault(key, batch_dim(tensor.shape, tensor.shape, 1))
                if (
                    isinstance(dim, str)
                    or key not in self.given
                    or tensor.shape != self.given[key].shape
                ):
                    return None
                tensor = tensor.movedim(dim, 0)
                changed = None
                if key in disturb:
                    changed = tensor = disturb[key](tensor.expand(len(rows), *tensor.shape[1:]))[
                        row : row + 1
                    ]
                found.setdefault(key, []).append(tensor.clone())
                return None if changed is None else changed.movedim(0, dim)

            self._run_and_read(rows[row : row + 1], read)
        for key, tensors in found.items():
            dim = self.batch_dims[key]
            if self.makers[key] == key and len(tensors) == len(rows) and isinstance(dim, int):
                measure(key, torch.cat(tensors), self.given[key].movedim(dim, 0))

    def _run_and_read(self, x: Tensor, read: _Read) -> None:
        def hear(key: LayerCall, module: nn.Module, value: object) -> object:
            tensors = tensors_in(value)
            if not tensors or not tensors[0].is_floating_point() or tensors[0].ndim < 2:
                return None
            new = read(key, tensors[0])
            if new is None:
                return None
            return replace_first_tensor(value, new)

        run_heard(self.call, x, hear)


def run_heard(call: Call, x: Tensor, told: Listener) -> None:
    """Runs pictures (N, C, H, W) through a model as it was written, without a graph, and has each layer heard."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(call.module))
        stack.enter_context(uncompiled())
        stack.enter_context(listening(call.module, told))
        call.rows([0] * len(x)).run(x.clone())


def batch_dim(one: tuple[int, ...], many: tuple[int, ...], rows: int) -> int | str:
    """The dimension that has a row for each image, from the shapes for one and for several; or why there is none."""
    grown = [i for i, (a, b) in enumerate(zip(one, many, strict=False)) if a != b]
    if rows == 1:  # any dimension of 1 may be taken for it
        grown = [i for i, size in enumerate(one) if size == 1][:1]
    if len(one) != len(many) or len(grown) != 1 or many[grown[0]] != rows * one[grown[0]]:
        return "it has no row for each picture"
    if one[grown[0]] > 1:
        return f"{FOLDED} {one[grown[0]]} rows for each picture (views or windows)"
    return grown[0]


def differs_anywhere(rows: Tensor, row: Tensor) -> bool:
    """Whether a layer's rows differ from its row; of many numbers some are looked at."""
    step = max(1, row.numel() // _MANY)
    return bool(differs(rows.flatten(1)[:, ::step], row.flatten(1)[:, ::step]).any())


def differs(rows: Tensor, row: Tensor) -> Tensor:
    """Where rows differ from a row by more than what computing several at once does to them."""
    share = max(1e-5, 4 * torch.finfo(row.dtype).eps)
    row = row.float()
    rounding = share * (row.abs() + row.square().mean().sqrt())
    return (rows.float() - row).abs() > rounding


def _is_same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)
