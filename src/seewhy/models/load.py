"""From a spec to a `Model`: "efficientnet_lite0", "timm:resnet50", "torchvision:vgg16", "hf:facebook/deit-tiny".

Or "package.module:factory" for a model of one's own, or a folder that `seewhy train` or `Model.save` wrote.
"""

from __future__ import annotations

import os
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..arguments import checked
from ..data.preprocess import Preprocess
from ..engine.draws import same_random_states
from ..engine.targets.names import LabelsLike
from ..engine.weights import is_without_data
from ..errors import ArgumentTypeError, ModelError
from .devices import usable_device
from .factory import FactorySpec, made_by, read_factory, warn_of_code
from .families import DEFAULT_MODEL, load_family
from .model import Model, wrap
from .networks.cards import SAVED, WEIGHTS, card_preprocess, read_card
from .networks.heads import build
from .saved import factory_source, load_saved
from .weights import load_state, read_weights

__all__ = ["DEFAULT_MODEL", "load_model"]


@checked
def load_model(
    spec: str | PathLike[str] = DEFAULT_MODEL,
    *,
    pretrained: bool = True,
    labels: LabelsLike | str | PathLike[str] | None = None,
    preprocess: Preprocess | None = None,
    device: str | torch.device | None = None,
    trust_paths: bool = False,
) -> Model:
    """Loads a classifier, in evaluation mode, with its preprocessing and its labels.

    Args:
        spec: "efficientnet_lite0" (ImageNet weights that come with the installation), "timm:NAME",
            "torchvision:NAME" or "hf:NAME" (a repository or a folder); with "@FILE" the weights are read from a .pt,
            .pth or .safetensors file, and the number of classes follows from them. "package.module:factory", or
            "path/to/file.py:factory", with "@FILE" too: what a function (or class) without required arguments returns,
            or what is there, a module, a `Model` or a callable; the current directory is searched first, and the code
            runs. Or a folder that `seewhy train` or `Model.save` wrote, or the weights in one.
        pretrained: False leaves the weights random: enough to list layers, needs no download. Has no say where the
            weights are given or saved, or are a factory's.
        labels: a name for each class, in place of the model's own, as in `wrap`, or a file (`data.labels_file`).
        preprocess: in place of the model's own.
        device: where to put it; the CPU unless given.
        trust_paths: whether the card of a saved model may name files outside its folder.

    Raises:
        ModelError: the model is unknown, or its weights cannot be had or do not fit; the message is one line.
        MissingExtraError: "hf:" without transformers.

    Example:
        >>> model = seewhy.load_model("efficientnet_lite0", pretrained=False)  # its labels are there
        >>> model.preprocess.size, model.label(281)
        ((224, 224), 'tabby')
    """
    with same_random_states():  # weights are drawn before they are loaded
        model = _model_of_spec(str(spec), pretrained, trust_paths=trust_paths)
    if labels is not None:  # checked against the module
        model = replace(model, labels=wrap(model.module, labels=labels).labels)
    model.module.eval()
    if device is not None and not is_without_data(
        model.module
    ):  # what hooks bring, they bring to their own
        model.module.to(usable_device(str(device)))
    return replace(model, preprocess=preprocess or model.preprocess)


def model_files(spec: str) -> list[str]:
    """The files that a spec names: weights after an "@", or the folder of a model, or of a family's."""
    name, _, weights = spec.partition("@")
    folders = [path for path in (name, name.partition(":")[2]) if path and os.path.exists(path)]
    return [*folders, *([weights] if weights else [])] if spec != DEFAULT_MODEL else []


def _model_of_spec(spec: str, pretrained: bool, *, trust_paths: bool) -> Model:
    path, factory = Path(spec), read_factory(spec)
    if spec != DEFAULT_MODEL and (path.is_dir() or path.name == WEIGHTS):
        return _from_folder(path, pretrained, trust_paths=trust_paths)
    if factory is not None:
        return _model_of_factory(factory, spec)
    name, _, file = spec.partition("@")
    weights = read_weights(Path(file)) if file else None
    module, preprocess, labels = load_family(name, weights, pretrained=pretrained)
    model = wrap(module, name=spec, preprocess=preprocess, labels=labels)
    return (
        model if name.startswith("hf:") else replace(model, source={"spec": name})
    )  # those are known by their class


def _from_folder(path: Path, pretrained: bool, *, trust_paths: bool) -> Model:
    """What `seewhy train` or `Model.save` wrote, from its folder or its weights."""
    folder, file = (path, path / WEIGHTS) if path.is_dir() else (path.parent, path)
    card = read_card(folder)
    if card["format"] == SAVED:
        return Model(**load_saved(folder, card, file, trust_paths=trust_paths))
    module = build(card["architecture"])
    if pretrained:
        load_state(module, read_weights(file))
    several = bool(card["multi_label"]) or card["architecture"]["pooling"] == "oquab"
    model = wrap(
        module,
        name=str(path),
        preprocess=card_preprocess(card),
        labels=card["labels"],
        multi_label=several,
    )
    return replace(model, source={"architecture": card["architecture"]})


def _model_of_factory(factory: FactorySpec, spec: str) -> Model:
    """What a factory makes, with the weights of a file where one is given."""
    weights = None if factory.weights is None else read_weights(Path(factory.weights))
    warn_of_code(factory, spec)
    made: Any = made_by(factory)
    try:
        model = wrap(made, name=spec if isinstance(made, nn.Module) else None)
    except ArgumentTypeError as error:
        kind = (
            "the class " + made.__name__ if isinstance(made, type) else f"a {type(made).__name__}"
        )
        raise ModelError(
            f"factory '{factory}' gives {kind}; it should return an nn.Module, a seewhy.Model or a callable from "
            "pictures (N, C, H, W) to scores (N, K)"
        ) from error
    if weights is not None:
        load_state(model.module, weights)
    return replace(model, source=factory_source(factory))
