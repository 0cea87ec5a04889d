"""Weights from files into modules: state dicts, and nothing that runs code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelError

_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """A state dict from a .safetensors file, or from a .pt file that holds tensors and nothing that runs code."""
    if not path.is_file():
        raise ModelError(
            f"weights file '{path}' does not exist; give a .pt, .pth or .safetensors file after the '@'"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = _why_unreadable(path, error)
        raise ModelError(
            f"weights file '{path}' cannot be read as a state dict: {reason}"
        ) from error
    return _real_tensors(state, path)


def _real_tensors(state: object, path: Path) -> dict[str, Tensor]:
    """The tensors of what `torch.save` wrote: a state dict, or what holds one.

    Raises:
        ModelError: there is none, or one is complex.
    """
    if not isinstance(state, Mapping):
        raise _no_state_dict(path, f"a {type(state).__name__}, not tensors by name")
    for key in ("state_dict", "model", "model_state_dict"):
        inner = state.get(key)
        if isinstance(inner, Mapping):
            state = inner
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise _no_state_dict(path, "no tensors")
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise ModelError(
                f"weights file '{path}' holds complex numbers ('{name}'); give real ones"
            )
    return tensors


def _no_state_dict(path: Path, held: str) -> ModelError:
    return ModelError(
        f"weights file '{path}' holds {held}; it should be what torch.save(model.state_dict()) writes"
    )


def _why_unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a file of weights, in words."""
    with path.open("rb") as file:
        beginning = file.read(8)
    zipped, pickled = b"PK", b"\x80"  # as torch writes them, now and before 1.6
    if path.suffix != ".safetensors" and not beginning.startswith((zipped, pickled)):
        return "it is no file that torch.save wrote"
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def head_of(module: nn.Module) -> str:
    """The name of the classifier's weight: the model's last matrix. Files may list tensors in any order."""
    return [name for name, tensor in module.state_dict().items() if tensor.ndim >= 2][-1]


def with_weights(
    make: Callable[[int], nn.Module], weights: Mapping[str, Tensor], module: nn.Module
) -> nn.Module:
    """The module with these weights; made anew where they are for another number of classes."""
    head = head_of(module)
    weights = _in_names_of(module, weights)
    if head in weights and len(weights[head]) != len(module.state_dict()[head]):
        module = make(len(weights[head]))
    load_state(module, weights)
    return module


def load_state(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Puts weights into a module, all of them.

    Raises:
        ModelError: some are missing, not the module's, or of another shape; the first are named.
    """
    weights = _in_names_of(module, weights)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        why = _misfit(module.state_dict(), weights)
        why = why or str(error).splitlines()[-1].strip()
        raise ModelError(f"the weights do not fit {type(module).__name__}: {why}") from error


def _misfit(own: Mapping[str, object], weights: Mapping[str, Tensor]) -> str:
    """Which tensors are not those of the module, the first by name; "" where that is not the fault."""
    missing = sorted(own.keys() - weights)
    extra = sorted(weights.keys() - own)
    said = []
    if missing:
        said.append(f"{len(missing)} are missing ({_first_two(missing)})")
    if extra:
        said.append(f"{len(extra)} are not the model's ({_first_two(extra)})")
    common = [name for name in own if name in weights]
    other = [n for n in common if _shape(weights[n]) != _shape(own[n])]
    if other:
        theirs, mine = (_shape(each[other[0]]) for each in (weights, own))
        shapes = f"{other[0]} is {theirs}, the model's {mine}"
        said.append(f"{len(other)} have another shape ({shapes})")
    return f"of its tensors {' and '.join(said)}" if said else ""


def _in_names_of(module: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights without what DataParallel and torch.compile put before each name, where the module has it not."""
    for prefix in _PREFIXES:
        own = any(name.startswith(prefix) for name in module.state_dict())
        if not own and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _shape(tensor: object) -> tuple[int, ...] | None:
    return tuple(tensor.shape) if isinstance(tensor, Tensor) else None


def _first_two(names: list[str]) -> str:
    return ", ".join(names[:2]) + (" ..." if len(names) > 2 else "")
