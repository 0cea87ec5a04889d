"""A model as seewhy sees it: a module with its preprocessing and its labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..arguments import brief, checked
from ..data.disk import Json
from ..data.labels_file import given_labels
from ..data.preprocess import Preprocess
from ..engine.answers import Gives, OutputLike
from ..engine.black_box import BlackBox, Takes
from ..engine.call import Call
from ..engine.inputs import settled_input
from ..engine.targets.names import ClassNames, LabelsLike
from ..engine.targets.numbers import has_many_labels
from ..engine.weights import place_of_weights, weights_digest
from ..errors import ArgumentTypeError, InputError, ModelError
from ..names import REPR, at_most
from .saved import Source, save_module

_NOBODY_SAID = {0: "LABEL_0", 1: "LABEL_1"}  # of transformers' configurations, of embeddings too


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A classifier with what it takes to feed it a photo and to read its answer.

    Attributes:
        module: takes (N, C, H, W).
        name: how reports call it, and what `load_model` was given.
        preprocess: photo -> tensor, and back; None where it is not known: then only tensors can be explained.
        labels: a name for each class; None where they are not known. Given as `ClassNames.of` takes them.
        output: takes what the module returns to what targets read, or the name or number of that part; None for
            `seewhy.engine.answers.main_output`.
        multi_label: a picture may show several classes: of logits each has a sigmoid of its own.
        gives: what the numbers of its answer are; None where neither the model nor its user says it, and its first
            answer is looked at.
        source: how `load_model` made the module, for `save`; None where it was made elsewhere.

    Example:
        >>> model.label(0), model.preprocess.size, model(x).argmax()
        ('red', (16, 16), tensor(0))
    """

    module: nn.Module
    name: str
    preprocess: Preprocess | None = None
    labels: ClassNames | None = None
    output: OutputLike | None = None
    multi_label: bool = False
    gives: Gives | None = None
    source: Source | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", ClassNames.of(self.labels))

    def __repr__(self) -> str:
        size = (
            ""
            if self.preprocess is None
            else f", {' x '.join(map(str, self.preprocess.size))} pixels"
        )
        named = (
            "no labels"
            if not self.labels
            else f"{len(self.labels)} labels: {', '.join(self.labels[:3])}, ..."
        )
        gives = f", gives {self.gives}" if self.gives else ""
        return (
            at_most(
                f"<Model {self.name}: {type(self.module).__name__}{size}{gives}, {named}", REPR - 1
            )
            + ">"
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are, or where a hook brings them; the CPU for a module without any."""
        weights = place_of_weights(self.module)
        return torch.device("cpu") if weights is None else weights[0]

    def to(self, *args: Any, **kwargs: Any) -> Model:
        """Moves the module as `nn.Module.to` does, and returns this model."""
        self.module.to(*args, **kwargs)
        return self

    @checked
    def seeing(self, *, crop: str | None = None, resize: int | str | None = None) -> Model:
        """The same model, to which another part of each photo is shown, as `Preprocess.seeing` has it.

        Raises:
            ModelError: the model does not say how photos become its input.
            InputError: there is no such way.

        Example:
            >>> whole = model.seeing(crop="none")
            >>> seewhy.explain(whole, photo).placements[0].box
            (0.0, 0.0, 16.0, 16.0)
        """
        if self.preprocess is None:
            raise ModelError(
                f"{self.name} does not say how photos become its input; give wrap preprocess= first"
            )
        return replace(self, preprocess=self.preprocess.seeing(crop=crop, resize=resize))

    def __call__(self, x: Tensor) -> object:
        """Runs the module as it is on inputs (N, C, H, W).

        Raises:
            ArgumentTypeError: x is no tensor, as a photo is none.
        """
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(
                f"x={brief(x)} is of type {type(x).__name__}; give a tensor (N, C, H, W), or photos to seewhy.explain"
            )
        return self.module(x)

    @checked
    def save(self, folder: str | PathLike[str], *, factory: str | None = None) -> Path:
        """Writes the weights, and a card with all that `wrap` was told: `load_model` and --model take up the folder.

        Args:
            folder: made where it is not there; a model saved in it before is replaced.
            factory: "package.module:factory" or "path/to/file.py:factory", a function or class without required
                arguments that returns the network as it was built. Needed where the model is none that `load_model`
                knows by name and its class has arguments, or is none of a file that can be imported.

        Returns:
            The folder.

        Raises:
            ModelError: the network cannot be made again, or something of the model cannot be written down.
            InputError: the folder cannot be written, or holds what `seewhy train` wrote.
        """
        return save_module(
            self.module,
            Path(folder),
            source=self.source,
            factory=factory,
            preprocess=self.preprocess,
            output=self.output,
            name=self.name,
            labels=None if self.labels is None else list(self.labels),
            multi_label=self.multi_label,
            gives=self.gives,
        )

    def identity(self) -> dict[str, object]:
        """What tells it from other models, in JSON's types: name, weights, labels, how it is fed and read."""
        names = "\n".join(self.labels or ()).encode(errors="replace")
        return {
            "name": self.name,
            "weights": weights_digest(self.module),
            "labels": hashlib.sha256(names).hexdigest() if self.labels else None,
            "preprocess": None if self.preprocess is None else repr(self.preprocess),
            "gives": self.gives,
            "multi_label": self.multi_label,
            "says": self._says_of_noise(),
        }

    def _says_of_noise(self) -> list[str] | None:
        """What its code and `output` make of a drawn picture, in brief; None where it does not say the same twice."""
        if self.preprocess is None:
            return None
        pixels = np.random.default_rng(0).integers(
            0, 256, (*self.preprocess.size, 3), dtype=np.uint8
        )
        picture = self.preprocess(Image.fromarray(pixels))[0][None]
        call = Call(self.module) if self.output is None else Call(self.module, output=self.output)
        try:
            call, picture = settled_input(call, picture)
            once, again = (call.answer(picture) for _ in range(2))
        except Exception:  # what is wrong is told when photos are explained
            return None
        if not isinstance(once, Tensor) or not torch.equal(once, again):
            return None
        said = once.double().flatten()
        return [
            str(tuple(once.shape)),
            str(int(said.argmax())),
            f"{float(said.max()):.3g}",
            f"{float(said.mean()):.3g}",
        ]

    def label(self, index: int) -> str:
        """The name of a class, or "class 281" where there is none."""
        return self.labels.label(index) if self.labels else f"class {index}"


@checked
def wrap(
    module: nn.Module | Model | Callable[..., object],
    *,
    preprocess: Preprocess | None = None,
    labels: LabelsLike | str | PathLike[str] | None = None,
    name: str | None = None,
    output: OutputLike | None = None,
    takes: Takes | None = None,
    multi_label: bool = False,
    gives: Gives | None = None,
) -> Model:
    """Makes a `Model` of any module; what timm and transformers models say of themselves is read from them.

    Args:
        module: takes (N, C, H, W). What is no module becomes a `BlackBox`: any callable from pictures to scores, an
            ONNX Runtime session or a scikit-learn estimator. Of a `Model`, what is given takes the place of its own.
        preprocess: how photos become inputs; `seewhy.IMAGENET` is the usual one of ImageNet models.
        labels: a name for each class, in order, or by column: {0: "cat", 1: "dog"}; [] for none; or a file of them, as
            `load_model` takes it. Unless given, a transformers model's `id2label`, or an estimator's `classes_`.
        name: for reports; the class's name unless given.
        output: takes what the module returns to (N, K) scores, where that is neither the whole nor `.logits`: a
            function, or the name or number of a part, such as output=1.
        takes: what a black box is given: a "tensor", an "array", "pictures" or "rows" (`BlackBox`).
        multi_label: a picture may show several classes: the probabilities of logits are sigmoids rather than a softmax.
        gives: what the numbers are: "logits", "probabilities" (that sum to 1), "sigmoids" (a probability for each class
            by itself), a "score" (of a regression, a margin), an "embedding", or a detector's "records". Unless given
            it is what the model says of itself, or what its first answer looks like; numbers in [0, 1] that do not sum
            to 1 may be either, and have no probabilities before it is given.

    Raises:
        ArgumentTypeError: `module` is nothing that can be called, or the labels have no order.
        InputError: `takes` or `gives` is not known, or `takes` is given for a module.
        ModelError: labels are fewer or more than the classes the module says it has, or leave a column out.

    Example:
        >>> model = seewhy.wrap(net, labels=["red", "green", "blue"], name="colors")
        >>> seewhy.explain(model, x).attributions[0].labels
        ('red',)
    """
    if isinstance(module, Model):
        names = labels if labels is None else given_labels(labels)
        said = {
            "preprocess": preprocess,
            "name": name,
            "output": output,
            "gives": gives,
            "labels": names,
        }
        return _with_changes(module, takes, {**said, "multi_label": multi_label or None})
    names = ClassNames.of(own_names(module) if labels is None else given_labels(labels))
    if not isinstance(module, nn.Module):
        module = BlackBox(module, takes=takes, preprocess=preprocess, name=name, gives=gives)
        name = module.name
    elif takes is not None:
        raise InputError(
            f"takes={takes!r} is for black boxes; {type(module).__name__} is a module and takes a tensor"
        )
    if preprocess is None:
        preprocess = _timm_preprocess(module)
    _check_count(names, module)
    several = multi_label or has_many_labels(module)
    return Model(module, name or type(module).__name__, preprocess, names, output, several, gives)


def _timm_preprocess(module: nn.Module) -> Preprocess | None:
    """What a timm model says of how photos become its input; None of others."""
    config = getattr(module, "pretrained_cfg", None)
    if not isinstance(config, dict) or not config.get("mean"):
        return None
    import timm.data

    return Preprocess.from_timm(timm.data.resolve_data_config(pretrained_cfg=config))


def _check_count(names: ClassNames | None, module: nn.Module) -> None:
    """Checks names against the number of classes that a module says it has, if it does."""
    classes = getattr(module, "num_classes", None)
    if names and isinstance(classes, int) and classes > 0:
        names.check_width(classes)


def _with_changes(model: Model, takes: Takes | None, said: Json) -> Model:
    """A model of which something else is said; what is not given stays."""
    given = {name: value for name, value in said.items() if value is not None}
    if takes is not None or (isinstance(model.module, BlackBox) and "preprocess" in given):
        raise InputError(
            "takes= and preprocess= are of a black box itself; wrap the function or session anew"
        )
    return replace(model, **given) if given else model


def own_names(model: object) -> object:
    """What a transformers model or a scikit-learn estimator says that its columns are."""
    if isinstance(model, nn.Module):
        names = getattr(getattr(model, "config", None), "id2label", None)
        return names if isinstance(names, Mapping) and dict(names) != _NOBODY_SAID else None
    classes = getattr(model, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1:
        return None
    decides = hasattr(model, "decision_function") and not hasattr(model, "predict_proba")
    return (
        classes[1:] if decides and len(classes) == 2 else classes
    )  # of two, one score: for the second
