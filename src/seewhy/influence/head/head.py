"""A network as features and a linear head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...engine.heads import linear_heads
from ...errors import InputError, ModelError
from ..gradients.taps import AffineLayer, affine_layers, borrowed, first_given, run
from ..problem import Problem


class Head:
    """Finds the linear layer whose output is the model's, and reads what it is given.

    Raises:
        ModelError: no linear layer gives the model's output as it is, or it runs more than once.
        InputError: the problem names parameters, and none of the head's or some of other layers.
    """

    def __init__(self, problem: Problem, images: Tensor) -> None:
        module = problem.module
        said, runs = linear_heads(problem.call, images)
        name = said[-1] if said else None
        if name is None:
            raise ModelError(
                "the model's head is not linear: no nn.Linear gives its output as it is; use ekfac, trak or "
                "gradient_dot, which need no head"
            )
        if runs.count(name) > 1:
            raise ModelError(
                f"the head {name!r} runs {runs.count(name)} times in one forward pass, so its features are not one row "
                "for each image; use hessian, conjugate_gradient or trak"
            )
        prefix = f"{name}." if name else ""
        own = [f"{prefix}{part}" for part in ("weight", "bias")]
        wanted = problem.parameters or own
        if set(wanted) - set(own):
            raise InputError(
                f"parameters={tuple(wanted)} are not those of the head {name!r}; accepted: {', '.join(own)}"
            )
        layers = affine_layers(module, wanted)
        if not layers:
            raise ModelError(
                f"the head {name!r} shares its weight with another layer; use ekfac, trak or gradient_dot"
            )
        self.layer: AffineLayer = layers[0]
        self._module = module

    def belongs_to(self, module: nn.Module) -> bool:
        """Whether it is that module's head."""
        return self._module is module

    def __call__(self, problem: Problem, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F), with a 1 for the bias, and outputs (B, K)."""
        given, outputs = self._read(problem, images)
        return self.layer.activations(given)[:, 0], outputs

    def features(self, problem: Problem, images: Tensor) -> Tensor:
        """Features without the 1."""
        return self._read(problem, images)[0]

    def _read(self, problem: Problem, images: Tensor) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            kept.append(first_given(args, kwargs).clone())

        handle = self.layer.module.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            with borrowed(problem.call), torch.no_grad():
                outputs = run(problem.call, {}, images)
        finally:
            handle.remove()
        return kept[-1], outputs

    def weights(self) -> Tensor:
        """The head as a matrix (K, F), the bias its last column."""
        own = self.layer.module
        parts = [own.weight] if self.layer.weight else []
        if self.layer.bias and own.bias is not None:
            parts.append(own.bias)
        return torch.cat([part.detach().reshape(len(own.weight), -1) for part in parts], 1)
