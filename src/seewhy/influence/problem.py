"""What was trained: the modules, their loss and their parameters; and what influence means, its sign and its scale.

The model is theta = argmin 1/n sum_i loss(z_i, theta) + l2/2 |theta|^2 over n training examples. Leaving example i
out, with 1/n and l2 as they are, moves theta by H^-1 grad loss(z_i) / n to first order, H the Hessian of that
objective (Koh and Liang, ICML 2017, section 2). The influence of i on a test quantity is the first-order change that
this brings:

    influence(i, test) = grad q(test)^T H^-1 grad loss(z_i) / n,   q the test loss, or minus the test target.

It is in units of the loss or target, and **positive where leaving the example out would hurt**: raise the test loss, or
lower the target. The solvers differ in what stands for H; each says so, and each keeps this sign and, where it has
one, this scale.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engine.call import Call
from ..engine.weights import is_without_data
from ..errors import InputError, ModelError, did_you_mean
from ..models.call import call_of
from ..models.model import Model
from ..remarks import warn
from .modes import made_in_inference_mode

WORKING = 2**24  # numbers of examples' gradients that are solved for at a time

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), labels (B,) int64
Batches = Callable[
    [], Iterable[Batch]
]  # called once for each pass over the data; the same order every time
Rows = dict[str, Tensor]  # each (B, ...): what is kept of B examples
Reduce = Callable[[Tensor], Tensor]  # sums a tensor over processes in place
Loss = Callable[[Tensor, Tensor], Tensor]  # outputs (B, K), labels (B,) -> (B,)
ScoreOrLoss = (
    Tensor | Callable[[Tensor], Tensor]
)  # labels (T,): their loss; or outputs (T, K) -> (T,) of a target
Progress = Callable[[int], None]  # told how many more examples a pass has seen


def identity(total: Tensor) -> Tensor:
    """The `Reduce` of a single process."""
    return total


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """The softmax cross entropy of each example: (B, K), (B,) -> (B,).

    Example:
        >>> from seewhy.influence import cross_entropy
        >>> cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
        tensor([0.6931])
    """
    return F.cross_entropy(outputs, labels, reduction="none")


def check_loaded(modules: Sequence[nn.Module]) -> None:
    """Says that weights wait on the meta device.

    Raises:
        ModelError: they do.
    """
    if any(map(is_without_data, modules)):
        raise ModelError(
            "the model's weights wait on the meta device, and influence goes through all of them; load the model on "
            "one device, without offloading"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """A model with the objective it was trained on; see the top of this file.

    Attributes:
        modules: one, or several checkpoints of one architecture, the final one last. Methods of a single model use it.
            A `Call` or a `Model` says which of a module's outputs was trained.
        loss: of each example, without reduction.
        count: n, how many training examples there are, in all processes together.
        l2: of the objective, over the parameters below, biases included.
        parameters: names; None for all that require gradients (of all, if none does).
        learning_rates: of the checkpoints, for TracIn.

    A module in training mode is run in evaluation mode, and put back; where that matters, a warning says so.

    Raises:
        InputError: no module, no parameter of a name, checkpoints that differ in shape, a count or an l2 out of range,
            batch norm without running statistics.
        ModelError: a module made under torch.inference_mode, or whose weights are offloaded.

    Example:
        >>> from seewhy.influence import Problem
        >>> problem = Problem(modules=(net,), count=6, l2=0.01, parameters=("fc.weight",))
        >>> problem.names, problem.flat().shape
        (('fc.weight',), torch.Size([9]))
    """

    modules: tuple[nn.Module | Call | Model, ...]
    loss: Loss = cross_entropy
    count: int
    l2: float = 0.0
    parameters: tuple[str, ...] | None = None
    learning_rates: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.modules:
            raise InputError("modules=() has no model; give one, or several checkpoints")
        if self.count < 1:
            raise InputError(f"count={self.count} training examples; accepted: 1 or more")
        if not 0 <= self.l2 < float("inf"):
            raise InputError(
                f"l2={self.l2} cannot be used; accepted: 0 or more, as in loss + l2/2 |theta|^2"
            )
        self._check_parameters()
        self._check_rates()
        self._check_statistics()
        check_loaded(self._own_modules)
        if any(map(made_in_inference_mode, self._own_modules)):
            raise ModelError(
                "the model was made under torch.inference_mode, which rules out gradients; make it outside, or give "
                "seewhy.influence.modes.ordinary(model), a copy"
            )
        self._tell_mode()

    def _check_parameters(self) -> None:
        """That checkpoints have the same, and that those which are named are among them."""
        first, *others = map(_shapes, self._own_modules)
        if any(other != first for other in others):
            raise InputError(
                "modules differ in their parameters; give checkpoints of one architecture"
            )
        for name in self.parameters or ():
            if name not in first:
                raise InputError(
                    f"parameters: {name!r} is none of the model's{did_you_mean(name, first)}"
                )
        if not self.names:
            raise InputError(
                "the model has no parameters, so no training example has any influence through them"
            )

    def _check_rates(self) -> None:
        rates = self.learning_rates
        if rates is not None and (len(rates) != len(self.modules) or min(rates) <= 0):
            raise InputError(
                f"learning_rates={rates}; give a positive one for each of the {len(self.modules)} modules"
            )

    def _check_statistics(self) -> None:
        for name, part in self.module.named_modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
                raise InputError(
                    f"the model's {name!r} has no running statistics, so what it says of a picture depends on the "
                    "others of its batch; train it with track_running_stats=True"
                )

    def _tell_mode(self) -> None:
        varying = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        found = {
            type(part).__name__
            for m in self._own_modules
            for part in m.modules()
            if part.training and isinstance(part, varying)
        }
        if found:
            warn(
                f"the model is in training mode with {', '.join(sorted(found))}: influences are of it in evaluation "
                "mode, model.eval(); its mode is put back"
            )

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """The models, and which of their outputs is meant."""
        return tuple(map(call_of, self.modules))

    @property
    def call(self) -> Call:
        """The final one of them."""
        return self.calls[-1]

    @property
    def module(self) -> nn.Module:
        """The final model's module."""
        return self.call.module

    @property
    def _own_modules(self) -> list[nn.Module]:
        return [call.module for call in self.calls]

    @property
    def device(self) -> torch.device:
        """Where the final model's weights are."""
        return next(self.module.parameters()).device

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that count, in the model's order."""
        if self.parameters is not None:
            return tuple(
                name for name, _ in self.module.named_parameters() if name in self.parameters
            )
        every = dict(self.module.named_parameters())
        return tuple(name for name, p in every.items() if p.requires_grad) or tuple(every)

    def restricted(self, names: Sequence[str]) -> Problem:
        """The same problem with fewer parameters."""
        if tuple(names) == self.names:
            return self
        other = copy.copy(self)
        object.__setattr__(other, "parameters", tuple(names))
        return other

    def weights(self, module: nn.Module | None = None) -> dict[str, Tensor]:
        """The parameters that count, of the final model or another checkpoint, free of any graph."""
        every = dict((module or self.module).named_parameters())
        return {name: every[name].detach() for name in self.names}

    def flat(self, module: nn.Module | None = None) -> Tensor:
        """The same as one vector (P,), in float32 at least."""
        weights = torch.cat([w.flatten() for w in self.weights(module).values()])
        return weights.to(torch.promote_types(weights.dtype, torch.float32))


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in module.named_parameters()}
