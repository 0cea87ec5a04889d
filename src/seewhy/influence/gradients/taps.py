"""Linear and convolution layers as matrices: what they were given, and what gradient came back to what they gave.

A linear layer, or a convolution on the patches that it sees, is z = W a for each of L places, with a 1 appended to a
for the bias. An example's gradient is then sum_l g_l a_l^T, g = dq/dz: two matrices that one forward and one backward
pass over a batch give for all of its examples (Goodfellow, 2015, for linear layers). Products and sums of them are
in float32 at least, whatever the model runs in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.borrowing import evaluating
from ...engine.call import Call
from ...engine.pictures import matching_input
from ...engine.targets.classes import class_scores

_CHUNK = (
    2**20
)  # numbers in what is made of one layer's examples at a time: about what a processor's caches hold
_DEVICE_CHUNK = (
    2**25
)  # the same on an accelerator, where many small steps take longer than few large ones

# of a layer, its arguments, those by name, and what it gave
Hook = Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor], Tensor], Tensor]


@contextmanager
def borrowed(call: Call) -> Iterator[None]:
    """The model in evaluation mode, with gradients on whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad(), evaluating(call.module):
        yield


def run(call: Call, weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """The class scores (B, K) with these weights; all other parameters are constants."""
    constants = {name: p.detach() for name, p in call.module.named_parameters()}
    return class_scores(
        call.run(matching_input(call.module, images), weights={**constants, **weights})
    )


def in_full(values: Tensor) -> Tensor:
    """Half precision as float32: sums of it depend on the order, and so on how data are cut into batches."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True, eq=False)
class AffineLayer:
    """A linear layer or a convolution, and which of its parameters count."""

    name: str
    module: nn.Linear | nn.Conv2d
    weight: bool
    bias: bool

    @property
    def parameters(self) -> tuple[str, ...]:
        """Their names, as in the model."""
        both = (("weight", self.weight), ("bias", self.bias))
        return tuple(
            f"{self.name}.{part}" if self.name else part for part, counts in both if counts
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(O, I): the rows and columns of W, the bias being the last column."""
        weight = self.module.weight
        return len(weight), self.weight * weight[0].numel() + self.bias

    def activations(self, x: Tensor) -> Tensor:
        """What the layer was given, (B, L, I): a row for each place, with a 1 for the bias; in float32 at least."""
        x = in_full(x)
        if isinstance(self.module, nn.Conv2d):
            conv = self.module
            assert not isinstance(conv.padding, str)  # `affine_layers` leaves those out
            # (B, I, L)
            patches = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
            return self._with_ones(patches, 1).transpose(1, 2)  # appended before turning, for speed
        return self._with_ones(x.reshape(len(x), -1, x.shape[-1]), 2)

    def _with_ones(self, given: Tensor, dim: int) -> Tensor:
        """What counts of it and of ones along `dim`."""
        ones = given.new_ones([1 if i == dim else n for i, n in enumerate(given.shape)])
        return torch.cat(
            [part for part, counts in ((given, self.weight), (ones, self.bias)) if counts], dim
        )

    def signals(self, gradient: Tensor) -> Tensor:
        """The gradient of what the layer gave, (B, L, O), in float32 at least."""
        gradient = in_full(gradient)
        if isinstance(self.module, nn.Conv2d):
            return gradient.flatten(2).transpose(1, 2)
        return gradient.reshape(len(gradient), -1, gradient.shape[-1])

    def split(self, matrices: Tensor) -> dict[str, Tensor]:
        """Gradients (B, O, I) as those of the parameters, each (B, numel)."""
        columns = torch.split(matrices, [self.shape[1] - self.bias, int(self.bias)], 2)
        kept = (columns[0] if self.weight else None, columns[1] if self.bias else None)
        parts = [part.flatten(1) for part in kept if part is not None]
        return dict(zip(self.parameters, parts, strict=True))


Use = tuple[AffineLayer, Tensor, Tensor]  # layer, what it was given, the gradient of what it gave


def few(numbers: int, like: Tensor) -> int:
    """How many examples to take at a time if each needs so many numbers where this tensor is."""
    return max(1, (_CHUNK if like.device.type == "cpu" else _DEVICE_CHUNK) // max(1, numbers))


def pieces(uses: Sequence[Use]) -> Iterator[tuple[AffineLayer, slice, Tensor, Tensor]]:
    """Each layer's signals (b, L, O) and activations (b, L, I) over all its uses, of a few examples at a time.

    With several places, the examples are so few that their gradients (b, O, I) are small as well.
    """
    together: dict[str, list[Use]] = {}
    for use in uses:
        together.setdefault(use[0].name, []).append(use)
    for same in together.values():
        layer, given, _ = same[0]
        rows, columns = layer.shape
        places = sum(signal[0].numel() for _, _, signal in same) // rows
        size = few(columns * max(places, rows if places > 1 else 1), given)
        for start in range(0, len(given), size):
            some = slice(start, start + size)
            signals = [layer.signals(signal[some]) for _, _, signal in same]
            activations = [layer.activations(given[some]) for _, given, _ in same]
            yield layer, some, _along_places(signals), _along_places(activations)


def _along_places(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def affine_layers(module: nn.Module, names: Sequence[str]) -> list[AffineLayer]:
    """The linear layers and convolutions that have any of the named parameters to themselves.

    Grouped convolutions, those that pad with something other than zeros, and shared parameters are not among them.
    """
    every = module.named_parameters(remove_duplicate=False)
    owners = Counter[Tensor](parameter for _, parameter in every)
    found = []
    for name, part in module.named_modules():
        if not isinstance(part, nn.Linear | nn.Conv2d) or not _is_plain(part):
            continue
        shared = any(owners[p] != 1 for p in (part.weight, part.bias) if p is not None)
        layer = _with_named_parts(name, part, names)
        if layer is not None and not shared:
            found.append(layer)
    return found


def _with_named_parts(
    name: str, part: nn.Linear | nn.Conv2d, names: Sequence[str]
) -> AffineLayer | None:
    """The layer with those of its parameters that are named; None where none is."""
    prefix = f"{name}." if name else ""
    weight, bias = (f"{prefix}{key}" in names for key in ("weight", "bias"))
    if not (weight or bias):
        return None
    return AffineLayer(name, part, weight, bias and part.bias is not None)


def _is_plain(part: nn.Linear | nn.Conv2d) -> bool:
    """Whether a layer's weight is a parameter, and a convolution is one of all channels that pads with zeros."""
    if not isinstance(part.weight, nn.Parameter):
        return False
    if not isinstance(part, nn.Conv2d):
        return True
    return part.groups == 1 and part.padding_mode == "zeros" and not isinstance(part.padding, str)


def first_given(args: Sequence[Tensor], kwargs: Mapping[str, Tensor]) -> Tensor:
    """What a layer was given, as a hook sees its arguments."""
    return args[0] if args else next(iter(kwargs.values()))


def _as_convolved(module: nn.Linear | nn.Conv2d, given: Tensor, output: Tensor) -> Tensor:
    """What a layer was given, padded where a convolution pads in its own `forward`, as timm's "same" ones do."""
    if not isinstance(module, nn.Conv2d) or any(module.padding):
        return given
    pads: list[int] = []
    sizes = zip(
        given.shape[-2:],
        output.shape[-2:],
        module.kernel_size,
        module.stride,
        module.dilation,
        strict=True,
    )
    for before, after, kernel, stride, dilation in sizes:
        more = max(0, (after - 1) * stride + (kernel - 1) * dilation + 1 - before)
        pads = [more // 2, more - more // 2, *pads]  # the last dimension comes first
    return F.pad(given, pads) if any(pads) else given


class Taps:
    """Hooks that keep in one forward pass what layers were given, and give gradients of what they gave.

    To each output a leaf of zeros is added, without memory of its own: its gradient is the output's, also where what
    follows writes into the output, and where no weight requires a gradient.
    """

    def __init__(self, layers: Sequence[AffineLayer]) -> None:
        self.uses: list[
            tuple[AffineLayer, Tensor, Tensor]
        ] = []  # layer, input, leaf: in the order of the pass
        self._handles = [
            layer.module.register_forward_hook(self._hook(layer), with_kwargs=True)
            for layer in layers
        ]

    def _hook(self, layer: AffineLayer) -> Hook:
        def tap(
            module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor
        ) -> Tensor:
            given = first_given(args, kwargs)
            leaf = output.new_zeros(1).expand_as(output).detach().requires_grad_()
            self.uses.append((layer, _as_convolved(layer.module, given.detach(), output), leaf))
            return output + leaf

        return tap

    def __enter__(self) -> Taps:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def gradients(self, outputs: Tensor, cotangents: Tensor, *, keep: bool = False) -> list[Tensor]:
        """For each use the gradient of sum(outputs * cotangents) by what the layer gave; `keep` for a second call."""
        leaves = [leaf for _, _, leaf in self.uses]
        if not leaves or not outputs.requires_grad:
            return [torch.zeros_like(leaf) for leaf in leaves]
        return gradients_by(leaves, outputs, cotangents, keep=keep)


def gradients_by(
    leaves: Sequence[Tensor],
    outputs: Tensor,
    cotangents: Tensor | None = None,
    *,
    keep: bool = False,
) -> list[Tensor]:
    """The gradients of sum(outputs * cotangents), zeros by leaves that it does not depend on."""
    found = torch.autograd.grad(
        outputs, leaves, cotangents, retain_graph=keep, materialize_grads=True
    )
    return [g.detach() for g in found]  # torch 2.6 makes zeros that require gradients themselves
