"""A model as seewhy sees it: a module with its preprocessing and its labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.preprocess import Preprocess
from ..engine.black_box import BlackBox, Takes
from ..engine.targets.names import ClassNames, LabelsLike
from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier with what it takes to feed it a photo and to read its answer.

    Attributes:
        module: takes (N, C, H, W).
        name: how reports call it, and what `load_model` was given.
        preprocess: photo -> tensor, and back; None where it is not known: then only tensors can be explained.
        labels: a name for each class; None where they are not known. Given as `ClassNames.of` takes them.
        output: takes what the module returns to what targets read; None for `seewhy.engine.call.main_output`.
        multi_label: a picture may show several classes: each has a sigmoid of its own.
    """

    module: nn.Module
    name: str
    preprocess: Preprocess | None = None
    labels: ClassNames | None = None
    output: Callable[[Any], Any] | None = None
    multi_label: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", ClassNames.of(self.labels))

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for a module without any."""
        weight = next(self.module.parameters(), None)
        return torch.device("cpu") if weight is None else weight.device

    def to(self, *args: Any, **kwargs: Any) -> Model:
        """Moves the module as `nn.Module.to` does, and returns this model."""
        self.module.to(*args, **kwargs)
        return self

    def __call__(self, x: Tensor) -> Any:
        """Runs the module as it is."""
        return self.module(x)

    def label(self, index: int) -> str:
        """The name of a class, or "class 281" where there is none."""
        return self.labels.label(index) if self.labels else f"class {index}"


def wrap(
    module: nn.Module | Model | Callable[..., Any],
    *,
    preprocess: Preprocess | None = None,
    labels: LabelsLike | None = None,
    name: str | None = None,
    output: Callable[[Any], Any] | None = None,
    takes: Takes | None = None,
    multi_label: bool = False,
) -> Model:
    """Makes a `Model` of any module; what timm and transformers models say of themselves is read from them.

    Args:
        module: takes (N, C, H, W). What is no module becomes a `BlackBox`: any callable from pictures to scores, an
            ONNX Runtime session or a scikit-learn estimator.
        preprocess: how photos become inputs; `seewhy.IMAGENET` is the usual one of ImageNet models.
        labels: a name for each class, in order, or by column: {0: "cat", 1: "dog"}; [] for none. Unless given, a
            transformers model's `id2label`, or an estimator's `classes_`.
        name: for reports; the class's name unless given.
        output: takes what the module returns to (N, K) scores, where that is neither the whole nor `.logits`.
        takes: what a black box is given: a "tensor", an "array", or "pictures" (`BlackBox`).
        multi_label: a picture may show several classes: predictions are sigmoids rather than a softmax.

    Raises:
        ArgumentTypeError: `module` is nothing that can be called, or the labels have no order.
        InputError: `takes` is not known, or given for a module.
        ModelError: labels are fewer or more than the classes the module says it has, or leave a column out.
    """
    if isinstance(module, Model):
        return module
    names = ClassNames.of(_own_names(module) if labels is None else labels)
    if not isinstance(module, nn.Module):
        module = BlackBox(module, takes=takes, preprocess=preprocess, name=name)
        name = module.name
    elif takes is not None:
        raise InputError(f"takes={takes!r} is for black boxes; {type(module).__name__} is a module and takes a tensor")
    config = getattr(module, "pretrained_cfg", None)
    if preprocess is None and isinstance(config, dict) and config.get("mean"):
        import timm.data

        preprocess = Preprocess.from_timm(timm.data.resolve_model_data_config(module))
    classes = getattr(module, "num_classes", None)
    if names and isinstance(classes, int) and classes > 0:
        names.check_width(classes)
    return Model(module, name or type(module).__name__, preprocess, names, output, multi_label)


def _own_names(model: object) -> object:
    """What a transformers model or a scikit-learn estimator says that its columns are."""
    if isinstance(model, nn.Module):
        names = getattr(getattr(model, "config", None), "id2label", None)
        return names if isinstance(names, Mapping) else None
    classes = getattr(model, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1:
        return None
    decides = hasattr(model, "decision_function") and not hasattr(model, "predict_proba")
    return classes[1:] if decides and len(classes) == 2 else classes  # of two, one score: for the second
